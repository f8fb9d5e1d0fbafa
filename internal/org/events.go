package org

import (
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
	return append(apiKeyTypes(),
		event(TypeCreated, eventstore.VisibleOrganization, func() eventstore.Data { return new(Created) }),
		event(TypeRenamed, eventstore.VisibleOrganization, func() eventstore.Data { return new(Renamed) }),
		event(TypeMemberAdded, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberAdded) }),
		event(TypeMemberRoleChanged, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberRoleChanged) }),
		event(TypeMemberRemoved, eventstore.VisibleOrganization, func() eventstore.Data { return new(MemberRemoved) }),
		event(TypeSignedIn, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignedIn) }),
		event(TypeSignInFailed, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignInFailed) }),
		event(TypeSignInLimited, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignInLimited) }),
		event(TypeSignedOut, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberSignedOut) }),
		event(TypeRefreshReused, eventstore.VisibleAudit, func() eventstore.Data { return new(MemberRefreshReused) }),
	)
}
