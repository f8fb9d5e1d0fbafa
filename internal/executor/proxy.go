package executor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/testflow/testflow/internal/testspec"
)

// A proxy is dialled through netguard, as a target is. The target's name is looked up by the proxy; so that a proxy is no
// way around the policy, an address that is written out, and each that the name has here, must be one that we would dial
// ourselves. See docs/decisions/0031-proxies-and-policy.md.

// proxyError is what a proxy did instead of connecting us.
type proxyError struct{ failure Error }

func (e *proxyError) Error() string { return e.failure.Message }

// proxyDialError is what went wrong on the way to a proxy.
type proxyDialError struct{ err error }

func (e *proxyDialError) Error() string { return "proxy: " + e.err.Error() }
func (e *proxyDialError) Unwrap() error { return e.err }

// basicCredentials are user and password as they are sent to a proxy.
func basicCredentials(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// proxyAddress is a proxy's "host:port".
func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080"}[proxy.Scheme]
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// checkBehindProxy is netguard's word on a target that a proxy will dial.
func (r *runner) checkBehindProxy(ctx context.Context, w *wire, target *url.URL) *Error {
	if w.proxy == nil {
		return nil
	}
	host, portText, err := net.SplitHostPort(dialled(hostPort(target)))
	if err != nil {
		return badRequest("The URL cannot be used.")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return badRequest("The URL cannot be used: a port is a number from 1 to 65535.")
	}
	if err := r.engine.cfg.Guard.CheckBehindProxy(ctx, host, uint16(port)); err != nil {
		return r.failed(ctx, err, PhasePrepare)
	}
	return nil
}

// goThrough makes tr go through w's proxy.
func (t *transports) goThrough(tr *http.Transport, w *wire) *Error {
	hop := *w.proxy
	hop.Host = proxyAddress(w.proxy)
	tr.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		return &proxyError{Error{
			Code: CodeConnect, Phase: PhaseConnect,
			Message: fmt.Sprintf("The proxy did not connect to the target: it answered with status %d.", resp.StatusCode),
		}}
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := t.cfg.Guard.DialContext(ctx, w.network("tcp"), addr)
		if err != nil {
			return nil, &proxyDialError{err}
		}
		return conn, nil
	}
	tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr) }
	if w.proxy.Scheme == "https" {
		// net/http would shake hands with the proxy by the target's settings: its client certificate, its server name.
		hop.Scheme = "http"
		config, err := t.proxyTLS(w)
		if err != nil {
			return err
		}
		tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			conn, err := dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			secured := tls.Client(conn, config)
			limited, stop := context.WithTimeoutCause(ctx, handshakeTimeout, errProxyHandshake)
			defer stop()
			if err := secured.HandshakeContext(limited); err != nil {
				_ = conn.Close() // the handshake's error is what is told
				return nil, proxyHandshake(err)
			}
			return secured, nil
		}
	}
	tr.Proxy = http.ProxyURL(&hop)
	return nil
}

var errProxyHandshake = errors.New("the handshake with the proxy took too long")

func proxyHandshake(err error) error {
	failure := Error{Code: CodeTLS, Phase: PhaseTLS, Message: "The TLS handshake with the proxy failed."}
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &verify):
		failure.Message = "The proxy's certificate is not trusted."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errProxyHandshake):
		failure = Error{Code: CodeTimeout, Phase: PhaseTLS, Message: "The TLS handshake with the proxy took too long."}
	}
	return &proxyError{failure}
}

// proxyTLS is what a handshake with a proxy goes by: it is always verified, by the usual authorities and the request's.
func (t *transports) proxyTLS(w *wire) (*tls.Config, *Error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.cfg.RootCAs, ServerName: w.proxy.Hostname(), NextProtos: []string{"http/1.1"}}
	if w.ca == "" {
		return config, nil
	}
	list, err := testspec.ParseCAs(w.ca)
	if err != nil {
		return nil, badRequest("The TLS settings cannot be used: " + err.Error() + ".")
	}
	if config.RootCAs == nil {
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	} else {
		config.RootCAs = config.RootCAs.Clone()
	}
	for _, ca := range list {
		config.RootCAs.AddCert(ca)
	}
	return config, nil
}

// classifyProxy words what a proxy did, or what went wrong on the way to it; nil for everything else.
func classifyProxy(ctx context.Context, err error, phase Phase) *Error {
	var (
		refused *proxyError
		dial    *proxyDialError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &refused):
		failure := refused.failure
		return &failure
	case errors.As(err, &dial):
		e := classify(ctx, dial.err, phase)
		e.Message = strings.NewReplacer("The target ", "The proxy ", "The host's name", "The proxy's name", "The host ", "The proxy ").Replace(e.Message)
		return e
	case errors.As(err, &op) && strings.HasPrefix(op.Op, "socks"):
		message := "The proxy did not connect to the target."
		if strings.Contains(op.Err.Error(), "authentication") {
			message = "The proxy refused the user or the password."
		}
		return &Error{Code: CodeConnect, Phase: PhaseConnect, Message: message}
	}
	return nil
}
