package org

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
)

// Erased is the name of a person who has been erased, where somebody must be named.
const Erased = "erased"

// AsOf is a point in the past: a position of the log, or an instant. Exactly one is set.
type AsOf struct {
	Position int64     // this event and earlier ones
	At       time.Time // what was recorded then or earlier
}

// ParseAsOf reads a position, which is a number, or an instant as RFC 3339 writes it.
func ParseAsOf(text string) (AsOf, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return AsOf{Position: n}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return AsOf{At: at}, nil
	}
	return AsOf{}, asOfInvalid("must be a position of the log, or an instant such as 2026-11-22T20:00:00Z")
}

func asOfInvalid(detail string) *fault.Error {
	f := fault.New(fault.Invalid, "request.invalid", "The request has a fault.")
	f.Fields = []fault.Field{{Parameter: "asOf", Detail: detail}}
	return f
}

func (a AsOf) includes(e eventstore.Event) bool {
	if a.At.IsZero() {
		return e.Position <= a.Position
	}
	return !e.RecordedAt.After(a.At)
}

// past is an organization at a point in its history, folded from its log alone.
type past struct {
	state
	createdAt, updatedAt time.Time
	joinedAt             map[uuid.UUID]time.Time
}

// foldPast folds the events up to a point. Who becomes a member joins then, by whatever event.
func foldPast(events []eventstore.Event, point AsOf) (past, error) {
	p := past{state: newState(), joinedAt: map[uuid.UUID]time.Time{}}
	for _, e := range events {
		if !point.includes(e) {
			break
		}
		name, eraseAt := p.name, p.eraseAt
		if err := p.apply(e); err != nil {
			return past{}, fmt.Errorf("fold %s: %w", e.ID(), err)
		}
		if p.version == 0 {
			p.createdAt = e.RecordedAt
		}
		if name != p.name || !eraseAt.Equal(p.eraseAt) || e.Type == TypeVariablesChanged {
			p.updatedAt = e.RecordedAt
		}
		p.version = e.Version
		for person := range p.members {
			if _, was := p.joinedAt[person]; !was {
				p.joinedAt[person] = e.RecordedAt
			}
		}
		for person := range p.joinedAt {
			if _, in := p.members[person]; !in {
				delete(p.joinedAt, person)
			}
		}
	}
	return p, nil
}

// GetAsOf returns an organization as it was, with the role that the caller had; it needs auth.AuditRead. Before it was
// made it is fault.NotFound, which says when that was, and in the future fault.Invalid.
func (s *Service) GetAsOf(ctx context.Context, id uuid.UUID, point AsOf) (Org, error) {
	p, _, err := s.asOf(ctx, id, point)
	if err != nil {
		return Org{}, err
	}
	o := Org{
		ID: id, Name: p.name, Role: p.members[auth.From(ctx).AccountID], Version: p.version, CreatedAt: p.createdAt, UpdatedAt: p.updatedAt,
	}
	if o.Variables = p.variables; o.Variables == nil {
		o.Variables = map[string]string{}
	}
	if !p.eraseAt.IsZero() {
		o.EraseAt = &p.eraseAt
	}
	return o, nil
}

// MembersAsOf returns who was in an organization and what they were, first come first, and where the next page begins.
// Names and addresses are those of today; of who has left, the name alone. It needs auth.AuditRead.
func (s *Service) MembersAsOf(ctx context.Context, id uuid.UUID, point AsOf, f Filter) ([]Member, *Cursor, error) {
	p, now, err := s.asOf(ctx, id, point)
	if err != nil {
		return nil, nil, err
	}
	list := make([]Member, 0, len(p.members))
	for person, role := range p.members {
		list = append(list, Member{AccountID: person, Role: role, JoinedAt: p.joinedAt[person]})
	}
	slices.SortFunc(list, func(a, b Member) int { return compareJoined(a.JoinedAt, a.AccountID, b.JoinedAt, b.AccountID) })
	from := f.after()
	list = slices.DeleteFunc(list, func(m Member) bool { return compareJoined(m.JoinedAt, m.AccountID, from.JoinedAt, from.ID) <= 0 })
	var next *Cursor
	if len(list) > f.limit() {
		list = list[:f.limit()]
		last := list[len(list)-1]
		next = &Cursor{JoinedAt: last.JoinedAt, ID: last.AccountID}
	}
	return list, next, s.nameMembers(ctx, list, now)
}

func compareJoined(at time.Time, id uuid.UUID, otherAt time.Time, other uuid.UUID) int {
	return cmp.Or(at.Compare(otherAt), slices.Compare(id[:], other[:]))
}

// nameMembers fills in who they are; now is the organization of today.
func (s *Service) nameMembers(ctx context.Context, list []Member, now past) error {
	ids := make([]uuid.UUID, len(list))
	for i := range list {
		ids[i] = list[i].AccountID
	}
	rows, err := orgdb.New(s.DB.System).NamePeople(ctx, ids)
	if err != nil {
		return fmt.Errorf("name members: %w", err)
	}
	people := make(map[uuid.UUID]orgdb.NamePeopleRow, len(rows))
	for _, r := range rows {
		people[r.AccountID] = r
	}
	for i := range list {
		who, known := people[list[i].AccountID]
		_, in := now.members[list[i].AccountID]
		switch {
		case !known:
			list[i].Name = Erased
		case in:
			list[i].Name, list[i].Email = who.Name, who.Email
		default:
			list[i].Name = who.Name
		}
	}
	return nil
}

// asOf folds an organization up to a point, and up to today.
func (s *Service) asOf(ctx context.Context, id uuid.UUID, point AsOf) (then, now past, err error) {
	if _, err := s.require(ctx, id, auth.AuditRead); err != nil {
		return past{}, past{}, err
	}
	err = s.DB.InOrg(ctx, id, func(ctx context.Context, tx postgres.OrgTx) error {
		if err := s.checkPast(ctx, tx, point); err != nil {
			return err
		}
		events, err := s.Store.Read(ctx, tx, id, id)
		if err != nil {
			return err
		}
		if then, err = foldPast(events, point); err != nil {
			return err
		}
		if then.version == 0 {
			return notYet(events)
		}
		now, err = foldPast(events, AsOf{Position: events[len(events)-1].Position})
		return err
	})
	if err != nil {
		return past{}, past{}, err
	}
	return then, now, nil
}

// notYet says when an organization began, to whoever may read its past.
func notYet(events []eventstore.Event) *fault.Error {
	if len(events) == 0 {
		return notFound()
	}
	first := events[0]
	return fault.New(fault.NotFound, "org.not_yet", "The organization didn't exist yet: it was made at %s, at position %d of the log.",
		first.RecordedAt.UTC().Format(time.RFC3339Nano), first.Position)
}

// checkPast refuses a point that isn't settled: the answer could become another one.
func (s *Service) checkPast(ctx context.Context, tx pgx.Tx, point AsOf) error {
	var now time.Time
	if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	fence, err := s.Store.Fence(ctx, tx)
	if err != nil {
		return err
	}
	if point.At.After(now) || point.Position > fence {
		return asOfInvalid("must not be in the future")
	}
	return nil
}
