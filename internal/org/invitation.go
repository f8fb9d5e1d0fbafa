package org

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

// What became of an invitation, as stored.
const (
	endAccepted = "accepted"
	endRevoked  = "revoked"
	endReplaced = "replaced"
)

// invitation is what decisions need of an open one: what it gives, and on whose word.
type invitation struct {
	role auth.Role
	by   uuid.UUID
}

func (o *state) applyInvitation(e eventstore.Event) error {
	switch e.Type {
	case TypeInvited:
		var d Invited
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.invited[d.InvitationID] = invitation{role: d.Role, by: d.InvitedBy}
	case TypeInvitationResent:
		var d InvitationResent
		if err := e.Decode(&d); err != nil {
			return err
		}
		o.invited[d.InvitationID] = invitation{role: o.invited[d.InvitationID].role, by: d.To.InvitedBy}
	case TypeInvitationRevoked:
		var d InvitationRevoked
		if err := e.Decode(&d); err != nil {
			return err
		}
		delete(o.invited, d.InvitationID)
	case TypeInvitationAccepted:
		var d InvitationAccepted
		if err := e.Decode(&d); err != nil {
			return err
		}
		delete(o.invited, d.InvitationID)
	}
	return nil
}

// mayInvite decides whether somebody of the role may invite as that: nobody gives more than they have.
func mayInvite(actor, role auth.Role) error {
	if err := checkRole(role); err != nil {
		return err
	}
	if !actor.AtLeast(role) || !actor.May(auth.MembersManage) {
		return aboveYou()
	}
	return nil
}

// manageInvitation decides whether somebody of the role may revoke an open invitation or send it again. One that gives
// more than they have is not theirs to touch.
func (o state) manageInvitation(actor auth.Role, id uuid.UUID) error {
	i, open := o.invited[id]
	switch {
	case !open:
		return invitationNotFound()
	case !actor.AtLeast(i.role):
		return aboveYou()
	}
	return nil
}

// accept decides that the person whom an invitation was for becomes a member. It stands on the word of who invited: when
// they have left, or could not give that role any more, it is worth nothing.
func (o state) accept(id, person uuid.UUID) ([]eventstore.Data, error) {
	i, open := o.invited[id]
	switch {
	case !open:
		return nil, invitationNotFound()
	case mayInvite(o.members[i.by], i.role) != nil:
		return nil, invitationWithdrawn()
	}
	added, err := o.add(o.members[i.by], person, i.role)
	if err != nil {
		return nil, err
	}
	return append([]eventstore.Data{InvitationAccepted{InvitationID: id, AccountID: person, Role: i.role}}, added...), nil
}

func invitationNotFound() *fault.Error {
	return fault.New(fault.NotFound, "invitation.not_found", "There is no such invitation: it was accepted, revoked or replaced by a newer one, or never was.")
}

func invitationExpired() *fault.Error {
	return fault.New(fault.Conflict, "invitation.expired", "This invitation has expired: ask for it to be sent again.")
}

func invitationWithdrawn() *fault.Error {
	return fault.New(fault.Conflict, "invitation.withdrawn", "Who invited you may not do so any more: ask another member of the organization for an invitation.")
}

func otherAddress() *fault.Error {
	return fault.New(fault.Forbidden, "invitation.other_address", "This invitation is for another e-mail address: sign in with the account that has it, or register with it.")
}

func badEmail() error {
	return account.Invalid([]fault.Field{{Pointer: "/email", Detail: "This is no e-mail address."}})
}
