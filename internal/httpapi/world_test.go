package httpapi_test

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/mail/mailtest"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/realtime"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/vault"
)

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// unitOfWork is how app joins the door and the log.
type unitOfWork struct{ *eventstore.Idempotency }

func (u unitOfWork) Do(ctx context.Context, key httpapi.Key, fn func(ctx context.Context) (httpapi.Answer, error)) (httpapi.Answer, bool, error) {
	answer, replayed, err := u.Idempotency.Do(ctx, eventstore.Key(key), func(ctx context.Context) (eventstore.Answer, error) {
		a, err := fn(ctx)
		return eventstore.Answer(a), err
	})
	return httpapi.Answer(answer), replayed, err
}

// positions answers at once for what was committed, as a primary does, and never for the future.
type positions struct {
	reached   int64
	analytics func(ctx context.Context, position int64) error // nil until the world works
}

func (p *positions) Wait(ctx context.Context, view httpapi.View, position int64) error {
	if view == httpapi.ViewAnalytics && p.analytics != nil {
		return p.analytics(ctx, position)
	}
	if position <= p.reached {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

const (
	password      = "marble otter sunset violin"
	jwtSecret     = "a secret for access tokens that is long enough"
	refreshSecret = "another secret for refresh tokens that is long"
)

// world is a door on real slices and a real database, with two organizations, a and b, and a person of each role in each.
type world struct {
	t      *testing.T
	server *httpapi.Server
	tokens map[string]string // by "role-a" or "role-b"
	users  map[string]uuid.UUID
	orgA   uuid.UUID
	orgB   uuid.UUID
	base   base
	deps   httpapi.Deps // of server; see node
	log    *logBuffer

	mail     *mailtest.Box
	accounts *account.Service
}

// base is what a world's slices stand on, for those who put workers beside them.
type base struct {
	db      *pgtest.DB
	store   *eventstore.Store
	plans   *run.Plans
	persons *account.Persons
	orgs    *org.Service
	runs    *run.Service
	feed    *eventstore.Feed
	pos     *positions
	log     *slog.Logger

	runner *projection.Runner
	sealer *audit.Sealer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := pgtest.New(t)
	w := &world{t: t, tokens: map[string]string{}, users: map[string]uuid.UUID{}, log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	persons, err := account.NewPersons(db.DB, master, time.Now)
	require.NoError(t, err)
	orgKeys, err := org.NewKeys(db.DB, master, time.Now)
	require.NoError(t, err)
	tokens, err := auth.NewTokens(jwtSecret, time.Now, newID)
	require.NoError(t, err)
	refresh, err := auth.NewRefreshTokens(refreshSecret)
	require.NoError(t, err)
	passwords, err := auth.NewPasswords(0)
	require.NoError(t, err)
	store := eventstore.New(eventstore.Config{
		DB: db.DB, Types: slices.Concat(account.Types(), org.Types(), project.Types(), secret.Types(), apitest.Types(), run.Types(), audit.Types()),
		Inline: []eventstore.ReadModel{org.ReadModel(), project.ReadModel(), secret.ReadModel(), apitest.ReadModel(), run.ReadModel()},
		Seal:   persons.Seal, Now: time.Now, NewID: newID, Logger: log,
	})
	require.NoError(t, store.Sync(t.Context()))
	jobs, err := run.NewInsertClient(db.DB, log)
	require.NoError(t, err)
	plans, err := run.NewPlans(db.DB, store, secret.NewOpener(master.Region))
	require.NoError(t, err)
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: store, DB: db.DB, Logger: log})
	ends, cancel := run.NewEnds(feed)
	t.Cleanup(cancel)
	runs := &run.Service{DB: db.DB, Store: store, Jobs: jobs, Plans: plans, Ends: ends, NewID: newID, Regions: []string{"default"}, Log: log}
	w.base = base{db: db, store: store, persons: persons, plans: plans, runs: runs, feed: feed, pos: &positions{reached: 1 << 40}, log: log}
	runner := projection.NewRunner(projection.Config{Store: store, DB: db.Analytics, Projections: analytics.Projections(), Interval: time.Millisecond, Now: time.Now, Logger: log})
	require.NoError(t, runner.Setup(t.Context()))
	w.base.runner = runner
	accounts := &account.Service{
		DB: db.DB, Store: store, Persons: persons, Passwords: passwords, Tokens: tokens, Refresh: refresh, NewID: newID, Log: log,
		LeastTime: time.Millisecond, // TestAttack_enumeration… has it as it is
	}
	w.mail = mailtest.New(t, db.DB, master, log)
	accounts.Mail = w.mail.Service
	w.accounts = accounts
	orgs := &org.Service{DB: db.DB, Store: store, Accounts: accounts, Policy: org.Open, NewID: newID, Log: log}
	secrets := &secret.Service{DB: db.DB, Store: store, Key: orgKeys.Key, Region: master.Region, Require: orgs.Require, NewID: newID, Log: log}
	runs.Secrets = secrets
	audits := &audit.Service{DB: db.DB, Store: store, Open: opener(persons), Check: orgs.Check, Now: time.Now, NewID: newID, Log: log}
	audits.Evidence = audit.Seals
	keys := &audit.SealingKeys{DB: db.DB, Master: master, Now: time.Now}
	w.base.sealer = audit.NewSealer(audit.SealerConfig{DB: db.DB, Keys: keys, Now: time.Now, Log: log})
	w.deps = httpapi.Deps{
		Orgs:        orgs,
		Projects:    &project.Service{DB: db.DB, Store: store, NewID: newID, Log: log},
		Tests:       &apitest.Service{DB: db.DB, Store: store, NewID: newID, Regions: []string{"default"}, Log: log},
		Secrets:     secrets,
		Runs:        runs,
		Analytics:   &analytics.Service{DB: db.Analytics, Follow: runner.Wait, Now: time.Now},
		Audit:       audits,
		Refusals:    audit.NewRefusals(audits),
		UnitOfWork:  unitOfWork{eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: db.DB, Now: time.Now, Seal: orgKeys.Seal, Open: orgKeys.Open})},
		Positions:   w.base.pos,
		FeedCursors: realtime.NewCursors([]byte(strings.Repeat("c", 32)), 1),
		Live:        http.NotFoundHandler(),
		Registry:    prometheus.NewRegistry(), Now: time.Now, NewID: newID, Logger: log, Version: "test",
		CursorKey: []byte(strings.Repeat("k", 32)),
	}
	w.server, err = httpapi.New(w.deps)
	require.NoError(t, err)
	w.base.orgs = orgs
	w.orgA, w.orgB = w.populate(orgs, "a"), w.populate(orgs, "b")
	return w
}

// opener opens what is sealed for a person; a person who was erased stays sealed.
func opener(persons *account.Persons) func(context.Context, pgx.Tx, uuid.UUID, string) (string, bool, error) {
	return func(ctx context.Context, _ pgx.Tx, person uuid.UUID, sealed string) (string, bool, error) {
		plain, err := persons.Open(ctx, person, sealed)
		return plain, err == nil, nil
	}
}

// populate makes an organization with a person of each role.
func (w *world) populate(orgs *org.Service, name string) (id uuid.UUID) {
	w.t.Helper()
	for _, role := range auth.Roles() {
		who := string(role) + "-" + name
		in, err := orgs.SignUp(w.t.Context(), org.SignUpInput{
			Registration:     account.Registration{Email: who + "@example.com", Name: who, Password: vault.NewSecret(password)},
			OrganizationName: "Org " + who,
		}, account.Client{Address: "127.0.0.1"})
		require.NoError(w.t, err)
		w.users[who] = in.User.ID
		if role == auth.Admin {
			id, w.tokens[who] = in.Organization.ID, in.AccessToken.Reveal()
			continue
		}
		ctx := auth.With(w.t.Context(), auth.Principal{Kind: auth.System})
		_, err = orgs.AddMember(ctx, id, in.User.ID, role)
		require.NoError(w.t, err)
		w.tokens[who] = in.AccessToken.Reveal()
	}
	return id
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// orgOf is the organization of a person of the world.
func (w *world) orgOf(who string) uuid.UUID {
	if strings.HasSuffix(who, "-b") {
		return w.orgB
	}
	return w.orgA
}

// call is one request of a test.
type call struct {
	method, path string
	as           string // token; empty = nobody
	body         string
	header       map[string]string
	address      string // of the client; empty = this machine's
}

// answer is what came, with the body as JSON where it is.
type answer struct {
	status int
	header http.Header
	text   string
	json   map[string]any
}

func (w *world) do(c call) answer {
	w.t.Helper()
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	r := httptest.NewRequestWithContext(w.t.Context(), c.method, c.path, body)
	r.RemoteAddr = net.JoinHostPort(cmp.Or(c.address, "127.0.0.1"), "1234")
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token, ok := w.tokens[c.as]; ok {
		r.Header.Set("Authorization", "Bearer "+token)
		if !strings.HasPrefix(c.as, "admin") { // others have organizations of their own too
			r.Header.Set("X-Organization-Id", w.orgOf(c.as).String())
		}
	} else if c.as != "" {
		r.Header.Set("Authorization", "Bearer "+c.as)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, r)
	a := answer{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
	if media, _, _ := strings.Cut(rec.Header().Get("Content-Type"), ";"); strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json") {
		require.NoError(w.t, json.Unmarshal(rec.Body.Bytes(), &a.json), rec.Body.String())
	}
	w.conforms(c, a)
	return a
}

// faults are the places that a problem document names, with their details.
func (a answer) faults() map[string]string {
	out := map[string]string{}
	list, _ := a.json["errors"].([]any)
	for _, e := range list {
		one, _ := e.(map[string]any)
		place, ok := one["pointer"].(string)
		if !ok {
			place, _ = one["parameter"].(string)
		}
		detail, _ := one["detail"].(string)
		out[place] = detail
	}
	return out
}

func (a answer) id() string {
	id, _ := a.json["id"].(string)
	return id
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

func roles() []auth.Role { return auth.Roles() }

func permissionOf(name string) auth.Permission { return auth.Permission(name) }
