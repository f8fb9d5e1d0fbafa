package apitest

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest/internal/apitestdb"
	"github.com/testflow/testflow/internal/eventstore"
)

// FragmentKind is the kind of a fragment's stream.
const FragmentKind = "fragment"

// The names below are stored for ever: add, never rename.
const (
	TypeFragmentCreated = "fragment.created"
	TypeFragmentChanged = "fragment.changed"
	TypeFragmentDeleted = "fragment.deleted"
)

// FragmentCreated is the first event of every fragment's stream and its version 1.
type FragmentCreated struct {
	ProjectID  uuid.UUID          `json:"projectId"`
	Definition FragmentDefinition `json:"definition"`
}

// FragmentChanged is a later version, the whole definition anew.
type FragmentChanged struct {
	Version    int                `json:"version"` // the one before it is in the event before
	Definition FragmentDefinition `json:"definition"`
}

// FragmentDeleted is the last event of a fragment. Runs that were made from it can still be read and repeated.
type FragmentDeleted struct {
	Name string `json:"name"`
}

// EventType names the event.
func (FragmentCreated) EventType() string { return TypeFragmentCreated }

// EventType names the event.
func (FragmentChanged) EventType() string { return TypeFragmentChanged }

// EventType names the event.
func (FragmentDeleted) EventType() string { return TypeFragmentDeleted }

func applyFragment(ctx context.Context, q *apitestdb.Queries, e eventstore.Event) error {
	switch e.Type {
	case TypeFragmentCreated:
		var d FragmentCreated
		if err := e.Decode(&d); err != nil {
			return err
		}
		definition, err := json.Marshal(d.Definition)
		if err != nil {
			return err
		}
		return q.InsertFragment(ctx, apitestdb.InsertFragmentParams{
			FragmentID: e.StreamID, OrgID: e.OrgID, ProjectID: d.ProjectID, Name: d.Definition.Name, Uses: orEmpty(d.Definition.uses()),
			Definition: definition, Version: int32(e.Version), CreatedAt: e.RecordedAt.UTC(),
		})
	case TypeFragmentChanged:
		var d FragmentChanged
		if err := e.Decode(&d); err != nil {
			return err
		}
		definition, err := json.Marshal(d.Definition)
		if err != nil {
			return err
		}
		return q.ChangeFragment(ctx, apitestdb.ChangeFragmentParams{
			FragmentID: e.StreamID, OrgID: e.OrgID, Name: d.Definition.Name, Uses: orEmpty(d.Definition.uses()),
			Definition: definition, Version: int32(e.Version), UpdatedAt: e.RecordedAt.UTC(),
		})
	case TypeFragmentDeleted:
		return q.DeleteFragment(ctx, apitestdb.DeleteFragmentParams{OrgID: e.OrgID, FragmentID: e.StreamID})
	}
	return nil
}
