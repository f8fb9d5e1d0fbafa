package org

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

const (
	// eraseBatch is how many rows of a table go in one transaction, and eraseOrgs how many organizations in one round of
	// housekeeping.
	eraseBatch = 5000
	eraseOrgs  = 100
	// sweptFor is how long after its end an erased organization is looked at again, for what a slow process still wrote.
	sweptFor = 48 * time.Hour
)

// EraseDue erases the organizations whose grace is over, each wholly: every row that names it in every table, its log and
// its keys too. Signed heads stay. elsewhere does the same in the analytics database; it is called once the log is gone. What
// is interrupted goes on the next time. It returns how many were erased.
func (s *Service) EraseDue(ctx context.Context, elsewhere func(ctx context.Context, orgID uuid.UUID) error) (erased int, err error) {
	q := orgdb.New(s.DB.System)
	due, err := q.OrgsToErase(ctx, eraseOrgs)
	if err != nil {
		return 0, fmt.Errorf("list organizations to erase: %w", err)
	}
	for _, id := range due {
		if err := s.eraseRows(ctx, id, elsewhere); err != nil {
			return erased, err
		}
		err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error { return orgdb.New(tx).EndErasure(ctx, id) })
		if err != nil {
			return erased, fmt.Errorf("end the erasure of organization %s: %w", id, err)
		}
		erased++
		s.Log.InfoContext(ctx, "an organization was erased", slog.String("org_id", id.String()))
	}
	lately, err := q.LatelyErased(ctx, sweptFor.Seconds())
	if err != nil {
		return erased, fmt.Errorf("list erased organizations: %w", err)
	}
	for _, id := range lately {
		if err := s.eraseRows(ctx, id, elsewhere); err != nil {
			return erased, err
		}
	}
	return erased, nil
}

// eraseRows deletes batch by batch, so that nobody waits long for a lock, until nothing is left.
func (s *Service) eraseRows(ctx context.Context, id uuid.UUID, elsewhere func(ctx context.Context, orgID uuid.UUID) error) error {
	for {
		var gone int64
		err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			gone, err = orgdb.New(tx).EraseOrg(ctx, orgdb.EraseOrgParams{OrgID: id, Batch: eraseBatch})
			return err
		})
		if err != nil {
			return fmt.Errorf("erase organization %s: %w", id, err)
		}
		if gone == 0 {
			break
		}
	}
	if err := elsewhere(ctx, id); err != nil {
		return fmt.Errorf("erase organization %s elsewhere: %w", id, err)
	}
	return nil
}
