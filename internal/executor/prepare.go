package executor

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/testspec"
)

// prepared is a request with its variables put in.
type prepared struct {
	spec    testspec.Request
	method  string
	url     *url.URL
	header  http.Header
	body    []byte
	hasBody bool
	wire    wire
	auth    credential // nil when the request has none
	private private
}

// acceptedEncodings are those that body.go decodes.
const acceptedEncodings = "gzip, deflate, br, zstd"

// expandError turns an error of Scope's into one of ours. what is the place, for the sentence.
func expandError(what string, err error) *Error {
	var undefined *testspec.UndefinedError
	if errors.As(err, &undefined) {
		if name, ok := strings.CutPrefix(undefined.Name, testspec.SecretScope); ok {
			return &Error{Code: CodeVariable, Phase: PhasePrepare, Message: "In " + what + " the secret \"" + name +
				"\" has no value: there was none of that name in the environment, its project or the organization when the run was requested, or it was removed since."}
		}
		return &Error{Code: CodeVariable, Phase: PhasePrepare, Message: "In " + what + " " + err.Error() + "."}
	}
	return &Error{Code: CodeRequest, Phase: PhasePrepare, Message: "In " + what + ": " + err.Error() + "."}
}

func badRequest(message string) *Error {
	return &Error{Code: CodeRequest, Phase: PhasePrepare, Message: message}
}

func (r *runner) prepare(spec testspec.Request) (*prepared, *Error) {
	p := &prepared{spec: spec, method: spec.Method}
	if err := r.prepareURL(p); err != nil {
		return nil, err
	}
	if err := r.prepareHeader(p); err != nil {
		return nil, err
	}
	if err := r.prepareBody(p); err != nil {
		return nil, err
	}
	if err := r.prepareWire(p); err != nil {
		return nil, err
	}
	if err := r.prepareAuth(p); err != nil {
		return nil, err
	}
	return p, nil
}

func (r *runner) prepareURL(p *prepared) *Error {
	raw, err := r.scope.Expand(p.spec.URL, limits.MaxURL)
	if err != nil {
		return expandError("the URL", err)
	}
	if strings.ContainsFunc(raw, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
		return badRequest("With its variables put in, the URL holds control characters.")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return badRequest("With its variables put in, the URL is not one.")
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = escapeQuery(u.RawQuery)
	if len(p.spec.Query) > 0 {
		more, bad := r.encodePairs(p.spec.Query, "the query value ", limits.MaxURL)
		if bad != nil {
			return bad
		}
		if u.RawQuery != "" && more != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += more
	}
	if u.Path == "" {
		u.Path = "/"
	}
	if tooLong(u) {
		return badRequest("With its variables put in, the URL is too long.")
	}
	p.url = u
	return r.checkURL(u)
}

// tooLong says whether u is over limits.MaxURL.
func tooLong(u *url.URL) bool {
	return len(u.Scheme)+len(u.Host)+len(u.EscapedPath())+len(u.RawQuery)+4 > limits.MaxURL
}

// checkURL is netguard's gate in terms of a result.
func (r *runner) checkURL(u *url.URL) *Error {
	err := r.engine.cfg.Guard.Check(u)
	if err == nil {
		return nil
	}
	if errors.Is(err, netguard.ErrBlocked) {
		r.noteBlocked(err)
		return &Error{Code: CodeBlocked, Phase: PhasePrepare, Message: blockedMessage(err)}
	}
	return badRequest("The URL cannot be used: " + err.Error() + ".")
}

// escapeQuery percent-encodes what would break the request line; all else is the user's own writing.
func escapeQuery(q string) string {
	const hexDigits = "0123456789ABCDEF"
	clean := true
	for i := range len(q) {
		if q[i] <= 0x20 || q[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return q
	}
	b := make([]byte, 0, len(q)+16)
	for i := range len(q) {
		if c := q[i]; c <= 0x20 || c >= 0x7f {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// encodePairs writes name=value pairs, names in order.
func (r *runner) encodePairs(pairs map[string]testspec.Values, what string, limit int) (string, *Error) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		for _, template := range pairs[name] {
			v, err := r.scope.Expand(template, limit)
			if err != nil {
				return "", expandError(what+name, err)
			}
			if b.Len() > 0 {
				b.WriteByte('&')
			}
			b.WriteString(url.QueryEscape(name))
			b.WriteByte('=')
			b.WriteString(url.QueryEscape(v))
			if b.Len() > limit {
				return "", badRequest("With its variables put in, the request is too long.")
			}
		}
	}
	return b.String(), nil
}

func (r *runner) prepareHeader(p *prepared) *Error {
	p.header = make(http.Header, len(p.spec.Headers)+3)
	p.header["Accept"] = []string{"*/*"}
	p.header["Accept-Encoding"] = []string{acceptedEncodings}
	p.header["User-Agent"] = []string{r.engine.cfg.UserAgent}
	size := 0
	// In the order of their names, so that generated values come in one order.
	for _, name := range slices.Sorted(maps.Keys(p.spec.Headers)) {
		values := p.spec.Headers[name]
		key := http.CanonicalHeaderKey(name)
		list := make([]string, 0, len(values))
		for _, template := range values {
			if r.fromSecret(template) {
				p.private.header(key)
			}
			v, err := r.scope.Expand(template, limits.MaxHeaderBytes)
			if err != nil {
				return expandError("the header "+name, err)
			}
			v = strings.Trim(v, " \t")
			if !testspec.ValidHeaderValue(v) || !httpguts.ValidHeaderFieldValue(v) {
				return badRequest("With its variables put in, the header " + name + " holds control characters.")
			}
			list = append(list, v)
			size += len(key) + len(v) + 4
		}
		if size > limits.MaxHeaderBytes {
			return badRequest("With their variables put in, the headers are too long.")
		}
		if len(list) > 0 {
			p.header[key] = list
		}
	}
	return nil
}

// credentialHeaders hold what proves who asks. They are hidden in summaries and stay behind at a change of origin.
var credentialHeaders = map[string]bool{
	"Authorization": true, "Cookie": true, "Proxy-Authorization": true, "X-Api-Key": true, "X-Auth-Token": true,
	"X-Access-Token": true, "X-Csrf-Token": true, "Api-Key": true, "Apikey": true, "X-Amz-Security-Token": true,
}

// hidden stands for a value that nobody shall read.
const hidden = "•••"

func (p *prepared) summary() *RequestSummary {
	return p.summaryOf(p.url, p.header)
}

// summaryOf is summary, with the URL and the header as they are sent.
func (p *prepared) summaryOf(u *url.URL, header http.Header) *RequestSummary {
	s := &RequestSummary{Method: p.method, URL: showURLWithout(u, p.private.queries), BodySize: int64(len(p.body))}
	s.Headers, s.Truncated = headerList(header, func(name, value string) string {
		if credentialHeaders[name] || p.private.headers[name] {
			return hidden
		}
		return value
	})
	return s
}

// headerList returns h as lines in the order of the names, show applied to each value, and whether some were left out.
func headerList(h http.Header, show func(name, value string) string) ([]Header, bool) {
	list := make([]Header, 0, len(h))
	size := 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			v = printable(show(name, v))
			size += len(name) + len(v)
			if len(list) == limits.MaxStoredHeaders || size > limits.MaxResponseHeaderBytes {
				return list, true
			}
			list = append(list, Header{Name: name, Value: v})
		}
	}
	return list, false
}

// printable makes s storable: valid UTF-8 without NUL.
func printable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
}
