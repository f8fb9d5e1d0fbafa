package org

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
)

const (
	// Kind is the kind of an organization's own stream; its id is the organization's.
	Kind = "org"
	// KindMember is the kind of the stream, in an organization's log, of what one member did to sign in; its id is the
	// account's. It is apart from Kind so that a sign-in doesn't change the organization's version.
	KindMember = "member"
)

// The names below are stored for ever: add, never rename.
const (
	TypeCreated           = "org.created"
	TypeRenamed           = "org.renamed"
	TypeMemberAdded       = "org.member_added"
	TypeMemberRoleChanged = "org.member_role_changed"
	TypeMemberRemoved     = "org.member_removed"

	TypeInvited            = "org.invited"
	TypeInvitationResent   = "org.invitation_resent"
	TypeInvitationRevoked  = "org.invitation_revoked"
	TypeInvitationAccepted = "org.invitation_accepted"
	TypeTransferred        = "org.transferred"
	TypeDeletionScheduled  = "org.deletion_scheduled"
	TypeRestored           = "org.restored"
	TypeVariablesChanged   = "org.variables_changed"

	TypeSignedIn      = "org.signed_in"
	TypeSignInFailed  = "org.sign_in_failed"
	TypeSignedOut     = "org.signed_out"
	TypeRefreshReused = "org.refresh_reused"
)

// Created is the first event of every organization.
type Created struct {
	Name string `json:"name"`
}

// Renamed keeps the old name too, so that the audit log reads by itself.
type Renamed struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// MemberAdded says that a person is in the organization from now on.
type MemberAdded struct {
	AccountID uuid.UUID `json:"accountId"`
	Role      auth.Role `json:"role"`
}

// MemberRoleChanged says what a member may do from now on.
type MemberRoleChanged struct {
	AccountID uuid.UUID `json:"accountId"`
	From      auth.Role `json:"from"`
	To        auth.Role `json:"to"`
}

// MemberRemoved says that a person left or was put out.
type MemberRemoved struct {
	AccountID uuid.UUID `json:"accountId"`
	Role      auth.Role `json:"role"` // the last one
}

// Invited says that somebody was asked to become a member.
type Invited struct {
	InvitationID uuid.UUID `json:"invitationId"`
	Email        string    `json:"email"` // sealed with a key that is the invitation's own, until long after its end
	Role         auth.Role `json:"role"`
	InvitedBy    uuid.UUID `json:"invitedBy"`
	ExpiresAt    time.Time `json:"expiresAt"`
	Mailed       bool      `json:"mailed"` // false: who invited was given the token, there being no mail
}

// InvitationResent says that an invitation has a new token, and the old one is worth nothing.
type InvitationResent struct {
	InvitationID uuid.UUID `json:"invitationId"`
	From         Validity  `json:"from"`
	To           Validity  `json:"to"`
	Mailed       bool      `json:"mailed"`
}

// Validity is on whose word an invitation stands, and until when.
type Validity struct {
	InvitedBy uuid.UUID `json:"invitedBy"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// InvitationRevoked says that an invitation is worth nothing any more.
type InvitationRevoked struct {
	InvitationID uuid.UUID `json:"invitationId"`
	Role         auth.Role `json:"role"`
	Reason       string    `json:"reason"` // revoked, replaced
}

// InvitationAccepted says who it was that was invited; MemberAdded follows it.
type InvitationAccepted struct {
	InvitationID uuid.UUID `json:"invitationId"`
	AccountID    uuid.UUID `json:"accountId"`
	Role         auth.Role `json:"role"`
}

// Transferred says that an admin handed the organization over; what it changed of their roles follows it.
type Transferred struct {
	From uuid.UUID `json:"from"`
	To   uuid.UUID `json:"to"`
}

// DeletionScheduled says that the organization is frozen from now on, and when it will be erased.
type DeletionScheduled struct {
	EraseAt time.Time `json:"eraseAt"`
}

// Restored says that the organization stays.
type Restored struct {
	EraseAt time.Time `json:"eraseAt"` // when it would have been erased
}

// MemberSignedIn is the organization's copy of a member's sign-in.
type MemberSignedIn struct {
	AccountID uuid.UUID `json:"accountId"`
	SessionID uuid.UUID `json:"sessionId"`
}

// MemberSignInFailed is the organization's copy of a wrong password for a member's account.
type MemberSignInFailed struct {
	AccountID uuid.UUID `json:"accountId"`
	Failures  int       `json:"failures"` // in the running window, this one included
}

// MemberSignedOut is the organization's copy of a member's sign-out.
type MemberSignedOut struct {
	AccountID uuid.UUID `json:"accountId"`
	SessionID uuid.UUID `json:"sessionId"`
}

// MemberRefreshReused is the organization's copy of the news that a member's refresh token was used twice.
type MemberRefreshReused struct {
	AccountID uuid.UUID `json:"accountId"`
	SessionID uuid.UUID `json:"sessionId"`
}

// EventType returns the stored name.
func (Created) EventType() string { return TypeCreated }

// EventType returns the stored name.
func (Renamed) EventType() string { return TypeRenamed }

// EventType returns the stored name.
func (MemberAdded) EventType() string { return TypeMemberAdded }

// EventType returns the stored name.
func (MemberRoleChanged) EventType() string { return TypeMemberRoleChanged }

// EventType returns the stored name.
func (MemberRemoved) EventType() string { return TypeMemberRemoved }

// EventType returns the stored name.
func (Invited) EventType() string { return TypeInvited }

// EventType returns the stored name.
func (InvitationResent) EventType() string { return TypeInvitationResent }

// EventType returns the stored name.
func (InvitationRevoked) EventType() string { return TypeInvitationRevoked }

// EventType returns the stored name.
func (InvitationAccepted) EventType() string { return TypeInvitationAccepted }

// EventType returns the stored name.
func (Transferred) EventType() string { return TypeTransferred }

// EventType returns the stored name.
func (DeletionScheduled) EventType() string { return TypeDeletionScheduled }

// VariablesChanged sets and removes variables of the organization; the others stay. Variables are no secrets.
type VariablesChanged struct {
	Set      map[string]string `json:"set,omitempty"`
	Removed  []string          `json:"removed,omitempty"`  // sorted
	Previous map[string]string `json:"previous,omitempty"` // of those that are set or removed and were there
}

// EventType returns the stored name.
func (Restored) EventType() string { return TypeRestored }

// EventType returns the stored name.
func (VariablesChanged) EventType() string { return TypeVariablesChanged }

// EventType returns the stored name.
func (MemberSignedIn) EventType() string { return TypeSignedIn }

// EventType returns the stored name.
func (MemberSignInFailed) EventType() string { return TypeSignInFailed }

// EventType returns the stored name.
func (MemberSignedOut) EventType() string { return TypeSignedOut }

// EventType returns the stored name.
func (MemberRefreshReused) EventType() string { return TypeRefreshReused }

// Types returns the events of organizations. What members did to sign in is seen live by those who may read the audit log.
func Types() []eventstore.Type {
	event := func(name string, seen eventstore.Visibility, payload func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, New: payload, Visibility: seen}
	}
	return slices.Concat(securityTypes(), apiKeyTypes(), []eventstore.Type{
		event(TypeCreated, eventstore.VisibleOrganization, func() eventstore.Data { return new(Created) }),
		event(TypeRenamed, eventstore.VisibleOrganization, func() eventstore.Data { return new(Renamed) }),
		event(TypeMemberAdded, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberAdded) }),
		event(TypeMemberRoleChanged, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberRoleChanged) }),
		event(TypeMemberRemoved, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberRemoved) }),
		event(TypeInvited, eventstore.VisibleAudit, func() eventstore.Data { return new(Invited) }),
		event(TypeInvitationResent, eventstore.VisibleAudit, func() eventstore.Data { return new(InvitationResent) }),
		event(TypeInvitationRevoked, eventstore.VisibleAudit, func() eventstore.Data { return new(InvitationRevoked) }),
		event(TypeInvitationAccepted, eventstore.VisibleAudit, func() eventstore.Data { return new(InvitationAccepted) }),
		event(TypeTransferred, eventstore.VisibleOrganization, func() eventstore.Data { return new(Transferred) }),
		event(TypeDeletionScheduled, eventstore.VisibleOrganization, func() eventstore.Data { return new(DeletionScheduled) }),
		event(TypeRestored, eventstore.VisibleOrganization, func() eventstore.Data { return new(Restored) }),
		event(TypeVariablesChanged, eventstore.VisibleOrganization, func() eventstore.Data { return new(VariablesChanged) }),
		event(TypeSignedIn, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignedIn) }),
		event(TypeSignInFailed, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignInFailed) }),
		event(TypeSignInLimited, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignInLimited) }),
		event(TypeSignedOut, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignedOut) }),
		event(TypeRefreshReused, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberRefreshReused) }),
	})
}
