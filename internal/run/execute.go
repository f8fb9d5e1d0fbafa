package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

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
	steps := len(x.plan.definition.Steps)
	open := 0 // assertions of the step that are still to come
	observe := func(o executor.Observation) {
		rec.observe(o)
		index := 0
		switch v := o.(type) {
		case executor.StepFinished:
			index, open = v.Index, v.Assertions
			if v.Status != executor.Passed {
				return // the end is near
			}
		case executor.AssertionEvaluated:
			index = v.Step
			open--
		}
		if open == 0 && index < steps-1 {
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
		RunID: x.args.RunID, Attempt: x.attempt, OrgID: x.args.OrgID, Spec: x.plan.definition.Spec,
		Variables: x.plan.variables, Environment: x.plan.environment, Region: x.args.Region,
	}, observe)
}

// stream writes the events of steps while later steps are executed, one batch after the other. What could not be written
// comes back from close, to be written with the end.
type stream struct {
	x      *execution
	ch     chan parcel
	done   chan struct{}
	unsent parcel
}

type parcel struct {
	events []eventstore.RunEvent
	bodies bodies
}

func (s *stream) send(events []eventstore.RunEvent, kept bodies) {
	if s.ch == nil {
		s.ch, s.done = make(chan parcel, len(s.x.plan.definition.Steps)), make(chan struct{})
		go s.loop()
	}
	s.ch <- parcel{events, kept} // has room for every step
}

func (s *stream) loop() {
	defer close(s.done)
	for p := range s.ch {
		again := len(s.unsent.events) > 0
		s.unsent.events, s.unsent.bodies = append(s.unsent.events, p.events...), append(s.unsent.bodies, p.bodies...)
		stored, err := s.write(s.unsent)
		if err != nil {
			s.x.worker.cfg.Log.WarnContext(s.x.ctx, "steps wait for the end of their run to be written", slog.Any("run_id", s.x.args.RunID), slog.Any("err", err))
			continue
		}
		if !again && len(stored) < len(s.unsent.events) && s.taken() {
			s.x.stop(errTaken)
		}
		s.unsent = parcel{}
	}
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
	if s.ch == nil {
		return nil, nil
	}
	close(s.ch)
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
