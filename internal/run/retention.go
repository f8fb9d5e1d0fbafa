package run

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/run/internal/rundb"
)

// retentionBatch is how many rows of the list go in one statement.
const retentionBatch = 5000

// Retention lets go of what runs left behind, by whole UTC days of their requests.
type Retention struct {
	DB    *postgres.DB
	Store *eventstore.Store
	// Followed returns the position that everybody has passed who makes something lasting of the log. What lies above it
	// is kept, however old it is.
	Followed          func(ctx context.Context) (position int64, err error)
	RunDays, BodyDays int // as limits.Settings has them; 0 = for ever, and as long as the runs
	Now               func() time.Time
	Log               *slog.Logger
}

// Drop drops the days that are over; one with runs stays until its digest is in the audit log. It may be called by any number of processes at once, as often as they like.
func (r *Retention) Drop(ctx context.Context) error {
	if days := r.BodyDays; days > 0 {
		if err := r.dropBodies(ctx, r.before(days)); err != nil {
			return err
		}
	}
	if r.RunDays <= 0 {
		return nil
	}
	before := r.before(r.RunDays)
	if err := r.dropBodies(ctx, before); err != nil {
		return err
	}
	before, last, err := r.Store.Droppable(ctx, before)
	if err != nil || last == 0 {
		return err
	}
	followed, err := r.Followed(ctx)
	if err != nil {
		return err
	}
	if followed < last {
		r.Log.WarnContext(ctx, "old runs are kept until the projections have passed them", slog.Int64("last_position", last), slog.Int64("followed", followed))
		return nil
	}
	// The list first: whoever finds a run in it finds its events too.
	for n := int64(retentionBatch); n == retentionBatch; {
		err := r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			n, err = rundb.New(tx).DeleteRunsBefore(ctx, rundb.DeleteRunsBeforeParams{Before: floorID(before), MaxRows: retentionBatch})
			return err
		})
		if err != nil {
			return fmt.Errorf("delete old runs from the list: %w", err)
		}
	}
	days, err := r.Store.DropRuns(ctx, before)
	if err == nil && days > 0 {
		r.Log.InfoContext(ctx, "old runs were dropped", slog.Int("days", days), slog.String("before", before.Format(time.DateOnly)))
	}
	return err
}

// before is the first day that is kept.
func (r *Retention) before(days int) time.Time {
	return r.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -max(days, limits.LeastRetention))
}

func (r *Retention) dropBodies(ctx context.Context, before time.Time) error {
	err := r.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT es.drop_run_body($1::date)`, before.Format(time.DateOnly))
		return err
	})
	if err != nil {
		return fmt.Errorf("drop old bodies: %w", err)
	}
	return nil
}
