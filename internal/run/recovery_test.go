package run_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run"
)

// abandon makes it look as if another worker had begun attempt n of a run and nothing more was heard of it.
func (w *world) abandon(t testing.TB, id uuid.UUID, worker string, n int) {
	t.Helper()
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.Store.AppendRuns(ctx, tx, []eventstore.RunEvent{{
			OrgID: w.org, RunID: id, Version: n*eventstore.AttemptSpan + 1, Data: run.Started{Attempt: n, Region: "default", Worker: worker, Claim: newID()},
		}})
		return err
	}))
}

// beat makes a worker known, seen a while ago.
func (w *world) beat(t testing.TB, worker string, ago time.Duration) {
	t.Helper()
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO run_workers VALUES ($1, '{default}', now(), clock_timestamp() - make_interval(secs => $2))
			ON CONFLICT (worker_id) DO UPDATE SET seen_at = excluded.seen_at`, worker, ago.Seconds())
		return err
	}))
}

func (w *world) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}))
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

func TestWork_sameJobManyTimesAtOnce_givesOneResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.test(t, w.step("POST", "/pets"))
	nodes := []*node{w.newWorker(t, "a"), w.newWorker(t, "b")}
	for _, n := range nodes {
		require.NoError(t, n.worker.Begin(t.Context()))
	}
	for range 10 {
		r := w.begin(t, test, run.StartInput{})
		before := w.target.hits.Load()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				err := nodes[i%2].worker.Work(t.Context(), w.job(t, r.ID, 1+i%3))
				var snooze *rivertype.JobSnoozeError
				if err != nil && !errors.As(err, &snooze) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		assert.Equal(t, int64(1), w.target.hits.Load()-before, "the target was called once")
		assert.Equal(t, run.Passed, w.finish(t, r.ID).Status)
		types := w.types(t, r.ID)
		assert.Equal(t, 1, count(types, run.TypeStarted))
		assert.Equal(t, 1, count(types, run.TypeFinished))
		assert.Len(t, types, 8)
		require.NoError(t, nodes[0].worker.Work(t.Context(), w.job(t, r.ID, 2)), "a job of an ended run is a no-op")
		assert.Len(t, w.types(t, r.ID), 8)
	}
}

func TestWork_ofLostWorker_isNotSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newWorker(t, "b")
	r := w.begin(t, w.test(t, w.get("/a")+","+w.step("DELETE", "/b")), run.StartInput{})
	w.abandon(t, r.ID, "a", 1)
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, r.ID, 2)))
	end := w.finish(t, r.ID)
	assert.Equal(t, run.Inconclusive, end.Status)
	assert.Equal(t, run.WorkerLost, end.Reason)
	assert.Zero(t, w.target.hits.Load())
	assert.Equal(t, []string{run.TypeRequested, run.TypeStarted, run.TypeAttemptFinished, run.TypeFinished}, w.types(t, r.ID))
}

func TestWork_ofLostWorker_isSentAgainWhereThatIsSafe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newWorker(t, "b")
	for name, test := range map[string]string{
		"only reads": w.get("/a") + "," + w.step("HEAD", "/broken"),
		"says so":    w.step("POST", "/a"),
	} {
		more := []string{}
		if name == "says so" {
			more = append(more, `"rerunOnWorkerLoss": true`)
		}
		r := w.begin(t, w.test(t, test, more...), run.StartInput{})
		w.abandon(t, r.ID, "a", 1)
		require.NoError(t, n.worker.Work(t.Context(), w.job(t, r.ID, 2)), name)
		end := w.finish(t, r.ID)
		assert.NotEqual(t, run.Inconclusive, end.Status, name)
		assert.Equal(t, 2, end.Attempts, name)
		d, err := w.Get(w.ctx, w.org, r.ID)
		require.NoError(t, err)
		require.Len(t, d.AttemptResults, 2)
		assert.Equal(t, run.WorkerLost, d.AttemptResults[0].Reason)
		assert.Equal(t, 2, d.Steps[0].Attempt)
	}
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	for i := range 3 {
		w.abandon(t, r.ID, "a", i+1)
	}
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, r.ID, 4)))
	assert.Equal(t, run.WorkerLost, w.finish(t, r.ID).Reason, "not for ever")
}

func TestWork_whileAnotherLives_waits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newWorker(t, "b")
	r := w.begin(t, w.test(t, w.step("POST", "/a")), run.StartInput{})
	w.abandon(t, r.ID, "a", 1)
	w.beat(t, "a", 0)
	err := n.worker.Work(t.Context(), w.job(t, r.ID, 2))
	var snooze *rivertype.JobSnoozeError
	require.ErrorAs(t, err, &snooze)
	assert.Equal(t, 1, count(w.types(t, r.ID), run.TypeStarted))
	w.beat(t, "a", time.Minute)
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, r.ID, 2)))
	assert.Equal(t, run.WorkerLost, w.finish(t, r.ID).Reason)
}

func TestWork_ofALateWorker_changesNothingAnyMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.newWorker(t, "a"), w.newWorker(t, "b")
	r := w.begin(t, w.test(t, w.get("/held/1")+","+w.step("PUT", "/held/2")), run.StartInput{})
	done := make(chan error, 1)
	job := w.job(t, r.ID, 1)
	go func() { done <- a.worker.Work(context.Background(), job) }()
	w.held(t) // a is in its call, and nobody hears its heartbeat
	require.NoError(t, b.worker.Work(t.Context(), w.job(t, r.ID, 2)))
	end := w.finish(t, r.ID)
	assert.Equal(t, run.WorkerLost, end.Reason)
	w.target.release <- struct{}{}
	w.target.release <- struct{}{}
	require.NoError(t, <-done)
	after := w.finish(t, r.ID)
	assert.Equal(t, end, after)
	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Equal(t, run.Inconclusive, d.AttemptResults[0].Status)
	assert.Empty(t, d.Steps, "what a worker says that was given up isn't heeded")
	assert.Equal(t, 1, count(w.types(t, r.ID), run.TypeFinished))
}

func TestCancel_queued_endsAtOnceAndIsNeverSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	canceled, err := w.Cancel(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Equal(t, run.Canceled, canceled.Status)
	assert.Equal(t, run.OnRequest, canceled.Reason)
	assert.Positive(t, canceled.Position)
	again, err := w.Cancel(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Zero(t, again.Position)
	n := w.newWorker(t, "a")
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, r.ID, 1)))
	assert.Zero(t, w.target.hits.Load())
	assert.Equal(t, []string{run.TypeRequested, run.TypeCancelRequested, run.TypeAttemptFinished, run.TypeFinished}, w.types(t, r.ID))
}

func TestCancel_running_isEndedByItsWorker(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	r := w.begin(t, w.test(t, w.get("/a")+","+w.get("/held")), run.StartInput{})
	w.held(t)
	got, err := w.Cancel(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Equal(t, run.Running, got.Status)
	assert.Positive(t, got.Position)
	end := w.finish(t, r.ID)
	assert.Equal(t, run.Canceled, end.Status)
	assert.Equal(t, run.OnRequest, end.Reason)
	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Equal(t, run.StepPassed, d.Steps[0].Status)
	_, err = w.Cancel(w.ctx, w.org, w.finish(t, w.begin(t, w.test(t, w.get("/a")), run.StartInput{}).ID).ID)
	assert.Equal(t, fault.Conflict, kind(err))
}

func TestCancel_racingWithTheStart_endsEachRunOnce(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, w.get("/a"))
	ended := map[run.Status]int{}
	for range 40 {
		r := w.begin(t, test, run.StartInput{})
		_, err := w.Cancel(w.ctx, w.org, r.ID)
		if err != nil {
			require.Equal(t, fault.Conflict, kind(err))
		}
		end := w.finish(t, r.ID)
		ended[end.Status]++
		types := w.types(t, r.ID)
		assert.Equal(t, 1, count(types, run.TypeFinished))
		assert.Equal(t, 1, count(types, run.TypeAttemptFinished))
		if count(types, run.TypeStarted) == 0 {
			assert.Equal(t, run.Canceled, end.Status)
		}
	}
	assert.NotEmpty(t, ended)
}

func TestCancel_ofALostWorkersRun_endsCanceled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	w.abandon(t, r.ID, "gone", 1)
	_, err := w.Cancel(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.NoError(t, w.newWorker(t, "b").worker.Work(t.Context(), w.job(t, r.ID, 2)))
	assert.Equal(t, run.Canceled, w.finish(t, r.ID).Status)
	assert.Zero(t, w.target.hits.Load())
}

func TestStop_softEndsRunsHardMakesThemInconclusive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.newWorker(t, "n")
	w.start(t, n, map[string]int{"default": 1}, 300*time.Millisecond)
	running := w.begin(t, w.test(t, w.step("POST", "/held")), run.StartInput{})
	w.held(t)
	waiting := w.begin(t, w.test(t, w.step("POST", "/b")), run.StartInput{})
	stop, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, n.client.Stop(stop))
	end := w.finish(t, running.ID)
	assert.Equal(t, run.Inconclusive, end.Status)
	assert.Equal(t, run.Shutdown, end.Reason)
	got, err := w.Get(w.ctx, w.org, waiting.ID)
	require.NoError(t, err)
	assert.Equal(t, run.Queued, got.Status, "what was not begun is left for the next")
	next := w.newWorker(t, "next")
	w.start(t, next, map[string]int{"default": 1}, 0)
	assert.Equal(t, run.Passed, w.finish(t, waiting.ID).Status)
}

func TestWork_afterTheStopOrder_handsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var snooze *rivertype.JobSnoozeError
	require.ErrorAs(t, w.newWorker(t, "n").worker.Work(ctx, w.job(t, r.ID, 1)), &snooze)
	assert.Equal(t, []string{run.TypeRequested}, w.types(t, r.ID))
}

func TestReaper_handsOutJobsOfLostWorkers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reaper := &run.Reaper{DB: w.db, Store: w.Store, Now: time.Now, Log: w.Log}
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	state := func() (s string) {
		require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return tx.QueryRow(ctx, `SELECT state::text FROM river.river_job WHERE args ->> 'runId' = $1`, r.ID.String()).Scan(&s)
		}))
		return s
	}
	w.beat(t, "a", 0)
	w.exec(t, `UPDATE river.river_job SET state = 'running', attempt = 1, attempted_by = '{a}', attempted_at = now() - interval '1 minute'`)
	w.abandon(t, r.ID, "a", 1)
	require.NoError(t, reaper.Once(t.Context()))
	assert.Equal(t, "running", state(), "its worker lives")
	w.beat(t, "a", 16*time.Second)
	require.NoError(t, reaper.Once(t.Context()))
	assert.Equal(t, "available", state())
	w.start(t, w.newWorker(t, "b"), map[string]int{"default": 1}, 0)
	end := w.finish(t, r.ID)
	assert.Equal(t, run.Passed, end.Status)
	assert.Equal(t, 2, end.Attempts)
}

func TestReaper_endsRunsWithoutAJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	later := time.Now()
	reaper := &run.Reaper{DB: w.db, Store: w.Store, Now: func() time.Time { return later }, Log: w.Log}
	test := w.test(t, w.get("/a"), `"timeout": "10s"`)
	queued, begun, kept, wanted := w.begin(t, test, run.StartInput{}), w.begin(t, test, run.StartInput{}), w.begin(t, test, run.StartInput{}), w.begin(t, test, run.StartInput{})
	w.abandon(t, begun.ID, "a", 1)
	w.abandon(t, wanted.ID, "a", 1)
	_, err := w.Cancel(w.ctx, w.org, wanted.ID)
	require.NoError(t, err)
	w.exec(t, `DELETE FROM river.river_job WHERE args ->> 'runId' <> $1`, kept.ID.String())
	require.NoError(t, reaper.Once(t.Context()))
	got, err := w.Get(w.ctx, w.org, queued.ID)
	require.NoError(t, err)
	assert.Equal(t, run.Queued, got.Status, "its time isn't over")

	later = later.Add(41 * time.Second)
	require.NoError(t, reaper.Once(t.Context()))
	for range 2 {
		for id, want := range map[uuid.UUID]run.Status{queued.ID: run.Inconclusive, begun.ID: run.Inconclusive, kept.ID: run.Queued, wanted.ID: run.Canceled} {
			got, err := w.Get(w.ctx, w.org, id)
			require.NoError(t, err)
			assert.Equal(t, want, got.Status)
		}
		require.NoError(t, reaper.Once(t.Context()), "a second look changes nothing")
	}
	n := w.newWorker(t, "b")
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, kept.ID, 1)))
	assert.Equal(t, run.Passed, w.finish(t, kept.ID).Status)
	assert.Equal(t, []string{run.TypeRequested, run.TypeAttemptFinished, run.TypeFinished}, w.types(t, queued.ID))
}

func TestReaper_endsLateRunsOfARegionWithoutWorkers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	later := time.Now()
	reaper := &run.Reaper{DB: w.db, Store: w.Store, Now: func() time.Time { return later }, Log: w.Log}
	test := w.test(t, w.get("/a"), `"timeout": "10s"`)
	w.beat(t, "a", 0)
	here, there := w.begin(t, test, run.StartInput{}), w.begin(t, test, run.StartInput{Regions: []string{"nowhere"}})
	look := func(at time.Duration, want run.Status) {
		t.Helper()
		later = time.Now().Add(at)
		require.NoError(t, reaper.Once(t.Context()))
		got, err := w.Get(w.ctx, w.org, there.ID)
		require.NoError(t, err)
		assert.Equal(t, want, got.Status, "after %s", at)
		got, err = w.Get(w.ctx, w.org, here.ID)
		require.NoError(t, err)
		assert.Equal(t, run.Queued, got.Status, "a worker of its region lives and will come to it")
	}
	look(30*time.Second, run.Queued)
	look(50*time.Second, run.Queued)
	look(100*time.Second, run.Queued)
	look(115*time.Second, run.Inconclusive)
	got, err := w.Get(w.ctx, w.org, there.ID)
	require.NoError(t, err)
	assert.Equal(t, run.RegionUnavailable, got.Reason)
	assert.Contains(t, got.Error.Message, "nowhere")

	// Its job is still there; a worker that comes at last sends nothing.
	n := w.newWorker(t, "b")
	require.NoError(t, n.worker.Work(t.Context(), w.job(t, there.ID, 1)))
	assert.Equal(t, []string{run.TypeRequested, run.TypeAttemptFinished, run.TypeFinished}, w.types(t, there.ID))
}

func TestQueue_everyKindGoesThroughTheWorkingClient(t *testing.T) {
	t.Parallel()
	w, n := up(t)
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	w.finish(t, r.ID)
	job := w.job(t, r.ID, 1)
	completed, cancel := n.client.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed)
	defer cancel()
	_, err := n.client.Insert(t.Context(), job.Args, &river.InsertOpts{Queue: run.QueueOf("default")})
	require.NoError(t, err)
	select {
	case e := <-completed:
		assert.Equal(t, river.EventKindJobCompleted, e.Kind)
	case <-time.After(patience):
		t.Fatal("the job was not worked")
	}
	assert.Len(t, w.types(t, r.ID), 8, "nothing was done twice")
}

func TestRowLevelSecurity_hidesRunsAndBodiesFromOtherTenants(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	r := w.begin(t, w.test(t, w.get("/a")), run.StartInput{})
	w.finish(t, r.ID)
	seen := func(org uuid.UUID, table string) (n int) {
		require.NoError(t, w.db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
			return tx.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n)
		}))
		return n
	}
	for _, table := range []string{"runs", "run_body", "es.run_event"} {
		assert.Positive(t, seen(w.org, table), table)
		assert.Zero(t, seen(newID(), table), table)
	}
	err := w.db.InOrg(t.Context(), w.org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `SELECT 1 FROM river.river_job`)
		return err
	})
	assert.Equal(t, "42501", postgres.SQLState(err), "the api role has no rights in the queue")
	day := time.Now().UTC().Format("20060102")
	err = w.db.InOrg(t.Context(), w.org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `SELECT 1 FROM run_body_`+day)
		return err
	})
	assert.Equal(t, "42501", postgres.SQLState(err), "nobody reaches a partition around its parent")
}
