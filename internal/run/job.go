package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/secret"
)

const (
	// resultTime bounds the writing of a result; the sink tries for 75 s while the database is away.
	resultTime = 90 * time.Second
	// stillBusy is when a job looks again whose run another worker is executing.
	stillBusy = 2 * time.Second
	// maxClaims bounds how often one job tries to take a run up while others do the same.
	maxClaims = 5
)

// Engine runs a spec against the network. executor.Engine does.
type Engine interface {
	Run(ctx context.Context, in executor.Input, observe func(executor.Observation)) executor.Result
}

// WorkerConfig is what a Worker stands on.
type WorkerConfig struct {
	DB      *postgres.DB
	Store   *eventstore.Store
	Sink    *eventstore.Sink // with StoreBodies as its OnBatch; closed after the queue's client has stopped
	Plans   *Plans
	Engine  Engine
	ID      string   // unique to this start of this process; also the queue client's
	Regions []string // whose queues it works, for its heartbeat
	Now     func() time.Time
	NewID   func() uuid.UUID
	Log     *slog.Logger
}

// Worker executes runs. The queue may hand it a job twice, or to two workers, or again after a crash: who stores the
// first event of an attempt has it, and a run ends once.
type Worker struct {
	river.WorkerDefaults[ExecuteArgs]
	cfg WorkerConfig

	mu       sync.Mutex
	inFlight map[uuid.UUID][]*execution
}

// NewWorker returns a Worker. Begin it before the queue's client starts.
func NewWorker(cfg WorkerConfig) *Worker {
	return &Worker{cfg: cfg, inFlight: map[uuid.UUID][]*execution{}}
}

// Timeout is how long a job may take: the spec's own time and a grace.
func (w *Worker) Timeout(job *river.Job[ExecuteArgs]) time.Duration { return job.Args.timeout() }

// NextRetry is when a job is handed out again that failed, always for a reason of ours.
func (w *Worker) NextRetry(job *river.Job[ExecuteArgs]) time.Time {
	return w.cfg.Now().Add(time.Duration(min(job.Attempt, 5)) * time.Second)
}

// Hear ends the runs of this process that somebody wants to be canceled: subscribe it to the feed.
func (w *Worker) Hear(b eventstore.Batch) {
	for _, e := range b.Events {
		if e.Type == TypeCancelRequested {
			w.cancel(e.StreamID)
		}
	}
}

func (w *Worker) cancel(runID uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.inFlight[runID] {
		x.stop(executor.ErrCanceled)
	}
}

// InFlight returns how many jobs this process has in its hands.
func (w *Worker) InFlight() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, list := range w.inFlight {
		n += len(list)
	}
	return n
}

// Work executes a job's run, or finds that there is nothing left to do. It returns after the end of the run has
// committed. An error is always our own: the queue will hand the job out again.
func (w *Worker) Work(ctx context.Context, job *river.Job[ExecuteArgs]) error {
	fault.Hit(fault.PointJobFetched)
	if ctx.Err() != nil {
		return river.JobSnooze(0) // nothing was begun: handed back
	}
	x := w.enter(ctx, job)
	defer w.leave(x)
	p, err := x.load() //nolint:contextcheck // the run outlives the queue's cancellation
	if err != nil {
		if errors.Is(err, secret.ErrRegionKey) {
			w.cfg.Log.ErrorContext(ctx, "this worker cannot open the secrets of its region: set TESTFLOW_REGION_KEY to what `testflow region key` prints for it on the server, and restart it",
				slog.String("region", x.args.Region), slog.Any("run_id", x.args.RunID))
			return x.giveUp(Finished{Status: Inconclusive, Reason: Internal, Error: &Problem{Code: "internal", Message: "The worker has no key for the secrets of its region. Its log says what to do."}}) //nolint:contextcheck // the run outlives the queue's cancellation
		}
		if fault.KindOf(err) != fault.NotFound {
			return err
		}
		w.cfg.Log.ErrorContext(ctx, "a run's revision is gone", slog.Any("run_id", x.args.RunID), slog.Any("err", err))
		return x.giveUp(Finished{Status: Inconclusive, Reason: Internal, Error: &Problem{Code: "internal", Message: "What the run was made from is gone."}}) //nolint:contextcheck // the run outlives the queue's cancellation
	}
	x.plan = p
	mine, err := x.take(job.Attempt > 1) //nolint:contextcheck // the run outlives the queue's cancellation
	if err != nil || !mine {
		return err
	}
	fault.Hit(fault.PointRunStarted)
	return x.execute() //nolint:contextcheck // the run outlives the queue's cancellation
}

// enter notes that this process has the job. It happens before the attempt's first event, so that a wish to cancel, which
// comes after that event, finds it.
func (w *Worker) enter(ctx context.Context, job *river.Job[ExecuteArgs]) *execution {
	x := &execution{worker: w, args: job.Args, queuedAt: job.CreatedAt, claim: w.cfg.NewID()}
	// The run outlives the queue's cancellation by the time that it takes to write its end.
	x.ctx, x.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	x.unhook = context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			x.stop(context.DeadlineExceeded)
			return
		}
		x.stop(executor.ErrShutdown)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight[x.args.RunID] = append(w.inFlight[x.args.RunID], x)
	return x
}

func (w *Worker) leave(x *execution) {
	x.unhook()
	x.stop(nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	var others []*execution
	for _, o := range w.inFlight[x.args.RunID] {
		if o != x {
			others = append(others, o)
		}
	}
	if w.inFlight[x.args.RunID] = others; len(others) == 0 {
		delete(w.inFlight, x.args.RunID)
	}
}

// holds says whether this process is executing the attempt that was begun by claim.
func (w *Worker) holds(runID, claim uuid.UUID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.inFlight[runID] {
		if x.claim == claim {
			return true
		}
	}
	return false
}

// execution is one job in this process's hands.
type execution struct {
	worker   *Worker
	args     ExecuteArgs
	plan     plan
	queuedAt time.Time
	claim    uuid.UUID
	attempt  int
	queued   time.Duration // from the request to the first start

	ctx    context.Context //nolint:containedctx // one job's, ended by leave
	stop   context.CancelCauseFunc
	unhook func() bool
}

// load reads what is to be executed.
func (x *execution) load() (plan, error) {
	ctx, cancel := x.writing()
	defer cancel()
	return x.worker.cfg.Plans.load(ctx, x.args)
}

// writing returns a context for what has to be read and written whatever else ends.
func (x *execution) writing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(x.ctx), resultTime)
}

// take claims the next attempt of the run. It returns false when there is nothing to do: the run has ended, or was ended
// here because its worker was lost. known says that the job was handed out before.
func (x *execution) take(known bool) (bool, error) {
	attempt, before := 1, []eventstore.RunEvent(nil)
	x.queued = max(x.worker.cfg.Now().Sub(x.queuedAt), 0)
	for range maxClaims {
		if !known {
			won, err := x.start(attempt, before)
			if err != nil || won {
				return won, err
			}
		}
		known = false
		p, err := x.progress()
		if err != nil {
			return false, err
		}
		if p.claim == x.claim && !p.attemptEnded && !p.finished {
			x.attempt = p.attempt // our start was stored, but its answer was lost
			return true, nil
		}
		var done bool
		if attempt, before, done, err = x.next(p); err != nil || done {
			return false, err
		}
	}
	return false, fmt.Errorf("run %s: others take it up all the time", x.args.RunID)
}

// next decides what a job does with a run that somebody has touched: done, or the attempt to start, with the events that
// come before its start.
func (x *execution) next(p progress) (attempt int, before []eventstore.RunEvent, done bool, err error) {
	w := x.worker
	switch {
	case p.requested.TestID == uuid.Nil:
		return 0, nil, true, fmt.Errorf("run %s has no request in the log", x.args.RunID)
	case p.finished:
		return 0, nil, true, nil
	case p.attempt == 0:
		return 1, nil, false, nil
	}
	if !p.startedAt.IsZero() {
		x.queued = p.startedAt.Sub(p.requestedAt)
	}
	alive, err := x.alive(p)
	if err != nil {
		return 0, nil, true, err
	}
	if alive {
		return 0, nil, true, river.JobSnooze(stillBusy)
	}
	columns := p.requested.columns()
	lost := AttemptFinished{
		Attempt: p.attempt, Region: x.args.Region, Status: Inconclusive, Reason: WorkerLost,
		Error: &Problem{Code: string(WorkerLost), Message: "The worker that executed the run was lost."},
	}
	if p.cancelRequested {
		lost.Status, lost.Reason, lost.Error = Canceled, OnRequest, nil
	}
	if !p.cancelRequested && x.plan.definition.SafeToRepeat(x.plan.fragments) && p.attempt < maxStarts {
		if !p.attemptEnded {
			before = []eventstore.RunEvent{event(x.args.OrgID, x.args.RunID, p.next, columns, lost)}
		}
		w.cfg.Log.WarnContext(x.ctx, "a run's worker was lost; it is sent again", slog.Any("run_id", x.args.RunID), slog.String("worker", p.worker), slog.Int("attempt", p.attempt+1))
		return p.attempt + 1, before, false, nil
	}
	w.cfg.Log.WarnContext(x.ctx, "a run's worker was lost", slog.Any("run_id", x.args.RunID), slog.String("worker", p.worker))
	return 0, nil, true, x.endLost(p, lost)
}

// endLost ends a run whose worker is gone.
func (x *execution) endLost(p progress, lost AttemptFinished) error {
	events := endOf(x.args.OrgID, x.args.RunID, p, lost, x.queued)
	ctx, cancel := x.writing()
	defer cancel()
	_, err := x.worker.cfg.Sink.Append(ctx, events, nil)
	return err
}

// endOf returns the events that end a run whose last attempt came to lost.
func endOf(orgID, runID uuid.UUID, p progress, lost AttemptFinished, queued time.Duration) []eventstore.RunEvent {
	f := Finished{Status: lost.Status, Reason: lost.Reason, Error: lost.Error, Region: lost.Region, Attempts: p.attempt, QueuedMs: millis(queued)}
	events := ended(orgID, runID, p.next, p.requested.columns(), lost, f, 0)
	if p.attemptEnded {
		return events[1:]
	}
	return events
}

// alive says whether whoever began the last attempt may still bring its result.
func (x *execution) alive(p progress) (alive bool, err error) {
	w := x.worker
	if p.attemptEnded || p.worker == "" {
		return false, nil
	}
	if p.worker == w.cfg.ID {
		return w.holds(x.args.RunID, p.claim), nil
	}
	if w.cfg.Now().Sub(p.attemptAt) > x.args.timeout()+resultTime {
		return false, nil // it lives, but has dropped this run
	}
	ctx, cancel := x.writing() // the run may have been canceled meanwhile, which is no reason not to know
	defer cancel()
	return isAlive(ctx, w.cfg.DB, p.worker)
}

// progress reads what the log knows of the run.
func (x *execution) progress() (p progress, err error) {
	ctx, cancel := x.writing()
	defer cancel()
	err = x.worker.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		p, err = readProgress(ctx, tx, x.worker.cfg.Store, x.args.OrgID, x.args.RunID)
		return err
	})
	return p, err
}

func readProgress(ctx context.Context, tx pgx.Tx, store *eventstore.Store, orgID, runID uuid.UUID) (progress, error) {
	events, err := store.ReadRun(ctx, tx, orgID, runID)
	if err != nil {
		return progress{}, err
	}
	return progressOf(events)
}

// start appends the start of an attempt and returns whether this call stored it.
func (x *execution) start(attempt int, before []eventstore.RunEvent) (bool, error) {
	w := x.worker
	version := firstVersion(attempt)
	columns := eventstore.RunColumns{
		ProjectID: x.args.ProjectID, TestID: x.args.TestID, EnvironmentID: x.args.EnvironmentID, Region: x.args.Region, Status: string(Running),
	}
	begun := Started{Attempt: attempt, Region: x.args.Region, Worker: w.cfg.ID, Claim: x.claim}
	ctx, cancel := x.writing()
	defer cancel()
	stored, err := w.cfg.Sink.Append(ctx, append(before, event(x.args.OrgID, x.args.RunID, version, columns, begun)), nil)
	if err != nil {
		return false, err
	}
	x.attempt = attempt
	return has(stored, version), nil
}

// giveUp ends a run that could not even be begun.
func (x *execution) giveUp(f Finished) error {
	p, err := x.progress()
	if err != nil || p.finished || p.requestedAt.IsZero() { // not requested: it isn't this organization's run at all
		return err
	}
	if p.attempt == 0 {
		p.next = firstVersion(1)
	}
	return x.endLost(p, AttemptFinished{Attempt: max(p.attempt, 1), Region: x.args.Region, Status: f.Status, Reason: f.Reason, Error: f.Error})
}

func has(stored []eventstore.Inserted, version int) bool {
	for _, in := range stored {
		if in.Version == version {
			return true
		}
	}
	return false
}
