package realtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/realtime/livetest"
)

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// The events of these tests, one of each visibility.
type payload struct {
	name      string
	N         int       `json:"n"`
	Text      string    `json:"text,omitempty"`
	ProjectID uuid.UUID `json:"projectId,omitzero"`
	AccountID uuid.UUID `json:"accountId,omitzero"`
}

func (p payload) EventType() string { return p.name }

func eventTypes() []eventstore.Type {
	one := func(name string, lane eventstore.Lane, v eventstore.Visibility) eventstore.Type {
		return eventstore.Type{Name: name, Lane: lane, Schema: 1, Visibility: v, New: func() eventstore.Data { return &payload{name: name} }}
	}
	return []eventstore.Type{
		one("run.requested", eventstore.Runs, eventstore.VisibleOrganization),
		one("run.step", eventstore.Runs, eventstore.VisibleDetail),
		one("run.finished", eventstore.Runs, eventstore.VisibleOrganization),
		one("project.renamed", eventstore.Ledger, eventstore.VisibleOrganization),
		one("incident.opened", eventstore.Ledger, eventstore.VisibleOrganization),
		one("org.member_removed", eventstore.Ledger, eventstore.VisibleAudit),
		one("org.api_key_revoked", eventstore.Ledger, eventstore.VisibleAudit),
		one("account.signed_in", eventstore.Ledger, eventstore.VisibleNever),
	}
}

// people is who may sign in: what account and org say in the product.
type people struct {
	mu     sync.Mutex
	tokens map[string]auth.Principal
	until  map[string]time.Time
	gone   map[uuid.UUID]error // by account
	broken error
	checks int
}

func (p *people) add(org uuid.UUID, role auth.Role) (token string, who auth.Principal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	token = "token-" + newID().String()
	who = auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role, SessionID: newID()}
	p.tokens[token] = who
	return token, who
}

// addKey is add for an API key of an organization.
func (p *people) addKey(org uuid.UUID, scopes auth.Scopes) (token string, who auth.Principal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	token = "key-" + newID().String()
	who = auth.Principal{Kind: auth.APIKey, AccountID: newID(), OrgID: org, Role: auth.Admin, Scopes: scopes, KeyGeneration: 1}
	p.tokens[token] = who
	return token, who
}

func (p *people) authenticate(_ context.Context, token string, org *uuid.UUID) (auth.Principal, time.Time, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who, ok := p.tokens[token]
	if !ok {
		return auth.Principal{}, time.Time{}, auth.Unauthenticated()
	}
	if org != nil && *org != who.OrgID {
		return auth.Principal{}, time.Time{}, fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
	}
	return who, p.until[token], p.gone[who.AccountID]
}

func (p *people) recheck(_ context.Context, who auth.Principal) (auth.Principal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks++
	if p.broken != nil {
		return who, p.broken
	}
	for _, now := range p.tokens {
		if now.AccountID == who.AccountID {
			who = now
		}
	}
	return who, p.gone[who.AccountID]
}

// world is the live stream on a real log, with whatever a test wants changed.
type world struct {
	db     *pgtest.DB
	store  *eventstore.Store
	feed   *eventstore.Feed
	people *people
	server *realtime.Server
	http   *httptest.Server
	exists map[string]uuid.UUID // kind:id → organization
	mu     sync.Mutex
}

type change func(*realtime.Config)

func newWorld(tb testing.TB, changes ...change) *world {
	tb.Helper()
	w := &world{
		db: pgtest.New(tb), exists: map[string]uuid.UUID{},
		people: &people{tokens: map[string]auth.Principal{}, until: map[string]time.Time{}, gone: map[uuid.UUID]error{}},
	}
	w.store = eventstore.New(eventstore.Config{DB: w.db.DB, Types: eventTypes(), Now: time.Now, NewID: newID})
	require.NoError(tb, w.store.Sync(tb.Context()))
	w.feed = eventstore.NewFeed(eventstore.FeedConfig{Store: w.store, DB: w.db.DB})
	pulse := eventstore.NewPulse(eventstore.PulseConfig{DB: w.db.DB})

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{pulse.Run, w.feed.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
	tb.Cleanup(func() {
		cancel()
		running.Wait()
	})
	w.server, w.http = w.node(tb, changes...)
	require.NoError(tb, w.feed.Wait(tb.Context(), 0))
	return w
}

// node starts a live stream on the world's log; a world begins with one.
func (w *world) node(tb testing.TB, changes ...change) (*realtime.Server, *httptest.Server) {
	tb.Helper()
	cfg := realtime.Config{
		Feed: w.feed, Authenticate: w.people.authenticate, Recheck: w.people.recheck, TopicExists: w.topicExists,
		ReadOrg: w.readOrg, Visibility: w.visibility, Cursors: testCursors(),
		Limits: realtime.Defaults(), Now: time.Now, Logger: slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	cfg.Limits.SocketsPerUser = 1000
	for _, c := range changes {
		c(&cfg)
	}
	server, err := realtime.New(cfg)
	require.NoError(tb, err)
	front := httptest.NewServer(server)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() {
		stop, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		server.Drain(stop)
		front.Close()
		cancel()
		running.Wait()
	})
	return server, front
}

func (w *world) topicExists(_ context.Context, org uuid.UUID, kind string, id uuid.UUID) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exists[kind+":"+id.String()] == org, nil
}

// thing makes an id that the organization has, as a topic.
func (w *world) thing(org uuid.UUID, kind string, id uuid.UUID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exists[kind+":"+id.String()] = org
	return kind + ":" + id.String()
}

func (w *world) readOrg(ctx context.Context, org uuid.UUID, after, upTo int64, limit int) (events []eventstore.Event, err error) {
	err = w.db.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, _, err = w.store.ReadOrg(ctx, tx, org, eventstore.OrgQuery{After: after, Before: upTo + 1, Limit: limit})
		return err
	})
	return events, err
}

func (w *world) visibility(name string) eventstore.Visibility {
	t, ok := w.store.TypeOf(name)
	if !ok {
		return eventstore.VisibleNever
	}
	return t.Visibility
}

// runs appends events of runs and returns their ids as the live stream says them.
func (w *world) runs(tb testing.TB, events ...eventstore.RunEvent) []string {
	tb.Helper()
	ids, err := w.appendRuns(tb.Context(), events...)
	require.NoError(tb, err)
	return ids
}

func (w *world) appendRuns(ctx context.Context, events ...eventstore.RunEvent) (ids []string, err error) {
	err = w.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		inserted, err := w.store.AppendRuns(ctx, tx, events)
		for _, in := range inserted {
			ids = append(ids, fmt.Sprintf("%s.%d", in.RunID, in.Version))
		}
		return err
	})
	if err == nil && len(ids) != len(events) {
		err = errors.New("an event was there before")
	}
	return ids, err
}

// requested is a new run of the organization; project and test may be uuid.Nil.
func requested(org, project, test uuid.UUID, n int) eventstore.RunEvent {
	return eventstore.RunEvent{
		OrgID: org, RunID: newID(), Version: eventstore.VersionRequested, Data: payload{name: "run.requested", N: n},
		RunColumns: eventstore.RunColumns{ProjectID: project, TestID: test},
	}
}

// ledger appends an event of configuration and returns its id.
func (w *world) ledger(tb testing.TB, org, stream uuid.UUID, kind string, data payload) string {
	tb.Helper()
	var id string
	err := w.db.InOrg(tb.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		out, err := w.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: stream, Kind: kind}, eventstore.AnyVersion, nil, data)
		id = fmt.Sprintf("%s.%d", stream, out.Version)
		return err
	})
	require.NoError(tb, err)
	return id
}

// client connects and signs in, and goes when the test ends.
func (w *world) client(tb testing.TB, token string) *livetest.Client {
	tb.Helper()
	c, err := livetest.Dial(tb.Context(), w.http.URL, livetest.Options{Token: token, Check: honours})
	require.NoError(tb, err)
	tb.Cleanup(c.Close)
	return c
}

// subscribed is a client that listens to the topics.
func (w *world) subscribed(tb testing.TB, token, after string, topics ...string) *livetest.Client {
	tb.Helper()
	c := w.client(tb, token)
	require.NoError(tb, c.Subscribe(tb.Context(), after, topics...))
	f := next(tb, c)
	require.Equal(tb, "subscribed", f.Type, "%s %s", f.ErrorCode(), f.Message)
	return c
}

// next reads a frame within a time that no working server needs.
func next(tb testing.TB, c *livetest.Client) livetest.Frame {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	f, err := c.Next(ctx)
	require.NoError(tb, err)
	return f
}

// collect reads until n events have come and returns their ids.
func collect(tb testing.TB, c *livetest.Client, n int) []string {
	tb.Helper()
	var ids []string
	for len(ids) < n {
		f := next(tb, c)
		require.Equal(tb, "events", f.Type, "%s %s", f.ErrorCode(), f.Message)
		for _, e := range f.Events {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// pong asks for a sign of life and returns the events that came before it: what was sent until now.
func pong(tb testing.TB, c *livetest.Client) []string {
	tb.Helper()
	require.NoError(tb, c.Send(tb.Context(), map[string]any{"type": "ping"}))
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	_, events, err := c.Until(ctx, "pong")
	require.NoError(tb, err)
	var ids []string
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

// closedWith reads until the connection closes and returns the close code and the bye before it, if any.
func closedWith(tb testing.TB, c *livetest.Client) (code int, bye livetest.Frame) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 15*time.Second)
	defer cancel()
	for {
		f, err := c.Next(ctx)
		if err != nil {
			var closed websocket.CloseError
			require.ErrorAs(tb, err, &closed)
			return int(closed.Code), bye
		}
		if f.Type == "bye" {
			bye = f
		}
	}
}

func refused(tb testing.TB, w *world, target string, header http.Header) int {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, w.http.URL+target, nil)
	require.NoError(tb, err)
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(tb, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func decode[T any](tb testing.TB, raw json.RawMessage) (v T) {
	tb.Helper()
	require.NoError(tb, json.Unmarshal(raw, &v))
	return v
}

// testCursors are those of every world.
func testCursors() *realtime.Cursors {
	return realtime.NewCursors([]byte("0123456789abcdef0123456789abcdef"), 1)
}

// filler makes events large.
var filler = strings.Repeat("a long text that fills queues. ", 200)

func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	const server = "github.com/testflow/testflow/internal/postgres.(*" // pgtest's, which lives as long as the process
	var left error
	for range 20 { // what was closed may take a moment on a busy machine
		left = goleak.Find(goleak.IgnoreAnyFunction(server+"Server).launch"), goleak.IgnoreAnyFunction(server+"Server).launch.func1"),
			goleak.IgnoreAnyFunction(server+"tailLog).follow"), goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
		if left == nil {
			break
		}
	}
	if left != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines are left over:", left)
		code = 1
	}
	os.Exit(code)
}
