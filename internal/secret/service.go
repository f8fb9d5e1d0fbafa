package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret/internal/secretdb"
	"github.com/testflow/testflow/internal/vault"
)

// Service sets, lists and removes secrets, and gives regions what their runs need. There is no way to read a value back.
type Service struct {
	DB    *postgres.DB
	Store *eventstore.Store
	// Key is an organization's data key: org.Keys.Key.
	Key func(ctx context.Context, orgID uuid.UUID) (vault.Key, error)
	// Region is the keys of a region: vault.Master.Region.
	Region func(name string) (*vault.Ring, error)
	// Require lets in who has the permission in the organization of the path: org.Service.Require.
	Require func(ctx context.Context, orgID uuid.UUID, perm auth.Permission) (auth.Principal, error)
	NewID   func() uuid.UUID
	Log     *slog.Logger

	granted granted
}

// Filter chooses a page of a scope's secrets.
type Filter struct {
	Limit int
	After *Cursor
}

// Cursor is the place in a list of secrets after which the next page begins.
type Cursor struct {
	Name string `json:"name"`
}

// List returns a page of a scope's secrets by name, and the cursor of the next page.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, scope Scope, f Filter) (items []Secret, next *Cursor, err error) {
	if _, err := s.require(ctx, orgID, scope, auth.SecretRead); err != nil {
		return nil, nil, err
	}
	place := scope.id(orgID)
	params := secretdb.ListSecretsParams{OrgID: orgID, Scope: &place, MaxRows: int32(f.Limit + 1)} //nolint:gosec // a page's limit is checked at the door
	if f.After != nil {
		params.After = f.After.Name
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if err := checkScope(ctx, tx, scope); err != nil {
			return err
		}
		rows, err := secretdb.New(tx).ListSecrets(ctx, params)
		if err != nil {
			return fmt.Errorf("list secrets: %w", err)
		}
		for _, row := range rows {
			items = append(items, secretOf(row, 0))
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &Cursor{Name: items[len(items)-1].Name}
	}
	return items, next, err
}

// Set gives a secret a new value, and makes it when the scope has none of that name. Runs that were requested before keep
// the version that they recorded. A stale expected version is fault.Precondition.
func (s *Service) Set(ctx context.Context, orgID uuid.UUID, scope Scope, name string, d Draft, expected *int) (out Secret, err error) {
	who, err := s.require(ctx, orgID, scope, writing(scope))
	if err != nil {
		return Secret{}, err
	}
	if err := d.check(name); err != nil {
		return Secret{}, err
	}
	id := s.NewID()
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		was, err := s.lock(ctx, tx, scope, name, expected)
		if err != nil {
			return err
		}
		set := Set{Place: place(scope, name), Version: was.Version + 1, Description: was.Description}
		if d.Description != nil {
			set.Description = *d.Description
		}
		if was.Version > 0 {
			id = was.ID
		} else if err := s.room(ctx, tx, scope); err != nil {
			return err
		}
		key, err := s.Key(ctx, orgID)
		if err != nil {
			return err
		}
		sealed := key.Seal([]byte(d.Value.Reveal()), sealContext(orgID, id, set.Version)...)
		done, err := s.Store.Append(ctx, tx, stream(orgID, id), eventstore.AnyVersion, who, set)
		if err != nil {
			return err
		}
		q, version := secretdb.New(tx), int32(set.Version) //nolint:gosec // versions are int on disk
		if err := q.InsertSecretValue(ctx, secretdb.InsertSecretValueParams{OrgID: orgID, SecretID: id, Version: version, Sealed: sealed}); err != nil {
			return fmt.Errorf("store a secret's value: %w", err)
		}
		if err := q.ForgetSecretValues(ctx, secretdb.ForgetSecretValuesParams{OrgID: orgID, SecretID: id, UpTo: version - limits.MaxSecretVersions}); err != nil {
			return fmt.Errorf("forget old values of a secret: %w", err)
		}
		out, err = find(ctx, tx, scope, name)
		out.Position = done.Position
		return err
	})
	return out, err
}

// Remove ends a secret and deletes all its values, the regions' copies too. It returns the position of its last event.
func (s *Service) Remove(ctx context.Context, orgID uuid.UUID, scope Scope, name string, expected *int) (position int64, err error) {
	who, err := s.require(ctx, orgID, scope, writing(scope))
	if err != nil {
		return 0, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		was, err := s.lock(ctx, tx, scope, name, expected)
		if err != nil {
			return err
		}
		if was.Version == 0 {
			return notFound()
		}
		done, err := s.Store.Append(ctx, tx, stream(orgID, was.ID), eventstore.AnyVersion, who, Removed{Place: place(scope, name), Version: was.Version})
		position = done.Position
		return err
	})
	return position, err
}

// NamesTx returns the names of secrets that tests of a project may use, in one environment, or without one in any.
func NamesTx(ctx context.Context, tx postgres.OrgTx, projectID, environmentID uuid.UUID) ([]string, error) {
	names, err := secretdb.New(tx).SecretNames(ctx, secretdb.SecretNamesParams{OrgID: tx.OrgID(), ProjectID: some(projectID), EnvironmentID: some(environmentID)})
	if err != nil {
		return nil, fmt.Errorf("read the names of secrets: %w", err)
	}
	return names, nil
}

// require lets in whoever has the permission: of the organization in the path, or of the caller's own.
func (s *Service) require(ctx context.Context, orgID uuid.UUID, scope Scope, perm auth.Permission) (auth.Principal, error) {
	if scope.Kind() == InOrganization {
		return s.Require(ctx, orgID, perm)
	}
	return auth.Require(ctx, orgID, perm)
}

// writing is the permission that it takes to change a scope's secrets.
func writing(scope Scope) auth.Permission {
	if scope.Kind() == InOrganization {
		return auth.SharedWrite
	}
	return auth.SecretWrite
}

// lock serializes the commands on a scope and returns its secret of that name, Version 0 when there is none.
func (s *Service) lock(ctx context.Context, tx postgres.OrgTx, scope Scope, name string, expected *int) (Secret, error) {
	if err := checkScope(ctx, tx, scope); err != nil {
		return Secret{}, err
	}
	if err := secretdb.New(tx).LockScope(ctx, scope.id(tx.OrgID()).String()); err != nil {
		return Secret{}, fmt.Errorf("lock the secrets of a scope: %w", err)
	}
	was, err := find(ctx, tx, scope, name)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return Secret{}, err
	}
	if expected != nil && *expected != was.Version {
		return Secret{}, fault.New(fault.Precondition, "precondition.failed", "The secret is at version %d by now: read it again.", was.Version)
	}
	return was, nil
}

// room says whether a scope takes another secret.
func (s *Service) room(ctx context.Context, tx postgres.OrgTx, scope Scope) error {
	id := scope.id(tx.OrgID())
	n, err := secretdb.New(tx).CountSecrets(ctx, secretdb.CountSecretsParams{OrgID: tx.OrgID(), Scope: &id})
	if err != nil {
		return fmt.Errorf("count secrets: %w", err)
	}
	if n >= limits.MaxSecrets {
		return fault.New(fault.Conflict, "secret.too_many", "The %s has %d secrets, which is the most: remove one first.", scope.Kind(), limits.MaxSecrets)
	}
	return nil
}

// checkScope says whether the transaction's organization has the scope.
func checkScope(ctx context.Context, tx postgres.OrgTx, scope Scope) error {
	if scope.ProjectID == uuid.Nil {
		return nil
	}
	if _, err := project.GetTx(ctx, tx, scope.ProjectID); err != nil || scope.EnvironmentID == uuid.Nil {
		return err
	}
	e, err := project.GetEnvironmentTx(ctx, tx, scope.EnvironmentID)
	if err == nil && e.ProjectID != scope.ProjectID {
		err = fault.New(fault.NotFound, "environment.not_found", "There is no such environment.")
	}
	return err
}

func find(ctx context.Context, tx postgres.OrgTx, scope Scope, name string) (Secret, error) {
	id := scope.id(tx.OrgID())
	row, err := secretdb.New(tx).FindSecret(ctx, secretdb.FindSecretParams{OrgID: tx.OrgID(), Scope: &id, Name: name})
	if errors.Is(err, pgx.ErrNoRows) {
		return Secret{}, notFound()
	}
	if err != nil {
		return Secret{}, fmt.Errorf("read a secret: %w", err)
	}
	return secretOf(row, 0), nil
}

func notFound() *fault.Error {
	return fault.New(fault.NotFound, "secret.not_found", "There is no such secret.")
}

func place(scope Scope, name string) Place {
	return Place{Scope: scope.Kind(), ProjectID: scope.ProjectID, EnvironmentID: scope.EnvironmentID, Name: name}
}

func stream(orgID, id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: orgID, ID: id, Kind: Kind}
}

// sealContext is what a value is bound to: moved to another secret, version or organization it doesn't open.
func sealContext(orgID, id uuid.UUID, version int) []string {
	return []string{"secret", orgID.String(), id.String(), strconv.Itoa(version)}
}
