// Package org holds organizations, the tenants: their name, their members and what each may do, and the key that seals
// their secrets. It also puts together what takes a person and an organization: registration, sign-in, and the check of
// every request. Projects and all else of a tenant lie above it.
package org

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

// defaultName is what an organization is called when nobody named it. It doesn't hold the person's name: events are for
// ever, and a person can ask to be forgotten.
const defaultName = "My organization"

// state is what decisions need of an organization, folded from its stream.
type state struct {
	name      string
	members   map[uuid.UUID]auth.Role
	invited   map[uuid.UUID]invitation // open ones, expired ones too
	variables map[string]string
	eraseAt   time.Time // zero = it stays; otherwise it is frozen
	version   int       // 0 = there is no such organization
}

func newState() state {
	return state{members: map[uuid.UUID]auth.Role{}, invited: map[uuid.UUID]invitation{}}
}

func fold(events []eventstore.Event) (state, error) {
	o := newState()
	for _, e := range events {
		if err := o.apply(e); err != nil {
			return state{}, fmt.Errorf("fold %s: %w", e.ID(), err)
		}
		o.version = e.Version
	}
	return o, nil
}

func (o *state) apply(e eventstore.Event) error {
	switch e.Type {
	case TypeCreated:
		var d Created
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.name = d.Name
	case TypeRenamed:
		var d Renamed
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.name = d.To
	case TypeMemberAdded:
		var d MemberAdded
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.members[d.AccountID] = d.Role
	case TypeMemberRoleChanged:
		var d MemberRoleChanged
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.members[d.AccountID] = d.To
	case TypeMemberRemoved:
		var d MemberRemoved
		if err := e.Decode(&d); err != nil {
			return err
		}
		delete(o.members, d.AccountID)
	case TypeInvited, TypeInvitationResent, TypeInvitationRevoked, TypeInvitationAccepted:
		return o.applyInvitation(e)
	case TypeDeletionScheduled:
		var d DeletionScheduled
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.eraseAt = d.EraseAt
	case TypeVariablesChanged:
		return o.applyVariables(e)
	case TypeRestored:
		o.eraseAt = time.Time{}
	}
	return nil
}

// create decides the first events of an organization: its founder is its admin.
func create(name string, founder uuid.UUID) []eventstore.Data {
	return []eventstore.Data{Created{Name: name}, MemberAdded{AccountID: founder, Role: auth.Admin}}
}

// rename decides; the same name changes nothing.
func (o state) rename(name string) ([]eventstore.Data, error) {
	clean, problem := account.CleanName(name)
	if problem != "" {
		return nil, account.Invalid([]fault.Field{{Pointer: "/name", Detail: problem}})
	}
	if clean == o.name {
		return nil, nil
	}
	return []eventstore.Data{Renamed{From: o.name, To: clean}}, nil
}

// add decides that a person becomes a member; who is one already stays as they are. actor is the role of the member who
// does it: nobody gives more than they have.
func (o state) add(actor auth.Role, person uuid.UUID, role auth.Role) ([]eventstore.Data, error) {
	if err := checkRole(role); err != nil {
		return nil, err
	}
	if !actor.AtLeast(role) {
		return nil, aboveYou()
	}
	if _, in := o.members[person]; in {
		return nil, fault.New(fault.Conflict, "org.already_member", "This person is a member already.")
	}
	return []eventstore.Data{MemberAdded{AccountID: person, Role: role}}, nil
}

// setRole decides a member's new role. Nobody touches a member above them or gives more than they have, and the last
// admin stays one.
func (o state) setRole(actor auth.Role, person uuid.UUID, role auth.Role) ([]eventstore.Data, error) {
	if err := checkRole(role); err != nil {
		return nil, err
	}
	was, in := o.members[person]
	switch {
	case !in:
		return nil, noMember()
	case !actor.AtLeast(was) || !actor.AtLeast(role):
		return nil, aboveYou()
	case was == role:
		return nil, nil
	case o.isLastAdmin(person):
		return nil, lastAdmin()
	}
	return []eventstore.Data{MemberRoleChanged{AccountID: person, From: was, To: role}}, nil
}

// transfer decides that an admin makes another member one and steps down to a role of their choice, both or neither.
func (o state) transfer(admin, person uuid.UUID, role auth.Role) ([]eventstore.Data, error) {
	if err := checkRole(role); err != nil {
		return nil, err
	}
	was, in := o.members[person]
	switch {
	case person == admin:
		return nil, account.Invalid([]fault.Field{{Pointer: "/userId", Detail: "This is you: name another member."}})
	case !in:
		return nil, noMember()
	case role == auth.Admin:
		return nil, account.Invalid([]fault.Field{{Pointer: "/role", Detail: "To stay an admin beside them, change their role and keep yours."}})
	}
	news := []eventstore.Data{Transferred{From: admin, To: person}}
	if was != auth.Admin {
		news = append(news, MemberRoleChanged{AccountID: person, From: was, To: auth.Admin})
	}
	return append(news, MemberRoleChanged{AccountID: admin, From: o.members[admin], To: role}), nil
}

// scheduleDeletion decides that the organization is frozen, and erased at that time; a second time changes nothing.
func (o state) scheduleDeletion(eraseAt time.Time) []eventstore.Data {
	if !o.eraseAt.IsZero() {
		return nil
	}
	return []eventstore.Data{DeletionScheduled{EraseAt: eraseAt}}
}

// restore decides that a frozen organization stays; one that isn't frozen doesn't change.
func (o state) restore() []eventstore.Data {
	if o.eraseAt.IsZero() {
		return nil
	}
	return []eventstore.Data{Restored{EraseAt: o.eraseAt}}
}

// remove decides that a member leaves. Everybody may leave by themselves, except the last admin.
func (o state) remove(actor auth.Role, self, person uuid.UUID) ([]eventstore.Data, error) {
	was, in := o.members[person]
	switch {
	case !in:
		return nil, noMember()
	case self != person && !actor.AtLeast(was):
		return nil, aboveYou()
	case o.isLastAdmin(person):
		return nil, lastAdmin()
	}
	return []eventstore.Data{MemberRemoved{AccountID: person, Role: was}}, nil
}

func (o state) isLastAdmin(person uuid.UUID) bool {
	if o.members[person] != auth.Admin {
		return false
	}
	for other, role := range o.members {
		if other != person && role == auth.Admin {
			return false
		}
	}
	return true
}

func checkRole(role auth.Role) error {
	if _, ok := auth.ParseRole(string(role)); !ok {
		return account.Invalid([]fault.Field{{Pointer: "/role", Detail: "A role is admin, manager, developer or viewer."}})
	}
	return nil
}

func notFound() *fault.Error {
	return fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
}

func noMember() *fault.Error {
	return fault.New(fault.NotFound, "org.member_not_found", "There is no such member.")
}

func aboveYou() *fault.Error {
	return fault.New(fault.Forbidden, "org.role_above_yours", "You cannot give a role above yours, nor change a member who has one.")
}

func lastAdmin() *fault.Error {
	return fault.New(fault.Conflict, "org.last_admin", "An organization keeps at least one admin: make somebody else an admin first.")
}
