package org

import (
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
)

// KindAPIKey is the kind of an API key's stream; its id is the key's. What is told of its use stands in it too, so the key's
// version, which only a change raises, isn't the stream's: commands are serialized by the key's row.
const KindAPIKey = "apiKey"

// The names below are stored for ever: add, never rename.
//
//nolint:gosec // names of events, which it takes for credentials
const (
	TypeAPIKeyCreated     = "org.api_key_created"
	TypeAPIKeyChanged     = "org.api_key_changed"
	TypeAPIKeyRotated     = "org.api_key_rotated"
	TypeAPIKeyRevoked     = "org.api_key_revoked"
	TypeAPIKeyFromAddress = "org.api_key_used_from_new_address"
	TypeAPIKeyRefused     = "org.api_key_refused"
)

// KeySettings is what can be set of an API key, as events and the read model hold it. It holds nothing of the secret.
type KeySettings struct {
	Name             string            `json:"name"`
	Scopes           []auth.Permission `json:"scopes"`                     // in the order of the table, no shorthands
	ExpiresAt        *time.Time        `json:"expiresAt,omitempty"`        // nil = never
	AllowedAddresses []string          `json:"allowedAddresses,omitempty"` // networks; none = from everywhere
	RateLimit        int               `json:"rateLimit,omitempty"`        // requests in the window of keys; 0 = the installation's
}

// APIKeyCreated is the first event of every API key.
type APIKeyCreated struct {
	KeySettings

	Role     auth.Role `json:"role"`     // the most that it ever is: its maker's role then
	HolderID uuid.UUID `json:"holderId"` // the member who saw the secret
}

// APIKeyChanged says how a key was and how it is from now on.
type APIKeyChanged struct {
	From KeySettings `json:"from"`
	To   KeySettings `json:"to"`
}

// APIKeyRotated says that a key has a new secret.
type APIKeyRotated struct {
	Generation       int        `json:"generation"` // of the new secret
	PreviousUntil    *time.Time `json:"previousUntil,omitempty"`
	HolderID         uuid.UUID  `json:"holderId"`
	PreviousHolderID uuid.UUID  `json:"previousHolderId"`
}

// APIKeyRevoked says that a key is no good any more.
type APIKeyRevoked struct {
	Name string `json:"name"`
}

// APIKeyUsedFromNewAddress says that somebody showed a key's secret from a network from which, as far as is remembered,
// nobody had. The whole address stands beside it, as the actor's.
type APIKeyUsedFromNewAddress struct {
	KeyID   uuid.UUID `json:"keyId"`
	Network string    `json:"network"` // /24 of IPv4, /64 of IPv6
	Allowed bool      `json:"allowed"` // false = the key may not be used from there and was refused: it may have leaked
}

// APIKeyRefused says that somebody showed the right secret of a key that is no good any more: a program that was forgotten,
// or a leak. It is told once an hour of a key, however often it was shown.
type APIKeyRefused struct {
	KeyID   uuid.UUID     `json:"keyId"`
	Reason  RefusalReason `json:"reason"`
	Network string        `json:"network,omitempty"` // /24 of IPv4, /64 of IPv6; empty = nobody knows
}

// RefusalReason says why a key is no good.
type RefusalReason string

// The reasons. They are stored.
const (
	RefusedRevoked RefusalReason = "revoked"
	RefusedRotated RefusalReason = "rotated" // the secret before the last one, after its overlap
	RefusedExpired RefusalReason = "expired"
)

// EventType returns the stored name.
func (APIKeyRefused) EventType() string { return TypeAPIKeyRefused }

// EventType returns the stored name.
func (APIKeyCreated) EventType() string { return TypeAPIKeyCreated }

// EventType returns the stored name.
func (APIKeyChanged) EventType() string { return TypeAPIKeyChanged }

// EventType returns the stored name.
func (APIKeyRotated) EventType() string { return TypeAPIKeyRotated }

// EventType returns the stored name.
func (APIKeyRevoked) EventType() string { return TypeAPIKeyRevoked }

// EventType returns the stored name.
func (APIKeyUsedFromNewAddress) EventType() string { return TypeAPIKeyFromAddress }

// apiKeyTypes are the events of API keys; who may not read the audit log has no business with them.
func apiKeyTypes() []eventstore.Type {
	event := func(name string, payload func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, New: payload, Visibility: eventstore.VisibleAudit}
	}
	return []eventstore.Type{
		event(TypeAPIKeyCreated, func() eventstore.Data { return new(APIKeyCreated) }),
		event(TypeAPIKeyChanged, func() eventstore.Data { return new(APIKeyChanged) }),
		event(TypeAPIKeyRotated, func() eventstore.Data { return new(APIKeyRotated) }),
		event(TypeAPIKeyRevoked, func() eventstore.Data { return new(APIKeyRevoked) }),
		event(TypeAPIKeyRefused, func() eventstore.Data { return new(APIKeyRefused) }),
		event(TypeAPIKeyFromAddress, func() eventstore.Data { return new(APIKeyUsedFromNewAddress) }),
	}
}

func apiKeyStream(orgID, id uuid.UUID) eventstore.Stream {
	return eventstore.Stream{OrgID: orgID, ID: id, Kind: KindAPIKey}
}
