// Package mail sends what TestFlow has to say to people by e-mail. A message is stored in the transaction of what it
// tells, sealed, beside a job that names it; the job hands it to an SMTP server or keeps it as a file that people can
// read, and then it is gone from the database. The package decides nothing about who is told what, and takes no mail in.
package mail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/mail/internal/maildb"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

const (
	// defaultKeep is how long a message is worth being sent, unless it says otherwise.
	defaultKeep = 24 * time.Hour
	// keptDead is how long one that could not be delivered is remembered: what sort it was and why, no more.
	keptDead = 30 * 24 * time.Hour
	// maxSubject and maxText bound a message, in bytes. Ours are far smaller.
	maxSubject = 300
	maxText    = 32 << 10
)

// Message is one mail to one person.
type Message struct {
	Kind      string    // what it tells, as in "account.verify"; for people who look at the log
	To        string    // plain address
	ToName    string    // of the recipient; may be empty
	AccountID uuid.UUID // whose mail it is; uuid.Nil = they have no account
	Subject   string    // one line
	Text      string    // plain text
	// KeepFor is how long it is worth being sent; 0 = 24 h. It ends with what it carries, such as a code.
	KeepFor time.Duration
}

// Outbound hands a message over. It returns nil when somebody else answers for it from now on, a *Refused when trying
// again is of no use, and any other error when it is.
type Outbound interface {
	Deliver(ctx context.Context, l Letter) error
}

// Letter is a message with all that makes its bytes the same at every attempt.
type Letter struct {
	Message
	ID uuid.UUID // also its Message-ID
	At time.Time // when it was written
}

// Refused says that a message will never be taken.
type Refused struct {
	Code int // of the server, 0 = it was ours
	Err  error
}

// Error says what was refused; it may hold an address and belongs into no log.
func (r *Refused) Error() string { return fmt.Sprintf("refused (%d): %v", r.Code, r.Err) }

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Err }

// Service takes messages and delivers them. A nil Service sends nothing. It is safe for concurrent use.
type Service struct {
	DB     *postgres.DB
	Master *vault.Master
	Jobs   *river.Client[pgx.Tx] // that inserts
	Out    Outbound              // nil = this installation sends no mail
	Kept   *Outbox               // the files of mails on this machine, of today or from before; nil = there can be none
	Now    func() time.Time
	NewID  func() uuid.UUID
	Log    *slog.Logger
	// URL is where people reach this installation; it is set before the first message is sent.
	URL string
}

// Enabled reports whether messages go anywhere.
func (s *Service) Enabled() bool { return s != nil && s.Out != nil }

// PublicURL is where people reach this installation, without a slash at the end.
func (s *Service) PublicURL() string {
	if s == nil {
		return ""
	}
	return strings.TrimSuffix(s.URL, "/")
}

// Off returns the fault of an installation that sends no mail.
func Off() *fault.Error {
	return fault.New(fault.Unavailable, "mail.not_configured", "This installation sends no mail: its operator can set TESTFLOW_SMTP_HOST, or make a code with `testflow account reset`.")
}

// SendTx stores a message in the caller's transaction, which must be of the system role, and a job that delivers it once
// that has committed. Where no mail is sent it returns Off. What people wrote may stand in every field: it breaks out of
// none.
func (s *Service) SendTx(ctx context.Context, tx pgx.Tx, m Message) error {
	if !s.Enabled() {
		return Off()
	}
	if err := m.clean(); err != nil {
		return fmt.Errorf("mail %s: %w", m.Kind, err)
	}
	id := s.NewID()
	plain, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a mail: %w", err)
	}
	key, wrapped, err := s.Master.NewDataKey("mail", id.String())
	if err != nil {
		return fmt.Errorf("make the key of a mail: %w", err)
	}
	row := maildb.InsertMailParams{
		MailID: id, Kind: m.Kind, WrappedKey: wrapped, Sealed: key.Seal(plain, "mail", id.String()), KeptSeconds: m.KeepFor.Seconds(),
	}
	if m.AccountID != uuid.Nil {
		row.AccountID = &m.AccountID
	}
	if err := maildb.New(tx).InsertMail(ctx, row); err != nil {
		return fmt.Errorf("store a mail: %w", err)
	}
	if _, err := s.Jobs.InsertTx(ctx, tx, DeliverArgs{MailID: id}, nil); err != nil {
		return fmt.Errorf("enqueue a mail: %w", err)
	}
	return nil
}

// ForgetTx removes what is on its way to an account's person, and the files that the outbox keeps of their address. Those
// are gone even if the transaction fails afterwards; one that is written meanwhile is taken back by who delivers it.
func (s *Service) ForgetTx(ctx context.Context, tx pgx.Tx, accountID uuid.UUID, address string) error {
	if s == nil {
		return nil
	}
	if _, err := maildb.New(tx).DeleteMailOfAccount(ctx, &accountID); err != nil {
		return fmt.Errorf("remove mails: %w", err)
	}
	if s.Kept == nil {
		return nil
	}
	return s.Kept.Forget(address)
}

// clean makes headers of one line each and refuses what is no mail.
func (m *Message) clean() error {
	m.Subject, m.ToName = OneLine(m.Subject), OneLine(m.ToName)
	if m.KeepFor <= 0 {
		m.KeepFor = defaultKeep
	}
	switch {
	case m.Subject == "" || len(m.Subject) > maxSubject:
		return errors.New("it needs a subject of reasonable length")
	case len(m.Text) > maxText || !utf8.ValidString(m.Text):
		return errors.New("its text is too long or no text")
	}
	return plainAddress(m.To)
}

// plainAddress refuses what a server could take for more than one address or for a command.
func plainAddress(address string) error {
	parsed, err := mail.ParseAddress(address)
	if err != nil || parsed.Address != address || strings.ContainsFunc(address, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return errors.New("not a plain address") // the cause would show it
	}
	return nil
}

// OneLine returns text as it may stand in a header or within a sentence of a mail: control characters, line separators and
// what turns the direction of writing become spaces.
func OneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return strings.Join(strings.Fields(text), " ")
}

// Purge gives up what is worth nothing any more and forgets what was given up long ago.
func (s *Service) Purge(ctx context.Context) error {
	if s == nil {
		return nil
	}
	q := maildb.New(s.DB.System)
	buried, err := q.BuryExpired(ctx)
	if err != nil {
		return fmt.Errorf("give up mails: %w", err)
	}
	for _, b := range buried {
		s.tellDead(ctx, b.MailID, b.Kind, int(b.Attempts), b.Problem)
	}
	if _, err := q.PurgeDead(ctx, keptDead.Seconds()); err != nil {
		return fmt.Errorf("forget mails: %w", err)
	}
	return nil
}

func (s *Service) tellDead(ctx context.Context, id uuid.UUID, kind string, attempts int, problem string) {
	s.Log.ErrorContext(ctx, "a mail was given up", slog.String("mail_id", id.String()), slog.String("kind", kind),
		slog.Int("attempts", attempts), slog.String("problem", problem))
}

// flushAtMost is how many messages Flush looks at.
const flushAtMost = 1000

// Flush makes one attempt at every message that waits, now instead of when its job's turn comes, and returns the first
// failure.
func (s *Service) Flush(ctx context.Context) error {
	ids, err := maildb.New(s.DB.System).ListWaiting(ctx, flushAtMost)
	if err != nil {
		return fmt.Errorf("list mails: %w", err)
	}
	for _, id := range ids {
		err = errors.Join(err, s.deliver(ctx, id, false))
	}
	return err
}
