package project

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// The kinds of the streams of this slice.
const (
	Kind            = "project"
	KindEnvironment = "environment"
)

// The names below are stored for ever: add, never rename.
const (
	TypeCreated   = "project.created"
	TypeRenamed   = "project.renamed"
	TypeDescribed = "project.described"
	TypeDeleted   = "project.deleted"

	TypeSharedVariablesChanged = "project.variables_changed"

	TypeEnvironmentCreated   = "environment.created"
	TypeEnvironmentRenamed   = "environment.renamed"
	TypeEnvironmentDescribed = "environment.described"
	TypeVariablesChanged     = "environment.variables_changed"
	TypeEnvironmentDeleted   = "environment.deleted"
)

// Created is the first event of every project's stream.
type Created struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// Renamed keeps the old name too, so that the audit trail reads by itself.
type Renamed struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Described replaces the description.
type Described struct {
	From        string `json:"from,omitempty"` // absent in events from before it was kept, and when there was none
	Description string `json:"description"`
}

// Deleted is the last event of a project. Its tests and environments are hidden with it; its runs stay.
type Deleted struct {
	Name string `json:"name"`
}

// EnvironmentCreated is the first event of every environment's stream.
type EnvironmentCreated struct {
	ProjectID   uuid.UUID         `json:"projectId"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Variables   map[string]string `json:"variables,omitempty"`
}

// EnvironmentRenamed keeps the old name too.
type EnvironmentRenamed struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// EnvironmentDescribed replaces the description.
type EnvironmentDescribed struct {
	From        string `json:"from,omitempty"` // as in Described
	Description string `json:"description"`
}

// VariablesChanged sets and removes variables; the others stay. Variables are no secrets.
type VariablesChanged struct {
	Set     map[string]string `json:"set,omitempty"`
	Removed []string          `json:"removed,omitempty"` // sorted
	// Previous are the values before, of those that are set or removed and were there; absent in events from before it was kept.
	Previous map[string]string `json:"previous,omitempty"`
}

// SharedVariablesChanged sets and removes variables of the project; the others stay.
type SharedVariablesChanged VariablesChanged

// EnvironmentDeleted is the last event of an environment.
type EnvironmentDeleted struct {
	Name string `json:"name"`
}

// EventType names the event.
func (Created) EventType() string { return TypeCreated }

// EventType names the event.
func (Renamed) EventType() string { return TypeRenamed }

// EventType names the event.
func (Described) EventType() string { return TypeDescribed }

// EventType names the event.
func (Deleted) EventType() string { return TypeDeleted }

// EventType names the event.
func (SharedVariablesChanged) EventType() string { return TypeSharedVariablesChanged }

// EventType names the event.
func (EnvironmentCreated) EventType() string { return TypeEnvironmentCreated }

// EventType names the event.
func (EnvironmentRenamed) EventType() string { return TypeEnvironmentRenamed }

// EventType names the event.
func (EnvironmentDescribed) EventType() string { return TypeEnvironmentDescribed }

// EventType names the event.
func (VariablesChanged) EventType() string { return TypeVariablesChanged }

// EventType names the event.
func (EnvironmentDeleted) EventType() string { return TypeEnvironmentDeleted }

// Types are the events of projects and environments, for the log's registry.
func Types() []eventstore.Type {
	ledger := func(name string, empty func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, Visibility: eventstore.VisibleOrganization, New: empty}
	}
	return []eventstore.Type{
		ledger(TypeCreated, func() eventstore.Data { return &Created{} }),
		ledger(TypeRenamed, func() eventstore.Data { return &Renamed{} }),
		ledger(TypeDescribed, func() eventstore.Data { return &Described{} }),
		ledger(TypeDeleted, func() eventstore.Data { return &Deleted{} }),
		ledger(TypeSharedVariablesChanged, func() eventstore.Data { return &SharedVariablesChanged{} }),
		ledger(TypeEnvironmentCreated, func() eventstore.Data { return &EnvironmentCreated{} }),
		ledger(TypeEnvironmentRenamed, func() eventstore.Data { return &EnvironmentRenamed{} }),
		ledger(TypeEnvironmentDescribed, func() eventstore.Data { return &EnvironmentDescribed{} }),
		ledger(TypeVariablesChanged, func() eventstore.Data { return &VariablesChanged{} }),
		ledger(TypeEnvironmentDeleted, func() eventstore.Data { return &EnvironmentDeleted{} }),
	}
}
