// Package testspec is the language of a test: what is sent and what must hold.
//
// It reads a spec strictly (every fault named with its JSON Pointer), validates it, puts variables into it, and judges
// a response by its assertions. Sources and operators stand in one table each (sources.go, operators.go), from which
// documents, enumerations and error messages come. The package does no I/O: executor sends the requests.
package testspec

import (
	"encoding/json"
	"time"

	"github.com/testflow/testflow/internal/limits"
)

// Spec is the content of a test's revision. Its name, project, tags and schedule belong to the test, not to it.
// A Spec that came from Parse and has no faults under Validate is safe to run; it is not changed afterwards and may be
// shared between goroutines.
type Spec struct {
	// Timeout bounds the whole run; 0 means limits.MaxTimeout.
	Timeout Duration `json:"timeout,omitzero"`
	// Variables are the test's own values. They are taken as they are, but for generated values, which are made once an
	// attempt; other references in them are refused.
	Variables map[string]string `json:"variables,omitempty"`
	// Schemas are JSON Schemas that assertions refer to as {"$ref": "schemas/NAME"}, or by an absolute URI that is the
	// name. References in them are not replaced.
	Schemas map[string]json.RawMessage `json:"schemas,omitempty"`
	// Seed makes generated values the same in every run, times aside; nil means new ones in each attempt.
	Seed *int `json:"seed,omitempty"`
	// Setup is executed before Steps; when it fails, Steps are skipped. Teardown is executed at the end whatever happened,
	// each of its steps also after one that failed.
	Setup    []Step `json:"setup,omitempty"`
	Steps    []Step `json:"steps"`
	Teardown []Step `json:"teardown,omitempty"`
	// RerunOnWorkerLoss lets a run whose worker was lost be sent again although a step may change something.
	RerunOnWorkerLoss bool `json:"rerunOnWorkerLoss,omitempty"`
}

// Step is one request with what must hold of its response and what is kept of it, or the steps of a fragment. See flow.go
// for what the fields of its flow mean together.
type Step struct {
	Name string `json:"name,omitempty"`
	// Use is the name of a fragment of the project, whose steps take this one's place; With are its parameters.
	Use  string            `json:"use,omitempty"`
	With map[string]string `json:"with,omitempty"`
	// Variables are this step's own; references in them are replaced when its turn comes. They lose against captures and the
	// run's variables, and win over all others.
	Variables map[string]string `json:"variables,omitempty"`
	// If is an expression; when it is false, the step is skipped.
	If   string `json:"if,omitempty"`
	Skip Skip   `json:"skip,omitzero"`
	// Always executes the step also after one that failed.
	Always bool `json:"always,omitempty"`
	// Delay is waited for before the request.
	Delay Duration `json:"delay,omitzero"`
	// Repeat executes the step so often, ForEach once for each row; at most one of the two is set.
	Repeat  *int     `json:"repeat,omitempty"`
	ForEach *ForEach `json:"forEach,omitempty"`

	Request    Request     `json:"request,omitzero"`
	Assertions []Assertion `json:"assertions,omitempty"`
	Captures   []Capture   `json:"captures,omitempty"`
}

// Request is one HTTP request. References `{{name}}` may stand in URL, query values, header values and the body.
type Request struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Query is added to the URL's own query, its names in alphabetical order, values percent-encoded.
	Query   map[string]Values `json:"query,omitempty"`
	Headers map[string]Values `json:"headers,omitempty"`
	Auth    *Auth             `json:"auth,omitempty"`
	Body    *Body             `json:"body,omitempty"`
	// FollowRedirects is true unless set; MaxRedirects is limits.DefaultMaxRedirects unless set.
	FollowRedirects *bool `json:"followRedirects,omitempty"`
	MaxRedirects    *int  `json:"maxRedirects,omitempty"`
	// Timeout bounds this request, redirects and body included; 0 means limits.DefaultTimeout. The spec's own comes on top.
	Timeout     Duration    `json:"timeout,omitzero"`
	HTTPVersion HTTPVersion `json:"httpVersion,omitempty"`
	// VerifyTLS is true unless set.
	VerifyTLS *bool `json:"verifyTls,omitempty"`
	// Cookies says whether the run's shared cookie jar is used; true unless set.
	Cookies *bool `json:"cookies,omitempty"`
	// How the connection is made; see wire.go. Proxy is a template such as http://user:password@proxy.example:3128; Resolve
	// says which address to dial for a "host:port", in place of what the name resolves to.
	TLS       *TLS              `json:"tls,omitempty"`
	Proxy     string            `json:"proxy,omitempty"`
	Resolve   map[string]string `json:"resolve,omitempty"`
	IPVersion IPVersion         `json:"ipVersion,omitempty"`
	// Retry sends the request again until its answer is what one waits for.
	Retry *Retry `json:"retry,omitempty"`
}

// HTTPVersion chooses the protocol of a request.
type HTTPVersion string

// The versions. Auto is what TLS negotiates: 2 when the target offers it, 1.1 otherwise.
const (
	HTTPAuto HTTPVersion = "auto"
	HTTP1    HTTPVersion = "1.1"
	HTTP2    HTTPVersion = "2"
	HTTP3    HTTPVersion = "3"
)

// HTTPVersions lists every HTTPVersion, for documents.
func HTTPVersions() []string {
	return []string{string(HTTPAuto), string(HTTP1), string(HTTP2), string(HTTP3)}
}

// Assertion is one thing that must hold of a response.
type Assertion struct {
	Source string `json:"source"`
	// Property says which part of the source: a header's name, a JSONPath. References are not replaced in it.
	Property string `json:"property,omitempty"`
	// Filters are applied to what the source yields, one after the other, before it is judged.
	Filters []Filter `json:"filters,omitempty"`
	// Quantifier judges each member of a list by the operator, and says how many must hold; "" judges the value itself.
	Quantifier Quantifier `json:"quantifier,omitempty"`
	Operator   string     `json:"operator"`
	// Expected is any JSON value that the operator takes; nil when absent. References stand in its strings.
	Expected json.RawMessage `json:"expected,omitempty"`
	// Not turns the operator into its opposite; under a quantifier, for each member.
	Not      bool     `json:"not,omitempty"`
	Severity Severity `json:"severity,omitempty"`
}

// Severity says what a false assertion does to its run.
type Severity string

// A false hard assertion (the default) fails the run; a false soft one is only reported.
const (
	Hard Severity = "hard"
	Soft Severity = "soft"
)

// Severities lists every Severity, for documents.
func Severities() []string { return []string{string(Hard), string(Soft)} }

// Quantifier says how many members of a list must hold.
type Quantifier string

// The quantifiers. Of an empty list All and None hold, and Any does not.
const (
	QuantifierAny  Quantifier = "any"
	QuantifierAll  Quantifier = "all"
	QuantifierNone Quantifier = "none"
)

// Quantifiers lists every Quantifier, for documents.
func Quantifiers() []string {
	return []string{string(QuantifierAny), string(QuantifierAll), string(QuantifierNone)}
}

// Capture keeps a part of a response as a variable for the steps after it.
type Capture struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Property string `json:"property,omitempty"`
	// Secret keeps the value out of all that the run says from there on.
	Secret bool `json:"secret,omitempty"`
	// Filters are applied to what the source yields, one after the other, before it is kept.
	Filters []Filter `json:"filters,omitempty"`
}

// Follows returns whether redirects are followed.
func (r Request) Follows() bool { return r.FollowRedirects == nil || *r.FollowRedirects }

// RedirectLimit returns how many redirects are followed at most.
func (r Request) RedirectLimit() int {
	if r.MaxRedirects == nil {
		return limits.DefaultMaxRedirects
	}
	return *r.MaxRedirects
}

// Verifies returns whether the target's certificate is checked.
func (r Request) Verifies() bool { return r.VerifyTLS == nil || *r.VerifyTLS }

// UsesCookies returns whether the run's cookie jar is used.
func (r Request) UsesCookies() bool { return r.Cookies == nil || *r.Cookies }

// Version returns the chosen protocol, HTTPAuto when none is.
func (r Request) Version() HTTPVersion {
	if r.HTTPVersion == "" {
		return HTTPAuto
	}
	return r.HTTPVersion
}

// TotalTimeout returns how long a run may take.
func (s Spec) TotalTimeout() time.Duration {
	if s.Timeout <= 0 {
		return limits.MaxTimeout
	}
	return min(time.Duration(s.Timeout), limits.MaxTimeout)
}

// Weight returns a's severity, Hard when none is set.
func (a Assertion) Weight() Severity {
	if a.Severity == "" {
		return Hard
	}
	return a.Severity
}
