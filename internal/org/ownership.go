package org

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// Transfer hands an organization over: the member becomes an admin and the caller, who is one, takes a lower role, both
// in one step, so that there is neither nobody nor anybody too many. It returns the organization as the caller sees it
// then, and fault.Invalid when the member is the caller or the role is admin.
func (s *Service) Transfer(ctx context.Context, id, accountID uuid.UUID, role auth.Role) (Org, error) {
	if _, err := auth.RequireUser(ctx); err != nil {
		return Org{}, err
	}
	who, err := s.require(ctx, id, auth.OrgManage)
	if err != nil {
		return Org{}, err
	}
	done, err := s.change(ctx, id, nil, who, auth.OrgManage, pure(func(o state) ([]eventstore.Data, error) {
		return o.transfer(who.AccountID, accountID, role)
	}))
	if err != nil {
		return Org{}, err
	}
	return s.get(ctx, id, role, done.Position)
}

// Delete freezes an organization and says when it will be erased: after DeletionGrace, until which Restore brings it back.
// A second call changes nothing. expected is the version that the caller knows, nil = any.
func (s *Service) Delete(ctx context.Context, id uuid.UUID, expected *int) (Org, error) {
	return s.turn(ctx, id, expected, func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error) {
		eraseAt, err := orgdb.New(tx).EraseTime(ctx, s.DeletionGrace.Seconds())
		if err != nil {
			return nil, fmt.Errorf("read the time of erasure: %w", err)
		}
		return o.scheduleDeletion(eraseAt.UTC().Truncate(time.Microsecond)), nil
	})
}

// Restore lets a frozen organization live on. One that isn't frozen doesn't change.
func (s *Service) Restore(ctx context.Context, id uuid.UUID) (Org, error) {
	return s.turn(ctx, id, nil, pure(func(o state) ([]eventstore.Data, error) { return o.restore(), nil }))
}

func (s *Service) turn(ctx context.Context, id uuid.UUID, expected *int, decide decision) (Org, error) {
	who, err := s.require(ctx, id, auth.OrgDelete)
	if err != nil {
		return Org{}, err
	}
	done, err := s.change(ctx, id, expected, who, auth.OrgDelete, decide)
	if err != nil {
		return Org{}, err
	}
	return s.get(ctx, id, who.Role, done.Position)
}

// RequireActiveTx returns the fault org.frozen when the organization is going to be erased, and fault.NotFound when it was. It is for what the system
// does in an organization's name, which no permission stops, such as running its tests.
func RequireActiveTx(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	frozen, err := orgdb.New(tx).IsFrozen(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return notFound()
	}
	if err != nil {
		return fmt.Errorf("read the organization's state: %w", err)
	}
	if frozen {
		return auth.Frozen()
	}
	return nil
}
