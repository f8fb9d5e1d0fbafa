package org

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// The names below are stored for ever: add, never rename.
const (
	TypePasswordChanged        = "org.member_password_changed"
	TypePasswordResetRequested = "org.member_password_reset_requested"
	TypeSessionsEnded          = "org.member_sessions_ended"
	TypeEmailVerified          = "org.member_email_verified"
)

// MemberPasswordChanged is the organization's copy of the news that a member has another password.
type MemberPasswordChanged struct {
	AccountID uuid.UUID   `json:"accountId"`
	By        string      `json:"by"`       // person or code: see account.ByPerson
	Sessions  []uuid.UUID `json:"sessions"` // that were ended for it; never null
}

// MemberPasswordResetRequested says that somebody who claims to be the member had a code mailed to them.
type MemberPasswordResetRequested struct {
	AccountID uuid.UUID `json:"accountId"`
}

// MemberSessionsEnded says that a member ended sessions of theirs from the list, or all at once.
type MemberSessionsEnded struct {
	AccountID uuid.UUID   `json:"accountId"`
	Sessions  []uuid.UUID `json:"sessions"`
}

// MemberEmailVerified says that a member showed that they read the mail of their address.
type MemberEmailVerified struct {
	AccountID uuid.UUID `json:"accountId"`
}

// EventType returns the stored name.
func (MemberPasswordChanged) EventType() string { return TypePasswordChanged }

// EventType returns the stored name.
func (MemberPasswordResetRequested) EventType() string { return TypePasswordResetRequested }

// EventType returns the stored name.
func (MemberSessionsEnded) EventType() string { return TypeSessionsEnded }

// EventType returns the stored name.
func (MemberEmailVerified) EventType() string { return TypeEmailVerified }

// securityTypes are the copies of what members do about their own accounts.
func securityTypes() []eventstore.Type {
	event := func(name string, payload func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, New: payload, Visibility: eventstore.VisibleAudit}
	}
	return []eventstore.Type{
		event(TypePasswordChanged, func() eventstore.Data { return new(MemberPasswordChanged) }),
		event(TypePasswordResetRequested, func() eventstore.Data { return new(MemberPasswordResetRequested) }),
		event(TypeSessionsEnded, func() eventstore.Data { return new(MemberSessionsEnded) }),
		event(TypeEmailVerified, func() eventstore.Data { return new(MemberEmailVerified) }),
	}
}
