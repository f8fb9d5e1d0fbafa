package testspec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// A response that was stored is judged again by what was stored. What was hidden, cut or never kept could have been
// anything, so nothing is said of it: such an assertion is undecided, with one sentence why.

// Hidden stands in what is stored for a value that nobody shall read.
const Hidden = "•••"

// Recorded is a response as it was stored: a Subject, and what is missing of it. Not safe for concurrent use.
type Recorded struct {
	// Subject holds what was kept: Body as far as BodyGap says nothing, Header as far as HeadersGap says nothing.
	// Certificate, Jar and SetCookies are not looked at.
	Subject *Subject
	// BodyGap is a sentence that says why Body is not what came, whole; "" when it is. BodyMasked says that it is whole but
	// for values in it that were hidden: a JSONPath of names and indexes may then be judged, if it selects none of them.
	BodyGap    string
	BodyMasked bool
	// Size is the body's, SHA256 its hash in hexadecimal digits, "" when it is not known.
	Size   int64
	SHA256 string
	// HeadersGap says why there are no header lines; "" when there are. HeadersCut says that there were more behind
	// LastHeader.
	HeadersGap string
	HeadersCut bool
	LastHeader string
	// Alone says that no response came before this one that may have set a cookie.
	Alone bool
	// KnowsReason and KnowsProtocol say that Subject.Reason and Subject.ALPN were stored, be they empty.
	KnowsReason, KnowsProtocol bool
	// Certificate is what was kept of the target's; nil when nothing was, or when there was no TLS.
	Certificate *RecordedCertificate
	// Unknown says of texts that stand in the Scope for values that are not known, in a sentence, why they aren't; Variables
	// are the names of the variables that hold one. LoopGap says why row and index are not known.
	Unknown   map[string]string
	Variables map[string]string
	LoopGap   string
	// Slack is how much later than Subject.Now it may have been when the response was judged.
	Slack time.Duration
}

// RecordedCertificate is what is kept of a certificate.
type RecordedCertificate struct {
	Subject, Issuer     string
	NotBefore, NotAfter time.Time
	Fingerprint         string
}

// Judge judges one assertion, whose expected value has no variables put in yet. When undecided is true, the verdict's
// message says why in a sentence, and Pass says nothing. The error is Scope.ExpandExpected's.
func (r *Recorded) Judge(ctx context.Context, a Assertion) (v Verdict, undecided bool, err error) {
	v = Verdict{
		Source: a.Source, Property: a.Property, Filters: a.Filters, Quantifier: a.Quantifier, Operator: a.Operator, Not: a.Not, Severity: a.Weight(),
	}
	expanded, why, err := r.expand(a)
	if err != nil {
		return v, false, err
	}
	if why == "" {
		why = r.gap(expanded)
	}
	if why != "" {
		v.Message = why
		return v, true, nil
	}
	judged, why := r.judgeAt(ctx, expanded, 0)
	if why == "" && r.Slack > 0 && dependsOnNow(expanded) {
		var later Verdict
		if later, why = r.judgeAt(ctx, expanded, r.Slack); why == "" && later.Pass != judged.Pass {
			why = "It depends on the instant at which the response was judged, which is not kept to the second."
		}
	}
	if why != "" {
		v.Message = why
		return v, true, nil
	}
	return judged, false, nil
}

// judgeAt judges a so long after Subject.Now.
func (r *Recorded) judgeAt(ctx context.Context, a Assertion, later time.Duration) (v Verdict, why string) {
	s := r.Subject
	now := s.Now
	s.Now = now.Add(later)
	defer func() { s.Now = now }()
	s.recorded = r.facts(s.Now)
	raw := s.read(ctx, sourceByName[a.Source], a.Property)
	if why := r.hides(a, raw); why != "" {
		return v, why
	}
	v = s.Judge(ctx, a)
	if ctx.Err() != nil {
		return v, "The time for judging it was over."
	}
	return v, ""
}

// expand puts variables into the expected value; why says which of them is not known.
func (r *Recorded) expand(a Assertion) (out Assertion, why string, err error) {
	if a.Expected == nil || !mayHoldReference(a.Expected) {
		return a, "", nil
	}
	tree, _, err := readTree(a.Expected, limits.MaxSpecBytes)
	if err != nil {
		return a, "", &TemplateError{"this is not JSON"}
	}
	for _, name := range tree.references(nil) {
		switch {
		case strings.HasPrefix(name, SecretScope):
			return a, "A secret stands in the expected value, and secrets are not kept with a run.", nil
		case r.LoopGap != "" && (name == indexReference || !IsVariableName(name)):
			return a, r.LoopGap, nil
		case strings.HasPrefix(name, "$") && name != indexReference:
			return a, "A generated value stands in the expected value; it was made for the run and is not kept.", nil
		}
	}
	if out, err = r.Subject.Scope.ExpandExpected(a); err != nil {
		var undefined *UndefinedError
		if errors.As(err, &undefined) && r.LoopGap != "" {
			return a, r.LoopGap, nil
		}
		return a, "", err
	}
	return out, r.unknownIn(string(out.Expected)), nil
}

// references lists the names that the strings of a JSON value refer to.
func (n *node) references(found []string) []string {
	for _, kid := range n.kids {
		found = kid.references(found)
	}
	if n.kind == 's' {
		found = append(found, References(n.text)...)
	}
	return found
}

// unknownIn says why a text is not known in which something stands that isn't.
func (r *Recorded) unknownIn(text string) string {
	for marker, why := range r.Unknown {
		if strings.Contains(text, marker) {
			return why
		}
	}
	return ""
}

// dependsOnNow says whether the instant of judging may matter.
func dependsOnNow(a Assertion) bool {
	return a.Operator == "before" || a.Operator == "after" || a.Source == "certificate" && a.Property == "daysUntilExpiry" ||
		slices.ContainsFunc(a.Filters, func(f Filter) bool { return strings.HasSuffix(f.Name, "Now") })
}

// facts are the values of sources that are kept by themselves.
func (r *Recorded) facts(now time.Time) map[[2]string]value {
	facts := map[[2]string]value{{"bodySize", ""}: numberValue(r.Size)}
	if r.SHA256 != "" {
		facts[[2]string{"sha256", ""}] = value{v: r.SHA256}
	}
	if c := r.Certificate; c != nil {
		for part, v := range map[string]value{
			"subject": {v: c.Subject}, "issuer": {v: c.Issuer}, "notBefore": dateValue(c.NotBefore), "notAfter": dateValue(c.NotAfter),
			"fingerprint": {v: c.Fingerprint}, "daysUntilExpiry": numberValue(wholeDays(c.NotAfter.Sub(now))),
		} {
			facts[[2]string{"certificate", part}] = v
		}
	}
	return facts
}

// read reads a source, or takes what was kept of it by itself.
func (s *Subject) read(ctx context.Context, src *SourceInfo, property string) value {
	if v, ok := s.recorded[[2]string{src.Name, property}]; ok {
		return v
	}
	return src.read(ctx, s, property)
}

// gap says in a sentence what is missing for a, "" when nothing is.
func (r *Recorded) gap(a Assertion) string {
	s := r.Subject
	switch a.Source {
	case "reason":
		if !r.KnowsReason && s.Reason == "" {
			return "The reason phrase was not kept."
		}
	case "httpVersion":
		if s.HTTPVersion == "" {
			return "The version of HTTP was not kept."
		}
	case "url":
		if s.URL == "" {
			return "The URL was not kept."
		}
	case "sha256":
		if r.SHA256 == "" {
			return "The hash of the body was not kept, since the body holds a secret."
		}
	case "body", "bytes", "md5", "xpath", "css", "regex", "jsonSchema":
		if r.BodyGap != "" {
			return r.BodyGap
		}
		return r.charsetGap(a.Source)
	case "jsonpath":
		if r.BodyGap == "" || r.BodyMasked && singularPath(a.Property) {
			return ""
		}
		return r.BodyGap
	case "header":
		return r.headerGap(a.Property)
	case "cookie":
		return r.cookieGap(a.Property)
	case "certificate":
		if _, kept := r.facts(s.Now)[[2]string{"certificate", a.Property}]; s.TLSVersion != "" && !kept {
			return "This field of the certificate was not kept."
		}
	case "tls":
		if a.Property == "protocol" && s.TLSVersion != "" && !r.KnowsProtocol {
			return "The protocol that was chosen by ALPN was not kept."
		}
	case "expression":
		return r.expressionGap(a.Property)
	}
	return ""
}

// charsetGap says that a body can't be read as text, since what it says of itself isn't known.
func (r *Recorded) charsetGap(source string) string {
	if source == "bytes" || source == "md5" || source == "jsonSchema" || len(r.Subject.Body) == 0 {
		return ""
	}
	return r.headerGap("Content-Type")
}

func singularPath(property string) bool {
	path, err := compilePath(property)
	return err == nil && path.singular
}

// linesGap says why some header lines are not known.
func (r *Recorded) linesGap() string {
	if r.HeadersGap == "" && r.HeadersCut {
		return "The target sent more header lines than are kept."
	}
	return r.HeadersGap
}

// headerGap says why the lines of a name are not known.
func (r *Recorded) headerGap(name string) string {
	key := http.CanonicalHeaderKey(name)
	lines, there := r.Subject.Header[key]
	if r.HeadersGap != "" || !there || key == r.LastHeader {
		if why := r.linesGap(); why != "" {
			return why
		}
	}
	if slices.ContainsFunc(lines, lost) {
		return "The header's value is hidden, or holds what could not be kept."
	}
	return ""
}

// lost says whether a text is not what it was: something in it was hidden, or was no UTF-8.
func lost(text string) bool {
	return strings.Contains(text, Hidden) || strings.ContainsRune(text, 0xfffd)
}

// cookieGap says why a cookie is not known, and makes those known that are.
func (r *Recorded) cookieGap(property string) string {
	s := r.Subject
	if why := r.linesGap(); why != "" {
		return why
	}
	name, attribute := splitCookie(property)
	s.SetCookies = nil
	for _, line := range s.Header["Set-Cookie"] {
		// The value is hidden in what is kept, and the parser would not take what stands for it.
		before, _, ok := strings.Cut(line, "=")
		if before, _, _ = strings.Cut(before, ";"); !ok || strings.TrimSpace(before) != name {
			continue
		}
		cookie, err := http.ParseSetCookie(strings.Replace(line, Hidden, "hidden", 1))
		if err != nil || lost(cookie.Raw) {
			return "The cookie's line holds what could not be kept."
		}
		s.SetCookies = append(s.SetCookies, cookie)
	}
	switch {
	case len(s.SetCookies) > 0 && (attribute == "" || strings.EqualFold(attribute, "Value")):
		return "Values of cookies are not kept."
	case len(s.SetCookies) == 0 && (len(s.Redirects) > 0 || !r.Alone):
		return "An earlier response may have set the cookie, and the cookies of a run are not kept."
	}
	return ""
}

// hides says that what a source yields is not what came.
func (r *Recorded) hides(a Assertion, raw value) string {
	hidden := false
	text := ""
	if raw.none == "" {
		text = string(encodeJSON(nil, plainForText(raw.v)))
		hidden = lost(text)
	}
	switch a.Source {
	case "variable":
		if why := r.unknownIn(text); why != "" {
			return why
		}
	case "jsonpath":
		if r.BodyGap != "" && (hidden || raw.none != "") {
			return r.BodyGap
		}
	case "url", "redirects", "remoteIp", "reason", "certificate":
		if hidden {
			return "A part of it is hidden, or could not be kept."
		}
	}
	return ""
}

// plainForText leaves out what is no JSON value.
func plainForText(v any) any {
	switch v.(type) {
	case nil, string, bool, json.Number, []any, map[string]any:
		return v
	default:
		return nil
	}
}

// expressionGap says what an expression may look at that isn't known.
func (r *Recorded) expressionGap(src string) string {
	e, err := compileExpression(src)
	if err != nil {
		return ""
	}
	if (e.uses["body"] || e.uses["json"]) && r.BodyGap != "" {
		return r.BodyGap
	}
	if e.uses["body"] {
		if why := r.charsetGap("body"); why != "" {
			return why
		}
	}
	if (e.uses["index"] || e.uses["row"]) && r.LoopGap != "" {
		return r.LoopGap
	}
	if e.uses["headers"] {
		if r.HeadersGap != "" {
			return r.HeadersGap
		}
		names, all := accesses(src, "headers")
		if all {
			for name := range r.Subject.Header {
				names = append(names, name)
			}
			if why := r.linesGap(); why != "" {
				return why
			}
		}
		for _, name := range names {
			if why := r.headerGap(name); why != "" {
				return why
			}
		}
	}
	if e.uses["vars"] && len(r.Variables) > 0 {
		names, all := accesses(src, "vars")
		for name, why := range r.Variables {
			if all || slices.Contains(names, name) {
				return why
			}
		}
	}
	return ""
}

var (
	fieldAccess = regexp.MustCompile(`^\s*(?:\?\.|\.)\s*([A-Za-z_][A-Za-z0-9_]*)`)
	indexAccess = regexp.MustCompile(`^\s*(?:\?\.)?\s*\[\s*(?:"([A-Za-z0-9_-]+)"|'([A-Za-z0-9_-]+)')\s*\]`)
)

// accesses lists which fields of a name an expression reads; all says that it may read any.
func accesses(src, of string) (names []string, all bool) {
	for _, at := range regexp.MustCompile(`\b`+regexp.QuoteMeta(of)+`\b`).FindAllStringIndex(src, -1) {
		rest := src[at[1]:]
		if m := fieldAccess.FindStringSubmatch(rest); m != nil {
			names = append(names, m[1])
		} else if m := indexAccess.FindStringSubmatch(rest); m != nil {
			names = append(names, m[1]+m[2])
		} else {
			return nil, true
		}
	}
	return names, false
}

// IsWhole says whether body is exactly what had this size and this SHA-256 in hexadecimal digits.
func IsWhole(body []byte, size int64, hash string) bool {
	if int64(len(body)) != size || hash == "" {
		return false
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]) == hash
}

// Decode lays JSON into a struct as strictly as Parse reads a spec, assertions in it included: the faults name every
// place that does not fit. The error is Parse's for what is no JSON.
func Decode(data []byte, into any) ([]fault.Field, error) {
	tree, faults, err := readSource(data)
	if err != nil {
		return nil, err
	}
	d := decoder{faults: faults}
	d.decode(tree, reflect.ValueOf(into).Elem(), "")
	return d.faults, nil
}

// Related says whether one of faults stands at, above or below pointer: what has the wrong shape was left out, so that more
// about it is no news.
func Related(faults []fault.Field, pointer string) bool { return related(faults, pointer) }

// CheckAssertions returns what is wrong with assertions that would stand in a step of s, with pointers below at. within
// are the steps that one is in: those that use a fragment, the outermost first, then the step itself.
func (s Spec) CheckAssertions(within []*Step, list []Assertion, at string, opts ...Option) []fault.Field {
	v := &validator{known: map[string]bool{}}
	for _, o := range opts {
		o(v)
	}
	v.schemas(s.Schemas)
	for name := range s.Variables {
		v.known[name] = true
	}
	for _, step := range within {
		v.flow(*step, "")
	}
	v.faults = nil // of the revision, which was checked when it was saved
	if len(list) > limits.MaxAssertions {
		v.refuse(at, "A step has at most %d assertions.", limits.MaxAssertions)
		return v.faults
	}
	for i, a := range list {
		v.assertion(a, fmt.Sprintf("%s/%d", at, i))
	}
	return v.faults
}
