package testspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// Option changes what Validate accepts.
type Option func(*validator)

// WithNames makes Validate accept references to these variables besides the spec's own and earlier captures: the names
// of the environments that the test may run in, or of the variables given for one run.
func WithNames(names ...string) Option {
	return func(v *validator) {
		for _, n := range names {
			v.known[n] = true
		}
	}
}

// WithAnyName makes Validate accept any well-formed reference; that it has a value is then seen at run time. Scoped
// names such as `secrets.token` still need WithNames.
func WithAnyName() Option { return func(v *validator) { v.anyName = true } }

// WithURLCheck makes Validate pass every URL that holds no reference to check, whose error's text becomes the detail.
// netguard's CheckURL is meant: this room does not dial.
func WithURLCheck(check func(rawURL string) error) Option {
	return func(v *validator) { v.checkURL = check }
}

// Validate returns everything that is wrong with s, each with its pointer relative to the spec; nil when nothing is.
func Validate(s Spec, opts ...Option) []fault.Field {
	v := &validator{known: map[string]bool{}}
	for _, o := range opts {
		o(v)
	}
	v.spec(s)
	if v.lower != (limits.Tests{}) {
		v.faults = append(v.faults, OverLimits(s, v.lower)...)
	}
	return v.faults
}

type validator struct {
	lower        limits.Tests
	schemasNamed map[string]json.RawMessage // the JSON Schemas of the test

	known     map[string]bool // names that references may have here
	anyName   bool
	anySecret bool
	checkURL  func(string) error
	faults    []fault.Field

	loops          []loopNames // that one is in, the innermost last
	fragments      map[string]Fragment
	knowsFragments bool
}

func (v *validator) refuse(at, format string, args ...any) {
	v.faults = append(v.faults, fault.Field{Pointer: at, Detail: fmt.Sprintf(format, args...)})
}

func (v *validator) spec(s Spec) {
	if time.Duration(s.Timeout) > limits.MaxTimeout {
		v.refuse("/timeout", "A run takes at most %s.", Duration(limits.MaxTimeout))
	}
	if len(s.Variables) > limits.MaxVariables {
		v.refuse("/variables", "A test has at most %d variables.", limits.MaxVariables)
	}
	for _, name := range sorted(s.Variables) {
		at := "/variables/" + escapePointer(name)
		if !IsVariableName(name) {
			v.refuse(at, "A variable's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
		}
		if len(s.Variables[name]) > limits.MaxVariableValue {
			v.refuse(at, "A variable has at most %d bytes.", limits.MaxVariableValue)
		}
		v.generatedOnly(s.Variables[name], at)
		v.known[name] = true
	}
	v.schemas(s.Schemas)
	if s.Seed != nil && *s.Seed < 0 {
		v.refuse("/seed", "A seed is a whole number from 0 to %d.", math.MaxInt32)
	}
	v.phases(s)
}

func (v *validator) step(s Step, at string) {
	if len([]rune(s.Name)) > limits.MaxStepName {
		v.refuse(at+"/name", "A step's name has at most %d characters.", limits.MaxStepName)
	}
	leave := v.flow(s, at)
	if s.Use != "" {
		v.use(s, at)
		leave()
		return
	}
	if len(s.With) > 0 {
		v.refuse(at+"/with", "Parameters belong to a step that uses a fragment.")
	}
	v.request(s.Request, at+"/request")
	if len(s.Assertions) > limits.MaxAssertions {
		v.refuse(at+"/assertions", "A step has at most %d assertions.", limits.MaxAssertions)
	} else {
		for i, a := range s.Assertions {
			v.assertion(a, at+"/assertions/"+strconv.Itoa(i))
		}
	}
	leave()
	if len(s.Captures) > limits.MaxCaptures {
		v.refuse(at+"/captures", "A step has at most %d captures.", limits.MaxCaptures)
		return
	}
	// Known from the next step on, so after this one's request and assertions.
	here := map[string]bool{}
	for i, c := range s.Captures {
		cat := at + "/captures/" + strconv.Itoa(i)
		if !IsVariableName(c.Name) {
			v.refuse(cat+"/name", "A capture's name is a letter or _, then letters, digits, _ and -, at most %d characters.", limits.MaxVariableName)
		} else if here[c.Name] {
			v.refuse(cat+"/name", "This step has a capture of this name already.")
		}
		here[c.Name], v.known[c.Name] = true, true
		if src := v.source(c.Source, c.Property, cat); src != nil {
			v.filters(c.Filters, src.yields(c.Property), cat+"/filters")
		}
	}
}

func (v *validator) request(r Request, at string) {
	switch {
	case r.Method == "":
		v.refuse(at+"/method", "A request has a method, such as GET.")
	case !IsToken(r.Method) || len(r.Method) > 32 || r.Method != strings.ToUpper(r.Method):
		v.refuse(at+"/method", "A method is a word in capitals, such as GET, of at most 32 characters.")
	case r.Method == "CONNECT" || r.Method == "TRACE":
		v.refuse(at+"/method", "CONNECT and TRACE cannot be sent.")
	}
	v.url(r.URL, at+"/url")
	v.pairs(r.Query, at+"/query", limits.MaxQueryValues, "query values")
	v.headers(r, at)
	v.auth(r, at)
	v.body(r, at+"/body")
	v.retry(r.Retry, at+"/retry")
	if n := r.RedirectLimit(); n < 0 || n > limits.MaxRedirects {
		v.refuse(at+"/maxRedirects", "This is a number from 0 to %d.", limits.MaxRedirects)
	}
	if time.Duration(r.Timeout) > limits.MaxTimeout {
		v.refuse(at+"/timeout", "A request takes at most %s.", Duration(limits.MaxTimeout))
	}
	if !slices.Contains(HTTPVersions(), string(r.Version())) {
		v.refuse(at+"/httpVersion", "This is one of %s.", strings.Join(HTTPVersions(), ", "))
	}
	v.wire(r, at)
}

// url checks what can be known of a URL before its variables have values.
func (v *validator) url(raw, at string) {
	if raw == "" {
		v.refuse(at, "A request has a URL.")
		return
	}
	if len(raw) > limits.MaxURL {
		v.refuse(at, "A URL has at most %d bytes.", limits.MaxURL)
		return
	}
	if !v.template(raw, at) {
		return
	}
	parts, err := parseTemplate(raw)
	if err != nil {
		return // told already
	}
	whole := len(parts) == 1 && parts[0].ref == ""
	var probe strings.Builder
	for _, p := range parts {
		if p.ref != "" {
			// A digit fits a host's label, a port and a path.
			p.lit = "1"
		}
		probe.WriteString(p.lit)
	}
	text := probe.String()
	if i := strings.IndexFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }); i >= 0 {
		v.refuse(at, "A URL holds no control characters.")
		return
	}
	if parts[0].ref != "" {
		return // the scheme and host come from the variable
	}
	if !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://") {
		v.refuse(at, "A URL begins with http:// or https://, or with a variable.")
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		v.refuse(at, "This is not a URL.")
	case u.User != nil:
		v.refuse(at, "A URL holds no user name or password; use a header.")
	case u.Hostname() == "":
		v.refuse(at, "A URL names a host.")
	case whole && v.checkURL != nil:
		if err := v.checkURL(text); err != nil {
			v.refuse(at, "%s.", sentence(err.Error()))
		}
	}
}

// pairs checks a query or a form: names are sent as they are, values are templates.
func (v *validator) pairs(m map[string]Values, at string, limit int, what string) {
	n := 0
	for _, name := range sorted(m) {
		here := at + "/" + escapePointer(name)
		if name == "" {
			v.refuse(here, "A name is not empty.")
		}
		n += len(m[name])
		for i, value := range m[name] {
			v.template(value, valueAt(here, m[name], i))
		}
	}
	if n > limit {
		v.refuse(at, "There are at most %d %s.", limit, what)
	}
}

// valueAt points to one of several values.
func valueAt(at string, values Values, i int) string {
	if len(values) == 1 {
		return at
	}
	return at + "/" + strconv.Itoa(i)
}

func (v *validator) headers(r Request, at string) {
	n, size := 0, 0
	seen := map[string]bool{}
	for _, name := range sorted(r.Headers) {
		here := at + "/headers/" + escapePointer(name)
		if why := refusedHeader(name); why != "" {
			v.refuse(here, "%s", why)
		}
		if low := strings.ToLower(name); seen[low] {
			v.refuse(here, "This header stands here twice; give it a list of values.")
		} else {
			seen[low] = true
		}
		values := r.Headers[name]
		n += len(values)
		for i, value := range values {
			size += len(name) + len(value) + 4
			if !ValidHeaderValue(value) {
				v.refuse(valueAt(here, values, i), "A header's value holds no control characters.")
			}
			v.template(value, valueAt(here, values, i))
		}
	}
	if n > limits.MaxHeaders {
		v.refuse(at+"/headers", "A request has at most %d headers.", limits.MaxHeaders)
	}
	if size > limits.MaxHeaderBytes {
		v.refuse(at+"/headers", "A request's headers have at most %d bytes.", limits.MaxHeaderBytes)
	}
}

// ownHeaders are set by the engine: hop by hop, about framing, or with a field of their own.
var ownHeaders = []string{
	"connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-authorization", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade",
}

// refusedHeader says why a request may not set a header, "" when it may.
func refusedHeader(name string) string {
	switch {
	case !IsToken(name):
		return "This is not the name of a header."
	case slices.Contains(ownHeaders, strings.ToLower(name)):
		return "This header belongs to the connection and cannot be set."
	case strings.EqualFold(name, "host"):
		return "The host comes from the URL and cannot be set as a header."
	}
	return ""
}

// ValidHeaderValue says whether s can be sent as a header's value: no CR, LF, NUL or other control character but TAB.
func ValidHeaderValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// template checks a template's form and its references; false when its form is wrong.
func (v *validator) template(s, at string) bool {
	parts, err := parseTemplate(s)
	if err != nil {
		v.refuse(at, "%s.", sentence(err.Error()))
		return false
	}
	for _, p := range parts {
		if p.ref == "" || strings.HasPrefix(p.ref, "$") && p.ref != indexReference || v.known[p.ref] || v.anyName && !strings.ContainsAny(p.ref, ".$") {
			continue
		}
		if known, why := v.loopName(p.ref); known {
			continue
		} else if why != "" {
			v.refuse(at, "%s", why)
			continue
		}
		if name, ok := strings.CutPrefix(p.ref, SecretScope); ok {
			if !v.anySecret {
				v.refuse(at, "{{%s}}: there is no secret %s in the environment, its project or the organization; set it first.", p.ref, name)
			}
			continue
		}
		if scope, _, ok := strings.Cut(p.ref, "."); ok {
			v.refuse(at, "{{%s}}: there is no such value in the scope %s; a field of a captured value is captured by itself.", p.ref, scope)
			continue
		}
		v.refuse(at, "{{%s}}: no variable of this name is set here, and no earlier step captures it.", p.ref)
	}
	return true
}

// generatedOnly checks the value of a variable: it is taken as it is, but for generated values, which are made once.
func (v *validator) generatedOnly(s, at string) {
	parts, err := parseTemplate(s)
	if err != nil {
		v.refuse(at, "%s.", sentence(err.Error()))
		return
	}
	for _, p := range parts {
		if p.ref != "" && (!strings.HasPrefix(p.ref, "$") || p.ref == indexReference) {
			v.refuse(at, "A variable's value is taken as it is, but for generated values such as {{$uuid}}; {{%s}} in it is not replaced. Put both references where they are used.", p.ref)
		}
	}
}

// jsonTemplate checks every string of a JSON value as a template.
func (v *validator) jsonTemplate(raw json.RawMessage, at string) {
	tree, faults, err := readTree(raw, limits.MaxSpecBytes)
	if err != nil {
		v.refuse(at, "This is not JSON.")
		return
	}
	for _, f := range faults {
		f.Pointer = at + f.Pointer
		v.faults = append(v.faults, f)
	}
	if mayHoldReference(raw) {
		v.nodeTemplate(tree, at)
	}
}

func (v *validator) nodeTemplate(n *node, at string) {
	if n.kind == 's' {
		v.template(n.text, at)
	}
	for i, kid := range n.kids {
		name := strconv.Itoa(i)
		if n.kind == '{' {
			name = escapePointer(n.keys[i])
		}
		v.nodeTemplate(kid, at+"/"+name)
	}
}

// source checks a source and its property and returns the source, nil when there is none.
func (v *validator) source(name, property, at string) *SourceInfo {
	src, ok := sourceByName[name]
	switch {
	case name == "":
		v.refuse(at+"/source", "A source is needed: one of %s.", strings.Join(SourceNames(), ", "))
		return nil
	case !ok:
		v.refuse(at+"/source", "%s", unknownName("source", name, SourceNames()))
		return nil
	case src.Property == "" && property != "":
		v.refuse(at+"/property", "The source %s takes no property.", name)
	case src.Property != "" && property == "":
		v.refuse(at+"/property", "The source %s needs a property: %s.", name, src.wants())
	case len(property) > limits.MaxProperty:
		v.refuse(at+"/property", "A property has at most %d bytes.", limits.MaxProperty)
	case src.parts != nil && !src.hasPart(property):
		v.refuse(at+"/property", "%s", unknownName("part of "+name, property, src.partNames()))
	case src.checkProperty != nil:
		if why := src.checkProperty(property); why != "" {
			v.refuse(at+"/property", "%s", why)
		}
	}
	return src
}

func (v *validator) assertion(a Assertion, at string) {
	src := v.source(a.Source, a.Property, at)
	if a.Severity != "" && !slices.Contains(Severities(), string(a.Severity)) {
		v.refuse(at+"/severity", "This is one of %s.", strings.Join(Severities(), ", "))
	}
	if a.Quantifier != "" && !slices.Contains(Quantifiers(), string(a.Quantifier)) {
		v.refuse(at+"/quantifier", "This is one of %s.", strings.Join(Quantifiers(), ", "))
	}
	var got yielded
	if src != nil {
		got = v.yielded(a, src, at)
	}
	fitting := OperatorNames()
	if got.kinds != 0 {
		fitting = operatorsOf(got.kinds)
	}
	op, ok := operatorByName[a.Operator]
	switch {
	case a.Operator == "":
		v.refuse(at+"/operator", "An operator is needed: one of %s.", strings.Join(fitting, ", "))
		return
	case !ok:
		v.refuse(at+"/operator", "%s", unknownName("operator", a.Operator, fitting))
		return
	case got.kinds != 0 && op.Takes&got.kinds == 0:
		v.refuse(at+"/operator", "%s yields %s, and %s does not fit; there are %s.",
			got.whom, got.kinds.names(), op.Name, strings.Join(fitting, ", "))
		return
	}
	v.expected(a, got, op, at+"/expected")
}

// yielded follows the kinds of values from the source through filters and quantifier to the operator.
func (v *validator) yielded(a Assertion, src *SourceInfo, at string) yielded {
	got := yielded{kinds: src.yields(a.Property), whom: "The source " + src.Name}
	if len(a.Filters) > 0 {
		before := len(v.faults)
		got.kinds = v.filters(a.Filters, got.kinds, at+"/filters")
		got.whom = "The filter " + a.Filters[len(a.Filters)-1].Name
		if len(v.faults) > before {
			return yielded{} // what comes is not known
		}
	}
	if a.Quantifier != "" {
		if got.kinds&(KindList|KindJSON) == 0 {
			v.refuse(at+"/quantifier", "A quantifier is about the members of a list, and here comes %s.", got.kinds.names())
			return yielded{}
		}
		got.kinds = KindJSON | KindText
	}
	return got
}

func (v *validator) expected(a Assertion, got yielded, op *OperatorInfo, at string) {
	if op.Expected == ExpectNothing {
		if a.Expected != nil {
			v.refuse(at, "The operator %s takes no expected value.", op.Name)
		}
		return
	}
	if a.Expected == nil {
		v.refuse(at, "The operator %s needs an expected value: %s.", op.Name, op.Expected.doc())
		return
	}
	if len(a.Expected) > limits.MaxExpected {
		v.refuse(at, "An expected value has at most %d bytes.", limits.MaxExpected)
		return
	}
	before := len(v.faults)
	v.jsonTemplate(a.Expected, at)
	if len(v.faults) > before {
		return
	}
	if op.Expected == ExpectSchema {
		if !mayHoldReference(a.Expected) { // else it is read when its variables have values
			v.schema(a.Expected, at)
		}
		return
	}
	value, err := decodeJSON(a.Expected)
	if err != nil {
		v.refuse(at, "This is not JSON.")
		return
	}
	if why := checkExpected(value, got, op); why != "" {
		v.refuse(at, "%s", why)
	}
}

// sorted returns m's keys in order, so that faults come in an order that people can follow.
func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
