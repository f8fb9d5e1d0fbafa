// Package executor runs a spec against the network.
//
// It sends each step's request through netguard, reads the response under caps, measures its phases, judges the
// assertions and keeps the captures, and tells an observer as it goes. It knows no database, no run record and no
// queue; it never retries a request and never stores anything. Whatever a target does ends in a typed result.
package executor

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/testspec"
	"github.com/testflow/testflow/internal/vault"
)

// Input is one attempt at a run.
type Input struct {
	RunID uuid.UUID
	// Attempt counts from 1; with RunID it says which generated values come, unless the spec has a seed.
	Attempt int
	// OrgID keeps connections apart: only runs of one organization share them.
	OrgID uuid.UUID
	Spec  testspec.Spec
	// Fragments are what the spec's steps use, by name, with all that these use in turn.
	Fragments map[string]testspec.Fragment
	// Variables were given for this run and win over everything; Environment are the chosen environment's and lose
	// against the spec's own. A capture wins over all three from the next step on.
	Variables   map[string]string
	Environment map[string]string
	// Project and Organization are the values of those scopes; they lose against all others, the project's against none but
	// the organization's.
	Project, Organization map[string]string
	// Secrets are what `{{secrets.name}}` stands for, by name. None of them, in any form that vault.Masker knows, is in
	// what the observer hears and in the Result.
	Secrets map[string]vault.Secret
	// Region is the name of the region that runs it; it goes into the result unchanged.
	Region string
}

// Status is how a run or a step ended.
type Status string

// The statuses of a run. A step has all but Inconclusive's shutdown, and Skipped besides.
const (
	Passed       Status = "passed"
	Failed       Status = "failed"       // a hard assertion is false, or a capture found nothing
	Errored      Status = "errored"      // the target could not be talked to
	Inconclusive Status = "inconclusive" // not the target's fault: blocked, shutdown, internal
	Canceled     Status = "canceled"     // somebody stopped it
	Skipped      Status = "skipped"      // a step before it did not pass
)

// Code says why a step or a run did not pass. Codes are stable and machine-read.
type Code string

// The codes. Each belongs to one status, in brackets.
const (
	CodeAssertion Code = "assertion"   // [failed] a hard assertion is false
	CodeCapture   Code = "capture"     // [failed] a capture found nothing, or something that cannot be kept
	CodeDNS       Code = "dns"         // [errored] the name has no address
	CodeConnect   Code = "connect"     // [errored] refused, unreachable, or closed while connecting
	CodeTLS       Code = "tls"         // [errored] handshake or certificate
	CodeTimeout   Code = "timeout"     // [errored] the request's or the spec's time was over
	CodeProtocol  Code = "protocol"    // [errored] what came is not HTTP, or ended early, or cannot be decoded
	CodeTooLarge  Code = "tooLarge"    // [errored] headers or body over the cap, also after decompression
	CodeRedirects Code = "redirects"   // [errored] too many, or one that leads nowhere
	CodeRequest   Code = "request"     // [errored] with its variables put in, the request cannot be sent
	CodeVariable  Code = "variable"    // [errored] a variable has no value
	CodeAuth      Code = "auth"        // [errored] the token endpoint of the request's auth gives no access token
	CodeBlocked   Code = "blocked"     // [inconclusive] policy refuses the address
	CodeShutdown  Code = "shutdown"    // [inconclusive] the worker is stopping
	CodeInternal  Code = "internal"    // [inconclusive] our fault
	CodeCanceled  Code = "canceled"    // [canceled] somebody stopped it
	CodeEarlier   Code = "earlierStep" // [skipped] a step before it did not pass, or the run had ended

	CodeUntil      Code = "until"      // [failed] what a retry waits for did not come
	CodeExpression Code = "expression" // [errored] a condition, or what a retry waits for, has no value
	CodeFragment   Code = "fragment"   // [errored] a fragment is not what the spec needs
	CodeCondition  Code = "condition"  // [skipped] its condition is false
	CodeSkip       Code = "skip"       // [skipped] the spec says so
	CodeNoRows     Code = "noRows"     // [skipped] the list of its loop is empty
)

// Codes lists every Code, for documents.
func Codes() []Code {
	return []Code{
		CodeAssertion, CodeCapture, CodeDNS, CodeConnect, CodeTLS, CodeTimeout, CodeProtocol, CodeTooLarge,
		CodeRedirects, CodeRequest, CodeVariable, CodeAuth, CodeBlocked, CodeShutdown, CodeInternal, CodeCanceled, CodeEarlier,
		CodeUntil, CodeExpression, CodeFragment, CodeCondition, CodeSkip, CodeNoRows,
	}
}

// Phase says where in a step an error happened.
type Phase string

// The phases, in their order.
const (
	PhasePrepare   Phase = "prepare"
	PhaseDNS       Phase = "dns"
	PhaseConnect   Phase = "connect"
	PhaseTLS       Phase = "tls"
	PhaseFirstByte Phase = "firstByte"
	PhaseDownload  Phase = "download"
	PhaseCapture   Phase = "capture"
)

// ErrCanceled and ErrShutdown are causes for context.WithCancelCause: the first (and any other cause but a deadline)
// ends a run canceled, the second inconclusive. A deadline of the caller's context ends it inconclusive (internal).
var (
	ErrCanceled = errors.New("the run was canceled")
	ErrShutdown = errors.New("the worker is stopping")
)

// Error says why something could not be done. Message is one sentence of ours: it holds no bytes of the target's and
// no URL, so that it may go anywhere.
type Error struct {
	Code    Code
	Message string
	Phase   Phase // "" when it belongs to none

	again bool // a retry may try once more
}

// Error returns code and message.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Observation is what the observer hears: StepFinished or AssertionEvaluated. They come in order, from one goroutine;
// each step's StepFinished first, then its assertions. What they point to is the observer's to keep.
type Observation interface{ observation() }

// StepFinished is the end of one step, skipped ones included.
type StepFinished struct {
	Index int // among setup, steps and teardown with fragments put in, from 0
	// Iteration counts the results of this step, from 0: more than one come from repeat and forEach, its own and those of
	// the fragments that it stands in.
	Iteration int
	Tries     int // how often the request was sent, under its retry; 0 when it was not
	Phase     testspec.Phase
	Fragment  string // the name of the one that the step is written in; "" = the spec's own
	Name      string // the step's, or "Step 3" when it has none
	Status    Status
	// More says that another step may be executed after this one.
	More  bool
	Error *Error // nil when it passed
	// Request is nil when it could not be prepared or the step was skipped, Response when none arrived.
	Request   *RequestSummary
	Response  *ResponseSummary
	Timings   Timings
	StartedAt time.Time
	// Assertions, Failed and SoftFailed count the step's evaluated assertions, the false hard ones, the false soft ones.
	Assertions, Failed, SoftFailed int
	Captures                       []Captured
}

// AssertionEvaluated is the judgement of one assertion.
type AssertionEvaluated struct {
	Step      int // the step's index, from 0
	Iteration int `json:"Iteration,omitzero"` //nolint:tagliatelle // the step's; golden files write it as they do its neighbours
	Index     int // within the step, from 0
	testspec.Verdict
}

func (StepFinished) observation()       {}
func (AssertionEvaluated) observation() {}

// RequestSummary is what was sent at first, before redirects.
type RequestSummary struct {
	Method    string
	URL       string // with variables put in; at most limits.MaxURL bytes
	Headers   []Header
	BodySize  int64
	Truncated bool // the header list was cut
}

// Header is one header line.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ResponseSummary is what came back last, after redirects.
type ResponseSummary struct {
	StatusCode  int
	HTTPVersion string // "1.0", "1.1", "2"
	URL         string // the one that answered
	RemoteAddr  string // ip:port
	Reused      bool   // the connection was kept alive from an earlier request
	Headers     []Header
	// HeadersTruncated says that there were more lines or bytes than are kept.
	HeadersTruncated bool
	// Size is the body's length after decompression, WireSize as received. With an error in the download both count
	// what was read until then.
	Size, WireSize int64
	// SHA256 is of the whole decompressed body; zero when it was not read to its end, or when it holds a secret.
	SHA256 [32]byte
	// Body is the first limits.MaxStoredBody bytes at most; it does not belong into an event.
	Body          []byte
	BodyTruncated bool
	whole         []byte // of which Body is the beginning, until secrets are hidden in it
	ContentType   string
	TLS           *TLSSummary // nil without TLS
	Redirects     []Redirect
}

// TLSSummary is what was agreed on.
type TLSSummary struct {
	Version     string // "1.2", "1.3"
	Cipher      string
	Certificate *CertificateSummary // the target's own
}

// CertificateSummary is what is told of a target's certificate.
type CertificateSummary struct {
	Subject, Issuer     string // as RFC 2253 writes them; at most limits.MaxActual bytes each
	NotBefore, NotAfter time.Time
	Fingerprint         string // SHA-256, hex
}

// Redirect is one hop that was left behind.
type Redirect struct {
	StatusCode int           `json:"statusCode"`
	URL        string        `json:"url"`      // that answered with the redirect
	Location   string        `json:"location"` // resolved
	Duration   time.Duration `json:"-"`
}

// Timings are a step's phases, from a monotonic clock, each summed over its redirects; a phase that did not happen
// (a kept connection has no DNS) is 0.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from a usable connection to the first byte: sending and the target's thinking
	Download  time.Duration
	// Total is from the start of the request to the last byte: what the source responseTime reads.
	Total time.Duration
}

// Captured is a value that a step kept.
type Captured struct {
	Name  string
	Value json.RawMessage // JSON; at most limits.MaxVariableValue bytes
	// Hidden says that the value is a credential by its name, its origin or its looks: it is for the next steps, and is
	// shown and stored nowhere.
	Hidden bool
}

// Result is how a run ended.
type Result struct {
	RunID  uuid.UUID
	Region string
	Status Status
	// Code and Error say why it did not pass, from the first step that did not; "" and nil when it passed.
	Code  Code
	Error *Error
	// FailedStep is the index of that step, -1 when there is none.
	FailedStep int
	// StepsRun and StepsSkipped count results of steps, each iteration by itself.
	StepsRun, StepsSkipped                   int
	Assertions, AssertionsFailed, SoftFailed int
	Captures                                 []Captured // of all steps, later ones of the same name win
	StartedAt, FinishedAt                    time.Time
	Duration                                 time.Duration // monotonic
	// ResponseTime is the sum of the steps' Timings.Total; Timings sums their phases.
	Timings Timings
}
