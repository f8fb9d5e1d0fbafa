package executor

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// transport sends requests over connections that it keeps for a while.
type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

// transportKey is what two requests must have in common to share connections.
type transportKey struct {
	org     uuid.UUID
	verify  bool
	version testspec.HTTPVersion
	wire    [sha256.Size]byte // the wire's fingerprint
}

const (
	// idleTimeout is below the 5 s after which Node and Apache close a kept connection. A request that goes out just
	// then would fail although nothing is wrong with the target, and a POST may not be repeated to find out. It also
	// makes a check that runs every few seconds look at DNS and certificate again.
	idleTimeout = 4 * time.Second
	// idlePerHost is above the runs that one worker has in flight.
	idlePerHost = 128
	// sweepAfter is how long a pool is kept unused.
	sweepAfter = time.Minute
	// handshakeTimeout bounds a TLS handshake that goes on after its request was given up.
	handshakeTimeout = 10 * time.Second
)

// transports keeps one transport for each key.
type transports struct {
	cfg Config

	mu    sync.Mutex
	byKey map[transportKey]*transportEntry
	swept time.Time
}

type transportEntry struct {
	transport transport
	used      time.Time
}

func newTransports(cfg Config) *transports {
	return &transports{cfg: cfg, byKey: map[transportKey]*transportEntry{}, swept: cfg.Now()}
}

// connections returns what p goes over to target. Connections that a client certificate opened, and those of HTTP/3, serve the run
// that opened them and no other, not even one with the same certificate; they are closed when it ends.
func (r *runner) connections(ctx context.Context, p *prepared, target *url.URL) (transport, *Error) {
	if err := r.checkBehindProxy(ctx, &p.wire, target); err != nil {
		return nil, err
	}
	key := r.connectionKey(p)
	if p.wire.certificate == "" && key.version != testspec.HTTP3 {
		return r.engine.transports.get(key, &p.wire)
	}
	if own := r.own[key]; own != nil {
		return own, nil
	}
	own, err := r.engine.transports.make(key, &p.wire)
	if err != nil {
		return nil, err
	}
	if r.own == nil {
		r.own = map[transportKey]transport{}
	}
	r.own[key] = own
	return own, nil
}

func (r *runner) connectionKey(p *prepared) transportKey {
	return transportKey{r.in.OrgID, p.spec.Verifies(), p.spec.Version(), p.wire.fingerprint()}
}

// dropOwn closes the connections that served this run alone.
func (r *runner) dropOwn() {
	for _, own := range r.own {
		own.CloseIdleConnections()
	}
}

// get returns the transport for key. One that is swept while a request uses it serves that request to its end.
func (t *transports) get(key transportKey, w *wire) (transport, *Error) {
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.swept) > sweepAfter || len(t.byKey) >= limits.MaxTransports && t.byKey[key] == nil {
		t.sweep(now)
	}
	e := t.byKey[key]
	if e == nil {
		made, err := t.make(key, w)
		if err != nil {
			return nil, err
		}
		e = &transportEntry{transport: made}
		t.byKey[key] = e
	}
	e.used = now
	return e.transport, nil
}

// sweep drops what was not used for a while, and everything when that is not enough.
func (t *transports) sweep(now time.Time) {
	t.swept = now
	for key, e := range t.byKey {
		if now.Sub(e.used) > sweepAfter {
			e.transport.CloseIdleConnections()
			delete(t.byKey, key)
		}
	}
	if len(t.byKey) < limits.MaxTransports {
		return
	}
	for key, e := range t.byKey {
		e.transport.CloseIdleConnections()
		delete(t.byKey, key)
	}
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, e := range t.byKey {
		e.transport.CloseIdleConnections()
		delete(t.byKey, key)
	}
}

func (t *transports) make(key transportKey, of *wire) (transport, *Error) {
	w := *of // the request's own changes with its redirects
	config, err := t.tlsConfig(key.verify, &w)
	if err != nil {
		return nil, err
	}
	if key.version == testspec.HTTP3 {
		return t.makeHTTP3(config, &w), nil
	}
	tr := &http.Transport{
		Proxy: nil, // an environment's proxy would dial in the guard's stead
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return t.cfg.Guard.DialContext(ctx, w.network("tcp"), w.address(addr))
		},
		DisableCompression:     true, // we decode under caps
		MaxResponseHeaderBytes: int64(t.cfg.Limits.ResponseHeaders),
		MaxIdleConns:           4 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    handshakeTimeout,
		TLSClientConfig:        config,
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20,
			SendPingTimeout:               10 * time.Second,
			PingTimeout:                   5 * time.Second,
		},
	}
	if w.proxy != nil {
		if err := t.goThrough(tr, &w); err != nil {
			return nil, err
		}
	}
	switch key.version {
	case testspec.HTTP1:
		tr.Protocols.SetHTTP1(true)
	case testspec.HTTP2:
		tr.Protocols.SetHTTP2(true)
		tr.Protocols.SetUnencryptedHTTP2(true)
	default:
		tr.Protocols.SetHTTP1(true)
		tr.Protocols.SetHTTP2(true)
	}
	return tr, nil
}

// tlsConfig is what a handshake with the target goes by.
func (t *transports) tlsConfig(verify bool, w *wire) (*tls.Config, *Error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    t.cfg.RootCAs,
		ServerName: w.serverName,
		// A test says so by verifyTls: false: it is for targets with certificates of their own.
		InsecureSkipVerify: !verify, //nolint:gosec // see above
	}
	if w.minVersion == testspec.TLS13 {
		config.MinVersion = tls.VersionTLS13
	}
	if w.ca != "" {
		list, err := testspec.ParseCAs(w.ca)
		if err != nil {
			return nil, badRequest("The TLS settings cannot be used: " + err.Error() + ".")
		}
		config.RootCAs = x509.NewCertPool()
		for _, ca := range list {
			config.RootCAs.AddCert(ca)
		}
	}
	if w.certificate != "" {
		pair, err := testspec.ParseKeyPair(w.certificate, w.key)
		if err != nil {
			return nil, badRequest("The TLS settings cannot be used: " + err.Error() + ".")
		}
		// Whatever authorities the target names: who says which certificate to show means it, and the target's refusal
		// is a plainer answer than a handshake without one.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	} else {
		config.GetClientCertificate = noCertificate
	}
	return config, nil
}
