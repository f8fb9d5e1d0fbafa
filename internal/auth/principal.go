// Package auth says who is asking and what they may do: principals, roles, the one table of permissions, access tokens,
// refresh tokens and password hashes. It reads no table: whether a session lives and who is a member of what is found
// out by account and org, which then put a Principal into the context.
package auth

import (
	"context"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
)

// Kind says what sort of actor a principal is. The values are stored with events.
type Kind string

// The kinds. The zero Kind is nobody.
const (
	User   Kind = "user"   // a person, signed in
	APIKey Kind = "apiKey" // a program of an organization
	System Kind = "system" // TestFlow itself: schedules, retention, sealing
	Worker Kind = "worker" // a region's worker
)

// Principal is who is asking, and from where. The zero value is nobody and may do nothing. It is a value: rooms that
// change it change their copy.
type Principal struct {
	Kind      Kind
	AccountID uuid.UUID // the person, or the key's id for an API key; uuid.Nil for the system
	OrgID     uuid.UUID // the organization that was chosen among the checked memberships; uuid.Nil = none
	Role      Role      // in that organization; empty without one
	SessionID uuid.UUID // the sign-in that the access token belongs to; uuid.Nil for everything but a User
	Operator  bool      // the installation's operator, which is no role of an organization
	Frozen    bool      // the organization is going to be erased: whoever makes a Principal of an organization sets it

	// Of an API key alone. What it may is what its role and its scopes both allow; ask May, never Role.
	Scopes        Scopes
	KeyLimit      int // requests in the window of API keys that this key may make; 0 = what the installation says
	KeyGeneration int // which of the key's secrets was shown, from 1: rotation makes the next

	Address string // remote IP address, without port; may be empty
	Agent   string // User-Agent; may be empty
	Request string // request id; may be empty
}

// ActorKind and the four methods below make a Principal the actor of an event.
func (p Principal) ActorKind() string { return string(p.Kind) }

// ActorID is the id of the person or key, uuid.Nil for the system.
func (p Principal) ActorID() uuid.UUID { return p.AccountID }

// RemoteAddress is the caller's IP address, or empty.
func (p Principal) RemoteAddress() string { return p.Address }

// UserAgent is the caller's User-Agent, or empty.
func (p Principal) UserAgent() string { return p.Agent }

// KeyID is the API key that asks, or uuid.Nil for everybody else.
func (p Principal) KeyID() uuid.UUID {
	if p.Kind != APIKey {
		return uuid.Nil
	}
	return p.AccountID
}

// RequestID is the id of the request that asked, or empty.
func (p Principal) RequestID() string { return p.Request }

// May reports whether the principal has the permission in its organization. The system may do everything. An API key
// needs it twice: by its role and among its scopes.
func (p Principal) May(perm Permission) bool {
	if p.Kind == System {
		return true
	}
	return p.Kind != "" && p.OrgID != uuid.Nil && p.Role.May(perm) && !p.lacksScope(perm) && (!p.Frozen || perm.WhileFrozen())
}

func (p Principal) lacksScope(perm Permission) bool { return p.Kind == APIKey && !p.Scopes.Has(perm) }

type contextKey struct{}

// With returns ctx carrying the principal.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, contextKey{}, p)
}

// From returns the principal of ctx, or the zero Principal, which is nobody.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(contextKey{}).(Principal)
	return p
}

// Require returns the principal of ctx if it has the permission in the organization. Otherwise: nobody is
// fault.Unauthenticated; another organization's principal gets fault.NotFound, since that organization doesn't exist for
// it; a role that falls short is fault.Forbidden, and so are an API key's scopes that do, and a request of somebody who acts
// in no organization (uuid.Nil). In an organization that is going to be erased all but reading and restoring is
// fault.Conflict; what only takes access away asks RequireToWithdraw.
func Require(ctx context.Context, orgID uuid.UUID, perm Permission) (Principal, error) {
	p, err := RequireToWithdraw(ctx, orgID, perm)
	if err == nil && p.Kind != System && p.Frozen && !perm.WhileFrozen() {
		return Principal{}, Frozen()
	}
	return p, err
}

// RequireToWithdraw is Require for what only takes access away, such as to revoke a leaked key: that stays allowed in an
// organization that is going to be erased.
func RequireToWithdraw(ctx context.Context, orgID uuid.UUID, perm Permission) (Principal, error) {
	p := From(ctx)
	switch {
	case p.Kind == "":
		return Principal{}, Unauthenticated()
	case p.Kind == System:
		return p, nil
	case orgID == uuid.Nil:
		return Principal{}, fault.New(fault.Forbidden, "auth.organization_required", "You are acting in no organization: choose one of yours.")
	case p.OrgID != orgID:
		return Principal{}, fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
	case !p.Role.May(perm):
		return Principal{}, fault.New(fault.Forbidden, "auth.forbidden", "Your role %s lacks the permission %s.", p.Role, perm)
	case p.lacksScope(perm):
		return Principal{}, fault.New(fault.Forbidden, "auth.scope_missing", "This API key lacks the scope %s.", perm)
	}
	return p, nil
}

// RequireUser returns the principal of ctx if it is a person with a session, whatever their organization; everybody else
// gets fault.Unauthenticated or, for programs, fault.Forbidden.
func RequireUser(ctx context.Context) (Principal, error) {
	p := From(ctx)
	switch {
	case p.Kind == "":
		return Principal{}, Unauthenticated()
	case p.Kind != User || p.AccountID == uuid.Nil:
		return Principal{}, fault.New(fault.Forbidden, "auth.person_required", "Only a person who is signed in can do this.")
	}
	return p, nil
}

// RequireOperator returns the principal of ctx if it is the installation's operator (or the system itself), otherwise
// fault.Unauthenticated or fault.Forbidden.
func RequireOperator(ctx context.Context) (Principal, error) {
	p := From(ctx)
	switch {
	case p.Kind == "":
		return Principal{}, Unauthenticated()
	case p.Kind != System && (p.Kind != User || !p.Operator):
		return Principal{}, fault.New(fault.Forbidden, "auth.operator_required", "Only the operator of this installation can do this.")
	}
	return p, nil
}

// Frozen returns the fault for a change in an organization that is going to be erased.
func Frozen() *fault.Error {
	return fault.New(fault.Conflict, "org.frozen", "This organization is going to be deleted, and until then nothing in it changes but that access to it is taken away: an admin can restore it.")
}

// Unauthenticated returns the fault for a request without credentials.
func Unauthenticated() *fault.Error {
	return fault.New(fault.Unauthenticated, "auth.required", "Sign in, or send an API key.")
}
