package account

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Kind is the kind of an account's stream. Its org_id is the account's id, so no organization sees it.
const Kind = "account"

// The names below are stored for ever: add, never rename.
const (
	TypeRegistered    = "account.registered"
	TypeSignedIn      = "account.signed_in"
	TypeSignInFailed  = "account.sign_in_failed"
	TypeSignedOut     = "account.signed_out"
	TypeRefreshReused = "account.refresh_reused"
)

// Registered is the first event of every account. What tells who it is is sealed with the person's key.
type Registered struct {
	Email    string `json:"email"` // sealed
	Name     string `json:"name"`  // sealed
	Operator bool   `json:"operator"`
}

// SignedIn says that a session began; address and agent stand beside the event.
type SignedIn struct {
	SessionID uuid.UUID `json:"sessionId"`
}

// SignInFailed says that somebody gave a wrong password. Not every one is recorded: see failuresWorthAnEvent.
type SignInFailed struct {
	Failures int `json:"failures"` // in the running window, this one included
}

// SignedOut says that a session was ended by its person.
type SignedOut struct {
	SessionID uuid.UUID `json:"sessionId"`
}

// RefreshReused says that a refresh token was used a second time, so that somebody else has it, and that its session was
// ended for that.
type RefreshReused struct {
	SessionID uuid.UUID `json:"sessionId"`
}

// EventType returns the stored name.
func (Registered) EventType() string { return TypeRegistered }

// EventType returns the stored name.
func (SignedIn) EventType() string { return TypeSignedIn }

// EventType returns the stored name.
func (SignInFailed) EventType() string { return TypeSignInFailed }

// EventType returns the stored name.
func (SignedOut) EventType() string { return TypeSignedOut }

// EventType returns the stored name.
func (RefreshReused) EventType() string { return TypeRefreshReused }

// Types returns the events of accounts. None is live: what an organization may know of its members' sign-ins stands in
// its own log.
func Types() []eventstore.Type {
	event := func(name string, payload func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, New: payload, Visibility: eventstore.VisibleNever}
	}
	return []eventstore.Type{
		event(TypeRegistered, func() eventstore.Data { return new(Registered) }),
		event(TypeSignedIn, func() eventstore.Data { return new(SignedIn) }),
		event(TypeSignInFailed, func() eventstore.Data { return new(SignInFailed) }),
		event(TypeSignedOut, func() eventstore.Data { return new(SignedOut) }),
		event(TypeSignInLimited, func() eventstore.Data { return new(SignInLimited) }),
		event(TypeRefreshReused, func() eventstore.Data { return new(RefreshReused) }),
		event(TypeVerificationSent, func() eventstore.Data { return new(VerificationSent) }),
		event(TypeEmailVerified, func() eventstore.Data { return new(EmailVerified) }),
		event(TypeResetRequested, func() eventstore.Data { return new(ResetRequested) }),
		event(TypePasswordChanged, func() eventstore.Data { return new(PasswordChanged) }),
		event(TypeSessionsEnded, func() eventstore.Data { return new(SessionsEnded) }),
		event(TypeRegistrationTried, func() eventstore.Data { return new(RegistrationTried) }),
		event(TypeErased, func() eventstore.Data { return new(Erased) }),
	}
}

// stream is the history of one account.
func stream(accountID uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: accountID, ID: accountID, Kind: Kind}
}
