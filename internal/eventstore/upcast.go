package eventstore

import (
	"encoding/json"
	"fmt"
)

// check says what is wrong with a registration.
func (t Type) check() error {
	switch {
	case t.Name == "":
		return fmt.Errorf("a type has no name")
	case t.Lane != Ledger && t.Lane != Runs:
		return fmt.Errorf("%s: lane %q is none", t.Name, t.Lane)
	case t.Schema < 1 || t.Schema > 1<<15-1:
		return fmt.Errorf("%s: schema %d is not from 1 to 32767", t.Name, t.Schema)
	case t.New == nil || t.New().EventType() != t.Name:
		return fmt.Errorf("%s: New makes no %s", t.Name, t.Name)
	case t.Visibility == "":
		return fmt.Errorf("%s: no visibility", t.Name)
	}
	for n := 1; n < t.Schema; n++ {
		if t.Upcast[n] == nil {
			return fmt.Errorf("%s: nothing lifts schema %d to %d", t.Name, n, n+1)
		}
	}
	if len(t.Upcast) != t.Schema-1 {
		return fmt.Errorf("%s: %d upcasters, but %d steps to schema %d", t.Name, len(t.Upcast), t.Schema-1, t.Schema)
	}
	return nil
}

// Lift brings data of the given schema to the type's current one. Data of a newer schema, written by a newer process
// that runs beside this one, is returned as it is: fields are only ever added, and a change of meaning is a new name.
func (t Type) Lift(schema int, data json.RawMessage) (json.RawMessage, error) {
	for n := schema; n < t.Schema; n++ {
		lift := t.Upcast[n]
		if lift == nil { // nobody appended that
			return nil, fmt.Errorf("%s has no schema %d", t.Name, n)
		}
		lifted, err := lift(data)
		if err != nil {
			return nil, fmt.Errorf("lift %s from schema %d: %w", t.Name, n, err)
		}
		data = lifted
	}
	return data, nil
}

// lift brings an event that was read to the current shape of its type. A type that nobody registered here stays as it is.
func (s *Store) lift(e *Event) error {
	t, ok := s.types[e.Type]
	if !ok || e.Schema >= t.Schema {
		return nil
	}
	data, err := t.Lift(e.Schema, e.Data)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.ID(), err)
	}
	e.Data, e.Schema = data, t.Schema
	return nil
}
