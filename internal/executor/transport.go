package executor

import (
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// transportKey is what two requests must have in common to share connections.
type transportKey struct {
	org     uuid.UUID
	verify  bool
	version testspec.HTTPVersion
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

// transports keeps one http.Transport for each key.
type transports struct {
	cfg Config

	mu    sync.Mutex
	byKey map[transportKey]*transportEntry
	swept time.Time
}

type transportEntry struct {
	transport *http.Transport
	used      time.Time
}

func newTransports(cfg Config) *transports {
	return &transports{cfg: cfg, byKey: map[transportKey]*transportEntry{}, swept: cfg.Now()}
}

// get returns the transport for key. One that is swept while a request uses it serves that request to its end.
func (t *transports) get(key transportKey) *http.Transport {
	now := t.cfg.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.swept) > sweepAfter || len(t.byKey) >= limits.MaxTransports && t.byKey[key] == nil {
		t.sweep(now)
	}
	e := t.byKey[key]
	if e == nil {
		e = &transportEntry{transport: t.make(key)}
		t.byKey[key] = e
	}
	e.used = now
	return e.transport
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

func (t *transports) make(key transportKey) *http.Transport {
	tr := &http.Transport{
		Proxy:                  nil, // an environment's proxy would dial in the guard's stead
		DialContext:            t.cfg.Guard.DialContext,
		DisableCompression:     true, // we decode under caps
		MaxResponseHeaderBytes: limits.MaxResponseHeaderBytes,
		MaxIdleConns:           4 * idlePerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    handshakeTimeout,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    t.cfg.RootCAs,
			// A test says so by verifyTls: false: it is for targets with certificates of their own.
			InsecureSkipVerify: !key.verify, //nolint:gosec // see above
		},
		Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 4 << 20,
			SendPingTimeout:               10 * time.Second,
			PingTimeout:                   5 * time.Second,
		},
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
	return tr
}
