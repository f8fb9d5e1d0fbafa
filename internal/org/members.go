package org

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// Members returns who is in an organization, first come first, and where the next page begins.
func (s *Service) Members(ctx context.Context, id uuid.UUID, f Filter) ([]Member, *Cursor, error) {
	if _, err := s.require(ctx, id, auth.MembersRead); err != nil {
		return nil, nil, err
	}
	rows, err := orgdb.New(s.DB.System).ListMembers(ctx, orgdb.ListMembersParams{
		OrgID: id, AfterAt: f.after().JoinedAt, AfterID: f.after().ID, RowLimit: int32(f.limit() + 1), //nolint:gosec // at most limits.MaxPage
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list members: %w", err)
	}
	var next *Cursor
	if len(rows) > f.limit() {
		rows = rows[:f.limit()]
		last := rows[len(rows)-1]
		next = &Cursor{JoinedAt: last.JoinedAt, ID: last.AccountID}
	}
	list := make([]Member, 0, len(rows))
	for _, r := range rows {
		list = append(list, memberOf(orgdb.GetMemberRow(r)))
	}
	return list, next, nil
}

// AddMember makes a person with an account a member. No door offers it: it would tell who has an account. Invitations do.
func (s *Service) AddMember(ctx context.Context, id, accountID uuid.UUID, role auth.Role) (Member, error) {
	who, err := s.require(ctx, id, auth.MembersManage)
	if err != nil {
		return Member{}, err
	}
	if _, err := s.Accounts.Get(ctx, accountID); err != nil {
		return Member{}, err
	}
	done, err := s.change(ctx, id, nil, who, auth.MembersManage, pure(func(o state) ([]eventstore.Data, error) {
		return o.add(roleIn(o, who), accountID, role)
	}))
	if err != nil {
		return Member{}, err
	}
	return s.member(ctx, id, accountID, done.Position)
}

// SetRole changes what a member may do. It returns fault.Forbidden when the member or the role is above the caller and
// fault.Conflict for the last admin.
func (s *Service) SetRole(ctx context.Context, id, accountID uuid.UUID, role auth.Role) (Member, error) {
	who, err := s.require(ctx, id, auth.MembersManage)
	if err != nil {
		return Member{}, err
	}
	done, err := s.change(ctx, id, nil, who, auth.MembersManage, pure(func(o state) ([]eventstore.Data, error) {
		return o.setRole(roleIn(o, who), accountID, role)
	}))
	if err != nil {
		return Member{}, err
	}
	return s.member(ctx, id, accountID, done.Position)
}

// RemoveMember takes a person out of an organization; everybody may take out themselves. It returns the position of the
// event, fault.Forbidden for a member above the caller and fault.Conflict for the last admin.
func (s *Service) RemoveMember(ctx context.Context, id, accountID uuid.UUID) (position int64, err error) {
	need := auth.MembersManage
	if auth.From(ctx).AccountID == accountID {
		need = auth.OrgRead
	}
	who, err := s.requireToWithdraw(ctx, id, need)
	if err != nil {
		return 0, err
	}
	done, err := s.withdraw(ctx, id, who, need, pure(func(o state) ([]eventstore.Data, error) {
		return o.remove(roleIn(o, who), who.AccountID, accountID)
	}))
	return done.Position, err
}

// roleIn is the role of who does something, as of the decision: the one that let them in may have changed since.
func roleIn(o state, who auth.Principal) auth.Role {
	switch who.Kind {
	case auth.System:
		return auth.Admin
	case auth.User:
		return o.members[who.AccountID]
	default:
		return who.Role
	}
}

func (s *Service) member(ctx context.Context, id, accountID uuid.UUID, position int64) (Member, error) {
	row, err := orgdb.New(s.DB.System).GetMember(ctx, orgdb.GetMemberParams{OrgID: id, AccountID: accountID})
	if errors.Is(err, pgx.ErrNoRows) {
		return Member{}, noMember()
	}
	if err != nil {
		return Member{}, fmt.Errorf("read member: %w", err)
	}
	m := memberOf(row)
	m.Position = position
	return m, nil
}

func memberOf(r orgdb.GetMemberRow) Member {
	return Member{AccountID: r.AccountID, Name: r.Name, Email: r.Email, Role: auth.Role(r.Role), JoinedAt: r.JoinedAt}
}
