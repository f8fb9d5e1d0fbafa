package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
	ours "github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/mail/mailtest"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/vault"
)

// post is a service on a database of its own, and what it logged.
type post struct {
	*ours.Service
	db  *pgtest.DB
	log *lines
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newPost(t *testing.T, out ours.Outbound) *post {
	t.Helper()
	db := pgtest.New(t)
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	log := &lines{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	jobs, err := river.NewClient(riverpgxv5.New(db.System), &river.Config{Schema: postgres.RiverSchema, Logger: logger})
	require.NoError(t, err)
	return &post{&ours.Service{
		DB: db.DB, Master: master, Jobs: jobs, Out: out, Log: logger, Now: time.Now, NewID: func() uuid.UUID { return uuid.Must(uuid.NewV7()) },
	}, db, log}
}

func (p *post) send(t *testing.T, m ours.Message) {
	t.Helper()
	require.NoError(t, p.try(t, m))
}

func (p *post) try(t *testing.T, m ours.Message) error {
	t.Helper()
	return p.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return p.SendTx(ctx, tx, m) })
}

func (p *post) count(t *testing.T, sql string) (n int) {
	t.Helper()
	require.NoError(t, p.db.System.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

// again makes the message due at once.
func (p *post) again(t *testing.T) error {
	t.Helper()
	return p.Flush(t.Context())
}

var hello = ours.Message{
	Kind: "test.hello", To: "ada@example.com", ToName: "Ada Lovelace", Subject: "Grüße", Text: "Your code is TFCANARY-code.\n\n.\nEnd.\n",
}

func smtpOut(t *testing.T, s *mailtest.Server, change func(*ours.SMTPConfig)) *ours.SMTP {
	t.Helper()
	from, err := ours.NewSender("TestFlow <testflow@example.org>")
	require.NoError(t, err)
	cfg := ours.SMTPConfig{
		Host: s.Host, Port: s.Port, User: mailtest.User, Password: mailtest.Password, TLS: ours.StartTLS, From: from, RootCAs: s.CAs, Timeout: 30 * time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	out, err := ours.NewSMTP(cfg)
	require.NoError(t, err)
	return out
}

func TestDelivery_overEachKindOfConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		implicit bool
		options  []mailtest.Option
		change   func(*ours.SMTPConfig)
		tls      bool
		user     string
	}{
		"starttls with a password": {tls: true, user: mailtest.User},
		"tls with a password":      {implicit: true, change: func(c *ours.SMTPConfig) { c.TLS = ours.Implicit }, tls: true, user: mailtest.User},
		"in the open, unknown":     {options: []mailtest.Option{mailtest.Plain}, change: func(c *ours.SMTPConfig) { c.TLS, c.User = ours.Plain, "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.NewServer(t, c.implicit, c.options...)
			p := newPost(t, smtpOut(t, server, c.change))
			p.send(t, hello)
			require.NoError(t, p.Flush(t.Context()))
			taken := server.Taken()
			require.Len(t, taken, 1)
			assert.Equal(t, "testflow@example.org", taken[0].From)
			assert.Equal(t, "ada@example.com", taken[0].To)
			assert.Equal(t, c.tls, taken[0].TLS)
			assert.Equal(t, c.user, taken[0].User)
			m, err := mail.ReadMessage(strings.NewReader(taken[0].Data))
			require.NoError(t, err)
			assert.Equal(t, `"TestFlow" <testflow@example.org>`, m.Header.Get("From"))
			assert.Regexp(t, `^<[0-9a-f-]{36}@example\.org>$`, m.Header.Get("Message-Id"))
			assert.Contains(t, taken[0].Data, "TFCANARY-code")
			assert.Zero(t, p.count(t, "SELECT count(*) FROM outgoing_mails"), "nothing of it stays")
		})
	}
}

func TestDelivery_isNotMadeInTheOpenByMistake(t *testing.T) {
	t.Parallel()
	plain := mailtest.NewServer(t, false, mailtest.Plain)
	p := newPost(t, smtpOut(t, plain, nil)) // wants STARTTLS, which isn't offered
	p.send(t, hello)
	require.ErrorContains(t, p.Flush(t.Context()), "no encrypted connection could be made")
	require.Empty(t, plain.Taken())

	stranger := mailtest.NewServer(t, false)
	p = newPost(t, smtpOut(t, stranger, func(c *ours.SMTPConfig) { c.RootCAs = nil })) // whose certificate nobody vouches for
	p.send(t, hello)
	require.ErrorContains(t, p.Flush(t.Context()), "no encrypted connection could be made")
	require.Empty(t, stranger.Taken())

	from, err := ours.NewSender("testflow@example.org")
	require.NoError(t, err)
	_, err = ours.NewSMTP(ours.SMTPConfig{Host: "localhost", Port: 25, User: "u", Password: "p", TLS: ours.Plain, From: from})
	require.Error(t, err, "a password in the open")
}

func TestDelivery_isTriedAgain(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	server.OnRcpt = func(n int) error {
		if n == 1 {
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "ada@example.com is greylisted"}
		}
		return nil
	}
	p := newPost(t, smtpOut(t, server, nil))
	p.send(t, hello)
	err := p.Flush(t.Context())
	require.ErrorContains(t, err, "the server answered 451")
	require.NotContains(t, err.Error(), "ada@example.com", "the queue keeps the error")
	require.Equal(t, 1, p.count(t, "SELECT count(*) FROM outgoing_mails WHERE problem = 'the server answered 451' AND attempts = 1"))
	require.NoError(t, p.again(t))
	require.Len(t, server.Taken(), 1)
	require.NotContains(t, p.log.String(), "ada@example.com")
	require.NotContains(t, p.log.String(), "TFCANARY")
}

func TestDelivery_anUnknownOutcomeIsTheSameMessageAgain(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	server.OnData = func(n int) (error, bool) { return nil, n == 1 }
	p := newPost(t, smtpOut(t, server, nil))
	p.send(t, hello)
	require.ErrorContains(t, p.Flush(t.Context()), "the connection to the server broke")
	require.NoError(t, p.again(t))
	taken := server.Taken()
	require.Len(t, taken, 2, "at least once")
	require.Equal(t, taken[0].Data, taken[1].Data, "and by its Message-ID the same one")
}

func TestDelivery_whatIsRefusedIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(*mailtest.Server){
		"the recipient": func(s *mailtest.Server) {
			s.OnRcpt = func(int) error {
				return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no ada@example.com here"}
			}
		},
		"the content": func(s *mailtest.Server) {
			s.OnData = func(int) (error, bool) { return &smtp.SMTPError{Code: 554, Message: "spam for ada@example.com"}, false }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.NewServer(t, false)
			answer(server)
			p := newPost(t, smtpOut(t, server, nil))
			p.send(t, hello)
			var cancel *river.JobCancelError
			require.ErrorAs(t, p.Flush(t.Context()), &cancel, "the queue doesn't try again")
			require.Empty(t, server.Taken())
			require.Equal(t, 1, p.count(t, "SELECT count(*) FROM outgoing_mails WHERE dead_at IS NOT NULL AND sealed IS NULL AND wrapped_key IS NULL"))
			require.Contains(t, p.log.String(), "a mail was given up")
			require.NotContains(t, p.log.String(), "ada@example.com")
			require.NoError(t, p.Check(t.Context()), "a recipient who doesn't exist is no fault of the installation")
			require.NoError(t, p.again(t), "dead is dead")
		})
	}
}

func TestDelivery_aServerThatIsDownShowsInHealth(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	p := newPost(t, smtpOut(t, server, func(c *ours.SMTPConfig) { c.Password = "TFCANARY-wrong" }))
	p.send(t, hello)
	require.ErrorContains(t, p.Flush(t.Context()), "the server didn't take user and password")
	require.NoError(t, p.Check(t.Context()), "not yet")
	_, err := p.db.System.Exec(t.Context(), "UPDATE outgoing_mails SET created_at = created_at - interval '16 minutes'")
	require.NoError(t, err)
	require.ErrorContains(t, p.Check(t.Context()), "user and password")

	p.Out = smtpOut(t, server, func(c *ours.SMTPConfig) { c.Port = 1 })
	require.ErrorContains(t, p.again(t), "the server cannot be reached")
	_, err = p.db.System.Exec(t.Context(), "UPDATE outgoing_mails SET expires_at = now() - interval '1 hour'")
	require.NoError(t, err)
	require.NoError(t, p.Purge(t.Context()))
	require.Equal(t, 1, p.count(t, "SELECT count(*) FROM outgoing_mails WHERE dead_at IS NOT NULL"))
	require.Contains(t, p.log.String(), "a mail was given up")
	require.ErrorContains(t, p.Check(t.Context()), "1 were given up")
	_, err = p.db.System.Exec(t.Context(), "UPDATE outgoing_mails SET dead_at = now() - interval '31 days'")
	require.NoError(t, err)
	require.NoError(t, p.Purge(t.Context()))
	require.Zero(t, p.count(t, "SELECT count(*) FROM outgoing_mails"))
	require.NotContains(t, p.log.String(), "TFCANARY")
}

func TestDelivery_whatIsWorthNothingIsNotSent(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	p := newPost(t, smtpOut(t, server, nil))
	m := hello
	m.KeepFor = time.Nanosecond
	p.send(t, m)
	require.ErrorContains(t, p.Flush(t.Context()), "too late")
	require.Empty(t, server.Taken())
}

func TestSend_isTheTransactions(t *testing.T) {
	t.Parallel()
	p := newPost(t, &keeper{})
	err := p.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		require.NoError(t, p.SendTx(ctx, tx, hello))
		return errors.New("it wasn't so")
	})
	require.Error(t, err)
	require.Zero(t, p.count(t, "SELECT count(*) FROM outgoing_mails"))
	require.Zero(t, p.count(t, "SELECT count(*) FROM river.river_job"))
	p.send(t, hello)
	require.Equal(t, 1, p.count(t, "SELECT count(*) FROM river.river_job"))
}

func TestSend_nothingReadableIsStored(t *testing.T) {
	t.Parallel()
	p := newPost(t, &keeper{})
	p.send(t, hello)
	var all string
	require.NoError(t, p.db.System.QueryRow(t.Context(),
		"SELECT string_agg(m::text, '') || (SELECT string_agg(j::text, '') FROM river.river_job j) || (SELECT string_agg(encode(sealed, 'escape'), '') FROM outgoing_mails) FROM outgoing_mails m").Scan(&all))
	for _, secret := range []string{hello.To, "Lovelace", "TFCANARY", hello.Subject} { // none that ciphertext holds by chance
		require.NotContains(t, all, secret)
	}
}

func TestSend_whereNoneIsSent(t *testing.T) {
	t.Parallel()
	p := newPost(t, nil)
	require.False(t, p.Enabled())
	err := p.try(t, hello)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.False(t, (*ours.Service)(nil).Enabled())
	require.NoError(t, p.Check(t.Context()))
}

// keeper keeps letters.
type keeper struct{ letters []ours.Letter }

func (k *keeper) Deliver(_ context.Context, l ours.Letter) error {
	k.letters = append(k.letters, l)
	return nil
}

// Nothing that people write about themselves becomes a header, a second recipient or another message.
func TestSend_noHeaderIsInjected(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	p := newPost(t, smtpOut(t, server, nil))
	evil := "x\r\nBcc: eve@example.com\r\n\r\nInjected: yes\u2028Bcc: e\x00"
	p.send(t, ours.Message{Kind: "test.evil", To: "ada@example.com", ToName: evil, Subject: evil, Text: "ok\r\n.\r\nMAIL FROM:<eve@example.com>\r\n"})
	require.NoError(t, p.Flush(t.Context()))
	taken := server.Taken()
	require.Len(t, taken, 1)
	m, err := mail.ReadMessage(strings.NewReader(taken[0].Data))
	require.NoError(t, err)
	require.Empty(t, m.Header.Get("Bcc"))
	require.Empty(t, m.Header.Get("Injected"))
	to, err := m.Header.AddressList("To")
	require.NoError(t, err)
	require.Len(t, to, 1)
	require.Equal(t, "ada@example.com", to[0].Address)
	for _, address := range []string{
		"", "ada", "ada@example.com, eve@example.com", "Ada <ada@example.com>", "ada@example.com\r\nBcc: eve@example.com",
		"ada@example.com\n", "\"a b\"@example.com", "ada@example.com>\r\nRCPT TO:<eve@example.com",
	} {
		require.Error(t, p.try(t, ours.Message{Kind: "test.evil", To: address, Subject: "s", Text: "t"}), "%q", address)
	}
}

func TestOutbox_isReadByPeople(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "outbox")
	from, err := ours.NewSender("TestFlow <testflow@localhost>")
	require.NoError(t, err)
	none, err := ours.ReadOutbox(dir)
	require.NoError(t, err)
	require.Empty(t, none)
	p := newPost(t, &ours.Outbox{Dir: dir, From: from})
	p.send(t, hello)
	require.NoError(t, p.Flush(t.Context()))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := files[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	raw, err := os.ReadFile(filepath.Join(dir, files[0].Name()))
	require.NoError(t, err)
	require.Contains(t, string(raw), "Your code is TFCANARY-code.", "as it is, without a program")
	kept, err := ours.ReadOutbox(dir)
	require.NoError(t, err)
	require.Len(t, kept, 1)
	require.Equal(t, "Grüße", kept[0].Subject)
	require.Equal(t, "ada@example.com", kept[0].To)
	require.Equal(t, hello.Text, kept[0].Text)
	require.WithinDuration(t, time.Now(), kept[0].At, time.Minute)
}

// outFunc delivers as a test says.
type outFunc func(ctx context.Context, l ours.Letter) error

func (f outFunc) Deliver(ctx context.Context, l ours.Letter) error { return f(ctx, l) }

// Who is erased has no mail left in the outbox, not even one that is being written at that moment; all else stays.
func TestOutbox_forgetsAPerson(t *testing.T) {
	t.Parallel()
	from, err := ours.NewSender("TestFlow <testflow@localhost>")
	require.NoError(t, err)
	box := &ours.Outbox{Dir: filepath.Join(t.TempDir(), "outbox"), From: from}
	p := newPost(t, box)
	p.Kept = box
	ada, eve := hello, hello
	ada.AccountID, eve.To = p.NewID(), "eve@example.com"
	forget := func() {
		require.NoError(t, p.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return p.ForgetTx(ctx, tx, ada.AccountID, "Ada@example.com")
		}))
	}
	recipients := func() (to []string) {
		kept, err := ours.ReadOutbox(box.Dir)
		require.NoError(t, err)
		for _, k := range kept {
			to = append(to, k.To)
		}
		return to
	}
	forget() // where no folder is

	for range 2 {
		p.send(t, ada)
		p.send(t, eve)
	}
	require.NoError(t, p.Flush(t.Context()))
	require.Len(t, recipients(), 4)
	foreign := filepath.Join(box.Dir, "notes.eml")
	require.NoError(t, os.WriteFile(foreign, []byte("no mail"), 0o600))
	forget()
	require.FileExists(t, foreign)
	require.NoError(t, os.Remove(foreign))
	require.Equal(t, []string{"eve@example.com", "eve@example.com"}, recipients())

	p.send(t, ada)
	written := false
	p.Out = outFunc(func(ctx context.Context, l ours.Letter) error {
		forget()
		err := box.Deliver(ctx, l)
		written = len(recipients()) == 3
		return err
	})
	require.NoError(t, p.Flush(t.Context()))
	require.True(t, written)
	require.Equal(t, []string{"eve@example.com", "eve@example.com"}, recipients(), "taken back")
}

func TestOutbox_theOldestGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, err := ours.NewSender("testflow@localhost")
	require.NoError(t, err)
	box := &ours.Outbox{Dir: dir, From: from}
	begin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for i := range 503 {
		require.NoError(t, box.Deliver(t.Context(), ours.Letter{Message: hello, ID: uuid.New(), At: begin.Add(time.Duration(i) * time.Second)}))
	}
	kept, err := ours.ReadOutbox(dir)
	require.NoError(t, err)
	require.Len(t, kept, 500)
	require.Equal(t, begin.Add(3*time.Second), kept[0].At.UTC())
}

// Mails of one second are listed as they were written, whatever their kinds.
func TestOutbox_orderWithinASecond(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, err := ours.NewSender("testflow@localhost")
	require.NoError(t, err)
	box := &ours.Outbox{Dir: dir, From: from}
	begin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	kinds := []string{"z.first", "a.second", "m.third"}
	for i, kind := range kinds {
		m := hello
		m.Kind, m.Subject = kind, kind
		require.NoError(t, box.Deliver(t.Context(), ours.Letter{Message: m, ID: uuid.New(), At: begin.Add(time.Duration(i) * time.Millisecond)}))
	}
	kept, err := ours.ReadOutbox(dir)
	require.NoError(t, err)
	require.Len(t, kept, len(kinds))
	for i, k := range kept {
		require.Equal(t, kinds[i], k.Subject)
	}
}

// The queue delivers by itself, once, and a second job for the same message does nothing.
func TestQueue_delivers(t *testing.T) {
	t.Parallel()
	server := mailtest.NewServer(t, false)
	p := newPost(t, smtpOut(t, server, nil))
	workers := river.NewWorkers()
	require.NoError(t, ours.AddWorker(workers, p.Service))
	client, err := river.NewClient(riverpgxv5.New(p.db.System), &river.Config{
		Schema: postgres.RiverSchema, Workers: workers, Queues: map[string]river.QueueConfig{ours.Queue: {MaxWorkers: 4}}, Logger: p.Log,
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	require.NoError(t, err)
	events, cancel := client.Subscribe(river.EventKindJobCompleted)
	defer cancel()
	require.NoError(t, client.Start(context.WithoutCancel(t.Context())))
	t.Cleanup(func() { assert.NoError(t, client.Stop(context.WithoutCancel(t.Context()))) })
	p.send(t, hello)
	var id uuid.UUID
	select {
	case e := <-events:
		_, err := fmt.Sscanf(string(e.Job.EncodedArgs), `{"mailId": %q}`, new(string))
		require.NoError(t, err)
		require.NoError(t, p.db.System.QueryRow(t.Context(), "SELECT (args->>'mailId')::uuid FROM river.river_job").Scan(&id))
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was delivered")
	}
	require.Len(t, server.Taken(), 1)
	_, err = client.Insert(t.Context(), ours.DeliverArgs{MailID: id}, nil)
	require.NoError(t, err)
	select {
	case <-events:
	case <-time.After(20 * time.Second):
		t.Fatal("the second job didn't end")
	}
	require.Len(t, server.Taken(), 1)
}
