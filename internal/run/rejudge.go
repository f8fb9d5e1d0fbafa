package run

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/testspec"
)

// What a step comes to beside the statuses of steps, and codes of steps that say what assertions cannot change.
const (
	stepUndecided StepStatus = "undecided"

	codeEarlier = "earlierStep"
	codeUntil   = "until"
)

// Sentences that say why something is undecided.
const (
	whyNotSent   = "The request was not sent, since an earlier step had not passed."
	whyNoOutcome = "The step came to nothing that speaks of the target."
	whySecret    = "A secret stands in it, and secrets are not kept with a run."
	whyGenerated = "A generated value stands in it; it was made for the run and is not kept."
	whyLoops     = "The step stands in a loop within a loop, and which row it had is not kept."
)

// rejudging is one run being judged again.
type rejudging struct {
	orgID    uuid.UUID
	newID    func() uuid.UUID
	run      Run
	measure  measure
	plan     plan
	leaves   []leaf
	scope    *testspec.Scope
	unknown  map[string]string // why a value is not known, by the text that stands for it
	own      map[string]string // the variables of the test that are not known
	captured map[string]string // the captures that are not known
	entered  map[*testspec.Unit]*entry
	last     int  // the index of the step before; -1 at first
	answered bool // a response came already
}

// entry is what a unit brought into the scope.
type entry struct {
	variables, parameters map[string]string
	rows                  []json.RawMessage
	gap                   string // why the rows are not known
}

// rejudge judges an ended run again.
func (s *Service) rejudge(ctx context.Context, orgID uuid.UUID, r Run, m measure) (Reevaluation, error) {
	out := Reevaluation{RunID: r.ID, TestID: r.TestID, RequestedAt: r.RequestedAt, RecordedStatus: r.Status, Steps: []StepReevaluation{}}
	var d Detail
	var requested Requested
	err := s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		events, err := s.Store.ReadRun(ctx, tx, orgID, r.ID)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return noRun()
		}
		if err := events[0].Decode(&requested); err != nil {
			return fmt.Errorf("read the request of run %s: %w", r.ID, err)
		}
		d, err = fold(r, events)
		return err
	})
	if err != nil {
		return Reevaluation{}, err
	}
	args := request{id: r.ID, Requested: requested}.args(orgID)
	args.HasSecrets = false // what needs one is undecided; nobody opens secrets to read a run
	p, err := s.Plans.load(ctx, args)
	if err != nil {
		return Reevaluation{}, fmt.Errorf("read what run %s was made from: %w", r.ID, err)
	}
	j, err := s.newRejudging(orgID, d, p, m)
	if err != nil {
		return Reevaluation{}, err
	}
	o := outcomes{}
	for i := range d.Steps {
		if err := ctx.Err(); err != nil {
			return Reevaluation{}, fmt.Errorf("judge run %s again: %w", r.ID, err)
		}
		step, err := j.step(ctx, s, d.Steps[i], &o)
		if err != nil {
			return Reevaluation{}, err
		}
		out.Steps = append(out.Steps, step)
	}
	if m.whole {
		for i := len(j.leaves); i < m.size; i++ {
			out.Steps = append(out.Steps, StepReevaluation{
				Step: i, Name: fmt.Sprintf("Step %d", i+1), RecordedStatus: StepSkipped, Status: stepUndecided, Assertions: []Rejudged{},
				Reason: "The revision that was executed has no such step.",
			})
			o.open(Failed, Errored)
		}
	}
	out.Status = o.end(d)
	if i := slices.IndexFunc(out.Steps, func(s StepReevaluation) bool { return Status(s.Status) == out.Status }); i >= 0 && out.Status != Passed {
		out.First = &out.Steps[i]
	}
	return out, nil
}

// outcomes are the ends that a run may come to, as far as its steps tell: the first that does not pass is the run's.
type outcomes struct {
	possible map[Status]bool
	closed   bool // a step did not pass, whatever the others do
}

// open notes that a step may come to these ends, or pass.
func (o *outcomes) open(ends ...Status) {
	if o.closed {
		return
	}
	if o.possible == nil {
		o.possible = map[Status]bool{}
	}
	for _, s := range ends {
		o.possible[s] = true
	}
}

// close notes that a step does not pass.
func (o *outcomes) close(s Status) {
	o.open(s)
	o.closed = true
}

// end returns the one end that is possible, or Undecided.
func (o *outcomes) end(d Detail) Status {
	switch {
	case o.closed:
	case d.Status == Inconclusive, d.Status == Canceled:
		o.open(Undecided)
	case d.Status != Passed && !slices.ContainsFunc(d.Steps, func(s StepResult) bool { return Status(s.Status) == d.Status }):
		o.open(d.Status) // no step ended it: its time was over, or it could not begin
	default:
		o.open(Passed)
	}
	if len(o.possible) != 1 {
		return Undecided
	}
	for s := range o.possible {
		return s
	}
	return Undecided
}

func (s *Service) newRejudging(orgID uuid.UUID, d Detail, p plan, m measure) (*rejudging, error) {
	planned, bad := p.definition.Plan(p.fragments)
	if len(bad) > 0 {
		return nil, fmt.Errorf("plan run %s: %s", d.ID, bad[0].Detail)
	}
	j := &rejudging{
		orgID: orgID, newID: s.NewID, run: d.Run, measure: m, plan: p, leaves: leavesOf(planned), unknown: map[string]string{}, own: map[string]string{},
		captured: map[string]string{}, entered: map[*testspec.Unit]*entry{}, last: -1,
	}
	if j.measure.schemas == nil {
		j.measure.schemas = p.definition.Schemas
	}
	own, err := j.variables(max(d.Attempts, 1))
	if err != nil {
		return nil, err
	}
	j.scope = testspec.NewScope(p.layers(own)...)
	return j, nil
}

// variables are the test's own as the attempt had them: generated values follow from its seed, but for times.
func (j *rejudging) variables(attempt int) (map[string]string, error) {
	spec := j.plan.definition.Spec
	seed := spec.GeneratorSeed(j.run.ID.String(), attempt)
	at := j.run.RequestedAt
	made, err := testspec.NewGenerator(seed, func() time.Time { return at }).Variables(spec.Variables)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // then the run could not begin, and has no step to judge
	}
	at = at.Add(1000*time.Hour + time.Hour + time.Minute + time.Second + time.Millisecond)
	later, err := testspec.NewGenerator(seed, func() time.Time { return at }).Variables(spec.Variables)
	if err != nil {
		return nil, fmt.Errorf("make the variables of run %s: %w", j.run.ID, err)
	}
	out := maps.Clone(made)
	for name := range out {
		if made[name] != later[name] {
			out[name] = j.mark(whyGenerated)
			j.own[name] = whyGenerated
		}
	}
	return out, nil
}

// mark returns a text that stands for a value that is not known.
func (j *rejudging) mark(why string) string {
	for marker, same := range j.unknown {
		if same == why {
			return marker
		}
	}
	marker := "unknown-" + j.newID().String()
	j.unknown[marker] = why
	return marker
}

// step judges one result of a step again, and takes over what it captured.
func (j *rejudging) step(ctx context.Context, s *Service, res StepResult, o *outcomes) (StepReevaluation, error) {
	out := StepReevaluation{
		Step: res.Step, Iteration: res.Iteration, Name: res.Name, RecordedStatus: res.Status, Status: res.Status, Assertions: []Rejudged{},
	}
	if res.Error != nil {
		out.Reason = res.Error.Message
	}
	list, named := j.measure.byStep[res.Step]
	if res.Step >= len(j.leaves) {
		return out, fmt.Errorf("run %s tells of a step %d that its revision has not", j.run.ID, res.Step)
	}
	switch res.Status {
	case StepErrored:
		o.close(Errored)
	case StepSkipped:
		if res.Error != nil && res.Error.Code == codeEarlier && !o.closed {
			out.undecided(list, whyNotSent)
			o.open(Failed, Errored)
		}
	case StepPassed, StepFailed:
		if !named && !j.measure.whole {
			out.recorded(res)
			if res.Status == StepFailed {
				o.close(Failed)
			}
			break
		}
		l := j.leaves[res.Step]
		gap := j.enter(l, res)
		rec, err := j.recordedResponse(ctx, s, l, res, list)
		if err != nil {
			return out, err
		}
		rec.LoopGap = gap
		j.judge(ctx, rec, list, res, l, &out, o)
		j.capture(res)
		j.leave(l)
		j.last, j.answered = res.Step, true
		return out, nil
	default:
		out.undecided(list, whyNoOutcome)
		o.open(Undecided)
		o.closed = true
	}
	l := j.leaves[res.Step]
	j.enter(l, res)
	j.capture(res)
	j.leave(l)
	j.last, j.answered = res.Step, j.answered || res.Response != nil
	return out, nil
}

// undecided says of the step, and of all its assertions, that nothing can be said.
func (r *StepReevaluation) undecided(list []testspec.Assertion, why string) {
	r.Status, r.Reason = stepUndecided, why
	for i, a := range list {
		r.Assertions = append(r.Assertions, r.cannot(i, a, why))
	}
}

// cannot is the verdict on an assertion that cannot be judged; its expected value stands there as it is written.
func (r *StepReevaluation) cannot(i int, a testspec.Assertion, why string) Rejudged {
	d := AssertionEvaluated{
		Step: r.Step, Iteration: r.Iteration, StepName: r.Name, Index: i, Source: a.Source, Property: a.Property, Filters: a.Filters, Quantifier: a.Quantifier,
		Operator: a.Operator, Not: a.Not, Severity: string(a.Weight()), Message: why,
	}
	if len(a.Expected) <= limits.MaxActual {
		d.Expected = a.Expected
	}
	return Rejudged{AssertionEvaluated: d, Undecided: true}
}

// recorded takes over what the run came to in a step that nobody asks about.
func (r *StepReevaluation) recorded(res StepResult) {
	for _, a := range res.Assertions {
		r.Assertions = append(r.Assertions, Rejudged{AssertionEvaluated: a})
	}
}

// judge judges the assertions of a step whose response came.
func (j *rejudging) judge(ctx context.Context, rec *testspec.Recorded, list []testspec.Assertion, res StepResult, l leaf, out *StepReevaluation, o *outcomes) {
	ctx, stop := context.WithTimeout(ctx, limits.JudgeTime)
	defer stop()
	failed, undecided := "", ""
	for i, a := range list {
		v, open, err := rec.Judge(ctx, a)
		if err != nil {
			// As in a run: the request would not have been sent.
			out.Status, out.Reason = StepErrored, fmt.Sprintf("In the expected value of assertion %d %s.", i+1, err)
			one := out.cannot(i, a, out.Reason)
			one.Undecided = false
			out.Assertions = append(out.Assertions, one)
			o.close(Errored)
			return
		}
		if open {
			out.Assertions = append(out.Assertions, out.cannot(i, a, v.Message))
			if a.Weight() == testspec.Hard && undecided == "" {
				undecided = v.Message
			}
			continue
		}
		d := evaluated(v)
		d.Step, d.Iteration, d.StepName, d.Index = res.Step, res.Iteration, res.Name, i
		out.Assertions = append(out.Assertions, Rejudged{AssertionEvaluated: d})
		if !v.Pass && v.Severity == testspec.Hard && failed == "" {
			failed = v.Message
		}
	}
	if failed == "" {
		failed = j.stays(res, l)
	}
	switch {
	case failed != "":
		out.Status, out.Reason = StepFailed, failed
		o.close(Failed)
	case undecided != "":
		out.Status, out.Reason = stepUndecided, undecided
		o.open(Failed)
	default:
		out.Status, out.Reason = StepPassed, ""
	}
}

// stays says why a step failed that other assertions cannot make pass.
func (j *rejudging) stays(res StepResult, l leaf) string {
	if res.Error != nil && res.Error.Code == codeUntil {
		return res.Error.Message
	}
	for _, c := range l.unit.Step.Captures {
		if !slices.ContainsFunc(res.Captures, func(kept Capture) bool { return kept.Name == c.Name }) {
			if res.Error != nil && res.Error.Code == "capture" {
				return res.Error.Message
			}
			return "The capture " + c.Name + " kept nothing."
		}
	}
	return ""
}

// capture takes over what a step captured, as far as it was kept.
func (j *rejudging) capture(res StepResult) {
	for _, c := range res.Captures {
		delete(j.captured, c.Name)
		var why string
		switch {
		case strings.Contains(string(c.Value), testspec.Hidden):
			why = fmt.Sprintf("What was captured as %s is hidden.", c.Name)
		case c.Size > 0:
			why = fmt.Sprintf("Only the beginning of what was captured as %s is kept.", c.Name)
		default:
			j.scope.Capture(c.Name, c.Value)
			continue
		}
		j.captured[c.Name] = why
		j.scope.Capture(c.Name, json.RawMessage(`"`+j.mark(why)+`"`))
	}
}

// recordedResponse is what was kept of the response of a step that list is about.
func (j *rejudging) recordedResponse(ctx context.Context, s *Service, l leaf, res StepResult, list []testspec.Assertion) (*testspec.Recorded, error) {
	a := res.Response
	if a == nil {
		return nil, fmt.Errorf("run %s tells of step %d without a response", j.run.ID, res.Step)
	}
	sub := &testspec.Subject{
		Status: a.Status, HTTPVersion: a.HTTPVersion, URL: res.Request.URL, ResponseTime: duration(&res.Timings.TotalMs), Scope: j.scope, Schemas: j.measure.schemas,
		Header: http.Header{},
		Timings: testspec.Timings{
			DNS: duration(res.Timings.DNSMs), Connect: duration(res.Timings.ConnectMs), TLS: duration(res.Timings.TLSMs),
			FirstByte: duration(res.Timings.FirstByteMs), Download: duration(res.Timings.DownloadMs),
		},
	}
	sub.Now = res.StartedAt.Add(sub.ResponseTime)
	if host, _, err := net.SplitHostPort(a.RemoteAddress); err == nil {
		sub.RemoteIP = host
	}
	for _, h := range a.Redirects {
		sub.Redirects = append(sub.Redirects, testspec.Hop{Status: h.Status, URL: h.URL, Location: h.Location})
		sub.URL = h.Location
	}
	rec := &testspec.Recorded{
		Subject: sub, Size: a.Size, SHA256: a.SHA256, Unknown: j.unknown, Variables: j.unknownVariables(l), Slack: limits.ReevaluateSlack,
		KnowsReason: a.HTTPVersion == "2" || a.HTTPVersion == "3", // which have none
		Alone:       !j.answered && res.Tries <= 1 && l.unit.Step.Request.Auth == nil,
	}
	if t := a.TLS; t != nil {
		sub.TLSVersion, sub.TLSCipher = t.Version, t.Cipher
		if alpn, known := map[string]string{"2": "h2", "3": "h3"}[a.HTTPVersion]; known {
			sub.ALPN, rec.KnowsProtocol = alpn, true
		}
		if c := t.Certificate; c != nil {
			rec.Certificate = &testspec.RecordedCertificate{
				Subject: c.Subject, Issuer: c.Issuer, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Fingerprint: c.Fingerprint,
			}
		}
	}
	return rec, j.readBody(ctx, s, rec, res, list)
}

// elsewhere are the sources that need neither body nor header lines.
var elsewhere = []string{
	"status", "reason", "httpVersion", "url", "redirects", "remoteIp", "bodySize", "sha256", "responseTime", "timing", "certificate", "tls", "variable",
}

// readBody reads the body and the header lines of a response, and says what is missing of them.
func (j *rejudging) readBody(ctx context.Context, s *Service, rec *testspec.Recorded, res StepResult, list []testspec.Assertion) error {
	if !slices.ContainsFunc(list, func(a testspec.Assertion) bool { return !slices.Contains(elsewhere, a.Source) }) {
		return nil
	}
	a := res.Response
	gap := "The response is not kept: those of the run weigh more than is kept of one run."
	var b StepBody
	if a.BodyRef != "" {
		var err error
		if b, err = s.StepResponse(ctx, j.orgID, j.run.ID, res.Step, res.Attempt, res.Iteration); err == nil {
			gap = ""
		} else if fault.KindOf(err) != fault.NotFound {
			return err
		} else {
			gap = "The response is no longer kept."
		}
	}
	rec.BodyGap, rec.HeadersGap = gap, gap
	if testspec.IsWhole(nil, a.Size, a.SHA256) { // an empty one, which is known without being kept
		rec.BodyGap = ""
	}
	if gap != "" {
		return nil
	}
	for _, h := range b.Headers {
		key := http.CanonicalHeaderKey(h.Name)
		rec.Subject.Header[key] = append(rec.Subject.Header[key], h.Value)
		rec.LastHeader = key
	}
	rec.HeadersCut = b.HeadersTruncated
	rec.Subject.Body = b.Body
	switch {
	case testspec.IsWhole(b.Body, a.Size, a.SHA256):
	case b.Truncated:
		rec.BodyGap = fmt.Sprintf("Only the first %d of %d bytes of the body are kept.", len(b.Body), a.Size)
	default:
		rec.BodyGap = "A value in the body is hidden, so that the body is not what came."
		rec.BodyMasked = a.SHA256 == "" && strings.Contains(string(b.Body), testspec.Hidden)
	}
	return nil
}
