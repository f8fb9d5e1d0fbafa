package project

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project/internal/projectdb"
)

// Service changes and reads projects and environments. Every command and every reading checks the caller's permission
// in the organization; what belongs to another organization is not found.
type Service struct {
	DB    *postgres.DB
	Store *eventstore.Store
	NewID func() uuid.UUID
	Log   *slog.Logger
}

// Filter chooses projects of a list.
type Filter struct {
	Query string // part of the name, whatever the case; "" = all
	Limit int
	After *Cursor
}

// Cursor is the place in a list of projects after which the next page begins.
type Cursor struct {
	ID uuid.UUID `json:"id"`
}

// Create makes a project. The name is unique in the organization, whatever its case: fault.Conflict otherwise.
func (s *Service) Create(ctx context.Context, orgID uuid.UUID, d Draft) (p Project, err error) {
	who, err := auth.Require(ctx, orgID, auth.ProjectWrite)
	if err != nil {
		return Project{}, err
	}
	created, err := create(d)
	if err != nil {
		return Project{}, err
	}
	id := s.NewID()
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err = s.append(ctx, tx, orgID, id, 0, who, created)
		return err
	})
	return p, nameTaken(err)
}

// Get returns one project.
func (s *Service) Get(ctx context.Context, orgID, id uuid.UUID) (p Project, err error) {
	if _, err := auth.Require(ctx, orgID, auth.ProjectRead); err != nil {
		return Project{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err = GetTx(ctx, tx, id)
		return err
	})
	return p, err
}

// GetTx returns one project of the transaction's organization, for rooms that have checked the caller.
func GetTx(ctx context.Context, tx postgres.OrgTx, id uuid.UUID) (Project, error) {
	row, err := projectdb.New(tx).GetProject(ctx, projectdb.GetProjectParams{OrgID: tx.OrgID(), ProjectID: id})
	if err != nil {
		return Project{}, notFound(err, "project")
	}
	return projectOf(row)
}

// VariablesAt returns the variables of a project as they were at a version of it, deleted or not, folded from its stream. What it returns
// never changes, so it may be kept.
func VariablesAt(ctx context.Context, tx pgx.Tx, store *eventstore.Store, orgID, id uuid.UUID, version int) (map[string]string, error) {
	events, err := store.Read(ctx, tx, orgID, id)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range events {
		if e.Version > version {
			break
		}
		if e.Type != TypeSharedVariablesChanged {
			continue
		}
		var d SharedVariablesChanged
		if err := e.Decode(&d); err != nil {
			return nil, fmt.Errorf("fold project %s at version %d: %w", id, e.Version, err)
		}
		for _, name := range d.Removed {
			delete(out, name)
		}
		maps.Copy(out, d.Set)
	}
	return out, nil
}

// List returns a page of projects, newest first, and the cursor of the next page, nil when there is none.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, f Filter) (items []Project, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.ProjectRead); err != nil {
		return nil, nil, err
	}
	params := projectdb.ListProjectsParams{OrgID: orgID, Query: f.Query, MaxRows: int32(f.Limit + 1)} //nolint:gosec // a page's limit is checked at the door
	if f.After != nil {
		params.After = &f.After.ID
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := projectdb.New(tx).ListProjects(ctx, params)
		if err != nil {
			return fmt.Errorf("list projects: %w", err)
		}
		for _, row := range rows {
			p, err := projectOf(row)
			if err != nil {
				return err
			}
			items = append(items, p)
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &Cursor{ID: items[len(items)-1].ID}
	}
	return items, next, err
}

// Update changes what the patch sets. Who may only write variables may change nothing else. A stale expected version is fault.Precondition.
func (s *Service) Update(ctx context.Context, orgID, id uuid.UUID, patch Patch, expected *int) (p Project, err error) {
	who, err := auth.Require(ctx, orgID, auth.VariableWrite)
	if err == nil && (patch.Name != nil || patch.Description != nil) {
		who, err = auth.Require(ctx, orgID, auth.ProjectWrite)
	}
	if err != nil {
		return Project{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if p, err = s.lock(ctx, tx, id, expected); err != nil {
			return err
		}
		news, err := p.change(patch)
		if err != nil || len(news) == 0 {
			return err
		}
		p, err = s.append(ctx, tx, orgID, id, p.Version, who, news...)
		return err
	})
	return p, nameTaken(err)
}

// Delete ends a project; its tests and environments disappear with it. It returns the position of its last event.
func (s *Service) Delete(ctx context.Context, orgID, id uuid.UUID, expected *int) (position int64, err error) {
	who, err := auth.Require(ctx, orgID, auth.ProjectWrite)
	if err != nil {
		return 0, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err := s.lock(ctx, tx, id, expected)
		if err != nil {
			return err
		}
		done, err := s.Store.Append(ctx, tx, eventstore.Stream{OrgID: orgID, ID: id, Kind: Kind}, p.Version, who, Deleted{Name: p.Name})
		position = done.Position
		return err
	})
	return position, err
}

func (s *Service) lock(ctx context.Context, tx postgres.OrgTx, id uuid.UUID, expected *int) (Project, error) {
	row, err := projectdb.New(tx).LockProject(ctx, projectdb.LockProjectParams{OrgID: tx.OrgID(), ProjectID: id})
	if err != nil {
		return Project{}, notFound(err, "project")
	}
	p, err := projectOf(row)
	if err != nil {
		return Project{}, err
	}
	return p, checkVersion("project", p.Version, expected)
}

func (s *Service) append(ctx context.Context, tx postgres.OrgTx, orgID, id uuid.UUID, version int, who eventstore.Actor, news ...eventstore.Data) (Project, error) {
	done, err := s.Store.Append(ctx, tx, eventstore.Stream{OrgID: orgID, ID: id, Kind: Kind}, version, who, news...)
	if err != nil {
		return Project{}, err
	}
	p, err := GetTx(ctx, tx, id)
	p.Position = done.Position
	return p, err
}

func projectOf(r projectdb.Project) (Project, error) {
	p := Project{
		ID: r.ProjectID, OrgID: r.OrgID, Name: r.Name, Description: r.Description, VariablesVersion: int(r.VariablesVersion),
		Version: int(r.Version), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if err := json.Unmarshal(r.Variables, &p.Variables); err != nil {
		return Project{}, fmt.Errorf("read the variables of project %s: %w", r.ProjectID, err)
	}
	return p, nil
}

// notFound turns "no rows" into a fault; other errors are wrapped.
func notFound(err error, noun string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(fault.NotFound, noun+".not_found", "There is no such %s.", noun)
	}
	return fmt.Errorf("read %s: %w", noun, err)
}

func checkVersion(noun string, actual int, expected *int) error {
	if expected != nil && *expected != actual {
		return fault.New(fault.Precondition, "precondition.failed", "The %s is at version %d by now: read it again.", noun, actual)
	}
	return nil
}

// nameTaken turns the violation of a unique name into a fault.
func nameTaken(err error) error {
	switch {
	case postgres.IsUniqueViolation(err, "projects_name"):
		return fault.New(fault.Conflict, "project.name_taken", "Another project has that name.").At("/name", "This name is taken.").Because(err)
	case postgres.IsUniqueViolation(err, "environments_name"):
		return fault.New(fault.Conflict, "environment.name_taken", "Another environment of the project has that name.").At("/name", "This name is taken.").Because(err)
	}
	return err
}
