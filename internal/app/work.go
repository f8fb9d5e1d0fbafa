package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/run"
)

// startWorker starts what executes the runs of the region: the sink, the queue's client, the heartbeat. A process of its
// own follows the log as well, for requests to cancel.
func (p *platform) startWorker(ctx context.Context, proc *process) error {
	c := p.cfg.Worker
	id, err := workerID(c.Name)
	if err != nil {
		return err
	}
	sink := eventstore.NewSink(eventstore.SinkConfig{ //nolint:contextcheck // the sink ends by Close, after the last run has
		Store: p.store, DB: p.db.main, OnBatch: run.StoreBodies, Now: time.Now, Logger: p.room("sink"),
		MaxDelay: p.cfg.Limits.SinkDelay, MaxRuns: p.cfg.Limits.SinkRuns, MaxBytes: int(p.cfg.Limits.SinkBytes),
	})
	engine := executor.New(executor.Config{
		Guard: p.guard, Now: time.Now, UserAgent: "TestFlow/" + version(), Log: p.room("executor"),
		Limits: testLimits(p.cfg.Limits),
	})
	worker := run.NewWorker(run.WorkerConfig{
		DB: p.db.main, Store: p.store, Sink: sink, Plans: p.plans, Engine: engine, ID: id, Regions: []string{c.Region},
		Now: time.Now, NewID: newID, Log: p.room("worker"),
	})
	workers := river.NewWorkers()
	if err := run.AddWorker(workers, worker); err != nil {
		return err
	}
	queues, err := p.addHouseJobs(workers)
	if err != nil {
		return err
	}
	client, err := run.NewWorkingClient(p.db.main, workers, run.ClientConfig{
		ID: id, Regions: map[string]int{c.Region: c.Concurrency}, Queues: queues, Leads: p.command != config.Work,
		StopTimeout: p.cfg.Server.ShutdownTimeout, Log: quiet(p.room("queue")),
	})
	if err != nil {
		return err
	}
	if err := worker.Begin(ctx); err != nil {
		return err
	}
	if p.command == config.Work {
		proc.start(ctx, part{name: "feed", run: p.feed.Run})
	}
	cancel := p.feed.Subscribe(worker.Hear)
	// Stopped last to first: the queue hands back what it hasn't begun and waits for the rest, the sink writes what is left,
	// then the worker signs off.
	proc.start(ctx, part{name: "heartbeat", run: worker.Beat})
	proc.start(ctx, part{name: "sink", run: untilDone, stop: func(ctx context.Context) error {
		cancel()
		engine.Close()
		return sink.Close(ctx)
	}})
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the queue: %w", err)
	}
	proc.start(ctx, part{name: "queue", run: untilClosed(client.Stopped()), stop: client.Stop})
	return nil
}

// startLeader starts what looks after the queue where no worker of this process does: a client that may be elected, knows
// every kind of job, and takes none of a region's.
func (p *platform) startLeader(ctx context.Context, proc *process) error {
	id, err := workerID(p.cfg.Worker.Name)
	if err != nil {
		return err
	}
	workers := river.NewWorkers()
	if err := run.AddWorker(workers, run.NewWorker(run.WorkerConfig{DB: p.db.main, Store: p.store, Plans: p.plans, ID: id, Now: time.Now, NewID: newID, Log: p.room("worker")})); err != nil {
		return err
	}
	queues, err := p.addHouseJobs(workers)
	if err != nil {
		return err
	}
	queues["house"] = 2
	client, err := run.NewWorkingClient(p.db.main, workers, run.ClientConfig{
		ID: id, Leads: true, Queues: queues, StopTimeout: p.cfg.Server.ShutdownTimeout, Log: quiet(p.room("queue")),
	})
	if err != nil {
		return err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the queue: %w", err)
	}
	proc.start(ctx, part{name: "queue", run: untilClosed(client.Stopped()), stop: client.Stop})
	return nil
}

// addHouseJobs adds the workers of the jobs that belong to no region, and returns their queues with how many are worked at a
// time. A worker of a region has none: it lacks the keys.
func (p *platform) addHouseJobs(workers *river.Workers) (queues map[string]int, err error) {
	if p.command == config.Work {
		return map[string]int{}, nil
	}
	return map[string]int{mail.Queue: mail.Concurrency}, mail.AddWorker(workers, p.mail)
}

// quiet lets warnings and errors through alone: the queue tells at level Info how many jobs it had, every few seconds.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(atLeast{log.Handler(), slog.LevelWarn}) }

type atLeast struct {
	slog.Handler
	level slog.Level
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

func (h atLeast) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeast{h.Handler.WithAttrs(attrs), h.level}
}

func (h atLeast) WithGroup(name string) slog.Handler {
	return atLeast{h.Handler.WithGroup(name), h.level}
}

// untilClosed is the run of a part that lives elsewhere and tells by a channel when it is over.
func untilClosed(stopped <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-stopped:
			<-ctx.Done() // it was asked to
		case <-ctx.Done():
		}
		return nil
	}
}

// workerID names this start of this process: the machine, so that people know where to look, and a part that no other
// start has, so that a lost worker is not mistaken for the one that came after it.
func workerID(name string) (string, error) {
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", errors.Join(errors.New("this machine has no name; set TESTFLOW_WORKER_NAME"), err)
		}
		name = host
	}
	id := newID()
	return fmt.Sprintf("%s-%d-%s", name, os.Getpid(), id.String()[24:]), nil
}

const (
	// choresFirst lets a process that doesn't live for an hour do its share, and choresEvery is how often it is done.
	choresFirst = time.Minute
	choresEvery = time.Hour
)

// keepHouse does what must be done now and then, until ctx ends: partitions ahead, old answers and sessions away.
func (p *platform) keepHouse(ctx context.Context) error {
	reaper := &run.Reaper{DB: p.db.main, Store: p.store, Now: time.Now, Log: p.room("reaper")}
	reaped := make(chan error, 1)
	go func() { reaped <- reaper.Run(ctx) }()
	next := time.NewTimer(choresFirst)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return <-reaped
		case err := <-reaped:
			return err
		case <-next.C:
			next.Reset(choresEvery)
			for _, chore := range p.chores() {
				if err := chore.do(ctx); err != nil && ctx.Err() == nil {
					p.log.WarnContext(ctx, "a chore failed; it is tried again in an hour", slog.String("chore", chore.name), slog.Any("err", err))
				}
			}
		}
	}
}

type chore struct {
	name string
	do   func(ctx context.Context) error
}

// retention is what drops old runs.
func (p *platform) retention() *run.Retention {
	l := p.cfg.Limits
	return &run.Retention{
		DB: p.db.main, Store: p.store, Followed: p.projections.Passed, RunDays: l.RetentionRuns, BodyDays: l.RetentionBodies,
		Now: time.Now, Log: p.room("retention"),
	}
}

// chores may be done by any number of processes at once.
func (p *platform) chores() []chore {
	return []chore{
		{"partitions of the log", func(ctx context.Context) error { _, err := p.store.EnsurePartitions(ctx); return err }},
		{"partitions of bodies", p.ensureBodies},
		{"days of runs into the audit log", p.runSealer.Pass},
		{"runs that are kept no longer", p.retention().Drop},
		{"old answers to idempotent commands", func(ctx context.Context) error {
			_, err := p.idempotency.Prune(ctx)
			return err
		}},
		{"old usage of API keys", func(ctx context.Context) error { _, err := p.orgs.PruneKeyUsage(ctx, time.Now()); return err }},
		{"mail that was given up", p.mail.Purge},
		{"windows of limits that are over", func(ctx context.Context) error { _, err := p.rates.Limiter.Prune(ctx); return err }},
		{"organizations whose grace is over", func(ctx context.Context) error { _, err := p.orgs.EraseDue(ctx, p.eraseAnalytics); return err }},
		{"old invitations", func(ctx context.Context) error { _, err := p.orgs.PurgeInvitations(ctx); return err }},
		{"ended sessions", func(ctx context.Context) error { _, err := p.accounts.Purge(ctx); return err }},
	}
}

// eraseAnalytics takes an erased organization out of the analytics database, behind what the projections still had to read.
func (p *platform) eraseAnalytics(ctx context.Context, orgID uuid.UUID) error {
	end, err := p.store.End(ctx)
	if err != nil {
		return err
	}
	return p.analytics.Erase(ctx, orgID, end)
}
