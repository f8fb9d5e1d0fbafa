package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
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
type positions struct{ reached int64 }

func (p positions) Wait(ctx context.Context, _ httpapi.View, position int64) error {
	if position <= p.reached {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// ends is a RunEnds in which tests end runs by hand.
type ends struct {
	mu   sync.Mutex
	runs map[uuid.UUID]chan struct{}
}

func (e *ends) Watch(run uuid.UUID) (<-chan struct{}, func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs[run] == nil {
		e.runs[run] = make(chan struct{})
	}
	return e.runs[run], func() {}
}

// people are the tokens of a test: who they are.
type people map[string]auth.Principal

func (p people) authenticate(_ context.Context, token string, requested *uuid.UUID) (auth.Principal, error) {
	who, ok := p[token]
	if !ok {
		return auth.Principal{}, fault.New(fault.Unauthenticated, "auth.token_invalid", "That token is not good.")
	}
	if requested != nil && *requested != who.OrgID {
		return auth.Principal{}, fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
	}
	return who, nil
}

// world is a door on real slices and a real database, with two organizations: a and b.
type world struct {
	t      *testing.T
	server *httpapi.Server
	people people
	orgA   uuid.UUID
	orgB   uuid.UUID
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := pgtest.New(t)
	log := slog.New(slog.DiscardHandler)
	store := eventstore.New(eventstore.Config{
		DB: db.DB, Types: project.Types(), Inline: []eventstore.ReadModel{project.ReadModel()}, Now: time.Now, NewID: newID, Logger: log,
	})
	require.NoError(t, store.Sync(t.Context()))
	w := &world{t: t, orgA: newID(), orgB: newID(), people: people{}}
	for _, role := range auth.Roles() {
		w.people[string(role)+"-a"] = auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: w.orgA, Role: role}
		w.people[string(role)+"-b"] = auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: w.orgB, Role: role}
	}
	server, err := httpapi.New(httpapi.Deps{
		Authenticate: w.people.authenticate,
		Projects:     &project.Service{DB: db.DB, Store: store, NewID: newID, Log: log},
		UnitOfWork:   unitOfWork{eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: db.DB, Now: time.Now})},
		Positions:    positions{reached: 1 << 40}, RunEnds: &ends{runs: map[uuid.UUID]chan struct{}{}},
		Live:     http.NotFoundHandler(),
		Registry: prometheus.NewRegistry(), Now: time.Now, NewID: newID, Logger: log, Version: "test",
		CursorKey: []byte(strings.Repeat("k", 32)),
		Limits:    httpapi.Limits{PositionWait: 50 * time.Millisecond},
	})
	require.NoError(t, err)
	w.server = server
	return w
}

// call is one request of a test.
type call struct {
	method, path string
	as           string // token; empty = nobody
	body         string
	header       map[string]string
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
	r.RemoteAddr = "127.0.0.1:1234"
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.as != "" {
		r.Header.Set("Authorization", "Bearer "+c.as)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	rec := httptest.NewRecorder()
	w.server.Handler().ServeHTTP(rec, r)
	a := answer{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
	if strings.Contains(rec.Header().Get("Content-Type"), "json") {
		require.NoError(w.t, json.Unmarshal(rec.Body.Bytes(), &a.json), rec.Body.String())
	}
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
