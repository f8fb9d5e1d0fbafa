package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/fault"
)

// errTaken is the cause that stops a run whose attempt somebody else has ended or taken over.
var errTaken = errors.New("the run was taken over")

// execute sends the requests of an attempt that is ours and writes what comes of it: the steps while they come, the last
// of them together with the end.
func (x *execution) execute() error {
	w := x.worker
	rec := newRecorder(x.args, x.attempt)
	live := &stream{x: x}
	open, more := 0, false // assertions of the step that are still to come; whether another step may come
	observe := func(o executor.Observation) {
		rec.observe(o)
		switch v := o.(type) {
		case executor.StepFinished:
			open, more = v.Assertions, v.More
		case executor.AssertionEvaluated:
			open--
		}
		if open == 0 && more {
			live.send(rec.take())
		}
	}
	result := x.run(observe)
	fault.Hit(fault.PointRunAfterHTTP)
	if errors.Is(context.Cause(x.ctx), errTaken) {
		live.close()
		w.cfg.Log.WarnContext(x.ctx, "a run was taken over while it was executed", slog.Any("run_id", x.args.RunID))
		return nil
	}
	end := rec.finish(result, x.queued)
	events, kept := live.close()
	last, bodies := rec.take()
	events, kept = append(events, last...), append(kept, bodies...)
	ctx, cancel := x.writing()
	defer cancel()
	stored, err := w.cfg.Sink.Append(ctx, events, attachment(kept))
	if err != nil {
		return fmt.Errorf("write the end of run %s: %w", x.args.RunID, err)
	}
	fault.Hit(fault.PointRunEnded)
	if !has(stored, eventstore.VersionFinished) {
		w.cfg.Log.WarnContext(x.ctx, "a run had its end already", slog.Any("run_id", x.args.RunID), slog.String("status", string(end.Status)))
	}
	return nil
}

// run calls the engine; a panic in it ends the run, not the job.
func (x *execution) run(observe func(executor.Observation)) (result executor.Result) {
	w := x.worker
	began := w.cfg.Now()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		w.cfg.Log.ErrorContext(x.ctx, "a run panicked", slog.Any("run_id", x.args.RunID), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		result = executor.Result{
			Status: executor.Inconclusive, Code: executor.CodeInternal, FailedStep: -1, Duration: w.cfg.Now().Sub(began),
			Error: &executor.Error{Code: executor.CodeInternal, Message: "Something went wrong here, not at the target."},
		}
	}()
	if fault.PointsEnabled {
		go fault.Hit(fault.PointRunDuringCall)
	}
	return w.cfg.Engine.Run(x.ctx, executor.Input{
		RunID: x.args.RunID, Attempt: x.attempt, OrgID: x.args.OrgID, Spec: x.plan.definition.Spec, Fragments: x.plan.fragments,
		Variables: x.plan.variables, Environment: x.plan.environment, Project: x.plan.project, Organization: x.plan.organization,
		Secrets: x.plan.secrets, Region: x.args.Region,
	}, observe)
}

// stream writes the events of steps while later steps are executed, one batch after the other. What could not be written
// comes back from close, to be written with the end.
type stream struct {
	x    *execution
	wake chan struct{} // something was queued or the stream was closed
	done chan struct{}

	mu     sync.Mutex
	queue  []parcel
	closed bool

	unsent parcel // the loop's; close reads it afterwards
}

type parcel struct {
	events []eventstore.RunEvent
	bodies bodies
}

// parcelEvents is about how many events are written at a time: many short iterations share one commit.
const parcelEvents = 2000

// send queues events. It never waits: an attempt's events and bodies are bounded.
func (s *stream) send(events []eventstore.RunEvent, kept bodies) {
	if s.done == nil {
		s.wake, s.done = make(chan struct{}, 1), make(chan struct{})
		go s.loop()
	}
	s.mu.Lock()
	s.queue = append(s.queue, parcel{events, kept})
	s.mu.Unlock()
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take moves what is queued to what is unsent, about parcelEvents of it or, when something could not be written before,
// all. It returns whether there is something new, and whether no more will come.
func (s *stream) take() (some, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, again := 0, len(s.unsent.events) > 0
	for ; n < len(s.queue) && (again || len(s.unsent.events) < parcelEvents); n++ {
		s.unsent.events, s.unsent.bodies = append(s.unsent.events, s.queue[n].events...), append(s.unsent.bodies, s.queue[n].bodies...)
	}
	s.queue = s.queue[n:]
	return n > 0, s.closed && len(s.queue) == 0
}

func (s *stream) loop() {
	defer close(s.done)
	for {
		again := len(s.unsent.events) > 0
		some, last := s.take()
		if some {
			s.flush(again)
		}
		switch {
		case last:
			return
		case !some:
			<-s.wake
		}
	}
}

// flush writes what is unsent; again says that it was tried before.
func (s *stream) flush(again bool) {
	stored, err := s.write(s.unsent)
	if err != nil {
		s.x.worker.cfg.Log.WarnContext(s.x.ctx, "steps wait for the end of their run to be written", slog.Any("run_id", s.x.args.RunID), slog.Any("err", err))
		return
	}
	if !again && len(stored) < len(s.unsent.events) && s.taken() {
		s.x.stop(errTaken)
	}
	s.unsent = parcel{}
}

func (s *stream) write(p parcel) ([]eventstore.Inserted, error) {
	ctx, cancel := s.x.writing()
	defer cancel()
	return s.x.worker.cfg.Sink.Append(ctx, p.events, attachment(p.bodies))
}

// taken says whether the attempt is no longer ours: what we wrote was there already, or the answer to a commit was lost.
func (s *stream) taken() bool {
	p, err := s.x.progress()
	if err != nil {
		return false // the end will tell
	}
	return p.finished || p.attemptEnded || p.claim != s.x.claim
}

// close waits for what was sent and returns what could not be written.
func (s *stream) close() ([]eventstore.RunEvent, bodies) {
	if s.done == nil {
		return nil, nil
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	return s.unsent.events, s.unsent.bodies
}

// attachment is bodies as the sink takes them: no bodies are no attachment.
func attachment(b bodies) any {
	if len(b) == 0 {
		return nil
	}
	return b
}
