package executor

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/testspec"
	"github.com/testflow/testflow/internal/vault"
)

// Config is what an Engine needs. Guard and Now are required.
type Config struct {
	Guard *netguard.Guard
	// Now is the clock; its readings must carry Go's monotonic part, as time.Now's do.
	Now func() time.Time
	// UserAgent is sent unless a step sets its own; "TestFlow" when empty.
	UserAgent string
	// RootCAs are trusted instead of the system's; nil means the system's.
	RootCAs *x509.CertPool
	// Limits lowers what a test may be and a run take; what is zero in it is limits.go's constant.
	Limits limits.Tests
	// Log gets what is our own fault; nil discards it.
	Log *slog.Logger
}

// Engine runs specs. It keeps connections alive between runs of one organization for a few seconds. Safe for any
// number of goroutines.
type Engine struct {
	cfg        Config
	log        *slog.Logger
	transports *transports
	tokens     *tokens
	heavy      chan struct{} // a place for each heavy judgement under way

	certificates certificates
}

// smallBody is too little for limits.JudgeTime, or its memory, to matter.
const smallBody = 64 << 10

// New returns an Engine. Close it to drop its idle connections.
func New(cfg Config) *Engine {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "TestFlow"
	}
	cfg.Limits = cfg.Limits.OrMost()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		cfg: cfg, log: cfg.Log, transports: newTransports(cfg), tokens: newTokens(),
		heavy: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
	}
}

// Close drops idle connections. Runs in flight go on; what they leave behind is dropped after a few seconds.
func (e *Engine) Close() { e.transports.close() }

// Run runs in.Spec, one step after the other, and tells observe (which may be nil) what happens as it happens.
// It returns when the run has ended: at the latest when the spec's time is over or soon after ctx is done. The spec
// must have no faults under testspec.Validate.
func (e *Engine) Run(ctx context.Context, in Input, observe func(Observation)) Result {
	if observe == nil {
		observe = func(Observation) {}
	}
	secrets, masker := secretLayer(in.Secrets)
	r := &runner{
		engine: e,
		in:     in,
		masker: masker,
		tell:   observe,
		result: Result{
			RunID: in.RunID, Region: in.Region, Status: Passed, FailedStep: -1, StartedAt: e.cfg.Now(),
		},
	}
	if err := r.openScope(secrets); err != nil {
		r.end(err, -1)
	}
	if over := testspec.OverLimits(in.Spec, e.cfg.Limits); len(over) > 0 && r.result.Status == Passed {
		r.end(&Error{Code: CodeTooLarge, Phase: PhasePrepare, Message: over[0].Detail}, -1)
	}
	total := min(in.Spec.TotalTimeout(), e.cfg.Limits.RunTime)
	limited, stop := context.WithTimeoutCause(ctx, total, &runTimeout{total})
	defer stop()
	defer r.dropOwn()
	r.run(limited, ctx)
	r.logBlocked(ctx)
	r.result.FinishedAt = e.cfg.Now()
	r.result.Duration = r.result.FinishedAt.Sub(r.result.StartedAt)
	return r.maskedResult()
}

// openScope makes the scope of the attempt, with its generated values.
func (r *runner) openScope(secrets map[string]string) *Error {
	in := r.in
	generator := testspec.NewGenerator(in.Spec.GeneratorSeed(in.RunID.String(), in.Attempt), r.engine.cfg.Now)
	own, err := generator.Variables(in.Spec.Variables)
	r.scope = testspec.NewScope(in.Variables, own, in.Environment, in.Project, in.Organization, secrets)
	r.scope.SetGenerator(generator)
	if err != nil {
		return expandError("the test's variables", err)
	}
	return nil
}

// runner is one call of Run.
type runner struct {
	engine *Engine
	in     Input
	scope  *testspec.Scope
	jar    jar
	own    map[transportKey]transport // connections that serve this run alone

	blocked []*netguard.BlockedError // what policy refused, for the operator's log
	tell    func(Observation)        // observe's alone
	masker  *vault.Masker            // nil while there is nothing to hide
	// bodyHeld says that the body of the last observed step holds a secret.
	bodyHeld bool
	digests  map[digestKey]*digestState
	result   Result
	flow     flow
	// lastSubject is the last response that was judged; kept for conditions only.
	lastSubject *testspec.Subject
}

// end notes why the run did not pass, the first time; what happens in the teardown says so.
func (r *runner) end(err *Error, step int) {
	if r.result.Status != Passed {
		return
	}
	if p := r.flow.plan; len(p.Teardown) > 0 && step >= p.Teardown[0].Index {
		told := *err
		told.Message = "In the teardown: " + err.Message
		err = &told
	}
	r.result.Status, r.result.Code, r.result.Error, r.result.FailedStep = statusOf(err.Code), err.Code, err, step
}

func (r *runner) add(s StepFinished) {
	res := &r.result
	res.Assertions += s.Assertions
	res.AssertionsFailed += s.Failed
	res.SoftFailed += s.SoftFailed
	res.Timings.add(s.Timings)
	for _, c := range s.Captures {
		r.scope.Capture(c.Name, c.Value)
		res.keep(c)
	}
}

// keep adds a capture; a later one of the same name takes the place of the earlier.
func (res *Result) keep(c Captured) {
	for i := range res.Captures {
		if res.Captures[i].Name == c.Name {
			res.Captures[i] = c
			return
		}
	}
	res.Captures = append(res.Captures, c)
}

func (t *Timings) add(o Timings) {
	t.DNS += o.DNS
	t.Connect += o.Connect
	t.TLS += o.TLS
	t.FirstByte += o.FirstByte
	t.Download += o.Download
	t.Total += o.Total
}

// guardedStep runs a step; a panic in it (a decoder that trips over what a target sent) ends the run, not the process.
func (r *runner) guardedStep(ctx context.Context, u *testspec.Unit) (s StepFinished, verdicts []testspec.Verdict) {
	started := r.engine.cfg.Now()
	defer func() {
		if p := recover(); p != nil {
			r.engine.log.LogAttrs(ctx, slog.LevelError, "step panicked", slog.String("run_id", r.in.RunID.String()),
				slog.Int("step", u.Index), slog.String("panic", r.masker.MaskString(fmt.Sprint(p))), slog.String("stack", string(debug.Stack())))
			s = r.named(u)
			s.Status, s.StartedAt = Inconclusive, started
			s.Error = &Error{Code: CodeInternal, Message: "Something went wrong here, not at the target."}
			verdicts = nil
		}
	}()
	return r.step(ctx, u)
}

// step sends a step's request, again under its retry, and judges the last answer.
func (r *runner) step(ctx context.Context, u *testspec.Unit) (StepFinished, []testspec.Verdict) {
	out := r.named(u)
	verdicts, err := r.try(ctx, u.Step, &out)
	for retry := u.Step.Request.Retry; retry != nil && err != nil && err.again && out.Tries < retry.Tries(); {
		if waited := pause(ctx, retry.Pause(out.Tries+1)); waited != nil {
			err = waited
			break
		}
		tries := out.Tries
		out = r.named(u)
		out.Tries = tries
		verdicts, err = r.try(ctx, u.Step, &out)
	}
	if err != nil {
		out.Status, out.Error = statusOf(err.Code), err
	}
	return out, verdicts
}

// try sends a step's request once. What the step's assertions and captures say is in out; the error is of what stands
// before them.
func (r *runner) try(ctx context.Context, step *testspec.Step, out *StepFinished) ([]testspec.Verdict, *Error) {
	out.Tries++
	req, err := r.prepare(step.Request)
	if err != nil {
		return nil, err
	}
	out.Request = req.summary()
	assertions, err := r.expandAssertions(step.Assertions)
	if err != nil {
		return nil, err
	}
	answer, err := r.exchange(ctx, req)
	if answer.request != nil {
		out.Request = answer.request
	}
	out.Response, out.Timings = answer.summary, answer.timings
	if err != nil {
		err.again = ctx.Err() == nil && err.Code != CodeBlocked && err.Code != CodeRequest
		return nil, err
	}
	judging, release, err := r.engine.judging(ctx, len(answer.body) > smallBody || costly(*step))
	if err != nil {
		return nil, err
	}
	defer release()
	subject := r.subject(&answer, req.spec.UsesCookies())
	if r.flow.plan.Decides {
		r.lastSubject = subject
	}
	waiting, err := r.until(judging, subject, step.Request.Retry)
	if err != nil {
		return nil, err
	}
	if waiting != nil && out.Tries < step.Request.Retry.Tries() {
		return nil, waiting
	}
	verdicts := r.judge(judging, subject, assertions, out)
	r.capture(judging, subject, step.Captures, out)
	return verdicts, waiting
}

// judging returns the context in which a step's response is judged. What is heavy waits for one of a few places: read
// as JSON a body takes some ten times its length in memory, and more at once than there are cores gains nothing.
func (e *Engine) judging(ctx context.Context, heavy bool) (context.Context, context.CancelFunc, *Error) {
	if !heavy {
		return ctx, func() {}, nil
	}
	select {
	case e.heavy <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, stopped(ctx)
	}
	limited, stop := context.WithTimeout(testspec.WithSelectorTime(ctx, e.cfg.Limits.SelectorTime), limits.JudgeTime)
	return limited, func() {
		stop()
		<-e.heavy
	}, nil
}

// costly says whether a step asks for something that may take long even in a small body.
func costly(s testspec.Step) bool {
	for _, a := range s.Assertions {
		if a.Costly() {
			return true
		}
	}
	for _, c := range s.Captures {
		if c.Costly() {
			return true
		}
	}
	return false
}

// judge evaluates every assertion, also after a false one.
func (r *runner) judge(ctx context.Context, subject *testspec.Subject, list []testspec.Assertion, out *StepFinished) []testspec.Verdict {
	verdicts := make([]testspec.Verdict, 0, len(list))
	for _, a := range list {
		v := subject.Judge(ctx, a)
		verdicts = append(verdicts, v)
		out.Assertions++
		switch {
		case v.Pass:
		case v.Severity == testspec.Soft:
			out.SoftFailed++
		default:
			out.Failed++
			if out.Error == nil {
				out.Status, out.Error = Failed, &Error{Code: CodeAssertion, Message: v.Message}
			}
		}
	}
	return verdicts
}

// capture keeps what it can, also when an assertion is false: it helps to see why.
func (r *runner) capture(ctx context.Context, subject *testspec.Subject, list []testspec.Capture, out *StepFinished) {
	for _, c := range list {
		raw, err := subject.Capture(ctx, c)
		if err == nil {
			r.hideCaptured(raw, c.Secret)
			out.Captures = append(out.Captures, Captured{Name: c.Name, Value: raw, Hidden: hidesCapture(c, raw)})
			continue
		}
		if out.Error == nil {
			out.Status = Failed
			out.Error = &Error{Code: CodeCapture, Message: "The capture " + c.Name + " kept nothing: " + err.Error() + ".", Phase: PhaseCapture}
		}
	}
}

func (r *runner) expandAssertions(list []testspec.Assertion) ([]testspec.Assertion, *Error) {
	out := make([]testspec.Assertion, len(list))
	for i, a := range list {
		expanded, err := r.scope.ExpandExpected(a)
		if err != nil {
			return nil, expandError("the expected value of assertion "+strconv.Itoa(i+1), err)
		}
		out[i] = expanded
	}
	return out, nil
}

// stepName is the step's own name, or its place counted as people count.
func stepName(s testspec.Step, i int) string {
	if s.Name != "" {
		return s.Name
	}
	return "Step " + strconv.Itoa(i+1)
}
