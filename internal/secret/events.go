package secret

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Kind is the kind of a secret's stream.
const Kind = "secret"

// The names below are stored for ever: add, never rename.
const (
	TypeSet     = "secret.set"
	TypeRemoved = "secret.removed"
	TypeUsed    = "secret.used"
)

// Place says where a secret is and what it is called.
type Place struct {
	Scope         string    `json:"scope"` // environment, project, organization
	ProjectID     uuid.UUID `json:"projectId,omitzero"`
	EnvironmentID uuid.UUID `json:"environmentId,omitzero"`
	Name          string    `json:"name"`
}

// Set says that a secret has a new value, which is not here: its first version makes the secret.
type Set struct {
	Place
	Version     int    `json:"version"`
	Description string `json:"description,omitempty"`
}

// Removed is the last event of a secret; its values are gone.
type Removed struct {
	Place
	Version int `json:"version"` // the last
}

// FirstUsed says that a revision of a test used a version of the secret for the first time on behalf of the event's actor.
type FirstUsed struct {
	Place
	Version  int       `json:"version"`
	TestID   uuid.UUID `json:"testId"`
	Revision int       `json:"revision"`
	RunID    uuid.UUID `json:"runId"` // the run that was the first
}

// EventType names the event.
func (Set) EventType() string { return TypeSet }

// EventType names the event.
func (Removed) EventType() string { return TypeRemoved }

// EventType names the event.
func (FirstUsed) EventType() string { return TypeUsed }

// Types are the events of secrets, for the log's registry.
func Types() []eventstore.Type {
	ledger := func(name string, visible eventstore.Visibility, empty func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, Visibility: visible, New: empty}
	}
	return []eventstore.Type{
		ledger(TypeSet, eventstore.VisibleOrganization, func() eventstore.Data { return &Set{} }),
		ledger(TypeRemoved, eventstore.VisibleOrganization, func() eventstore.Data { return &Removed{} }),
		ledger(TypeUsed, eventstore.VisibleAudit, func() eventstore.Data { return &FirstUsed{} }),
	}
}
