package run

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// Cancel ends a run. One that no worker has begun ends at once; a running one is ended by its worker, soon: it is still
// running in the answer. A run that was canceled before stays as it is; one that ended otherwise is fault.Conflict.
func (s *Service) Cancel(ctx context.Context, orgID, runID uuid.UUID) (r Run, err error) {
	who, err := auth.Require(ctx, orgID, auth.RunExecute)
	if err != nil {
		return Run{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := getRow(ctx, tx, runID)
		if err != nil {
			return err
		}
		r = runOf(row)
		switch {
		case r.Status == Canceled:
			return nil
		case r.Status.Ended():
			return fault.New(fault.Conflict, "run.ended", "The run has ended already: it is %s.", r.Status)
		}
		position, err := s.cancel(ctx, tx, r, who)
		if err != nil {
			return err
		}
		if row, err = getRow(ctx, tx, runID); err != nil {
			return err
		}
		r = runOf(row)
		r.Position = position
		return nil
	})
	return r, err
}

// cancel takes the first attempt away from the workers, or else tells the one that has it. Between the two there is no
// gap: an attempt's first event is stored once, so either it is ours and no worker begins, or it is a worker's, which
// then knows the run before it hears of the wish.
func (s *Service) cancel(ctx context.Context, tx postgres.OrgTx, r Run, who auth.Principal) (position int64, err error) {
	columns := r.columns()
	attempt := AttemptFinished{Attempt: 1, Region: r.Region, Status: Canceled, Reason: OnRequest}
	end := ended(r.OrgID, r.ID, firstVersion(1), columns, attempt, Finished{Status: Canceled, Reason: OnRequest, Region: r.Region}, 0)
	claimed, err := s.Store.AppendRuns(ctx, tx, end[:1])
	if err != nil {
		return 0, err
	}
	rest := []eventstore.RunEvent{event(r.OrgID, r.ID, VersionCancelRequested, columns, CancelRequested{RequestedBy: byOf(who)})} // in either case: it says who
	if len(claimed) > 0 {
		rest = append(rest, end[1:]...)
	}
	stored, err := s.Store.AppendRuns(ctx, tx, rest)
	if err != nil || len(stored) == 0 { // the wish was there already
		return 0, err
	}
	return stored[len(stored)-1].Position, nil
}

func (r Run) columns() eventstore.RunColumns {
	return eventstore.RunColumns{ProjectID: r.ProjectID, TestID: r.TestID, EnvironmentID: r.EnvironmentID, Region: r.Region}
}
