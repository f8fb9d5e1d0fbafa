package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// skippedEarlier is the reason of CodeEarlier.
const skippedEarlier = "Skipped, because the run had ended before it."

// frame is what one row of steps shares: whether one of them has not passed, so that the others are skipped.
type frame struct{ broken bool }

// flow is where a run stands in its plan.
type flow struct {
	plan   testspec.Plan
	times  []int // by index: how often the step has come to an end, which is its next iteration
	events int   // steps and assertions that were observed
	most   int   // of events, for the phase that is executed
	// last is the index of the last step that is executed whatever happens, -1 when there is none.
	last int
	// loops counts the loops that one is in and that have iterations to come.
	loops int
	// full says that no further iteration fits into the attempt's events.
	full bool
}

// run executes the plan. outer is the caller's context, without the run's own time.
func (r *runner) run(ctx, outer context.Context) {
	plan, faults := r.in.Spec.Plan(r.in.Fragments)
	if len(faults) > 0 {
		r.end(&Error{Code: CodeFragment, Phase: PhasePrepare, Message: faults[0].Detail}, -1)
		return
	}
	r.flow = flow{plan: plan, times: make([]int, plan.Size), last: lastAlways(plan)}
	// What is skipped at the end, and the teardown, still have their place when loops fill the attempt.
	f := frame{broken: r.result.Status != Passed}
	began := !f.broken
	r.flow.most = plan.MostEvents() - plan.TeardownEvents
	r.units(ctx, plan.Setup, &f)
	r.units(ctx, plan.Steps, &f)
	switch {
	case len(plan.Teardown) == 0:
		return
	case !began:
		for i := range plan.Teardown {
			r.skip(&plan.Teardown[i], CodeEarlier, skippedEarlier)
		}
		return
	}
	r.flow.most, r.flow.full = limits.MaxRunEvents-plan.Size, false
	r.teardown(outer, plan.Teardown)
}

// lastAlways returns the index of the last request that is executed whatever happens.
func lastAlways(p testspec.Plan) int {
	last := -1
	var look func([]testspec.Unit)
	look = func(units []testspec.Unit) {
		for i := range units {
			switch u := &units[i]; {
			case u.Inner != nil:
				look(u.Inner)
			case u.Always:
				last = u.Index
			}
		}
	}
	look(p.Setup)
	look(p.Steps)
	look(p.Teardown)
	return last
}

// teardownTimeout is the cause of the teardown's own deadlines.
type teardownTimeout struct{ limit time.Duration }

func (e *teardownTimeout) Error() string {
	return fmt.Sprintf("The teardown took longer than the %s that it has.", e.limit)
}

// teardown executes the last phase, also after a failure, when the run's time is over (it has limits.TeardownGrace beyond
// that) and when somebody has canceled (it has limits.CancelGrace); not when the worker stops or has lost the run, and
// not when nothing was executed before.
func (r *runner) teardown(outer context.Context, units []testspec.Unit) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(outer))
	defer cancel(nil)
	canceled := errors.Is(context.Cause(outer), ErrCanceled)
	switch {
	case outer.Err() != nil && !canceled:
		cancel(context.Cause(outer))
	case outer.Err() != nil && r.result.StepsRun == 0:
		cancel(ErrCanceled)
	}
	total := r.in.Spec.TotalTimeout() + limits.TeardownGrace
	end := r.result.StartedAt.Add(total)
	ctx, stop := context.WithDeadlineCause(ctx, end, &teardownTimeout{limits.TeardownGrace})
	defer stop()
	var quick *time.Timer
	hurried := make(chan struct{})
	unhook := context.AfterFunc(outer, func() {
		defer close(hurried)
		if cause := context.Cause(outer); !errors.Is(cause, ErrCanceled) {
			cancel(cause)
			return
		}
		quick = time.AfterFunc(limits.CancelGrace, func() { cancel(&teardownTimeout{limits.CancelGrace}) })
	})
	defer func() {
		if unhook() {
			return
		}
		<-hurried
		if quick != nil {
			quick.Stop()
		}
	}()
	r.units(ctx, units, &frame{}) // each of them: they are always executed
}

// units executes a row of steps.
func (r *runner) units(ctx context.Context, list []testspec.Unit, f *frame) {
	for i := range list {
		r.unit(ctx, &list[i], f)
	}
}

// unit executes a step with all its iterations, or skips it.
func (r *runner) unit(ctx context.Context, u *testspec.Unit, f *frame) {
	if u.Step.Skip.On {
		reason := "Skipped, because the test says so."
		if u.Step.Skip.Reason != "" {
			reason = u.Step.Skip.Reason
		}
		r.skip(u, CodeSkip, reason)
		return
	}
	if r.over(ctx) || f.broken && !u.Always || r.flow.full {
		r.skip(u, CodeEarlier, skippedEarlier)
		return
	}
	if !u.Step.Looped() {
		if !r.fits(u) {
			f.broken = true
			r.skip(u, CodeEarlier, skippedEarlier)
			return
		}
		var inner frame
		r.once(ctx, u, &inner)
		f.broken = f.broken || inner.broken
		return
	}
	r.loop(ctx, u, f)
}

// loop executes the iterations of a step, all of them: one that does not pass stops what comes after the loop.
func (r *runner) loop(ctx context.Context, u *testspec.Unit, f *frame) {
	var (
		times int
		as    string
		rows  []json.RawMessage
	)
	if each := u.Step.ForEach; each == nil {
		times = *u.Step.Repeat
	} else {
		var why string
		if rows, why = r.scope.Rows(each); why != "" {
			f.broken = true
			r.fail(u, &Error{Code: CodeVariable, Phase: PhasePrepare, Message: "In forEach " + why + "."})
			return
		}
		if times, as = len(rows), each.Row(); times == 0 {
			r.skip(u, CodeNoRows, "Skipped, because the list has no rows.")
			return
		}
	}
	r.flow.loops++
	for i := range times {
		if i == times-1 {
			r.flow.loops--
		}
		if r.over(ctx) || !r.fits(u) {
			f.broken = true
			if i < times-1 {
				r.flow.loops--
			}
			if i == 0 {
				r.skip(u, CodeEarlier, skippedEarlier)
			}
			return
		}
		var row json.RawMessage
		if rows != nil {
			row = rows[i]
		}
		var inner frame
		if err := r.scope.IterateAs(i, as, row); err != nil {
			inner.broken = true
			r.fail(u, &Error{Code: CodeVariable, Phase: PhasePrepare, Message: "In forEach a row cannot be read as JSON."})
		} else {
			r.once(ctx, u, &inner)
			r.scope.EndIteration()
		}
		f.broken = f.broken || inner.broken
	}
}

// over says whether the time of ctx is over, or somebody ended it, and notes it as the end of a run that has none.
func (r *runner) over(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	r.end(stopped(ctx), -1)
	return true
}

// fits says whether one more iteration of u has a place among the attempt's events; without one the run ends.
func (r *runner) fits(u *testspec.Unit) bool {
	if r.flow.events+u.Events <= r.flow.most {
		return true
	}
	r.flow.full = true
	r.end(&Error{Code: CodeTooLarge, Message: fmt.Sprintf("The run was ended, because it comes to more than %d steps and assertions.", limits.MaxRunEvents)}, u.Index)
	return false
}

// once executes one iteration of a step: its variables, its condition, its delay, then its request or its fragment.
func (r *runner) once(ctx context.Context, u *testspec.Unit, f *frame) {
	step := u.Step
	if len(step.Variables) > 0 {
		values, err := r.scope.ExpandAll(step.Variables)
		if err != nil {
			f.broken = true
			r.fail(u, expandError("the step's variables", err))
			return
		}
		r.scope.EnterStep(values)
		defer r.scope.LeaveStep()
	}
	if step.If != "" {
		yes, err := r.decide(ctx, step.If)
		switch {
		case r.over(ctx):
			r.skip(u, CodeEarlier, skippedEarlier)
			return
		case err != nil:
			f.broken = true
			r.fail(u, &Error{Code: CodeExpression, Phase: PhasePrepare, Message: "The condition has no value: " + err.Error() + "."})
			return
		case !yes:
			r.skip(u, CodeCondition, "Skipped, because its condition is false.")
			return
		}
	}
	if step.Delay > 0 {
		if err := pause(ctx, time.Duration(step.Delay)); err != nil {
			f.broken = true
			r.fail(u, err)
			return
		}
	}
	if u.Inner == nil {
		f.broken = !r.leaf(ctx, u)
		return
	}
	values, err := r.scope.Arguments(step.With, u.Parameters)
	if err != nil {
		f.broken = true
		r.fail(u, expandError("the parameters of the fragment "+step.Use, err))
		return
	}
	r.scope.EnterFragment(values)
	defer r.scope.LeaveFragment()
	r.units(ctx, u.Inner, f)
}

// decide evaluates a condition over the last response.
func (r *runner) decide(ctx context.Context, condition string) (bool, error) {
	last := r.lastSubject
	ctx, release, stopped := r.engine.judging(ctx, last != nil && len(last.Body) > smallBody)
	if stopped != nil {
		return false, stopped
	}
	defer release()
	return testspec.EvalBool(ctx, condition, r.scope, last)
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) *Error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		err := stopped(ctx)
		err.Phase = PhasePrepare
		return err
	}
}

// leaf executes a request and tells what came of it; it returns whether the step passed.
func (r *runner) leaf(ctx context.Context, u *testspec.Unit) bool {
	step, verdicts := r.guardedStep(ctx, u)
	r.finish(u, step, verdicts)
	return step.Status == Passed
}

// fail tells that u could not be begun, at its first request; the others of a fragment are skipped.
func (r *runner) fail(u *testspec.Unit, err *Error) {
	first := u
	for len(first.Inner) > 0 {
		first = &first.Inner[0]
	}
	s := r.named(first)
	s.Status, s.Error = statusOf(err.Code), err
	r.finish(first, s, nil)
	for i := u.Index + 1; i < u.Index+u.Size; i++ {
		r.skipped(r.leafAt(u, i), CodeEarlier, skippedEarlier)
	}
}

// leafAt returns the request of that index in u.
func (r *runner) leafAt(u *testspec.Unit, index int) *testspec.Unit {
	for u.Inner != nil {
		for i := range u.Inner {
			if in := &u.Inner[i]; index >= in.Index && index < in.Index+in.Size {
				u = in
				break
			}
		}
	}
	return u
}

// finish observes a step that was executed, with its assertions, and takes over what it came to.
func (r *runner) finish(u *testspec.Unit, step StepFinished, verdicts []testspec.Verdict) {
	r.result.StepsRun++
	r.add(step)
	if step.Status != Passed {
		r.end(step.Error, u.Index)
	}
	step.More = r.more(u, step.Status != Passed)
	r.observe(step)
	for j := range verdicts {
		r.observe(AssertionEvaluated{Step: u.Index, Iteration: step.Iteration, Index: j, Verdict: verdicts[j]})
	}
	r.flow.times[u.Index]++
	r.flow.events += 1 + len(verdicts)
}

// more says whether a step may still be executed after u.
func (r *runner) more(u *testspec.Unit, broken bool) bool {
	return r.flow.loops > 0 || !broken && r.result.Status == Passed && u.Index < r.flow.plan.Size-1 || u.Index < r.flow.last
}

// skip tells of each request of u that it is skipped.
func (r *runner) skip(u *testspec.Unit, code Code, why string) {
	if u.Inner == nil {
		r.skipped(u, code, why)
		return
	}
	for i := range u.Inner {
		r.skip(&u.Inner[i], code, why)
	}
}

func (r *runner) skipped(u *testspec.Unit, code Code, why string) {
	r.result.StepsSkipped++
	s := r.named(u)
	s.Status, s.Error = Skipped, &Error{Code: code, Message: why}
	s.More = r.more(u, false)
	r.observe(s)
	r.flow.times[u.Index]++
	r.flow.events++
}

// named is a step's result before anything has happened.
func (r *runner) named(u *testspec.Unit) StepFinished {
	return StepFinished{
		Index: u.Index, Iteration: r.flow.times[u.Index], Phase: u.Phase, Fragment: u.Fragment, Name: stepName(*u.Step, u.Index),
		Status: Passed, StartedAt: r.engine.cfg.Now(),
	}
}
