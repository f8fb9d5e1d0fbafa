package project

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project/internal/projectdb"
)

// EnvironmentFilter chooses a page of environments.
type EnvironmentFilter struct {
	Limit int
	After *EnvironmentCursor
}

// EnvironmentCursor is the place in a list of environments after which the next page begins.
type EnvironmentCursor struct {
	ID uuid.UUID `json:"id"`
}

// CreateEnvironment makes an environment. The name is unique in the project, whatever its case: fault.Conflict otherwise.
func (s *Service) CreateEnvironment(ctx context.Context, orgID, projectID uuid.UUID, d EnvironmentDraft) (e Environment, err error) {
	who, err := auth.Require(ctx, orgID, auth.EnvironmentWrite)
	if err != nil {
		return Environment{}, err
	}
	id := s.NewID()
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if _, err := s.lock(ctx, tx, projectID, nil); err != nil {
			return err
		}
		created, err := createEnvironment(projectID, d)
		if err != nil {
			return err
		}
		n, err := projectdb.New(tx).CountEnvironments(ctx, projectdb.CountEnvironmentsParams{OrgID: orgID, ProjectID: projectID})
		if err != nil {
			return fmt.Errorf("count environments: %w", err)
		}
		if n >= limits.MaxEnvironments {
			return fault.New(fault.Conflict, "environment.too_many", "A project has at most %d environments.", limits.MaxEnvironments)
		}
		e, err = s.appendEnvironment(ctx, tx, id, 0, who, created)
		return err
	})
	return e, nameTaken(err)
}

// GetEnvironment returns one environment of a project.
func (s *Service) GetEnvironment(ctx context.Context, orgID, projectID, id uuid.UUID) (e Environment, err error) {
	if _, err := auth.Require(ctx, orgID, auth.EnvironmentRead); err != nil {
		return Environment{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if e, err = GetEnvironmentTx(ctx, tx, id); err == nil && e.ProjectID != projectID {
			err = notFound(pgx.ErrNoRows, "environment")
		}
		return err
	})
	if err != nil {
		return Environment{}, err
	}
	return e, nil
}

// GetEnvironmentTx returns one environment of the transaction's organization, for rooms that have checked the caller.
func GetEnvironmentTx(ctx context.Context, tx postgres.OrgTx, id uuid.UUID) (Environment, error) {
	row, err := projectdb.New(tx).GetEnvironment(ctx, projectdb.GetEnvironmentParams{OrgID: tx.OrgID(), EnvironmentID: id})
	if err != nil {
		return Environment{}, notFound(err, "environment")
	}
	return environmentOf(row)
}

// ListEnvironments returns a page of a project's environments, newest first, and the cursor of the next page.
func (s *Service) ListEnvironments(ctx context.Context, orgID, projectID uuid.UUID, f EnvironmentFilter) (items []Environment, next *EnvironmentCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.EnvironmentRead); err != nil {
		return nil, nil, err
	}
	params := projectdb.ListEnvironmentsParams{OrgID: orgID, ProjectID: projectID, MaxRows: int32(f.Limit + 1)} //nolint:gosec // a page's limit is checked at the door
	if f.After != nil {
		params.After = &f.After.ID
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if _, err := GetTx(ctx, tx, projectID); err != nil {
			return err
		}
		rows, err := projectdb.New(tx).ListEnvironments(ctx, params)
		if err != nil {
			return fmt.Errorf("list environments: %w", err)
		}
		for _, row := range rows {
			e, err := environmentOf(row)
			if err != nil {
				return err
			}
			items = append(items, e)
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &EnvironmentCursor{ID: items[len(items)-1].ID}
	}
	return items, next, err
}

// UpdateEnvironment changes what the patch sets. Who may only write variables may change nothing else. A stale expected
// version is fault.Precondition.
func (s *Service) UpdateEnvironment(ctx context.Context, orgID, projectID, id uuid.UUID, patch EnvironmentPatch, expected *int) (e Environment, err error) {
	who, err := auth.Require(ctx, orgID, auth.VariableWrite)
	if err == nil && (patch.Name != nil || patch.Description != nil) {
		who, err = auth.Require(ctx, orgID, auth.EnvironmentWrite)
	}
	if err != nil {
		return Environment{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if e, err = s.lockEnvironment(ctx, tx, projectID, id, expected); err != nil {
			return err
		}
		news, err := e.change(patch)
		if err != nil || len(news) == 0 {
			return err
		}
		e, err = s.appendEnvironment(ctx, tx, id, e.Version, who, news...)
		return err
	})
	return e, nameTaken(err)
}

// DeleteEnvironment ends an environment; runs that were requested with it still end with its variables. It returns the
// position of its last event.
func (s *Service) DeleteEnvironment(ctx context.Context, orgID, projectID, id uuid.UUID, expected *int) (position int64, err error) {
	who, err := auth.Require(ctx, orgID, auth.EnvironmentWrite)
	if err != nil {
		return 0, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		e, err := s.lockEnvironment(ctx, tx, projectID, id, expected)
		if err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, environmentStream(orgID, id), e.Version, who, EnvironmentDeleted{Name: e.Name})
		position = done.Position
		return err
	})
	return position, err
}

// EnvironmentAt returns an environment as it was at a version of it, deleted or not, folded from its stream. What it
// returns never changes, so it may be kept.
func EnvironmentAt(ctx context.Context, tx pgx.Tx, store *eventstore.Store, orgID, id uuid.UUID, version int) (e Environment, err error) {
	events, err := store.Read(ctx, tx, orgID, id)
	if err != nil {
		return Environment{}, err
	}
	for _, ev := range events {
		if ev.Version > version {
			break
		}
		if err := e.apply(ev); err != nil {
			return Environment{}, fmt.Errorf("fold environment %s at version %d: %w", id, ev.Version, err)
		}
	}
	if e.Version != version || e.Version == 0 {
		return Environment{}, fmt.Errorf("environment %s has no version %d", id, version)
	}
	return e, nil
}

func (s *Service) lockEnvironment(ctx context.Context, tx postgres.OrgTx, projectID, id uuid.UUID, expected *int) (Environment, error) {
	row, err := projectdb.New(tx).LockEnvironment(ctx, projectdb.LockEnvironmentParams{OrgID: tx.OrgID(), ProjectID: projectID, EnvironmentID: id})
	if err != nil {
		return Environment{}, notFound(err, "environment")
	}
	e, err := environmentOf(row)
	if err != nil {
		return Environment{}, err
	}
	return e, checkVersion("environment", e.Version, expected)
}

func (s *Service) appendEnvironment(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, version int, who eventstore.Actor, news ...eventstore.Data) (Environment, error) {
	done, err := s.Store.Append(ctx, tx, environmentStream(tx.OrgID(), id), version, who, news...)
	if err != nil {
		return Environment{}, err
	}
	e, err := GetEnvironmentTx(ctx, tx, id)
	e.Position = done.Position
	return e, err
}

func environmentStream(orgID, id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: orgID, ID: id, Kind: KindEnvironment}
}

func environmentOf(r projectdb.Environment) (Environment, error) {
	e := Environment{
		ID: r.EnvironmentID, OrgID: r.OrgID, ProjectID: r.ProjectID, Name: r.Name, Description: r.Description,
		Version: int(r.Version), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if err := json.Unmarshal(r.Variables, &e.Variables); err != nil {
		return Environment{}, fmt.Errorf("read the variables of environment %s: %w", r.EnvironmentID, err)
	}
	return e, nil
}
