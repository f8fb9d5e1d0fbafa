package run

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/secret"
	"github.com/testflow/testflow/internal/testspec"
)

// Kind is the kind of a run's stream.
const Kind = "run"

// The names below are stored for ever: add, never rename.
const (
	TypeRequested          = "run.requested"
	TypeCancelRequested    = "run.cancel_requested"
	TypeStarted            = "run.started"
	TypeStepFinished       = "run.step_finished"
	TypeAssertionEvaluated = "run.assertion_evaluated"
	TypeAttemptFinished    = "run.attempt_finished"
	TypeFinished           = "run.finished"
)

// VersionCancelRequested is where a wish to cancel stands in a run's stream: beside every attempt, so that it can come at
// any time, and once.
const VersionCancelRequested = 2

// Requested is the first event of every run: everything that is needed to execute it, and to execute it again.
type Requested struct {
	TestID             uuid.UUID `json:"testId"`
	TestName           string    `json:"testName"`
	Revision           int       `json:"revision"`
	ProjectID          uuid.UUID `json:"projectId"`
	EnvironmentID      uuid.UUID `json:"environmentId,omitzero"`
	EnvironmentName    string    `json:"environmentName,omitempty"`
	EnvironmentVersion int       `json:"environmentVersion,omitempty"`
	// ProjectVersion and OrganizationVersion say which of their variables: the version of their stream at the last change of
	// them, absent when there were none.
	ProjectVersion      int               `json:"projectVersion,omitempty"`
	OrganizationVersion int               `json:"organizationVersion,omitempty"`
	Secrets             []secret.Used     `json:"secrets,omitempty"`   // by name, as they were when it was requested
	Variables           map[string]string `json:"variables,omitempty"` // given with this execution; never secret
	// Fragments are the versions of what the revision uses, by name.
	Fragments   map[string]apitest.FragmentRef `json:"fragments,omitempty"`
	Trigger     Trigger                        `json:"trigger"`
	Region      string                         `json:"region"`
	MaxAttempts int                            `json:"maxAttempts"`      // under the retry policy; 1 = no repeat
	TimeoutMs   float64                        `json:"timeoutMs"`        // of one attempt, its teardown included
	SuiteID     uuid.UUID                      `json:"suiteId,omitzero"` // the execution of several tests that this run belongs to
	RerunOf     uuid.UUID                      `json:"rerunOf,omitzero"`
	RequestedBy By                             `json:"requestedBy"`
}

// By is who asked for a run. It holds no personal data: an id alone.
type By struct {
	Kind string    `json:"kind"` // user, apiKey, system
	ID   uuid.UUID `json:"id,omitzero"`
	// RequestID names the request, as the ledger and our log do; absent where none asked.
	RequestID string `json:"requestId,omitempty"`
}

// CancelRequested is the wish that a running run ends. Its worker ends it.
type CancelRequested struct {
	RequestedBy By `json:"requestedBy"`
}

// Started says that a worker took an attempt. A worker calls the target only after this event is committed and was its own.
type Started struct {
	Attempt int    `json:"attempt"` // from 1
	Region  string `json:"region"`
	Worker  string `json:"worker"` // name of the process
	// Claim is made anew each time that a worker takes a run up, so that it knows its own start when the answer to its
	// commit was lost.
	Claim uuid.UUID `json:"claim"`
}

// StepFinished is one request and its answer, without bodies and headers.
type StepFinished struct {
	Attempt    int           `json:"attempt"`
	Region     string        `json:"region"`
	Step       int           `json:"step"`                // index among setup, steps and teardown with fragments put in, from 0
	Iteration  int           `json:"iteration,omitempty"` // counts the results of this step in the attempt, from 0
	Tries      int           `json:"tries,omitempty"`     // how often the request was sent under its retry, when more than once
	Phase      string        `json:"phase,omitempty"`     // setup, teardown; absent = steps
	Fragment   string        `json:"fragment,omitempty"`  // in which the step is written
	Name       string        `json:"name"`
	Status     StepStatus    `json:"status"`
	Request    StepRequest   `json:"request"`
	Response   *StepResponse `json:"response,omitempty"` // absent when no answer came
	Timings    Timings       `json:"timings"`
	DurationMs float64       `json:"durationMs"`
	StartedAt  time.Time     `json:"startedAt,omitzero"`
	Captures   []Capture     `json:"captures,omitempty"`
	Error      *Problem      `json:"error,omitempty"`
}

// StepRequest is what was sent; credentials in the query are masked.
type StepRequest struct {
	Method   string `json:"method"`
	URL      string `json:"url"`
	BodySize int64  `json:"bodySize,omitempty"`
}

// StepResponse describes an answer.
type StepResponse struct {
	Status        int        `json:"status"`
	HTTPVersion   string     `json:"httpVersion,omitempty"`
	RemoteAddress string     `json:"remoteAddress,omitempty"`
	ContentType   string     `json:"contentType,omitempty"`
	Reused        bool       `json:"reused,omitempty"`  // the connection was kept from an earlier request
	TLS           *TLS       `json:"tls,omitempty"`     // absent without TLS
	Size          int64      `json:"size"`              // bytes of the body, decompressed, as far as it was read
	WireSize      int64      `json:"wireSize"`          // bytes of the body as they came
	SHA256        string     `json:"sha256,omitempty"`  // hex, of what was read
	BodyRef       string     `json:"bodyRef,omitempty"` // "attempt/step" or "attempt/step/iteration" in the table of bodies; empty = none kept
	Truncated     bool       `json:"truncated,omitempty"`
	Redirects     []Redirect `json:"redirects,omitempty"`
}

// TLS is what was agreed on.
type TLS struct {
	Version     string       `json:"version"`
	Cipher      string       `json:"cipher"`
	Certificate *Certificate `json:"certificate,omitempty"` // the target's own
}

// Certificate is what is kept of a target's certificate, so that its end can be told before it comes.
type Certificate struct {
	Subject     string    `json:"subject"` // as RFC 2253 writes it
	Issuer      string    `json:"issuer"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	Fingerprint string    `json:"fingerprint"` // SHA-256, hex
}

// Redirect is one hop that was followed.
type Redirect struct {
	Status   int    `json:"status"`
	URL      string `json:"url"`                // that was asked; credentials in its query are masked
	Location string `json:"location,omitempty"` // where it led, resolved, masked likewise
}

// Timings are the phases of a step's last request. Phases that didn't happen (a connection that was kept) are absent.
type Timings struct {
	DNSMs       *float64 `json:"dnsMs,omitempty"`
	ConnectMs   *float64 `json:"connectMs,omitempty"`
	TLSMs       *float64 `json:"tlsMs,omitempty"`
	FirstByteMs *float64 `json:"firstByteMs,omitempty"`
	DownloadMs  *float64 `json:"downloadMs,omitempty"`
	TotalMs     float64  `json:"totalMs"`
}

// Capture is a value that a step kept for later steps; a credential is masked.
type Capture struct {
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value,omitempty"` // a long one is cut and then a string
	Size  int             `json:"size,omitempty"`  // bytes of the whole value, when it was cut
}

// Problem is why something could not be done: a stable code, and one sentence. It holds no bytes of the target,
// except where an assertion is false and the sentence is the assertion's own.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Phase   string `json:"phase,omitempty"` // where in a step: prepare, dns, connect, tls, firstByte, download, capture
}

// AssertionEvaluated is one assertion with what was expected and what came.
type AssertionEvaluated struct {
	Attempt int    `json:"attempt"`
	Region  string `json:"region"`
	Step    int    `json:"step"`
	// Iteration is the step's.
	Iteration int    `json:"iteration,omitempty"`
	StepName  string `json:"stepName"`
	Index     int    `json:"index"` // in the step, from 0
	Source    string `json:"source"`
	Property  string `json:"property,omitempty"`
	// Filters are objects with one field each, name and argument; Quantifier is any, all, none or absent.
	Filters    []testspec.Filter   `json:"filters,omitempty"`
	Quantifier testspec.Quantifier `json:"quantifier,omitempty"`
	Operator   string              `json:"operator"`
	Not        bool                `json:"not,omitempty"`
	Expected   json.RawMessage     `json:"expected,omitempty"`
	Actual     json.RawMessage     `json:"actual,omitempty"` // masked; absent when there was nothing

	ExpectedTruncated bool   `json:"expectedTruncated,omitempty"` // then Expected is a string with its beginning
	ActualTruncated   bool   `json:"actualTruncated,omitempty"`
	ActualSize        int    `json:"actualSize,omitempty"` // bytes of the whole value as text, when it was cut
	Pass              bool   `json:"pass"`
	Severity          string `json:"severity"` // hard, soft: a soft one that is false does not fail the run
	Message           string `json:"message,omitempty"`
}

// AttemptFinished is the outcome of one attempt.
type AttemptFinished struct {
	Attempt    int      `json:"attempt"`
	Region     string   `json:"region"`
	Status     Status   `json:"status"`
	Reason     Reason   `json:"reason,omitempty"`
	Error      *Problem `json:"error,omitempty"`
	Counts     Counts   `json:"counts"`
	DurationMs float64  `json:"durationMs"`
}

// Finished is the one end of a run.
type Finished struct {
	Status     Status   `json:"status"`
	Reason     Reason   `json:"reason,omitempty"`
	Error      *Problem `json:"error,omitempty"`
	Region     string   `json:"region"`
	Attempts   int      `json:"attempts"` // that were started
	Counts     Counts   `json:"counts"`   // of the last attempt
	DurationMs float64  `json:"durationMs"`
	QueuedMs   float64  `json:"queuedMs"` // from request to the first start
}

// Counts sums up an attempt.
type Counts struct {
	Steps            int `json:"steps"` // that were executed
	StepsFailed      int `json:"stepsFailed"`
	StepsSkipped     int `json:"stepsSkipped,omitempty"`
	Assertions       int `json:"assertions"`
	AssertionsFailed int `json:"assertionsFailed"`        // hard ones
	SoftFailed       int `json:"softFailed,omitempty"`    // soft ones
	ResponseBytes    int `json:"responseBytes,omitempty"` // read from targets
}

// EventType names the event.
func (Requested) EventType() string { return TypeRequested }

// EventType names the event.
func (CancelRequested) EventType() string { return TypeCancelRequested }

// EventType names the event.
func (Started) EventType() string { return TypeStarted }

// EventType names the event.
func (StepFinished) EventType() string { return TypeStepFinished }

// EventType names the event.
func (AssertionEvaluated) EventType() string { return TypeAssertionEvaluated }

// EventType names the event.
func (AttemptFinished) EventType() string { return TypeAttemptFinished }

// EventType names the event.
func (Finished) EventType() string { return TypeFinished }

// Types are the events of runs, for the log's registry.
func Types() []eventstore.Type {
	lane := func(name string, v eventstore.Visibility, empty func() eventstore.Data) eventstore.Type {
		return eventstore.Type{Name: name, Lane: eventstore.Runs, Schema: 1, Visibility: v, New: empty}
	}
	return []eventstore.Type{
		lane(TypeRequested, eventstore.VisibleOrganization, func() eventstore.Data { return &Requested{} }),
		lane(TypeCancelRequested, eventstore.VisibleOrganization, func() eventstore.Data { return &CancelRequested{} }),
		lane(TypeStarted, eventstore.VisibleOrganization, func() eventstore.Data { return &Started{} }),
		lane(TypeStepFinished, eventstore.VisibleDetail, func() eventstore.Data { return &StepFinished{} }),
		lane(TypeAssertionEvaluated, eventstore.VisibleDetail, func() eventstore.Data { return &AssertionEvaluated{} }),
		lane(TypeAttemptFinished, eventstore.VisibleDetail, func() eventstore.Data { return &AttemptFinished{} }),
		lane(TypeFinished, eventstore.VisibleOrganization, func() eventstore.Data { return &Finished{} }),
	}
}

// millis is a duration as it leaves the process: milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
