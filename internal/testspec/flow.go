package testspec

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"github.com/testflow/testflow/internal/limits"
)

// Flow is what a step says about when, how often and with what it is executed. The fields are Step's own.
//
// A step's turn: skip, then for each iteration of repeat or forEach its variables, if, delay and at last the request or
// the fragment's steps. What is false or goes wrong in one iteration does not stop the next ones; it stops the steps
// after the loop.

// Skip says that a step is not executed. In JSON it is true, or text with the reason.
type Skip struct {
	On     bool
	Reason string
}

// MarshalJSON writes the reason, or true.
func (s Skip) MarshalJSON() ([]byte, error) {
	if s.On && s.Reason != "" {
		return json.Marshal(s.Reason)
	}
	return json.Marshal(s.On)
}

// UnmarshalJSON reads true, false or text.
func (s *Skip) UnmarshalJSON(b []byte) error {
	var reason string
	if json.Unmarshal(b, &reason) == nil {
		*s = Skip{On: true, Reason: reason}
		return nil
	}
	if err := json.Unmarshal(b, &s.On); err != nil {
		return errors.New("write true, or text with the reason")
	}
	return nil
}

// ForEach executes a step once for each row of a list, all of them, also after one that failed.
type ForEach struct {
	// Rows are JSON values, taken as they are. Variable names a variable that holds a JSON list instead, such as a captured
	// one: exactly one of the two is set.
	Rows     []json.RawMessage `json:"rows,omitempty"`
	Variable string            `json:"variable,omitempty"`
	// As is how the step refers to its row: `{{row.name}}` for a field of it, `{{row}}` for the whole; DefaultRow unless set.
	As string `json:"as,omitempty"`
}

// DefaultRow is what a row is called unless forEach says something else.
const DefaultRow = "row"

// Row returns what a row is called.
func (f ForEach) Row() string {
	if f.As == "" {
		return DefaultRow
	}
	return f.As
}

// Retry sends a request again until what came back is what one waits for.
type Retry struct {
	Until Until `json:"until"`
	// Attempts is how often the request is sent at most, the first time included; limits.DefaultTries unless set.
	Attempts *int `json:"attempts,omitempty"`
	// Delay is the pause before the second attempt, limits.DefaultRetryDelay unless set; with the backoff exponential each
	// further pause is twice the last one, at most MaxDelay (limits.DefaultMaxRetryDelay unless set).
	Delay    Duration `json:"delay,omitzero"`
	Backoff  Backoff  `json:"backoff,omitempty"`
	MaxDelay Duration `json:"maxDelay,omitzero"`
}

// Until is what Retry waits for: assertions that all hold, or an expression that is true. In JSON it is a list or text.
type Until struct {
	Assertions []Assertion
	Expression string
}

// MarshalJSON writes the expression or the list.
func (u Until) MarshalJSON() ([]byte, error) {
	if u.Expression != "" {
		return json.Marshal(u.Expression)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(append([]Assertion{}, u.Assertions...))
	return bytes.TrimSpace(buf.Bytes()), err
}

// UnmarshalJSON reads text or a list of assertions.
func (u *Until) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &u.Expression) == nil {
		return nil
	}
	if err := json.Unmarshal(b, &u.Assertions); err != nil {
		return errors.New("write an expression or a list of assertions")
	}
	return nil
}

// Backoff is how the pauses of a Retry grow.
type Backoff string

// The backoffs; fixed unless another is set.
const (
	BackoffFixed       Backoff = "fixed"
	BackoffExponential Backoff = "exponential"
)

// Backoffs lists every Backoff, for documents.
func Backoffs() []string { return []string{string(BackoffFixed), string(BackoffExponential)} }

// Tries returns how often the request is sent at most.
func (r Retry) Tries() int {
	if r.Attempts == nil {
		return limits.DefaultTries
	}
	return *r.Attempts
}

// Pause returns how long to wait before attempt try (from 2).
func (r Retry) Pause(try int) time.Duration {
	d, most := time.Duration(r.Delay), time.Duration(r.MaxDelay)
	if d <= 0 {
		d = limits.DefaultRetryDelay
	}
	if r.Backoff != BackoffExponential {
		return d
	}
	if most <= 0 {
		most = max(limits.DefaultMaxRetryDelay, d)
	}
	for ; try > 2 && d < most; try-- {
		d *= 2
	}
	return min(d, most)
}

// Looped returns whether the step is executed in iterations.
func (s Step) Looped() bool { return s.Repeat != nil || s.ForEach != nil }

// LongestRun returns how long an attempt may take: the spec's total, and what is kept for its teardown beyond it.
func (s Spec) LongestRun() time.Duration {
	if len(s.Teardown) > 0 {
		return s.TotalTimeout() + limits.TeardownGrace
	}
	return s.TotalTimeout()
}

var (
	typeSkip  = reflect.TypeFor[Skip]()
	typeUntil = reflect.TypeFor[Until]()
)

func (d *decoder) skip(n *node, v reflect.Value, at string) {
	switch n.kind {
	case 's':
		v.Set(reflect.ValueOf(Skip{On: true, Reason: n.text}))
	case 't', 'f':
		v.Set(reflect.ValueOf(Skip{On: n.kind == 't'}))
	default:
		d.refuse(at, "true, or text with the reason belongs here, not %s.", n.kindName())
	}
}

func (d *decoder) until(n *node, v reflect.Value, at string) {
	switch n.kind {
	case 's':
		v.Set(reflect.ValueOf(Until{Expression: n.text}))
	case '[':
		var list []Assertion
		d.decode(n, reflect.ValueOf(&list).Elem(), at)
		v.Set(reflect.ValueOf(Until{Assertions: list}))
	default:
		d.refuse(at, "An expression or a list of assertions belongs here, not %s.", n.kindName())
	}
}
