package executor

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// credential proves who asks, for the requests of one exchange to its first origin.
type credential interface {
	// put adds the proof to req, whose header and URL are its own to change.
	put(ctx context.Context, x *exchanging, req *http.Request) *Error
	// again sees each response that came to what put proved. True means: send the request once more, put has something
	// better now. It is asked until it says false, so it must come to an end by itself.
	again(x *exchanging, req *http.Request, resp *http.Response) bool
}

// once is a credential that is sent as it is: a response to it changes nothing.
type once struct{}

func (once) again(*exchanging, *http.Request, *http.Response) bool { return false }

// private are the names under which credentials are sent besides credentialHeaders: hidden in summaries, and left
// behind at a change of origin.
type private struct {
	headers map[string]bool   // canonical names
	queries map[string]string // with the value that was sent last
}

func (p *private) header(name string) {
	if p.headers == nil {
		p.headers = map[string]bool{}
	}
	p.headers[name] = true
}

func (p *private) query(name, value string) {
	if p.queries == nil {
		p.queries = map[string]string{}
	}
	p.queries[name] = value
}

// fromSecret says whether a template's value comes from a secret, or from a capture that is one.
func (r *runner) fromSecret(template string) bool {
	if !strings.Contains(template, "{{") {
		return false
	}
	for _, name := range testspec.References(template) {
		if strings.HasPrefix(name, testspec.SecretScope) {
			return true
		}
		for _, c := range r.result.Captures {
			if c.Hidden && c.Name == name {
				return true
			}
		}
	}
	return false
}

// prepareAuth puts variables into p's auth and chooses how it is sent.
func (r *runner) prepareAuth(p *prepared) *Error {
	a := p.spec.Auth
	if a == nil || a.Type == testspec.AuthNone {
		return nil
	}
	e := &authExpander{runner: r}
	switch a.Type {
	case testspec.AuthBasic:
		p.auth = e.basic(a)
	case testspec.AuthBearer:
		p.auth = e.bearer(a)
	case testspec.AuthAPIKey:
		p.auth = e.apiKey(a)
	case testspec.AuthDigest:
		p.auth = e.digest(a)
	case testspec.AuthAWSSigV4:
		p.auth = e.sigV4(a)
	case testspec.AuthClientCredentials, testspec.AuthPassword:
		p.auth = e.grant(a)
	case testspec.AuthJWT:
		p.auth = e.jwt(a)
	default:
		return badRequest("There is no auth of type " + string(a.Type) + ".")
	}
	return e.failed
}

// authExpander puts variables into the fields of an auth and keeps the first thing that is wrong.
type authExpander struct {
	runner *runner
	failed *Error
}

func (e *authExpander) fail(err *Error) {
	if e.failed == nil {
		e.failed = err
	}
}

// text expands a field; "" when it is absent. name is for messages, which never hold the value.
func (e *authExpander) text(template *string, name string) string {
	if template == nil {
		return ""
	}
	v, err := e.runner.scope.Expand(*template, limits.MaxCredential)
	if err != nil {
		e.fail(expandError("the auth's "+name, err))
	}
	return v
}

// needed is text that may not be empty.
func (e *authExpander) needed(template *string, name string) string {
	v := e.text(template, name)
	if v == "" {
		e.fail(badRequest("With its variables put in, the auth's " + name + " is empty."))
	}
	return v
}

// line is needed text that goes into a header as it is.
func (e *authExpander) line(template *string, name string) string {
	v := strings.Trim(e.needed(template, name), " \t")
	if !testspec.ValidHeaderValue(v) || !httpguts.ValidHeaderFieldValue(v) {
		e.fail(badRequest("With its variables put in, the auth's " + name + " holds control characters."))
	}
	return v
}

// place checks the name under which a credential is sent.
func (e *authExpander) place(in, name string) {
	if why := testspec.RefusedCredentialName(in, name); why != "" {
		e.fail(badRequest("With its variables put in, the auth's name cannot be used. " + why))
	}
}

// send sends the request of one hop with its credential, and again while the credential asks for it.
func (x *exchanging) send(ctx context.Context) (*http.Response, *tracer, *Error) {
	now := x.runner.engine.cfg.Now
	connections, err := x.runner.connections(ctx, &x.prepared, x.url)
	if err != nil {
		return nil, nil, err
	}
	for {
		// The credential may ask a token endpoint, which is not the target's doing.
		req, err := x.proven(ctx, x.request())
		if err != nil {
			return nil, nil, err
		}
		trace := newTracer(now)
		req = req.WithContext(trace.attach(ctx))
		resp, failed := connections.RoundTrip(req)
		if failed != nil {
			x.answer.timings.add(trace.finish(now()))
			return nil, nil, trace.demanded(x.runner.failed(ctx, failed, trace.phase()), failed)
		}
		if resp.StatusCode == http.StatusSwitchingProtocols { // nobody asked it to
			_ = resp.Body.Close()
			x.answer.timings.add(trace.finish(now()))
			return nil, nil, &Error{Code: CodeProtocol, Phase: PhaseFirstByte, Message: "The target switches to another protocol, which was not asked for."}
		}
		if cookies := resp.Cookies(); len(cookies) > 0 {
			if x.spec.UsesCookies() {
				x.runner.jar.get().SetCookies(x.url, cookies)
			}
			x.answer.cookies = append(x.answer.cookies, cookies...)
		}
		if x.auth == nil || !x.auth.again(x, req, resp) {
			return resp, trace, nil
		}
		_, _ = io.CopyN(io.Discard, resp.Body, limits.MaxDrained) // a kept connection is worth no error
		_ = resp.Body.Close()
		x.answer.timings.add(trace.finish(now()))
	}
}

// proven returns req with the credential; req itself when there is none.
func (x *exchanging) proven(ctx context.Context, req *http.Request) (*http.Request, *Error) {
	if x.auth == nil {
		return req, nil
	}
	u := *req.URL
	req.URL, req.Header = &u, req.Header.Clone()
	started := x.runner.engine.cfg.Now()
	err := x.auth.put(ctx, x, req)
	x.aside += x.runner.engine.cfg.Now().Sub(started)
	if err != nil {
		return nil, err
	}
	if tooLong(req.URL) {
		return nil, badRequest("With its auth put in, the URL is too long.")
	}
	if len(x.redirects) == 0 {
		x.answer.request = x.summaryOf(req.URL, req.Header)
	}
	return req, nil
}

// setHeader puts a credential into a header of req.
func (x *exchanging) setHeader(req *http.Request, name, value string) {
	name = http.CanonicalHeaderKey(name)
	req.Header[name] = []string{value}
	x.private.header(name)
}

// setQuery puts a credential into req's query, in the place of what has its name.
func (x *exchanging) setQuery(req *http.Request, name, value string) {
	pair := url.QueryEscape(name) + "=" + url.QueryEscape(value)
	if rest := withoutParameter(req.URL.RawQuery, name, nil); rest != "" {
		pair = rest + "&" + pair
	}
	req.URL.RawQuery = pair
	x.private.query(name, value)
}

// withoutParameter returns a raw query without the parameters of a name, or only those whose value drop takes.
func withoutParameter(query, name string, drop func(value string) bool) string {
	if query == "" {
		return ""
	}
	kept := make([]string, 0, 8)
	for _, pair := range strings.Split(query, "&") {
		n, v, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(n)
		if err == nil && plain == name {
			value, err := url.QueryUnescape(v)
			if drop == nil || err == nil && drop(value) {
				continue
			}
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// leaveCredential makes the request go on to another origin without its credential, also where the redirect itself
// carries it on in its query.
func (x *exchanging) leaveCredential(next *url.URL) {
	for name, sent := range x.private.queries {
		next.RawQuery = withoutParameter(next.RawQuery, name, func(value string) bool { return value == sent })
	}
	x.auth = nil
}

// shown is a URL of this exchange for people.
func (x *exchanging) shown(u *url.URL) string { return clip(showURLWithout(u, x.private.queries)) }
