package apitest

import (
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Kind is the kind of a test's stream.
const Kind = "test"

// The names below are stored for ever: add, never rename.
const (
	TypeCreated = "test.created"
	TypeRevised = "test.revised"
	TypeDeleted = "test.deleted"
)

// Created is the first event of every test's stream and its revision 1.
type Created struct {
	ProjectID   uuid.UUID  `json:"projectId"`
	Definition  Definition `json:"definition"`
	ContentHash string     `json:"contentHash"` // hex SHA-256 of the canonical definition
}

// Revised is a later revision, the whole definition anew.
type Revised struct {
	Revision     int        `json:"revision"`
	Definition   Definition `json:"definition"`
	ContentHash  string     `json:"contentHash"`
	RestoredFrom int        `json:"restoredFrom,omitempty"` // the revision that was taken over; 0 = none
}

// Deleted is the last event of a test. Its runs and revisions stay.
type Deleted struct {
	Name string `json:"name"`
}

// EventType names the event.
func (Created) EventType() string { return TypeCreated }

// EventType names the event.
func (Revised) EventType() string { return TypeRevised }

// EventType names the event.
func (Deleted) EventType() string { return TypeDeleted }

// Types are the events of tests and fragments, for the log's registry.
func Types() []eventstore.Type {
	ledger := func(name string, empty func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Ledger, Schema: 1, Visibility: eventstore.VisibleOrganization, New: empty}
	}
	return []eventstore.Type{
		ledger(TypeCreated, func() eventstore.Data { return &Created{} }),
		ledger(TypeRevised, func() eventstore.Data { return &Revised{} }),
		ledger(TypeDeleted, func() eventstore.Data { return &Deleted{} }),
		ledger(TypeFragmentCreated, func() eventstore.Data { return &FragmentCreated{} }),
		ledger(TypeFragmentChanged, func() eventstore.Data { return &FragmentChanged{} }),
		ledger(TypeFragmentDeleted, func() eventstore.Data { return &FragmentDeleted{} }),
	}
}
