package run_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/vault"
)

var openDB func(ctx context.Context, url, prefix string) (*postgres.DB, error)

const patience = 30 * time.Second // of a test for what has to come; a machine may be busy

// world is an installation without its doors: slices, log, feed and a target.
type world struct {
	*run.Service
	db       *postgres.DB
	projects *project.Service
	tests    *apitest.Service
	feed     *eventstore.Feed
	org      uuid.UUID
	ctx      context.Context // of an admin of org
	project  project.Project
	target   *target
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func as(ctx context.Context, org uuid.UUID, role auth.Role) context.Context {
	return auth.With(ctx, auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role})
}

func newWorld(t testing.TB) *world {
	t.Helper()
	pg := pgtest.New(t)
	db := pg.DB
	if openDB != nil {
		var err error
		db, err = openDB(t.Context(), pg.URL, pg.RolePrefix)
		require.NoError(t, err)
		t.Cleanup(db.Close)
	}
	var types []eventstore.Type
	types = append(append(append(append(types, project.Types()...), secret.Types()...), apitest.Types()...), run.Types()...)
	store := eventstore.New(eventstore.Config{
		DB: db, Types: types, Inline: []eventstore.ReadModel{project.ReadModel(), secret.ReadModel(), apitest.ReadModel(), run.ReadModel()}, Now: time.Now, NewID: newID,
	})
	require.NoError(t, store.Sync(t.Context()))
	ctx, cancel := context.WithCancel(context.Background())
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: store, DB: db, Poll: 10 * time.Millisecond})
	done := make(chan struct{}, 2)
	go func() { _ = feed.Run(ctx); done <- struct{}{} }()
	pulse := eventstore.NewPulse(eventstore.PulseConfig{DB: db})
	go func() { _ = pulse.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })

	log := slog.New(slog.DiscardHandler)
	insert, err := run.NewInsertClient(db, log)
	require.NoError(t, err)
	plans, err := run.NewPlans(db, store, secret.NewOpener(regionKeys(t)))
	require.NoError(t, err)
	ends, forget := run.NewEnds(feed)
	t.Cleanup(forget)
	org := newID()
	w := &world{
		Service:  &run.Service{DB: db, Store: store, Jobs: insert, Plans: plans, Ends: ends, NewID: newID, Log: log},
		db:       db,
		projects: &project.Service{DB: db, Store: store, NewID: newID},
		tests:    &apitest.Service{DB: db, Store: store, NewID: newID},
		feed:     feed, org: org, ctx: as(t.Context(), org, auth.Admin), target: newTarget(t),
	}
	require.NoError(t, db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO orgs (org_id, name, version, created_at, updated_at) VALUES ($1, 'pets', 1, now(), now())`, org)
		return err
	}))
	w.project, err = w.projects.Create(w.ctx, org, project.Draft{Name: "pets"})
	require.NoError(t, err)
	return w
}

// target is a server that can be told to keep its callers waiting.
type target struct {
	*httptest.Server
	hits    atomic.Int64
	arrived chan string   // gets the path of each call of /held
	release chan struct{} // lets one call of /held go on
}

func newTarget(t testing.TB) *target {
	t.Helper()
	s := &target{arrived: make(chan string, 100), release: make(chan struct{}, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasPrefix(r.URL.Path, "/held"):
			s.arrived <- r.URL.Path
			select {
			case <-s.release:
			case <-r.Context().Done():
			}
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = fmt.Fprintf(w, `{"id": 7, "path": %q, "who": %q}`, r.URL.Path, r.Header.Get("X-Who"))
	}))
	t.Cleanup(s.Close)
	return s
}

// node is a process that executes runs.
type node struct {
	worker *run.Worker
	sink   *eventstore.Sink
	client *river.Client[pgx.Tx]
	id     string
}

// newWorker returns a worker without a queue, for tests that hand it jobs themselves.
func (w *world) newWorker(t testing.TB, id string) *node {
	t.Helper()
	rules, err := netguard.ParseAllow("127.0.0.0/8")
	require.NoError(t, err)
	engine := executor.New(executor.Config{Guard: netguard.New(netguard.Policy{Allow: rules}, time.Now), Now: time.Now})
	t.Cleanup(engine.Close)
	sink := eventstore.NewSink(eventstore.SinkConfig{Store: w.Store, DB: w.db, OnBatch: run.StoreBodies, Now: time.Now})
	worker := run.NewWorker(run.WorkerConfig{
		DB: w.db, Store: w.Store, Sink: sink, Plans: w.Plans, Engine: engine, ID: id, Regions: []string{"default"}, Now: time.Now, NewID: newID, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(w.feed.Subscribe(worker.Hear))
	t.Cleanup(func() { _ = sink.Close(context.Background()) })
	return &node{worker: worker, sink: sink, id: id}
}

// start gives the node a queue client of the region and starts it.
func (w *world) start(t testing.TB, n *node, regions map[string]int, stop time.Duration) {
	t.Helper()
	workers := river.NewWorkers()
	require.NoError(t, run.AddWorker(workers, n.worker))
	client, err := run.NewWorkingClient(w.db, workers, run.ClientConfig{ID: n.id, Regions: regions, Leads: true, StopTimeout: stop, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, n.worker.Begin(t.Context()))
	require.NoError(t, client.Start(context.Background()))
	n.client = client
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = client.StopAndCancel(ctx)
	})
}

// up is a world with a node of the region default.
func up(t testing.TB) (*world, *node) {
	t.Helper()
	w := newWorld(t)
	n := w.newWorker(t, "node-"+newID().String())
	w.start(t, n, map[string]int{"default": 20}, 10*time.Second)
	return w, n
}

// test saves a test of the given steps.
func (w *world) test(t testing.TB, steps string, more ...string) apitest.Test {
	t.Helper()
	fields := append([]string{`"name": "` + newID().String() + `"`, `"projectId": "` + w.project.ID.String() + `"`, `"steps": [` + steps + `]`}, more...)
	saved, err := w.tests.Create(w.ctx, w.org, json.RawMessage("{"+strings.Join(fields, ", ")+"}"))
	require.NoError(t, err)
	return saved
}

// get is a step that asks the target for a path and expects 200.
func (w *world) get(path string) string { return w.step("GET", path) }

func (w *world) step(method, path string) string {
	return `{"request": {"method": "` + method + `", "url": "` + w.target.URL + path + `"}, "assertions": [
		{"source": "status", "operator": "equals", "expected": 200},
		{"source": "jsonpath", "property": "$.id", "operator": "equals", "expected": 7},
		{"source": "responseTime", "operator": "lessThan", "expected": 60000, "severity": "soft"}]}`
}

// begin starts a test's run in its one region.
func (w *world) begin(t testing.TB, test apitest.Test, in run.StartInput) run.Run {
	t.Helper()
	runs, err := w.Start(w.ctx, w.org, test.ID, in)
	require.NoError(t, err)
	require.Len(t, runs, 1)
	return runs[0]
}

// finish waits for a run's end.
func (w *world) finish(t testing.TB, id uuid.UUID) run.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	runs, err := w.WaitFinished(ctx, w.org, []uuid.UUID{id})
	require.NoError(t, err)
	require.Len(t, runs, 1)
	require.True(t, runs[0].Status.Ended(), "the run is still %s", runs[0].Status)
	return runs[0]
}

func (w *world) held(t testing.TB) {
	t.Helper()
	select {
	case <-w.target.arrived:
	case <-time.After(patience):
		t.Fatal("nobody called the target")
	}
}

// types are the types of a run's events, by version.
func (w *world) types(t testing.TB, id uuid.UUID) []string {
	t.Helper()
	views, err := w.Events(w.ctx, w.org, id)
	require.NoError(t, err)
	list := make([]string, len(views))
	for i, v := range views {
		list[i] = v.Type
	}
	return list
}

// job is the queue's job of a run, as a worker would get it the nth time.
func (w *world) job(t testing.TB, id uuid.UUID, nth int) *river.Job[run.ExecuteArgs] {
	t.Helper()
	var args []byte
	var created time.Time
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT args, created_at FROM river.river_job WHERE args ->> 'runId' = $1`, id.String()).Scan(&args, &created)
	}))
	job := &river.Job[run.ExecuteArgs]{JobRow: &rivertype.JobRow{Attempt: nth, CreatedAt: created}}
	require.NoError(t, json.Unmarshal(args, &job.Args))
	return job
}

func kind(err error) fault.Kind {
	if err == nil {
		return ""
	}
	return fault.KindOf(err)
}

// regionKeys are those of one master key.
func regionKeys(t testing.TB) func(string) (*vault.Ring, error) {
	t.Helper()
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	return master.Region
}
