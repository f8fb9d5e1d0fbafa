package projection_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/projection"
)

const patience = 30 * time.Second

type counted struct {
	Text string `json:"text"`
}

func (counted) EventType() string { return "thing.counted" }

type ignored struct{}

func (ignored) EventType() string { return "thing.ignored" }

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

type fixture struct {
	*pgtest.DB
	store *eventstore.Store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{DB: pgtest.New(t)}
	f.store = eventstore.New(eventstore.Config{DB: f.DB.DB, Now: time.Now, NewID: newID, Types: []eventstore.Type{
		{Name: "thing.counted", Lane: eventstore.Ledger, Schema: 1, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &counted{} }},
		{Name: "thing.ignored", Lane: eventstore.Ledger, Schema: 1, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &ignored{} }},
	}})
	require.NoError(t, f.store.Sync(t.Context()))
	return f
}

// count appends n events in one transaction and returns the last position.
func (f *fixture) count(t *testing.T, org uuid.UUID, texts ...string) int64 {
	t.Helper()
	data := make([]eventstore.Data, len(texts))
	for i, text := range texts {
		data[i] = counted{text}
	}
	var out eventstore.Appended
	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) (err error) {
		out, err = f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: newID(), Kind: "thing"}, 0, nil, data...)
		return err
	}))
	return out.Position
}

// things is a projection that would show an event that is applied twice, left out, or out of order.
func things(version int, hook func([]eventstore.Event) error) projection.Projection {
	return projection.Projection{
		Name: "things", Version: version, Types: []string{"thing.counted"},
		DDL:    fmt.Sprintf(`CREATE TABLE things (org_id uuid PRIMARY KEY, n bigint NOT NULL, last bigint NOT NULL, disorder bigint NOT NULL, version int NOT NULL DEFAULT %d)`, version),
		Tables: []string{"things"},
		Apply: func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
			for _, e := range events {
				_, err := tx.Exec(ctx, `INSERT INTO things AS t (org_id, n, last, disorder) VALUES ($1, 1, $2, 0)
					ON CONFLICT (org_id) DO UPDATE SET n = t.n + 1, last = $2, disorder = t.disorder + CASE WHEN t.last >= $2 THEN 1 ELSE 0 END`, e.OrgID, e.Position)
				if err != nil {
					return err
				}
			}
			if hook != nil {
				return hook(events)
			}
			return nil
		},
	}
}

func (f *fixture) runner(t *testing.T, change func(*projection.Config), p ...projection.Projection) *projection.Runner {
	t.Helper()
	cfg := projection.Config{Store: f.store, DB: f.Analytics, Projections: p, Interval: time.Millisecond, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	r := projection.NewRunner(cfg)
	require.NoError(t, r.Setup(t.Context()))
	return r
}

func running(t *testing.T, r *projection.Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-done) })
	t.Cleanup(stop)
	return stop
}

func wait(t *testing.T, r *projection.Runner, pos int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, r.Wait(ctx, pos))
}

// total reads what the view shows.
func (f *fixture) total(t *testing.T) (n, disorder int) {
	t.Helper()
	require.NoError(t, f.Analytics.System.QueryRow(t.Context(), `SELECT coalesce(sum(n), 0), coalesce(sum(disorder), 0) FROM things`).Scan(&n, &disorder))
	return n, disorder
}

func TestRunner_followsTheLog(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	f.count(t, org, "before it was set up")
	r := f.runner(t, nil, things(1, nil))
	running(t, r)
	last := f.count(t, org, "a", "b", "c")
	wait(t, r, last)
	n, disorder := f.total(t)
	require.Equal(t, []int{4, 0}, []int{n, disorder})
	require.NoError(t, r.Check(t.Context()))

	// Events of other types move the checkpoint too, or one could never say how far the projection is.
	var out eventstore.Appended
	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) (err error) {
		out, err = f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: newID(), Kind: "thing"}, 0, nil, ignored{})
		return err
	}))
	wait(t, r, out.Position)
}

// Two runners that share the work, one of which is stopped in the middle of a batch again and again, change nothing.
func TestRunner_twoAtOnceAndKilled_countEachEventOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	// The second dies in each of its batches: after the writing, before the commit.
	var die atomic.Pointer[context.CancelFunc]
	var deaths atomic.Int64
	steady := f.runner(t, func(c *projection.Config) { c.BatchSize = 7 }, things(1, nil))
	frail := f.runner(t, func(c *projection.Config) { c.BatchSize = 5 }, things(1, func([]eventstore.Event) error {
		deaths.Add(1)
		(*die.Load())()
		return nil
	}))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			ctx, cancel := context.WithCancel(context.Background())
			die.Store(&cancel)
			if err := frail.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		}
	})
	org := newID()
	const appends = 400
	var last int64
	for i := range appends {
		if i == 50 {
			require.Eventually(t, func() bool { return deaths.Load() > 0 }, patience, time.Millisecond)
			running(t, steady)
			running(t, f.runner(t, func(c *projection.Config) { c.BatchSize = 3 }, things(1, nil)))
		}
		last = f.count(t, org, "a", "b", "c")
	}
	wait(t, steady, last)
	close(stop)
	(*die.Load())()
	wg.Wait()
	n, disorder := f.total(t)
	require.Equal(t, []int{3 * appends, 0}, []int{n, disorder})
	require.Positive(t, deaths.Load())
	t.Logf("died in %d batches", deaths.Load())
}

// An event that a projection cannot take is put aside, by itself, and can be taken later.
func TestRunner_poison_isPutAsideAndRetried(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mended atomic.Bool
	metrics := prometheus.NewRegistry()
	r := f.runner(t, func(c *projection.Config) { c.Metrics = metrics }, things(1, func(events []eventstore.Event) error {
		for _, e := range events {
			if strings.Contains(string(e.Data), "panic") && !mended.Load() {
				panic("cannot take it")
			}
			if strings.Contains(string(e.Data), "poison") && !mended.Load() {
				return errors.New("cannot take it\x00")
			}
		}
		return nil
	}))
	org := newID()
	for i := range 10 {
		texts := []string{"a", "b", "c", "d", "e", "f", "g"}
		switch i {
		case 3:
			texts[2] = "poison"
		case 7:
			texts[0], texts[1] = "panic", "poison"
		}
		f.count(t, org, texts...)
	}
	last := f.count(t, org, "last")
	running(t, r)
	wait(t, r, last)
	n, disorder := f.total(t)
	require.Equal(t, []int{68, 0}, []int{n, disorder})
	letters, err := r.DeadLetters(t.Context(), "things")
	require.NoError(t, err)
	require.Len(t, letters, 3)
	require.Equal(t, "thing.counted", letters[0].Type)
	require.Equal(t, "cannot take it", letters[0].Error)
	families, err := metrics.Gather()
	require.NoError(t, err)
	dead := 0.0
	for _, family := range families {
		if family.GetName() == "testflow_projection_dead_letters_total" {
			dead = family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	require.InDelta(t, 3, dead, 0)

	taken, left, err := r.RetryDeadLetters(t.Context(), "things")
	require.NoError(t, err)
	require.Equal(t, []int{0, 3}, []int{taken, left})
	mended.Store(true)
	taken, left, err = r.RetryDeadLetters(t.Context(), "things")
	require.NoError(t, err)
	require.Equal(t, []int{3, 0}, []int{taken, left})
	n, _ = f.total(t)
	require.Equal(t, 71, n)
	taken, left, err = r.RetryDeadLetters(t.Context(), "things")
	require.NoError(t, err)
	require.Equal(t, []int{0, 0}, []int{taken, left})
}

// What is wrong with the database is no event's fault: nothing is put aside, the list says why, and it goes on by itself.
func TestRunner_databaseFault_putsNothingAside(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.runner(t, nil, things(1, nil))
	admin, err := pgx.Connect(t.Context(), f.AnalyticsURL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	_, err = admin.Exec(t.Context(), `ALTER TABLE things_v1_b1.things RENAME TO elsewhere`)
	require.NoError(t, err)
	last := f.count(t, newID(), "a", "b")
	running(t, r)
	require.Eventually(t, func() bool { return fault.KindOf(r.Check(t.Context())) == fault.Unavailable }, patience, 5*time.Millisecond)
	list, err := r.List(t.Context())
	require.NoError(t, err)
	require.Zero(t, list[0].DeadLetters)
	_, err = admin.Exec(t.Context(), `ALTER TABLE things_v1_b1.elsewhere RENAME TO things`)
	require.NoError(t, err)
	wait(t, r, last)
	n, _ := f.total(t)
	require.Equal(t, 2, n)
	require.NoError(t, r.Check(t.Context()))
}

// A rebuild under traffic equals the live one, is swapped in without a reader noticing, and the old tables go.
func TestRebuild_underTraffic_equalsLive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.runner(t, func(c *projection.Config) { c.BatchSize = 50 }, things(1, nil))
	running(t, r)
	org := newID()
	var written atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var last atomic.Int64
	wg.Go(func() { // traffic
		for ctx.Err() == nil {
			last.Store(f.count(t, org, "a", "b", "c"))
			written.Add(3)
		}
	})
	wg.Go(func() { // a reader: what it sees never shrinks
		for seen := 0; ctx.Err() == nil; {
			n, _ := f.total(t)
			if n < seen {
				t.Errorf("the view went from %d to %d", seen, n)
			}
			seen = n
		}
	})
	require.Eventually(t, func() bool { return written.Load() > 600 }, patience, time.Millisecond)
	var progress []projection.Status
	require.NoError(t, r.Rebuild(t.Context(), "things", func(s projection.Status) { progress = append(progress, s) }))
	end := progress[len(progress)-1]
	require.Equal(t, []any{"live", 2}, []any{end.State, end.Build})
	require.Positive(t, end.EventsPerSecond)
	was := written.Load()
	require.Eventually(t, func() bool { return written.Load() > was+100 }, patience, time.Millisecond)
	c, err := r.Compare(t.Context(), "things")
	require.NoError(t, err)
	require.True(t, c.Equal(), c.String())
	cancel()
	wg.Wait()
	wait(t, r, last.Load())
	n, disorder := f.total(t)
	require.Equal(t, []int{int(written.Load()), 0}, []int{n, disorder})
	require.NoError(t, r.Prune(t.Context()))
	list, err := r.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1, "the old build and the comparison's are gone")
	var schemas int
	require.NoError(t, f.Analytics.System.QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'things%'`).Scan(&schemas))
	require.Equal(t, 1, schemas)

	// A row that is wrong is found.
	_, err = f.Analytics.System.Exec(t.Context(), `UPDATE things_v1_b2.things SET n = n + 1`)
	require.NoError(t, err)
	c, err = r.Compare(t.Context(), "things")
	require.NoError(t, err)
	require.False(t, c.Equal())
	require.Contains(t, c.String(), "DIFFERENT")
}

// A build that lacks what the live one has is not shown.
func TestRebuild_behindTheLiveOne_isNotSwappedIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.runner(t, nil, things(1, nil))
	f.count(t, newID(), "a")
	_, err := f.Analytics.System.Exec(t.Context(), `UPDATE es.projection_builds SET position = 1000000`)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.Error(t, r.Rebuild(ctx, "things", nil))
	list, err := r.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"live", "building"}, []string{list[0].State, list[1].State})
}

// A new version is built beside the old one, which is shown until the new one has caught up; then an old process follows
// nothing any more.
func TestSetup_newVersion_isBuiltBesideAndSwapped(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org := newID()
	old := f.runner(t, nil, things(1, nil))
	stop := running(t, old)
	last := f.count(t, org, "a", "b")
	wait(t, old, last)
	shown := func() (version int) {
		require.NoError(t, f.Analytics.System.QueryRow(t.Context(), `SELECT max(version) FROM things`).Scan(&version))
		return version
	}
	newer := f.runner(t, nil, things(2, nil))
	f.runner(t, nil, things(2, nil)) // another process of the new version: the same build
	require.Equal(t, 1, shown())
	running(t, newer)
	require.Eventually(t, func() bool { return shown() == 2 }, patience, 5*time.Millisecond)
	last = f.count(t, org, "c")
	wait(t, newer, last)
	n, disorder := f.total(t)
	require.Equal(t, []int{3, 0}, []int{n, disorder})
	stop()
	again := f.runner(t, nil, things(1, nil)) // the old version starts once more
	running(t, again)
	last = f.count(t, org, "d")
	wait(t, newer, last)
	n, _ = f.total(t)
	require.Equal(t, 4, n)
}

// I9: the tables of a projection stand behind the tenant's wall, in every build.
func TestBuild_tablesKeepTenantsApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.runner(t, nil, things(1, nil))
	running(t, r)
	org, other := newID(), newID()
	wait(t, r, f.count(t, org, "a"))
	require.NoError(t, r.Rebuild(t.Context(), "things", nil))
	for _, table := range []string{"things", "things_v1_b2.things"} {
		for tenant, want := range map[uuid.UUID]int{org: 1, other: 0} {
			var n int
			require.NoError(t, f.Analytics.InOrg(t.Context(), tenant, func(ctx context.Context, tx postgres.OrgTx) error {
				return tx.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n)
			}))
			require.Equal(t, want, n, table)
		}
		var n int
		require.NoError(t, f.Analytics.API.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n))
		require.Zero(t, n, "without a tenant")
		err := f.Analytics.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
			_, err := tx.Exec(ctx, `UPDATE `+table+` SET n = 9`)
			return err
		})
		require.Equal(t, "42501", postgres.SQLState(err), "who asks questions changes nothing")
	}
	for _, sql := range []string{`SELECT * FROM es.projection_builds`, `SELECT * FROM es.dead_letters`} {
		_, err := f.Analytics.API.Exec(t.Context(), sql)
		require.Equal(t, "42501", postgres.SQLState(err))
	}
}

func TestWait_endsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := f.runner(t, nil, things(1, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Wait(ctx, 1<<40), context.DeadlineExceeded)
	require.ErrorIs(t, r.Rebuild(t.Context(), "nothing", nil), projection.ErrUnknown)
}
