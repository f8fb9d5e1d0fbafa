package org

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
)

const (
	// decideAttempts is how often a command decides anew when somebody else appended first and the caller named no version.
	decideAttempts = 5
)

// Policy says who may register.
type Policy string

// The policies. Whatever it is, the first account of an installation may, and is its operator.
const (
	Open         Policy = "open"
	Confirmed    Policy = "confirm" // by a code that is mailed to the address: nobody learns who has an account
	ByInvitation Policy = "invitation"
)

// Service changes organizations and puts people and organizations together.
type Service struct {
	DB       *postgres.DB
	Store    *eventstore.Store
	Accounts *account.Service
	Policy   Policy
	// InvitationLifetime is how long an invitation can be accepted; 0 = 7 days.
	InvitationLifetime time.Duration
	// DeletionGrace is how long a deleted organization can be restored before it is erased.
	DeletionGrace time.Duration
	// SetupToken must be given by whoever makes the first account; empty = nobody need.
	SetupToken string
	// KeyLifetime is how long an API key lives when its maker says nothing, 0 = 90 days; KeyMaxLifetime bounds it, 0 = not.
	KeyLifetime    time.Duration
	KeyMaxLifetime time.Duration
	NewID          func() uuid.UUID
	Log            *slog.Logger

	uses keyUses
}

// Org is an organization as one of its members sees it.
type Org struct {
	ID        uuid.UUID
	Name      string
	Role      auth.Role // the caller's
	Version   int
	Position  int64             // of the command's last event; 0 = nothing changed, or it was only read
	EraseAt   *time.Time        // nil = it stays; otherwise it is frozen, and erased then
	Variables map[string]string // nil in lists
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Member is a person in an organization.
type Member struct {
	AccountID uuid.UUID
	Name      string
	Email     string
	Role      auth.Role
	JoinedAt  time.Time
	Position  int64 // of the command's last event; 0 = nothing changed, or it was only read
}

// Cursor is where a page of organizations or members ended: at the one who joined then. The zero Cursor is the beginning.
type Cursor struct {
	JoinedAt time.Time
	ID       uuid.UUID
}

// Filter says which page to list.
type Filter struct {
	Limit int // 1 to 200; 0 = 50
	After *Cursor
}

func (f Filter) limit() int {
	if f.Limit <= 0 {
		return limits.DefaultPage
	}
	return min(f.Limit, limits.MaxPage)
}

func (f Filter) after() Cursor {
	if f.After == nil {
		return Cursor{}
	}
	return *f.After
}

// Create makes an organization whose admin is the caller. It returns fault.Invalid for a bad name, and fault.Conflict when
// the caller is in too many.
func (s *Service) Create(ctx context.Context, name string) (Org, error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return Org{}, err
	}
	clean, problem := account.CleanName(name)
	if problem != "" {
		return Org{}, account.Invalid([]fault.Field{{Pointer: "/name", Detail: problem}})
	}
	var o Org
	// As the system: the caller may be in a transaction of another organization, in which this one isn't yet.
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		mine, err := orgdb.New(tx).OrgIDsOfAccount(ctx, who.AccountID)
		if err != nil {
			return fmt.Errorf("list organizations: %w", err)
		}
		if len(mine) >= limits.MaxOrganizations {
			return fault.New(fault.Conflict, "org.too_many", "You are in %d organizations already, which is the most.", len(mine))
		}
		o, err = s.createTx(ctx, tx, clean, who)
		return err
	})
	if err != nil {
		return Org{}, err
	}
	return o, nil
}

// createTx makes an organization of a checked name, as the system role.
func (s *Service) createTx(ctx context.Context, tx pgx.Tx, name string, founder auth.Principal) (Org, error) {
	id := s.NewID()
	done, err := s.Store.Append(ctx, tx, stream(id), 0, founder, create(name, founder.AccountID)...)
	if err != nil {
		return Org{}, err
	}
	row, err := orgdb.New(tx).GetOrg(ctx, id)
	if err != nil {
		return Org{}, fmt.Errorf("read organization: %w", err)
	}
	return orgOf(row, auth.Admin, done.Position), nil
}

// Get returns an organization that the caller is in, or fault.NotFound.
func (s *Service) Get(ctx context.Context, id uuid.UUID) (Org, error) {
	who, err := s.require(ctx, id, auth.OrgRead)
	if err != nil {
		return Org{}, err
	}
	return s.get(ctx, id, who.Role, 0)
}

func (s *Service) get(ctx context.Context, id uuid.UUID, role auth.Role, position int64) (o Org, err error) {
	err = s.DB.InOrg(ctx, id, func(ctx context.Context, tx postgres.OrgTx) error {
		row, err := orgdb.New(tx).GetOrg(ctx, id)
		if errors.Is(err, pgx.ErrNoRows) {
			return notFound()
		}
		if err != nil {
			return fmt.Errorf("read organization: %w", err)
		}
		o = orgOf(row, role, position)
		if err := json.Unmarshal(row.Variables, &o.Variables); err != nil {
			return fmt.Errorf("read the variables of organization %s: %w", id, err)
		}
		return nil
	})
	return o, err
}

// List returns the caller's organizations, the one that they joined first first, and where the next page begins.
func (s *Service) List(ctx context.Context, f Filter) ([]Org, *Cursor, error) {
	who, err := auth.RequireUser(ctx)
	if err != nil {
		return nil, nil, err
	}
	return s.listOf(ctx, orgdb.New(s.DB.System), who.AccountID, f)
}

func (s *Service) listOf(ctx context.Context, q *orgdb.Queries, accountID uuid.UUID, f Filter) ([]Org, *Cursor, error) {
	rows, err := q.ListOrgsOfAccount(ctx, orgdb.ListOrgsOfAccountParams{
		AccountID: accountID, AfterAt: f.after().JoinedAt, AfterID: f.after().ID, RowLimit: int32(f.limit() + 1), //nolint:gosec // at most limits.MaxPage
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list organizations: %w", err)
	}
	var next *Cursor
	if len(rows) > f.limit() {
		rows = rows[:f.limit()]
		last := rows[len(rows)-1]
		next = &Cursor{JoinedAt: last.JoinedAt, ID: last.Org.OrgID}
	}
	list := make([]Org, 0, len(rows))
	for _, r := range rows {
		list = append(list, orgOf(r.Org, auth.Role(r.Role), 0))
	}
	return list, next, nil
}

// decision is what a command does once it knows the organization: it may write to tables of its own in tx, and returns
// the events, none = nothing changes.
type decision func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error)

// pure makes a decision of one that needs no table.
func pure(decide func(o state) ([]eventstore.Data, error)) decision {
	return func(_ context.Context, _ pgx.Tx, o state) ([]eventstore.Data, error) { return decide(o) }
}

// change reads an organization's stream, decides and appends. Without an expected version it decides anew when somebody
// else was faster.
func (s *Service) change(ctx context.Context, id uuid.UUID, expected *int, who auth.Principal, need auth.Permission, decide decision) (done eventstore.Appended, err error) {
	return s.decide(ctx, id, expected, who, need, active(need, decide))
}

// withdraw is change for what only takes access away: it goes on while the organization is frozen.
func (s *Service) withdraw(ctx context.Context, id uuid.UUID, who auth.Principal, need auth.Permission, decide decision) (eventstore.Appended, error) {
	return s.decide(ctx, id, nil, who, need, decide)
}

// active makes a decision one that is refused while the organization is frozen, but for its restoring.
func active(need auth.Permission, decide decision) decision {
	return func(ctx context.Context, tx pgx.Tx, o state) ([]eventstore.Data, error) {
		if !o.eraseAt.IsZero() && need != auth.OrgDelete {
			return nil, auth.Frozen()
		}
		return decide(ctx, tx, o)
	}
}

func (s *Service) decide(ctx context.Context, id uuid.UUID, expected *int, who auth.Principal, need auth.Permission, decide decision) (done eventstore.Appended, err error) {
	return s.again(expected, func() (done eventstore.Appended, err error) {
		err = s.DB.InOrg(ctx, id, func(ctx context.Context, tx postgres.OrgTx) error {
			done, err = s.decideTx(ctx, tx, id, expected, who, need, decide)
			return err
		})
		return done, err
	})
}

// again calls try until nobody else was faster.
func (s *Service) again(expected *int, try func() (eventstore.Appended, error)) (done eventstore.Appended, err error) {
	for range decideAttempts {
		done, err = try()
		var conflict *eventstore.VersionConflict
		if !errors.As(err, &conflict) {
			return done, err
		}
		if expected != nil {
			return eventstore.Appended{}, precondition()
		}
	}
	return eventstore.Appended{}, err
}

// decideTx is one try of a change in the caller's transaction, whether or not the organization is frozen. need is the permission that the caller was let in by, asked
// again of the member that they are as of the decision; empty = none is needed.
func (s *Service) decideTx(ctx context.Context, tx pgx.Tx, id uuid.UUID, expected *int, who auth.Principal, need auth.Permission, decide decision) (eventstore.Appended, error) {
	past, err := s.Store.Read(ctx, tx, id, id)
	if err != nil {
		return eventstore.Appended{}, err
	}
	o, err := fold(past)
	if err != nil {
		return eventstore.Appended{}, err
	}
	switch {
	case o.version == 0:
		return eventstore.Appended{}, notFound()
	case need != "" && who.Kind == auth.User && !o.members[who.AccountID].May(need):
		return eventstore.Appended{}, noLonger()
	case expected != nil && *expected != o.version:
		return eventstore.Appended{}, precondition()
	}
	news, err := decide(ctx, tx, o)
	if err != nil {
		return eventstore.Appended{}, err
	}
	return s.Store.Append(ctx, tx, stream(id), o.version, who, news...)
}

func noLonger() *fault.Error {
	return fault.New(fault.Forbidden, "auth.forbidden", "Your role has changed meanwhile, and is not enough for this.")
}

// require is auth.Require for routes that name the organization in their path: a person is asked as the member that they
// are there, whichever organization their token names.
func (s *Service) require(ctx context.Context, id uuid.UUID, perm auth.Permission) (auth.Principal, error) {
	who, err := s.requireToWithdraw(ctx, id, perm)
	if err != nil {
		return auth.Principal{}, err
	}
	return auth.Require(auth.With(ctx, who), id, perm)
}

// Require is require for other rooms whose routes name the organization in their path.
func (s *Service) Require(ctx context.Context, id uuid.UUID, perm auth.Permission) (auth.Principal, error) {
	return s.require(ctx, id, perm)
}

// requireToWithdraw is require for what only takes access away.
func (s *Service) requireToWithdraw(ctx context.Context, id uuid.UUID, perm auth.Permission) (auth.Principal, error) {
	who := auth.From(ctx)
	if who.Kind == auth.User && who.OrgID != id {
		row, err := orgdb.New(s.DB.System).GetRole(ctx, orgdb.GetRoleParams{OrgID: id, AccountID: who.AccountID})
		if errors.Is(err, pgx.ErrNoRows) {
			return auth.Principal{}, notFound()
		}
		if err != nil {
			return auth.Principal{}, fmt.Errorf("read role: %w", err)
		}
		who.OrgID, who.Role, who.Frozen = id, auth.Role(row.Role), row.Frozen
	}
	return auth.RequireToWithdraw(auth.With(ctx, who), id, perm)
}

func stream(id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: id, ID: id, Kind: Kind}
}

func orgOf(row orgdb.Org, role auth.Role, position int64) Org {
	return Org{
		ID: row.OrgID, Name: row.Name, Role: role, Version: int(row.Version), Position: position, EraseAt: row.EraseAt,
		CreatedAt: row.CreatedAt, UpdatedAt: row.UpdatedAt,
	}
}

func precondition() *fault.Error {
	return fault.New(fault.Precondition, "precondition.failed", "Somebody else changed this organization: read it again.")
}
