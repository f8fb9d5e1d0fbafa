package executor

import (
	"crypto/x509"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// subject is what assertions and captures see of an answer that was read to its end.
func (r *runner) subject(a *answer, usesCookies bool) *testspec.Subject {
	s := &testspec.Subject{
		Status: a.status, Header: a.header, Body: a.body, ResponseTime: a.timings.Total,
		HTTPVersion: a.summary.HTTPVersion, URL: a.summary.URL,
		Timings: testspec.Timings{
			DNS: a.timings.DNS, Connect: a.timings.Connect, TLS: a.timings.TLS, FirstByte: a.timings.FirstByte, Download: a.timings.Download,
		},
		SetCookies: a.cookies, Scope: r.scope, Schemas: r.in.Spec.Schemas, Now: r.engine.cfg.Now(),
		// Status is "404 Not Found" over HTTP/1; the library makes one up for the others, which have no reason.
	}
	if a.received.ProtoMajor < 2 {
		s.Reason = printable(strings.TrimPrefix(strings.TrimPrefix(a.received.Status, strconv.Itoa(a.status)), " "))
	}
	if host, _, err := net.SplitHostPort(a.summary.RemoteAddr); err == nil {
		s.RemoteIP = host
	}
	for _, h := range a.summary.Redirects {
		s.Redirects = append(s.Redirects, testspec.Hop{Status: h.StatusCode, URL: h.URL, Location: h.Location})
	}
	if usesCookies && r.jar.Jar != nil {
		s.Jar = func() []*http.Cookie { return r.jar.Cookies(a.url) }
	}
	if t := a.received.TLS; t != nil {
		s.TLSVersion, s.TLSCipher, s.ALPN = a.summary.TLS.Version, a.summary.TLS.Cipher, t.NegotiatedProtocol
		if len(t.PeerCertificates) > 0 {
			s.Certificate = t.PeerCertificates[0]
		}
	}
	return s
}

// certificates is safe for concurrent use. It keeps what was last told of the certificates that targets showed: most show the same one each time, and
// hashing it and writing out its names costs more than a request's judgement.
type certificates struct {
	mu   sync.Mutex
	last map[string]CertificateSummary // by the certificate itself
}

// maxCertificates bounds how many are remembered; then all are forgotten.
const maxCertificates = 1024

func (c *certificates) summary(cert *x509.Certificate) *CertificateSummary {
	key := string(cert.Raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.last[key]
	if known {
		return &s
	}
	s = CertificateSummary{
		Subject: clipName(cert.Subject.String()), Issuer: clipName(cert.Issuer.String()),
		NotBefore: cert.NotBefore.UTC().Truncate(time.Second), NotAfter: cert.NotAfter.UTC().Truncate(time.Second),
		Fingerprint: testspec.Fingerprint(cert),
	}
	if c.last == nil || len(c.last) >= maxCertificates {
		c.last = map[string]CertificateSummary{}
	}
	c.last[key] = s
	return &s
}

// clipName bounds a name that a target wrote.
func clipName(s string) string {
	if len(s) > limits.MaxActual {
		s = s[:limits.MaxActual]
	}
	return printable(s)
}
