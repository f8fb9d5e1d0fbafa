package run

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

// readModel keeps the table runs, set-based, in the transaction of the batch that appends.
type readModel struct{}

// ReadModel returns the inline read model of runs.
func ReadModel() eventstore.ReadModel { return readModel{} }

// Apply writes what the events changed: at most three statements for any number of runs.
func (readModel) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	var requested rundb.InsertRunsParams
	var started rundb.MarkStartedParams
	var finished rundb.MarkFinishedParams
	for _, e := range events {
		var err error
		switch e.Type {
		case TypeRequested:
			err = addRequested(&requested, e)
		case TypeStarted:
			err = addStarted(&started, e)
		case TypeFinished:
			err = addFinished(&finished, e)
		}
		if err != nil {
			return fmt.Errorf("apply %s of run %s: %w", e.Type, e.StreamID, err)
		}
	}
	q := rundb.New(tx)
	if len(requested.RunIds) > 0 {
		if err := q.InsertRuns(ctx, requested); err != nil {
			return fmt.Errorf("insert runs: %w", err)
		}
	}
	if len(started.RunIds) > 0 {
		if err := q.MarkStarted(ctx, started); err != nil {
			return fmt.Errorf("mark runs started: %w", err)
		}
	}
	if len(finished.RunIds) > 0 {
		if err := q.MarkFinished(ctx, finished); err != nil {
			return fmt.Errorf("mark runs finished: %w", err)
		}
	}
	return nil
}

func addRequested(p *rundb.InsertRunsParams, e eventstore.Event) error {
	var d Requested
	if err := e.Decode(&d); err != nil {
		return err
	}
	p.RunIds = append(p.RunIds, e.StreamID)
	p.OrgIds = append(p.OrgIds, e.OrgID)
	p.ProjectIds = append(p.ProjectIds, d.ProjectID)
	p.TestIds = append(p.TestIds, d.TestID)
	p.TestNames = append(p.TestNames, d.TestName)
	p.Revisions = append(p.Revisions, int32(d.Revision)) //nolint:gosec // versions are int on disk
	p.EnvironmentIds = append(p.EnvironmentIds, d.EnvironmentID)
	p.EnvironmentNames = append(p.EnvironmentNames, d.EnvironmentName)
	p.Regions = append(p.Regions, d.Region)
	p.Triggers = append(p.Triggers, string(d.Trigger))
	p.SuiteIds = append(p.SuiteIds, d.SuiteID)
	p.RerunOfs = append(p.RerunOfs, d.RerunOf)
	p.RequestedKinds = append(p.RequestedKinds, d.RequestedBy.Kind)
	p.RequestedBys = append(p.RequestedBys, d.RequestedBy.ID)
	p.RequestedAts = append(p.RequestedAts, e.RecordedAt)
	p.TimeoutMs = append(p.TimeoutMs, d.TimeoutMs)
	return nil
}

func addStarted(p *rundb.MarkStartedParams, e eventstore.Event) error {
	var d Started
	if err := e.Decode(&d); err != nil {
		return err
	}
	p.RunIds = append(p.RunIds, e.StreamID)
	p.OrgIds = append(p.OrgIds, e.OrgID)
	p.Ats = append(p.Ats, e.RecordedAt)
	p.Attempts = append(p.Attempts, int32(d.Attempt)) //nolint:gosec // at most maxStarts
	return nil
}

func addFinished(p *rundb.MarkFinishedParams, e eventstore.Event) error {
	var d Finished
	if err := e.Decode(&d); err != nil {
		return err
	}
	problem := Problem{}
	if d.Error != nil {
		problem = *d.Error
	}
	p.RunIds = append(p.RunIds, e.StreamID)
	p.OrgIds = append(p.OrgIds, e.OrgID)
	p.Ats = append(p.Ats, e.RecordedAt)
	p.Statuses = append(p.Statuses, string(d.Status))
	p.Reasons = append(p.Reasons, string(d.Reason))
	p.ErrorCodes = append(p.ErrorCodes, problem.Code)
	p.ErrorMessages = append(p.ErrorMessages, problem.Message)
	p.Attempts = append(p.Attempts, count(d.Attempts))
	p.DurationMs = append(p.DurationMs, d.DurationMs)
	p.QueuedMs = append(p.QueuedMs, d.QueuedMs)
	p.Steps = append(p.Steps, count(d.Counts.Steps))
	p.StepsFailed = append(p.StepsFailed, count(d.Counts.StepsFailed))
	p.StepsSkipped = append(p.StepsSkipped, count(d.Counts.StepsSkipped))
	p.Assertions = append(p.Assertions, count(d.Counts.Assertions))
	p.AssertionsFailed = append(p.AssertionsFailed, count(d.Counts.AssertionsFailed))
	p.SoftFailed = append(p.SoftFailed, count(d.Counts.SoftFailed))
	return nil
}

// count is a number of steps, assertions or attempts as the table keeps it; specs bound them to thousands.
func count(n int) int32 { return int32(n) } //nolint:gosec // bounded by testspec
