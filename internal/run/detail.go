package run

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// Detail is a run with all that its events say.
type Detail struct {
	Run
	Variables      map[string]string `json:"variables,omitempty"` // given with the execution
	AttemptResults []Attempt         `json:"attemptResults"`
	Steps          []StepResult      `json:"steps"` // of the last attempt
}

// Attempt is one attempt with its steps.
type Attempt struct {
	Attempt    int          `json:"attempt"`
	Region     string       `json:"region"`
	Worker     string       `json:"worker,omitempty"`
	Status     Status       `json:"status"` // running until it has ended
	Reason     Reason       `json:"reason,omitempty"`
	Error      *Problem     `json:"error,omitempty"`
	StartedAt  *time.Time   `json:"startedAt,omitempty"`
	FinishedAt *time.Time   `json:"finishedAt,omitempty"`
	DurationMs float64      `json:"durationMs"`
	Counts     Counts       `json:"counts"`
	Steps      []StepResult `json:"steps"`
}

// StepResult is one step with its assertion results.
type StepResult struct {
	StepFinished
	Assertions []AssertionEvaluated `json:"assertions"`
}

// fold makes a run's detail from its row and its events. What an attempt says after its end is not heeded: it comes from
// a worker that was given up.
func fold(r Run, events []eventstore.Event) (Detail, error) {
	d := Detail{Run: r, AttemptResults: []Attempt{}, Steps: []StepResult{}}
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b eventstore.Event) int { return cmp.Compare(a.Version, b.Version) })
	for _, e := range events {
		if err := d.apply(e); err != nil {
			return Detail{}, fmt.Errorf("fold %s of run %s: %w", e.Type, e.StreamID, err)
		}
	}
	if n := len(d.AttemptResults); n > 0 {
		d.Steps = d.AttemptResults[n-1].Steps
	}
	return d, nil
}

func (d *Detail) apply(e eventstore.Event) error {
	switch e.Type {
	case TypeRequested:
		var v Requested
		if err := e.Decode(&v); err != nil {
			return err
		}
		d.Variables = v.Variables
	case TypeStarted:
		var v Started
		if err := e.Decode(&v); err != nil {
			return err
		}
		if a := d.attempt(v.Attempt, v.Region); a != nil {
			at := e.RecordedAt
			a.Worker, a.StartedAt = v.Worker, &at
		}
	case TypeStepFinished:
		var v StepFinished
		if err := e.Decode(&v); err != nil {
			return err
		}
		if a := d.attempt(v.Attempt, v.Region); a != nil {
			a.Steps = append(a.Steps, StepResult{StepFinished: v, Assertions: []AssertionEvaluated{}})
		}
	case TypeAssertionEvaluated:
		var v AssertionEvaluated
		if err := e.Decode(&v); err != nil {
			return err
		}
		if a := d.attempt(v.Attempt, v.Region); a != nil {
			// They follow their step.
			for i := range slices.Backward(a.Steps) {
				if s := &a.Steps[i]; s.Step == v.Step && s.Iteration == v.Iteration {
					s.Assertions = append(s.Assertions, v)
					break
				}
			}
		}
	case TypeAttemptFinished:
		var v AttemptFinished
		if err := e.Decode(&v); err != nil {
			return err
		}
		if a := d.attempt(v.Attempt, v.Region); a != nil {
			at := e.RecordedAt
			a.Status, a.Reason, a.Error, a.Counts, a.DurationMs, a.FinishedAt = v.Status, v.Reason, v.Error, v.Counts, v.DurationMs, &at
		}
	}
	return nil
}

// attempt returns the attempt of that number, a new one if need be; nil when it has ended.
func (d *Detail) attempt(n int, region string) *Attempt {
	for i := range d.AttemptResults {
		if a := &d.AttemptResults[i]; a.Attempt == n {
			if a.Status.Ended() {
				return nil
			}
			return a
		}
	}
	d.AttemptResults = append(d.AttemptResults, Attempt{Attempt: n, Region: region, Status: Running, Steps: []StepResult{}})
	return &d.AttemptResults[len(d.AttemptResults)-1]
}

// progress is what a worker has to know of a run that somebody began: folded from its events.
type progress struct {
	requested       Requested
	requestedAt     time.Time
	finished        bool
	cancelRequested bool
	attempt         int       // the last that was begun; 0 = none
	attemptEnded    bool      // it has its end, though the run has none
	worker          string    // who began it
	claim           uuid.UUID // by which it was begun
	startedAt       time.Time // of the first attempt
	attemptAt       time.Time // of the last
	next            int       // version after the last event of the last attempt
}

func progressOf(events []eventstore.Event) (p progress, err error) {
	for _, e := range events {
		if n := e.Version / eventstore.AttemptSpan; e.Version != eventstore.VersionFinished && n > 0 {
			if n > p.attempt {
				p.attempt, p.attemptEnded, p.next = n, false, 0
			}
			p.next = max(p.next, e.Version+1)
		}
		switch e.Type {
		case TypeRequested:
			err = e.Decode(&p.requested)
			p.requestedAt = e.RecordedAt
		case TypeCancelRequested:
			p.cancelRequested = true
		case TypeStarted:
			var s Started
			err = e.Decode(&s)
			p.worker, p.claim, p.attemptAt = s.Worker, s.Claim, e.RecordedAt
			if p.startedAt.IsZero() {
				p.startedAt = e.RecordedAt
			}
		case TypeAttemptFinished:
			p.attemptEnded = true
		case TypeFinished:
			p.finished = true
		}
		if err != nil {
			return progress{}, fmt.Errorf("fold %s of run %s: %w", e.Type, e.StreamID, err)
		}
	}
	return p, nil
}
