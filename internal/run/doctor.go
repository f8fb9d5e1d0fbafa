package run

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
)

// Violation is something that must not be.
type Violation struct {
	Invariant string // I2, I8
	RunID     uuid.UUID
	Detail    string
}

// Doctor checks what must always hold of runs, over the whole log: it reads every event of every run.
type Doctor struct {
	DB     *postgres.DB
	Store  *eventstore.Store
	Now    func() time.Time
	Rescue time.Duration // the queue's RescueStuckJobsAfter; 0 = 3 min
}

// endGrace is what a run may take over its own time and the queue's rescue.
const endGrace = 60 * time.Second

const doctorPage = 2000

// Check returns what violates I2 (each requested run reaches exactly one end, in time, and its row says so) and I8 (what
// is done twice is recorded once, and a second call has a recorded attempt).
func (d *Doctor) Check(ctx context.Context) ([]Violation, error) {
	e := &examination{open: map[uuid.UUID]*patient{}, ended: map[uuid.UUID]Status{}}
	if err := d.DB.System.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&e.begun); err != nil {
		return nil, fmt.Errorf("ask for the time: %w", err)
	}
	var after int64
	for {
		b, err := d.Store.ReadAll(ctx, after, doctorPage, TypeRequested, TypeStarted, TypeStepFinished, TypeAttemptFinished, TypeFinished)
		if err != nil {
			return nil, err
		}
		for _, ev := range b.Events {
			if err := e.see(ev); err != nil {
				return nil, err
			}
		}
		if len(b.Events) == 0 && b.To <= after {
			break
		}
		after = b.To
	}
	rescue := d.Rescue
	if rescue <= 0 {
		rescue = rescueAfter
	}
	now := d.Now()
	for id, p := range e.open {
		if p.requested && now.Sub(p.requestedAt) > p.timeout+rescue+endGrace {
			e.blame("I2", id, "it was requested at %s and has no end", p.requestedAt.Format(time.RFC3339))
		}
	}
	err := d.rows(ctx, e)
	return e.found, err
}

// CheckEnds returns what violates I2, one line each.
func (d *Doctor) CheckEnds(ctx context.Context) ([]string, error) { return d.only(ctx, "I2") }

// CheckResults returns what violates I8, one line each.
func (d *Doctor) CheckResults(ctx context.Context) ([]string, error) { return d.only(ctx, "I8") }

func (d *Doctor) only(ctx context.Context, invariant string) (lines []string, err error) {
	found, err := d.Check(ctx)
	for _, v := range found {
		if v.Invariant == invariant {
			lines = append(lines, fmt.Sprintf("run %s: %s", v.RunID, v.Detail))
		}
	}
	return lines, err
}

// examination is what has been seen so far.
type examination struct {
	open  map[uuid.UUID]*patient
	ended map[uuid.UUID]Status
	begun time.Time // what ends after it is not judged by its row
	since time.Time // of the first event that is there: older runs' events may have been dropped
	found []Violation
}

// patient is a run without end.
type patient struct {
	requested   bool
	requestedAt time.Time
	timeout     time.Duration
	attempt     int
	over        bool // the attempt has its end
	status      Status
	steps       map[int]bool // that the attempt has finished
}

func (e *examination) blame(invariant string, run uuid.UUID, format string, args ...any) {
	e.found = append(e.found, Violation{Invariant: invariant, RunID: run, Detail: fmt.Sprintf(format, args...)})
}

func (e *examination) see(ev eventstore.Event) error {
	if e.since.IsZero() {
		e.since = ev.RecordedAt
	}
	if _, ended := e.ended[ev.StreamID]; ended {
		switch ev.Type {
		case TypeFinished:
			e.blame("I2", ev.StreamID, "it ended twice")
		case TypeRequested, TypeStarted:
			e.blame("I8", ev.StreamID, "%s came after its end", ev.Type)
		}
		return nil // what a worker says that was given up isn't heeded
	}
	p := e.open[ev.StreamID]
	if p == nil {
		p = &patient{steps: map[int]bool{}}
		e.open[ev.StreamID] = p
	}
	if err := e.apply(p, ev); err != nil {
		return fmt.Errorf("examine %s of run %s: %w", ev.Type, ev.StreamID, err)
	}
	return nil
}

func (e *examination) apply(p *patient, ev eventstore.Event) error {
	switch ev.Type {
	case TypeRequested:
		var d Requested
		if err := ev.Decode(&d); err != nil {
			return err
		}
		p.requested, p.requestedAt, p.timeout = true, ev.RecordedAt, time.Duration(d.TimeoutMs)*time.Millisecond
	case TypeStarted:
		e.started(p, ev)
	case TypeStepFinished:
		var d StepFinished
		if err := ev.Decode(&d); err != nil {
			return err
		}
		if d.Attempt != p.attempt || p.over {
			return nil
		}
		if p.steps[d.Step] {
			e.blame("I8", ev.StreamID, "attempt %d has two results of step %d", d.Attempt, d.Step)
		}
		p.steps[d.Step] = true
	case TypeAttemptFinished:
		var d AttemptFinished
		if err := ev.Decode(&d); err != nil {
			return err
		}
		if d.Attempt >= p.attempt && !p.over {
			p.attempt, p.over, p.status = d.Attempt, true, d.Status
		}
	case TypeFinished:
		e.finished(p, ev)
	}
	return nil
}

func (e *examination) started(p *patient, ev eventstore.Event) {
	n := ev.Version / eventstore.AttemptSpan
	switch {
	case ev.Version != firstVersion(n):
		e.blame("I8", ev.StreamID, "a start stands at version %d, which is no attempt's first", ev.Version)
	case n != p.attempt+1:
		e.blame("I8", ev.StreamID, "attempt %d follows attempt %d", n, p.attempt)
	case n > 1 && !p.over:
		e.blame("I8", ev.StreamID, "attempt %d was started while attempt %d had no end", n, p.attempt)
	}
	p.attempt, p.over, p.status, p.steps = n, false, "", map[int]bool{}
}

func (e *examination) finished(p *patient, ev eventstore.Event) {
	switch {
	case !p.requested:
		e.blame("I2", ev.StreamID, "it ended and was never requested")
	case !p.over:
		e.blame("I2", ev.StreamID, "it ended while attempt %d had no end", p.attempt)
	case p.status != Status(ev.Status):
		e.blame("I2", ev.StreamID, "it ended %s and its last attempt %s", ev.Status, p.status)
	}
	delete(e.open, ev.StreamID)
	e.ended[ev.StreamID] = Status(ev.Status)
}

// rows compares the table of runs with the events.
func (d *Doctor) rows(ctx context.Context, e *examination) error {
	seen := 0
	err := d.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT run_id, status, requested_at, finished_at FROM runs`) //nolint:rowserrcheck // ForEachRow returns it
		if err != nil {
			return fmt.Errorf("read runs: %w", err)
		}
		var id uuid.UUID
		var status string
		var at time.Time
		var finished *time.Time
		_, err = pgx.ForEachRow(rows, []any{&id, &status, &at, &finished}, func() error {
			end, ended := e.ended[id]
			_, open := e.open[id]
			switch {
			case ended && end != Status(status):
				e.blame("I2", id, "it ended %s and its row says %s", end, status)
			case open && Status(status).Ended() && (finished == nil || finished.Before(e.begun)):
				e.blame("I2", id, "its row says %s and it has no end", status)
			}
			if ended || open {
				seen++
			} else if !e.since.IsZero() && at.After(e.since) && at.Before(d.Now().Add(-endGrace)) {
				e.blame("I2", id, "it has a row and no event")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read runs: %w", err)
		}
		return nil
	})
	if err == nil && seen < len(e.ended)+len(e.open) {
		e.blame("I2", uuid.Nil, "%d runs have events and no row", len(e.ended)+len(e.open)-seen)
	}
	return err
}
