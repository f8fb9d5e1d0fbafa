package run

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// recorder turns what the executor observes into events of one attempt, numbered in order, and bodies.
type recorder struct {
	args    ExecuteArgs
	attempt int
	columns eventstore.RunColumns
	next    int    // version of the next event
	name    string // of the step that assertions belong to
	counts  Counts
	events  []eventstore.RunEvent
	bodies  bodies
	kept    int // bytes of all bodies so far
}

func newRecorder(args ExecuteArgs, attempt int) *recorder {
	return &recorder{
		args: args, attempt: attempt, next: firstVersion(attempt) + 1,
		columns: eventstore.RunColumns{ProjectID: args.ProjectID, TestID: args.TestID, EnvironmentID: args.EnvironmentID, Region: args.Region},
	}
}

// take returns what was recorded since the last call.
func (r *recorder) take() ([]eventstore.RunEvent, bodies) {
	events, bodies := r.events, r.bodies
	r.events, r.bodies = nil, nil
	return events, bodies
}

// observe records one observation.
func (r *recorder) observe(o executor.Observation) {
	switch v := o.(type) {
	case executor.StepFinished:
		r.step(v)
	case executor.AssertionEvaluated:
		r.assertion(v)
	}
}

func (r *recorder) step(v executor.StepFinished) {
	r.name = v.Name
	d := StepFinished{
		Attempt: r.attempt, Region: r.args.Region, Step: v.Index, Iteration: v.Iteration, Phase: phaseOf(v), Fragment: v.Fragment,
		Tries: triesOf(v), Name: v.Name, Status: stepStatus(v.Status), Error: problemOf(v.Error),
		Timings: timingsOf(v.Timings), DurationMs: millis(v.Timings.Total), StartedAt: stored(v.StartedAt),
	}
	if v.Request != nil {
		d.Request = StepRequest{Method: v.Request.Method, URL: v.Request.URL, BodySize: v.Request.BodySize}
	}
	if v.Response != nil {
		d.Response = r.response(v)
	}
	for _, c := range v.Captures {
		d.Captures = append(d.Captures, captured(c))
	}
	r.count(v)
	columns := r.columns
	columns.Status, columns.Duration = string(d.Status), v.Timings.Total
	switch v.Status {
	case executor.Passed, executor.Failed, executor.Errored:
		ok := v.Status == executor.Passed
		columns.OK = &ok
	default: // says nothing about the target
	}
	r.add(columns, d)
}

func (r *recorder) response(v executor.StepFinished) *StepResponse {
	in := v.Response
	out := &StepResponse{
		Status: in.StatusCode, HTTPVersion: in.HTTPVersion, RemoteAddress: in.RemoteAddr, Reused: in.Reused, ContentType: in.ContentType,
		Size: in.Size, WireSize: in.WireSize, Truncated: in.BodyTruncated,
	}
	if in.SHA256 != [32]byte{} {
		out.SHA256 = hex.EncodeToString(in.SHA256[:])
	}
	if in.TLS != nil {
		out.TLS = &TLS{Version: in.TLS.Version, Cipher: in.TLS.Cipher}
		if c := in.TLS.Certificate; c != nil {
			out.TLS.Certificate = &Certificate{
				Subject: c.Subject, Issuer: c.Issuer, NotBefore: stored(c.NotBefore), NotAfter: stored(c.NotAfter), Fingerprint: c.Fingerprint,
			}
		}
	}
	for _, hop := range in.Redirects {
		out.Redirects = append(out.Redirects, Redirect{Status: hop.StatusCode, URL: hop.URL, Location: hop.Location})
	}
	if !r.keeps(v) {
		return out
	}
	out.BodyRef = strconv.Itoa(r.attempt) + "/" + strconv.Itoa(v.Index)
	if v.Iteration > 0 {
		out.BodyRef += "/" + strconv.Itoa(v.Iteration)
	}
	r.bodies = append(r.bodies, body{
		org: r.args.OrgID, run: r.args.RunID, attempt: r.attempt, step: v.Index, iteration: v.Iteration, request: v.Request, response: in,
	})
	return out
}

// bodyOverhead is what a body weighs beside its bytes: headers, about.
const bodyOverhead = 1024

// keeps says whether a response is kept: all of them until they weigh limits.MaxRunBodies together, then only those of
// steps that did not pass, up to twice as much.
func (r *recorder) keeps(v executor.StepFinished) bool {
	most := limits.MaxRunBodies
	if v.Status != executor.Passed {
		most *= 2
	}
	weight := len(v.Response.Body) + bodyOverhead
	if r.kept+weight > most {
		return false
	}
	r.kept += weight
	return true
}

// phaseOf is left out of what is stored where it is steps.
func phaseOf(v executor.StepFinished) string {
	if v.Phase == testspec.PhaseSteps {
		return ""
	}
	return string(v.Phase)
}

// triesOf is left out of what is stored where there was one at most.
func triesOf(v executor.StepFinished) int {
	if v.Tries == 1 {
		return 0
	}
	return v.Tries
}

func (r *recorder) count(v executor.StepFinished) {
	switch v.Status {
	case executor.Skipped:
		r.counts.StepsSkipped++
		return
	case executor.Passed:
	default:
		r.counts.StepsFailed++
	}
	r.counts.Steps++
	r.counts.Assertions += v.Assertions
	r.counts.AssertionsFailed += v.Failed
	r.counts.SoftFailed += v.SoftFailed
	if v.Response != nil {
		r.counts.ResponseBytes += int(v.Response.WireSize)
	}
}

func (r *recorder) assertion(v executor.AssertionEvaluated) {
	d := evaluated(v.Verdict)
	d.Attempt, d.Region, d.Step, d.Iteration, d.StepName, d.Index = r.attempt, r.args.Region, v.Step, v.Iteration, r.name, v.Index
	columns := r.columns
	pass := v.Pass
	columns.OK = &pass
	r.add(columns, d)
}

// evaluated is a verdict as it is told, without the place where its assertion stands.
func evaluated(v testspec.Verdict) AssertionEvaluated {
	d := AssertionEvaluated{
		Source: v.Source, Property: v.Property, Filters: v.Filters, Quantifier: v.Quantifier, Operator: v.Operator, Not: v.Not,
		Expected: v.Expected.JSON, ExpectedTruncated: v.Expected.Truncated, Actual: v.Actual.JSON, ActualTruncated: v.Actual.Truncated,
		Pass: v.Pass, Severity: string(v.Severity), Message: v.Message,
	}
	if v.Actual.Truncated {
		d.ActualSize = v.Actual.Size
	}
	if d.Severity == "" {
		d.Severity = string(testspec.Hard)
	}
	return d
}

func (r *recorder) add(columns eventstore.RunColumns, d eventstore.Data) {
	r.events = append(r.events, event(r.args.OrgID, r.args.RunID, r.next, columns, d))
	r.next++
}

// finish records the end of the attempt and of the run.
func (r *recorder) finish(res executor.Result, queued time.Duration) Finished {
	a := AttemptFinished{
		Attempt: r.attempt, Region: r.args.Region, Status: statusOf(res.Status), Reason: reasonOf(res), Error: problemOf(res.Error),
		Counts: r.counts, DurationMs: millis(res.Duration),
	}
	f := Finished{
		Status: a.Status, Reason: a.Reason, Error: a.Error, Region: a.Region, Attempts: r.attempt, Counts: a.Counts, DurationMs: a.DurationMs,
		QueuedMs: millis(queued),
	}
	r.events = append(r.events, ended(r.args.OrgID, r.args.RunID, r.next, r.columns, a, f, res.Duration)...)
	r.next++
	return f
}

func statusOf(s executor.Status) Status {
	switch s {
	case executor.Passed:
		return Passed
	case executor.Failed:
		return Failed
	case executor.Errored:
		return Errored
	case executor.Canceled:
		return Canceled
	default:
		return Inconclusive
	}
}

func reasonOf(res executor.Result) Reason {
	switch {
	case res.Status == executor.Canceled:
		return OnRequest
	case res.Status != executor.Inconclusive:
		return ""
	case res.Code == executor.CodeBlocked:
		return Blocked
	case res.Code == executor.CodeShutdown:
		return Shutdown
	default:
		return Internal
	}
}

// stepStatus is a step's outcome; one that was cut short by somebody's wish says so in its error's code.
func stepStatus(s executor.Status) StepStatus {
	switch s {
	case executor.Passed:
		return StepPassed
	case executor.Failed:
		return StepFailed
	case executor.Errored:
		return StepErrored
	case executor.Skipped:
		return StepSkipped
	default:
		return StepInconclusive
	}
}

func problemOf(e *executor.Error) *Problem {
	if e == nil {
		return nil
	}
	return &Problem{Code: string(e.Code), Message: e.Message, Phase: string(e.Phase)}
}

func timingsOf(t executor.Timings) Timings {
	phase := func(d time.Duration) *float64 {
		if d <= 0 {
			return nil
		}
		ms := millis(d)
		return &ms
	}
	return Timings{
		DNSMs: phase(t.DNS), ConnectMs: phase(t.Connect), TLSMs: phase(t.TLS), FirstByteMs: phase(t.FirstByte), DownloadMs: phase(t.Download),
		TotalMs: millis(t.Total),
	}
}

// masked stands in events for a value that nobody shall read.
const masked = `"•••"`

// captured hides a credential and cuts a long value down for its event; the whole one lives in the run only.
func captured(c executor.Captured) Capture {
	if c.Hidden {
		return Capture{Name: c.Name, Value: json.RawMessage(masked)}
	}
	if len(c.Value) <= limits.MaxActual {
		return Capture{Name: c.Name, Value: c.Value}
	}
	text, err := json.Marshal(string(c.Value[:limits.MaxActual]))
	if err != nil { // a string is always written
		text = []byte(`""`)
	}
	return Capture{Name: c.Name, Value: text, Size: len(c.Value)}
}

// stored is a time as the log keeps it.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
