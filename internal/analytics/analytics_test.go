package analytics_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/run"
)

type fixture struct {
	*pgtest.DB
	store   *eventstore.Store
	runner  *projection.Runner
	service *analytics.Service
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{DB: pgtest.New(t)}
	f.store = eventstore.New(eventstore.Config{DB: f.DB.DB, Types: run.Types(), Now: time.Now, NewID: newID})
	require.NoError(t, f.store.Sync(t.Context()))
	f.runner = projection.NewRunner(projection.Config{Store: f.store, DB: f.Analytics, Projections: analytics.Projections(), Interval: 10 * time.Millisecond, Now: time.Now})
	require.NoError(t, f.runner.Setup(t.Context()))
	f.service = &analytics.Service{DB: f.Analytics, Follow: f.runner.Wait, Now: time.Now}
	return f
}

// follow starts the runner until the test ends.
func (f *fixture) follow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.runner.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
}

// end appends what a whole run says.
func (f *fixture) end(t *testing.T, org uuid.UUID, c eventstore.RunColumns, status run.Status, took time.Duration) (position int64) {
	t.Helper()
	id, ms, dns := newID(), float64(took.Microseconds())/1000, 1.5
	base := c
	c.Status, c.Duration = string(status), took
	step := run.StepFinished{Attempt: 1, Timings: run.Timings{DNSMs: &dns, TotalMs: ms}}
	counts := run.Counts{Steps: 1, Assertions: 3, ResponseBytes: 100}
	require.NoError(t, f.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		in, err := f.store.AppendRuns(ctx, tx, []eventstore.RunEvent{
			{OrgID: org, RunID: id, Version: eventstore.VersionRequested, Data: run.Requested{}, RunColumns: base},
			{OrgID: org, RunID: id, Version: 100_001, Data: run.Started{Attempt: 1}, RunColumns: base},
			{OrgID: org, RunID: id, Version: 100_002, Data: step, RunColumns: base},
			{OrgID: org, RunID: id, Version: 100_003, Data: run.AttemptFinished{Attempt: 1, Counts: counts, DurationMs: ms}, RunColumns: c},
			{OrgID: org, RunID: id, Version: eventstore.VersionFinished, Data: run.Finished{Status: status, Counts: counts, DurationMs: ms}, RunColumns: c},
		})
		position = in[len(in)-1].Position
		return err
	}))
	return position
}

func as(ctx context.Context, org uuid.UUID, role auth.Role) context.Context {
	return auth.With(ctx, auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role})
}

func TestMetrics_countsMergesAndKeepsTenantsApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.follow(t)
	org, other := newID(), newID()
	a, b := eventstore.RunColumns{ProjectID: newID(), TestID: newID(), Region: "default"}, eventstore.RunColumns{ProjectID: newID(), TestID: newID(), EnvironmentID: newID(), Region: "west"}
	var last int64
	for i := range 100 {
		last = f.end(t, org, a, run.Passed, time.Duration(i+1)*time.Millisecond)
	}
	f.end(t, org, b, run.Failed, 500*time.Millisecond)
	f.end(t, org, b, run.Errored, 7*time.Second)
	f.end(t, org, b, run.Inconclusive, time.Second)
	f.end(t, org, b, run.Canceled, time.Second)
	last = max(last, f.end(t, other, a, run.Failed, 9*time.Second))
	require.NoError(t, f.service.Wait(t.Context(), last))

	ctx := as(t.Context(), org, auth.Viewer)
	for _, interval := range []string{"1m", "1h"} { // minutes' table; hours' table and minutes at the ends
		m, err := f.service.Metrics(ctx, org, analytics.Query{GroupBy: "test", Interval: interval, TestIDs: []uuid.UUID{a.TestID, b.TestID}})
		require.NoError(t, err)
		total := map[string]analytics.Bucket{}
		for _, i := range m.Items {
			c := total[i.Group]
			c.Passed, c.Failed, c.Errored, c.Inconclusive, c.Canceled = c.Passed+i.Passed, c.Failed+i.Failed, c.Errored+i.Errored, c.Inconclusive+i.Inconclusive, c.Canceled+i.Canceled
			total[i.Group] = c
		}
		require.Len(t, total, 2)
		require.EqualValues(t, 100, total[a.TestID.String()].Passed)
		require.EqualValues(t, 0, total[a.TestID.String()].Failed, "another organization's run has the same test id")
		require.EqualValues(t, 4, total[b.TestID.String()].Runs())
		rate, ok := total[b.TestID.String()].ErrorRate()
		require.True(t, ok)
		require.InDelta(t, 1.0, rate, 0, "what isn't the target's fault doesn't count")
	}

	s, err := f.service.Summary(ctx, org, analytics.Query{ProjectIDs: []uuid.UUID{a.ProjectID}})
	require.NoError(t, err)
	l := s.Current.Latency
	require.Equal(t, time.Millisecond, l.Min)
	require.Equal(t, 100*time.Millisecond, l.Max)
	require.Equal(t, 50500*time.Microsecond, l.Avg)
	require.InEpsilon(t, float64(95*time.Millisecond), float64(l.P95), 0.02)
	require.Equal(t, 1500*time.Microsecond, *s.Current.Phases.DNS)
	require.Nil(t, s.Current.Phases.TLS)
	require.Zero(t, s.Previous.Runs())

	u, err := f.service.Usage(ctx, org, time.Time{}, time.Time{})
	require.NoError(t, err)
	var runs, assertions, bytes int64
	for _, d := range u.Items {
		runs, assertions, bytes = runs+d.Runs, assertions+d.Assertions, bytes+d.ResponseBytes
	}
	require.Equal(t, []int64{104, 312, 10400}, []int64{runs, assertions, bytes})

	_, err = f.service.Metrics(as(t.Context(), other, auth.Admin), org, analytics.Query{})
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	// The wall behind the check: another tenant's transaction sees none of these rows.
	require.NoError(t, f.Analytics.API.QueryRow(t.Context(), `SELECT count(*) FROM metrics_minutes`).Scan(&runs))
	require.Zero(t, runs)
}

func TestMetrics_badQuery_isInvalid(t *testing.T) {
	t.Parallel()
	s := &analytics.Service{Now: time.Now}
	org := newID()
	ctx := as(t.Context(), org, auth.Viewer)
	now := time.Now()
	for name, q := range map[string]analytics.Query{
		"backwards":          {From: now, To: now.Add(-time.Hour)},
		"endless":            {From: now.AddDate(-10, 0, 0), To: now},
		"unknown interval":   {Interval: "7m"},
		"unknown group":      {GroupBy: "org_id"},
		"too many intervals": {From: now.AddDate(0, -1, 0), To: now, Interval: "1m"},
	} {
		_, err := s.Metrics(ctx, org, q)
		require.Equal(t, fault.Invalid, fault.KindOf(err), name)
	}
}

// Whatever was applied in whatever batches, also while runs go on ending, a rebuild holds the same.
func TestProjections_equalTheirRebuild(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.follow(t)
	org := newID()
	columns := make([]eventstore.RunColumns, 5)
	for i := range columns {
		columns[i] = eventstore.RunColumns{ProjectID: newID(), TestID: newID(), Region: "default"}
	}
	statuses := []run.Status{run.Passed, run.Failed, run.Errored, run.Inconclusive, run.Canceled}
	var last int64
	for range 150 {
		last = f.end(t, org, columns[rand.IntN(5)], statuses[rand.IntN(5)], time.Duration(rand.ExpFloat64()*float64(50*time.Millisecond)))
	}
	require.NoError(t, f.runner.Wait(t.Context(), last))
	for _, p := range analytics.Projections() {
		c, err := f.runner.Compare(t.Context(), p.Name)
		require.NoError(t, err)
		require.True(t, c.Equal(), c.String())
		require.Positive(t, c.Live[0].Rows)
	}
}
