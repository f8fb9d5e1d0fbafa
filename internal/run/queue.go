package run

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/testflow/testflow/internal/postgres"
)

const (
	// jobGrace is what a job may take beside its spec's own time: loading it, waiting for the sink, a busy machine.
	jobGrace = 30 * time.Second
	// rescueAfter is when River hands a job to another worker that its worker never ended. A job that may take longer
	// than that is rescued when its own time is over.
	rescueAfter = 3 * time.Minute
	// maxJobAttempts is how often the queue hands out one job. It is no retry policy: a job is repeated only when our own
	// side failed. Two would do; the rest is for a worker that dies again and again.
	maxJobAttempts = 6
	// maxStarts is how many attempts of one run are started when its workers are lost and the spec may be sent again.
	maxStarts = 3

	// fetchCooldown and fetchPoll: a NOTIFY at insert wakes a worker at once, but a NOTIFY takes a lock over the whole
	// server at commit, so an inserting process sends one per notifyCooldown at most; what is inserted meanwhile waits for
	// the poll.
	fetchCooldown  = 10 * time.Millisecond
	fetchPoll      = 50 * time.Millisecond
	notifyCooldown = fetchPoll

	completedKept = 10 * time.Minute
)

// ExecuteArgs are the arguments of the job that executes a run: ids alone, since the queue knows no tenants.
type ExecuteArgs struct {
	RunID              uuid.UUID `json:"runId"`
	OrgID              uuid.UUID `json:"orgId"`
	ProjectID          uuid.UUID `json:"projectId"`
	TestID             uuid.UUID `json:"testId"`
	Revision           int       `json:"revision"`
	EnvironmentID      uuid.UUID `json:"environmentId,omitzero"`
	EnvironmentVersion int       `json:"environmentVersion,omitempty"`
	Region             string    `json:"region"`
	TimeoutMs          int64     `json:"timeoutMs"`
	HasVariables       bool      `json:"hasVariables,omitempty"` // they stand in run.requested
	HasFragments       bool      `json:"hasFragments,omitempty"` // their versions stand in run.requested
	HasSecrets         bool      `json:"hasSecrets,omitempty"`   // which stands there as well

	ProjectVersion      int `json:"projectVersion,omitempty"`
	OrganizationVersion int `json:"organizationVersion,omitempty"`
}

// jobKind is the job's name in the queue.
const jobKind = "run.execute"

// Kind names the job.
func (ExecuteArgs) Kind() string { return jobKind }

// QueueOf returns the queue of a region.
func QueueOf(region string) string { return "region_" + region }

func (a ExecuteArgs) insert() river.InsertManyParams {
	return river.InsertManyParams{Args: a, InsertOpts: &river.InsertOpts{Queue: QueueOf(a.Region), MaxAttempts: maxJobAttempts}}
}

// timeout is how long the job may take.
func (a ExecuteArgs) timeout() time.Duration {
	return time.Duration(a.TimeoutMs)*time.Millisecond + jobGrace
}

// NewInsertClient returns a client that inserts jobs and works none: what slices are built with, before there are workers.
func NewInsertClient(db *postgres.DB, log *slog.Logger) (*river.Client[pgx.Tx], error) {
	c, err := river.NewClient(riverpgxv5.New(db.System), &river.Config{Schema: postgres.RiverSchema, FetchCooldown: notifyCooldown, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("make the queue's insert client: %w", err)
	}
	return c, nil
}

// ClientConfig is what a working client needs beside its workers.
type ClientConfig struct {
	ID          string         // name of the process; the same as the Worker's
	Regions     map[string]int // how many runs at a time, by region; empty for a process that executes none
	Leads       bool           // whether it may be elected to look after the queue; workers of a region may not
	StopTimeout time.Duration  // what still runs then is canceled and ends inconclusive (shutdown); 0 = at once
	RescueAfter time.Duration  // 0 = 3 min
	Queues      map[string]int // further queues and how many of their jobs at a time
	Log         *slog.Logger
}

// NewWorkingClient returns a client that works the regions' queues with workers; app adds further kinds to workers first.
func NewWorkingClient(db *postgres.DB, workers *river.Workers, cfg ClientConfig) (*river.Client[pgx.Tx], error) {
	queues := map[string]river.QueueConfig{}
	for region, n := range cfg.Regions {
		queues[QueueOf(region)] = river.QueueConfig{MaxWorkers: n}
	}
	for name, n := range cfg.Queues {
		queues[name] = river.QueueConfig{MaxWorkers: n}
	}
	if cfg.RescueAfter <= 0 {
		cfg.RescueAfter = rescueAfter
	}
	c, err := river.NewClient(riverpgxv5.New(db.System), &river.Config{
		ID: cfg.ID, Schema: postgres.RiverSchema, Workers: workers, Queues: queues, Logger: cfg.Log,
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll,
		CompletedJobRetentionPeriod: completedKept,
		RescueStuckJobsAfter:        cfg.RescueAfter, JobTimeout: cfg.RescueAfter, // kinds that say no timeout of their own
		MaxAttempts: maxJobAttempts, SoftStopTimeout: max(cfg.StopTimeout, time.Millisecond), // 0 would wait for ever
		LeaderElectionDisabled: !cfg.Leads,
		// Two of River's indexes are dropped in our schema; the others don't bloat in the time that jobs are kept.
		ReindexerIndexNames: []string{},
	})
	if err != nil {
		return nil, fmt.Errorf("make the queue's client: %w", err)
	}
	return c, nil
}

// AddWorker adds the worker of this slice's job kind.
func AddWorker(workers *river.Workers, w *Worker) error {
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return fmt.Errorf("add the worker of runs: %w", err)
	}
	return nil
}
