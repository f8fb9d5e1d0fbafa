package testspec

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/testflow/testflow/internal/limits"
)

// What a Scope holds for the time of a step, a loop or a fragment. Looked up in this order: the rows of loops from the
// innermost on, the parameters of fragments, captures, the first layer (the run's own variables), the variables of
// steps, the other layers.

// iteration is where a step stands within repeat or forEach.
type iteration struct {
	outer *iteration
	index int
	as    string
	row   any // a JSON value; nil within repeat
	has   bool
}

// Iterate enters an iteration of repeat or forEach: its index from 0, and the row (nil within repeat), which is called
// DefaultRow. EndIteration leaves it.
func (s *Scope) Iterate(index int, row json.RawMessage) error {
	return s.IterateAs(index, DefaultRow, row)
}

// IterateAs is Iterate with a name for the row.
func (s *Scope) IterateAs(index int, as string, row json.RawMessage) error {
	it := &iteration{outer: s.iteration, index: index, as: as}
	if row != nil {
		var err error
		if it.row, err = decodeJSON(row); err != nil {
			return err
		}
		it.has = true
	}
	s.iteration = it
	return nil
}

// EndIteration leaves the innermost iteration.
func (s *Scope) EndIteration() {
	if s.iteration != nil {
		s.iteration = s.iteration.outer
	}
}

// EnterStep lays a step's own variables over all but captures and the run's, until LeaveStep.
func (s *Scope) EnterStep(variables map[string]string) { s.steps = append(s.steps, variables) }

// LeaveStep takes away what the last EnterStep laid over.
func (s *Scope) LeaveStep() { s.steps = s.steps[:len(s.steps)-1] }

// EnterFragment lays a fragment's parameters over everything, until LeaveFragment; a capture of that name, from then on,
// takes a parameter's place. The Scope keeps and changes parameters.
func (s *Scope) EnterFragment(parameters map[string]string) {
	s.fragments = append(s.fragments, parameters)
}

// LeaveFragment takes away what the last EnterFragment laid over.
func (s *Scope) LeaveFragment() { s.fragments = s.fragments[:len(s.fragments)-1] }

// local looks up what comes before captures.
func (s *Scope) local(name string) (text string, raw json.RawMessage, ok bool) {
	if s.iteration != nil {
		if text, raw, ok := s.iteration.lookup(name); ok {
			return text, raw, true
		}
	}
	for i := len(s.fragments) - 1; i >= 0; i-- {
		if v, ok := s.fragments[i][name]; ok {
			return v, nil, true
		}
	}
	return "", nil, false
}

// lookup finds the row or a field of the row.
func (it *iteration) lookup(name string) (text string, raw json.RawMessage, ok bool) {
	for ; it != nil; it = it.outer {
		if !it.has || len(name) < len(it.as) || name[:len(it.as)] != it.as {
			continue
		}
		rest := name[len(it.as):]
		switch {
		case rest == "":
			return valueOf(it.row)
		case rest[0] == '.':
			row, isObject := it.row.(map[string]any)
			if !isObject {
				return "", nil, false
			}
			field, has := row[rest[1:]]
			if !has {
				return "", nil, false
			}
			return valueOf(field)
		}
	}
	return "", nil, false
}

// valueOf is a JSON value as a reference stands for it.
func valueOf(v any) (text string, raw json.RawMessage, ok bool) {
	raw = encodeJSON(nil, v)
	if s, isText := v.(string); isText {
		return s, raw, true
	}
	return string(raw), raw, true
}

// Rows returns the rows of f: its own, or the JSON list that its variable holds. why is a clause that says why there is
// none.
func (s *Scope) Rows(f *ForEach) (rows []json.RawMessage, why string) {
	if f.Variable == "" {
		return f.Rows, ""
	}
	text, raw, ok := s.lookup(f.Variable)
	if !ok {
		return nil, (&UndefinedError{f.Variable}).Error()
	}
	if raw == nil || len(raw) > 0 && raw[0] == '"' {
		raw = json.RawMessage(text)
	}
	tree, _, err := readTree(raw, limits.MaxSpecBytes)
	if err != nil || tree.kind != '[' {
		return nil, "the variable " + strconv.Quote(shorten(f.Variable, 64)) + " does not hold a JSON list"
	}
	if len(tree.kids) > limits.MaxIterations {
		return nil, fmt.Sprintf("the list has %d rows, and there may be %d", len(tree.kids), limits.MaxIterations)
	}
	rows = make([]json.RawMessage, len(tree.kids))
	for i, kid := range tree.kids {
		rows[i] = kid.appendJSON(nil)
	}
	return rows, ""
}

// Arguments returns the values of a fragment's parameters: what with gives, references replaced, and the defaults of the
// others. The error is Expand's.
func (s *Scope) Arguments(with map[string]string, parameters map[string]Parameter) (map[string]string, error) {
	values, err := s.ExpandAll(with)
	if err != nil {
		return nil, err
	}
	for name, p := range parameters {
		if _, given := values[name]; !given && p.Default != nil {
			values[name] = *p.Default
		}
	}
	return values, nil
}

// ExpandAll puts variables into each value of m and returns the outcome as a new map. The error is Expand's.
func (s *Scope) ExpandAll(m map[string]string) (map[string]string, error) {
	values := make(map[string]string, len(m))
	for _, name := range sorted(m) {
		v, err := s.Expand(m[name], limits.MaxVariableValue)
		if err != nil {
			return nil, err
		}
		values[name] = v
	}
	return values, nil
}
