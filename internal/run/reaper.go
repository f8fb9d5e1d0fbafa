package run

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

const (
	beatEvery = 5 * time.Second
	// silence is after how long a worker that isn't heard of counts as lost.
	silence = 15 * time.Second
	// workersKept is how long a silent worker's name stays for people to see.
	workersKept = time.Hour
	reapEvery   = 10 * time.Second
	// reapGrace is what a run may take over its own time before the reaper looks at it.
	reapGrace = 30 * time.Second
	// regionAway is for how long a region must have been seen without a worker before runs that are late there end. It is
	// counted by the reaper itself, so that a worker that starts after the reaper finds its runs.
	regionAway = time.Minute
	// reapBack is how far back the first look goes: ids of runs are of two days at most when they are requested.
	reapBack = 72 * time.Hour
	reapPage = 500
)

// Begin makes this worker known. It is called before the queue's client starts: whoever isn't known counts as lost.
func (w *Worker) Begin(ctx context.Context) error {
	err := w.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return rundb.New(tx).Beat(ctx, rundb.BeatParams{WorkerID: w.cfg.ID, Regions: w.cfg.Regions})
	})
	if err != nil {
		return fmt.Errorf("make the worker known: %w", err)
	}
	return nil
}

// Beat says every few seconds that this worker lives, until ctx ends; then it signs off, so that what it has left behind
// is picked up at once. Call it after Begin, and end it after the queue's client has stopped.
func (w *Worker) Beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
			defer cancel()
			return w.cfg.DB.InSystem(end, func(ctx context.Context, tx pgx.Tx) error { return rundb.New(tx).SignOff(ctx, w.cfg.ID) })
		case <-tick.C:
			if err := w.Begin(ctx); err != nil && ctx.Err() == nil {
				w.cfg.Log.WarnContext(ctx, "the worker's heartbeat waits for the database", slog.Any("err", err))
			}
		}
	}
}

func isAlive(ctx context.Context, db *postgres.DB, worker string) (alive bool, err error) {
	err = db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		alive, err = rundb.New(tx).IsAlive(ctx, rundb.IsAliveParams{WorkerID: worker, Silence: interval(silence)})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask for worker %s: %w", worker, err)
	}
	return alive, nil
}

// Reaper looks after runs that nobody ends: it hands out the jobs of lost workers anew, and ends runs that no job stands
// for any more, or that are late in a region that no worker takes runs of. Any number of processes may have one.
type Reaper struct {
	DB    *postgres.DB
	Store *eventstore.Store
	Now   func() time.Time
	Log   *slog.Logger

	since uuid.UUID            // no run below has no end
	away  map[string]time.Time // since when no worker takes the runs of a region; only regions with late runs
}

// Run reaps every ten seconds until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for {
		if err := r.Once(ctx); err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "the reaper waits for the database", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Once does what Run does every ten seconds.
func (r *Reaper) Once(ctx context.Context) error {
	released, err := r.release(ctx)
	if err != nil {
		return err
	}
	if released > 0 {
		r.Log.WarnContext(ctx, "jobs of lost workers are handed out anew", slog.Int64("jobs", released))
	}
	orphans, err := r.orphans(ctx)
	if err != nil {
		return err
	}
	for _, o := range orphans {
		if err := r.end(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// release makes the jobs of lost workers available, long before River would rescue them.
func (r *Reaper) release(ctx context.Context) (n int64, err error) {
	err = r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `
			UPDATE river.river_job j SET state = 'available', scheduled_at = clock_timestamp()
			WHERE j.state = 'running' AND j.kind = $1 AND j.attempted_at < clock_timestamp() - $2::interval
			  AND NOT EXISTS (SELECT FROM run_workers w WHERE w.worker_id = j.attempted_by[cardinality(j.attempted_by)]
			                    AND w.seen_at > clock_timestamp() - $2::interval)`, jobKind, interval(silence))
		if err != nil {
			return fmt.Errorf("release the jobs of lost workers: %w", err)
		}
		n = tag.RowsAffected()
		return rundb.New(tx).ForgetWorkers(ctx, interval(workersKept))
	})
	return n, err
}

// orphan is a run without end that nobody will end: no job stands for it, or nobody takes the jobs of its region.
type orphan struct {
	org, run uuid.UUID
	reason   Reason
}

func (r *Reaper) orphans(ctx context.Context) (found []orphan, err error) {
	now := r.Now()
	after := r.since
	if after == uuid.Nil {
		after = floorID(now.Add(-reapBack))
	}
	err = r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		first := uuid.Nil
		regions, err := r.regions(ctx, tx, now)
		if err != nil {
			return err
		}
		defer regions.forget()
		for {
			rows, err := rundb.New(tx).ListUnended(ctx, rundb.ListUnendedParams{After: after, Before: floorID(now), MaxRows: reapPage})
			if err != nil {
				return fmt.Errorf("list runs without end: %w", err)
			}
			if len(rows) == 0 {
				break
			}
			if first == uuid.Nil {
				first = rows[0].RunID
			}
			after = rows[len(rows)-1].RunID
			late, deserted := map[uuid.UUID]uuid.UUID{}, map[uuid.UUID]bool{}
			for _, row := range rows {
				if now.Sub(row.RequestedAt) <= time.Duration(row.TimeoutMs)*time.Millisecond+reapGrace {
					continue
				}
				late[row.RunID] = row.OrgID
				if regions.away(row.Region) && row.Status == string(Queued) {
					deserted[row.RunID] = true
				}
			}
			alone, err := withoutJob(ctx, tx, late)
			if err != nil {
				return err
			}
			for _, o := range alone {
				delete(deserted, o.run)
			}
			for id := range deserted {
				alone = append(alone, orphan{late[id], id, RegionUnavailable})
			}
			found = append(found, alone...)
			if len(rows) < reapPage {
				break
			}
		}
		r.since = before(first, floorID(now.Add(-time.Hour)))
		return nil
	})
	return found, err
}

// regionsSeen are the regions that workers take runs of now.
type regionsSeen struct {
	reaper *Reaper
	now    time.Time
	alive  map[string]bool
	asked  map[string]bool
}

func (r *Reaper) regions(ctx context.Context, tx pgx.Tx, now time.Time) (*regionsSeen, error) {
	names, err := rundb.New(tx).ListRegions(ctx, interval(silence))
	if err != nil {
		return nil, fmt.Errorf("list the regions of workers: %w", err)
	}
	seen := &regionsSeen{reaper: r, now: now, alive: map[string]bool{}, asked: map[string]bool{}}
	for _, name := range names {
		seen.alive[name] = true
	}
	if r.away == nil {
		r.away = map[string]time.Time{}
	}
	return seen, nil
}

// away says whether the reaper has seen the region without a worker for long enough.
func (s *regionsSeen) away(region string) bool {
	s.asked[region] = true
	if s.alive[region] {
		delete(s.reaper.away, region)
		return false
	}
	since, known := s.reaper.away[region]
	if !known {
		s.reaper.away[region] = s.now
		return false
	}
	return s.now.Sub(since) >= regionAway
}

// forget drops what is remembered of regions where nothing is late any more.
func (s *regionsSeen) forget() {
	for region := range s.reaper.away {
		if !s.asked[region] {
			delete(s.reaper.away, region)
		}
	}
}

// before returns where the next look begins: just below the first run without end, or a while back when there is none.
func before(first, back uuid.UUID) uuid.UUID {
	if first == uuid.Nil {
		return back
	}
	for i := len(first) - 1; i >= 0; i-- {
		first[i]--
		if first[i] != 0xff {
			break
		}
	}
	return first
}

// withoutJob returns those of the runs that no job of the queue stands for.
func withoutJob(ctx context.Context, tx pgx.Tx, runs map[uuid.UUID]uuid.UUID) (alone []orphan, err error) {
	if len(runs) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(runs))
	for id := range runs {
		names = append(names, id.String())
	}
	rows, err := tx.Query(ctx, `
		SELECT args ->> 'runId' FROM river.river_job
		WHERE state IN ('available', 'pending', 'retryable', 'running', 'scheduled') AND kind = $1 AND args ->> 'runId' = ANY($2)`, jobKind, names)
	if err != nil {
		return nil, fmt.Errorf("look for jobs of runs: %w", err)
	}
	with, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for jobs of runs: %w", err)
	}
	known := map[string]bool{}
	for _, name := range with {
		known[name] = true
	}
	for id, org := range runs {
		if !known[id.String()] {
			alone = append(alone, orphan{org, id, WorkerLost})
		}
	}
	return alone, nil
}

// end ends a run that nobody else will.
func (r *Reaper) end(ctx context.Context, o orphan) error {
	return r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		p, err := readProgress(ctx, tx, r.Store, o.org, o.run)
		if err != nil || p.finished {
			return err
		}
		if o.reason == RegionUnavailable && p.attempt > 0 {
			return nil // a worker has come after all
		}
		lost := AttemptFinished{
			Attempt: max(p.attempt, 1), Region: p.requested.Region, Status: Inconclusive, Reason: o.reason,
			Error: &Problem{Code: string(o.reason), Message: "The worker that executed the run was lost."},
		}
		if o.reason == RegionUnavailable {
			lost.Error.Message = "No worker takes the runs of the region " + p.requested.Region + "."
		}
		if p.cancelRequested {
			lost.Status, lost.Reason, lost.Error = Canceled, OnRequest, nil
		}
		queued := time.Duration(0)
		if !p.startedAt.IsZero() {
			queued = p.startedAt.Sub(p.requestedAt)
		}
		if p.attempt == 0 {
			p.next = firstVersion(1)
		}
		if _, err := r.Store.AppendRuns(ctx, tx, endOf(o.org, o.run, p, lost, queued)); err != nil {
			return err
		}
		r.Log.WarnContext(ctx, "a run that nobody would end was ended", slog.Any("run_id", o.run), slog.String("reason", string(o.reason)),
			slog.String("worker", p.worker), slog.String("region", p.requested.Region))
		return nil
	})
}

// interval is a duration as a parameter of a query.
func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}
