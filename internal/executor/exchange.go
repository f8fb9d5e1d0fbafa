package executor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// answer is what an exchange brought. summary is nil when nothing arrived.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	timings Timings
	summary *ResponseSummary
	// request is what was sent at first with its credentials; nil when it has none.
	request *RequestSummary
	// received is the last response; its body has been read. cookies are those that it and the redirects before it set.
	received *http.Response
	url      *url.URL
	cookies  []*http.Cookie
}

// jar is the run's cookie jar, made when first needed.
type jar struct{ *cookiejar.Jar }

func (j *jar) get() *cookiejar.Jar {
	if j.Jar == nil {
		// New fails for no reason but a future one; without a jar cookies are not kept.
		j.Jar, _ = cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	}
	return j.Jar
}

// exchange sends p and follows redirects under the request's time. The answer is filled as far as it got.
func (r *runner) exchange(ctx context.Context, p *prepared) (answer, *Error) {
	limit := time.Duration(p.spec.Timeout)
	if limit <= 0 {
		limit = limits.DefaultTimeout
	}
	ctx, stop := context.WithTimeoutCause(ctx, limit, &stepTimeout{limit})
	defer stop()

	x := &exchanging{runner: r, prepared: *p, started: r.engine.cfg.Now()}
	err := x.follow(ctx)
	x.answer.timings.Total = r.engine.cfg.Now().Sub(x.started) - x.aside
	return x.answer, err
}

// exchanging is one exchange under way. prepared changes as redirects are followed.
type exchanging struct {
	prepared
	runner    *runner
	started   time.Time
	aside     time.Duration // spent on getting an access token: not the target's
	redirects []Redirect
	answer    answer
}

func (x *exchanging) follow(ctx context.Context) *Error {
	for {
		next, err := x.hop(ctx)
		if err != nil || next == nil {
			return err
		}
		if most := min(x.spec.RedirectLimit(), x.runner.engine.cfg.Limits.Redirects); len(x.redirects) >= most {
			return &Error{Code: CodeRedirects, Message: fmt.Sprintf("The target redirects more than %d times.", most)}
		}
		x.redirects = append(x.redirects, Redirect{
			StatusCode: x.answer.status, URL: x.shown(x.url), Location: x.shown(next),
			Duration: x.runner.engine.cfg.Now().Sub(x.started) - x.aside - x.redirected(),
		})
		x.answer.summary.Redirects = x.redirects
		if err := x.redirect(next); err != nil {
			return err
		}
	}
}

// redirected is the time that the hops so far took.
func (x *exchanging) redirected() time.Duration {
	var sum time.Duration
	for _, h := range x.redirects {
		sum += h.Duration
	}
	return sum
}

// clip bounds a URL in a summary.
func clip(s string) string {
	if len(s) > limits.MaxURL {
		s = s[:limits.MaxURL]
	}
	return printable(s)
}

// hop sends one request and reads its response; next is where it redirects to, if that is to be followed.
func (x *exchanging) hop(ctx context.Context) (next *url.URL, failed *Error) {
	engine := x.runner.engine
	resp, trace, failed := x.send(ctx)
	if failed != nil {
		return nil, failed
	}
	defer func() {
		// Nothing can be done about an error here, and what matters was read.
		_ = resp.Body.Close()
	}()
	x.answer.received, x.answer.url = resp, x.url
	x.answer.status, x.answer.header, x.answer.body = resp.StatusCode, resp.Header, nil
	x.answer.summary = x.summary(resp, trace)
	next, failed = x.location(resp)
	if failed == nil && next == nil {
		failed = x.read(ctx, resp)
	} else if next != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, limits.MaxDrained) // a kept connection is worth no error
	}
	x.answer.timings.add(trace.finish(engine.cfg.Now()))
	return next, failed
}

func (x *exchanging) request() *http.Request {
	req := &http.Request{
		Method: x.method, URL: x.url, Host: x.url.Host, Header: x.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if x.hasBody {
		req.ContentLength = int64(len(x.body))
		if len(x.body) == 0 {
			req.Body = http.NoBody
		} else {
			req.Body = io.NopCloser(bytes.NewReader(x.body))
		}
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
	}
	if x.spec.UsesCookies() && x.runner.jar.Jar != nil {
		if cookies := x.runner.jar.Cookies(x.url); len(cookies) > 0 {
			req.Header = x.header.Clone()
			for _, c := range cookies {
				req.AddCookie(c)
			}
		}
	}
	return req
}

// location returns where resp redirects to, nil when it doesn't or is not followed.
func (x *exchanging) location(resp *http.Response) (*url.URL, *Error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	loc := resp.Header.Get("Location")
	if !x.spec.Follows() || loc == "" {
		return nil, nil
	}
	u, err := x.url.Parse(loc)
	if err != nil || len(loc) > limits.MaxURL {
		return nil, &Error{Code: CodeRedirects, Message: "The target redirects to something that is not a URL."}
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Error{Code: CodeRedirects, Message: "The target redirects to something other than http or https."}
	}
	if x.spec.Version() == testspec.HTTP3 && u.Scheme != "https" {
		return nil, &Error{Code: CodeRedirects, Message: "The target redirects to http, and HTTP/3 needs https."}
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = escapeQuery(u.RawQuery)
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// redirect makes x the request that follows a redirect to next, as the Fetch standard has it: 303 turns everything but
// HEAD into GET, 301 and 302 turn POST into GET. What proves who asks stays with its origin.
func (x *exchanging) redirect(next *url.URL) *Error {
	if err := x.runner.checkURL(next); err != nil {
		if err.Code == CodeRequest {
			err.Code = CodeRedirects
		}
		err.Message = "The target redirects to an address that is refused. " + err.Message
		return err
	}
	toGet := false
	switch x.answer.status {
	case http.StatusSeeOther:
		toGet = x.method != http.MethodGet && x.method != http.MethodHead
	case http.StatusMovedPermanently, http.StatusFound:
		toGet = x.method == http.MethodPost
	}
	changed := next.Scheme != x.url.Scheme || !strings.EqualFold(hostPort(next), hostPort(x.url))
	if toGet || changed {
		x.header = x.header.Clone()
	}
	if toGet {
		x.method, x.body, x.hasBody = http.MethodGet, nil, false
		for name := range x.header {
			if strings.HasPrefix(name, "Content-") {
				delete(x.header, name)
			}
		}
	}
	if changed {
		for name := range x.header {
			if credentialHeaders[name] || x.private.headers[name] {
				delete(x.header, name)
			}
		}
		x.wire = x.wire.elsewhere()
		x.leaveCredential(next)
	}
	x.url = next
	return nil
}

// hostPort is a URL's host with its port written out.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (x *exchanging) summary(resp *http.Response, trace *tracer) *ResponseSummary {
	s := &ResponseSummary{
		StatusCode:  resp.StatusCode,
		HTTPVersion: httpVersion(resp),
		URL:         x.shown(x.url),
		ContentType: printable(resp.Header.Get("Content-Type")),
		Redirects:   x.redirects,
	}
	s.RemoteAddr, s.Reused = trace.connection()
	s.Headers, s.HeadersTruncated = headerList(resp.Header, func(name, value string) string {
		if name == "Set-Cookie" {
			return hideCookie(value)
		}
		return value
	})
	if resp.TLS != nil {
		s.TLS = &TLSSummary{
			Version: strings.TrimPrefix(tls.VersionName(resp.TLS.Version), "TLS "),
			Cipher:  tls.CipherSuiteName(resp.TLS.CipherSuite),
		}
		if chain := resp.TLS.PeerCertificates; len(chain) > 0 {
			s.TLS.Certificate = x.runner.engine.certificates.summary(chain[0])
		}
	}
	return s
}

// hideCookie keeps a Set-Cookie line's name and attributes and hides its value.
func hideCookie(line string) string {
	pair, attributes, more := strings.Cut(line, ";")
	name, _, ok := strings.Cut(pair, "=")
	if !ok {
		return hidden
	}
	out := name + "=" + hidden
	if more {
		out += ";" + attributes
	}
	return out
}

func httpVersion(resp *http.Response) string {
	if resp.ProtoMajor >= 2 {
		return fmt.Sprint(resp.ProtoMajor)
	}
	return fmt.Sprintf("%d.%d", resp.ProtoMajor, resp.ProtoMinor)
}

// read reads the response's body under the caps.
func (x *exchanging) read(ctx context.Context, resp *http.Response) *Error {
	cfg := x.runner.engine.cfg
	got, err := readBodyUnder(resp, x.method, int64(cfg.Limits.ResponseBody), int64(cfg.Limits.DecompressionRatio))
	s := x.answer.summary
	s.Size, s.WireSize = int64(len(got.body)), got.wire
	s.Body, s.whole = got.body, got.body
	if len(s.Body) > int(cfg.Limits.ResponseKept) {
		// A copy, so that the whole does not stay in memory for a part of it.
		s.Body, s.BodyTruncated = bytes.Clone(got.body[:int(cfg.Limits.ResponseKept)]), true
	}
	if err != nil {
		s.BodyTruncated = true
		return classify(ctx, err, PhaseDownload)
	}
	x.answer.body = got.body
	s.SHA256 = sha256.Sum256(got.body)
	return nil
}
