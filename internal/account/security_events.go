package account

import "github.com/google/uuid"

// The names below are stored for ever: add, never rename.
const (
	TypeVerificationSent  = "account.verification_sent"
	TypeEmailVerified     = "account.email_verified"
	TypeResetRequested    = "account.password_reset_requested"
	TypePasswordChanged   = "account.password_changed"
	TypeSessionsEnded     = "account.sessions_ended"
	TypeRegistrationTried = "account.registration_tried"
)

// How a password was changed, as stored.
const (
	ByPerson = "person" // who gave the old one
	ByCode   = "code"   // that was mailed to them, or that the operator made for them
)

// VerificationSent says that a code was mailed which verifies the address.
type VerificationSent struct{}

// EmailVerified says that the person showed that they read the mail of their address.
type EmailVerified struct {
	Email string `json:"email"` // sealed
}

// ResetRequested says that somebody who claims to be the person has forgotten the password, and that a code was mailed.
type ResetRequested struct{}

// PasswordChanged says that there is a new password, and which sessions were ended for that.
type PasswordChanged struct {
	By       string      `json:"by"`
	Sessions []uuid.UUID `json:"sessions"` // ended; never null
}

// SessionsEnded says that the person ended sessions of theirs from a list, or all at once.
type SessionsEnded struct {
	Sessions []uuid.UUID `json:"sessions"`
}

// RegistrationTried says that somebody tried to register with the address of an account that there is.
type RegistrationTried struct{}

// EventType returns the stored name.
func (VerificationSent) EventType() string { return TypeVerificationSent }

// EventType returns the stored name.
func (EmailVerified) EventType() string { return TypeEmailVerified }

// EventType returns the stored name.
func (ResetRequested) EventType() string { return TypeResetRequested }

// EventType returns the stored name.
func (PasswordChanged) EventType() string { return TypePasswordChanged }

// EventType returns the stored name.
func (SessionsEnded) EventType() string { return TypeSessionsEnded }

// EventType returns the stored name.
func (RegistrationTried) EventType() string { return TypeRegistrationTried }
