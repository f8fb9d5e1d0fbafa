package executor

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// tracer measures the phases of one hop. The transport calls it from several goroutines, some of them after the
// request has ended (a dial that was given up), so everything is behind a lock and nothing counts after finish.
type tracer struct {
	now func() time.Time
	// asked says that the target asked for a client certificate in a handshake of this hop, and got none.
	asked atomic.Bool

	mu                       sync.Mutex
	ended                    bool
	dnsStart, dnsDone        time.Time
	connectStart, connectEnd time.Time
	tlsStart, tlsDone        time.Time
	gotConn, firstByte       time.Time
	reused                   bool
	remote                   string
}

// tracerKey is where a dial finds the tracer of the hop that it was begun for.
type tracerKey struct{}

// noCertificate answers a target's wish for a client certificate with none, and remembers the wish.
func noCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if t, ok := info.Context().Value(tracerKey{}).(*tracer); ok {
		t.asked.Store(true)
	}
	return &tls.Certificate{}, nil
}

func newTracer(now func() time.Time) *tracer { return &tracer{now: now} }

// note runs set with the present time, unless the hop has ended.
func (t *tracer) note(set func(now time.Time)) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		set(now)
	}
}

func (t *tracer) attach(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(context.WithValue(ctx, tracerKey{}, t), &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { t.note(func(n time.Time) { first(&t.dnsStart, n) }) },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			if info.Err == nil {
				t.note(func(n time.Time) { t.dnsDone = n })
			}
		},
		ConnectStart: func(_, _ string) { t.note(func(n time.Time) { first(&t.connectStart, n) }) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				t.note(func(n time.Time) { first(&t.connectEnd, n) })
			}
		},
		TLSHandshakeStart: func() { t.note(func(n time.Time) { t.tlsStart = n }) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err == nil {
				t.note(func(n time.Time) { t.tlsDone = n })
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			t.note(func(n time.Time) {
				// A request that was sent again on another connection starts anew.
				t.gotConn, t.firstByte, t.reused = n, time.Time{}, info.Reused
				if info.Conn != nil && info.Conn.RemoteAddr() != nil {
					t.remote = info.Conn.RemoteAddr().String()
				}
			})
		},
		GotFirstResponseByte: func() { t.note(func(n time.Time) { t.firstByte = n }) },
	})
}

// first sets at, unless it is set.
func first(at *time.Time, now time.Time) {
	if at.IsZero() {
		*at = now
	}
}

// finish ends the hop and returns its phases, Total left out.
func (t *tracer) finish(now time.Time) Timings {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	var out Timings
	if !t.reused {
		// A dial that another request got the fruit of does not count.
		out.DNS = between(t.dnsStart, t.dnsDone, now)
		out.Connect = between(t.connectStart, t.connectEnd, now)
		out.TLS = between(t.tlsStart, t.tlsDone, now)
	}
	out.FirstByte = between(t.gotConn, t.firstByte, now)
	out.Download = between(t.firstByte, now, now)
	return out
}

// between is the time from start to end; to now when it began and did not end; 0 when it never began.
func between(start, end, now time.Time) time.Duration {
	if start.IsZero() {
		return 0
	}
	if end.IsZero() {
		end = now
	}
	return max(end.Sub(start), 0)
}

// phase is how far the hop got.
func (t *tracer) phase() Phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.firstByte.IsZero() || !t.gotConn.IsZero():
		return PhaseFirstByte
	case !t.tlsStart.IsZero():
		return PhaseTLS
	case !t.connectStart.IsZero():
		return PhaseConnect
	case !t.dnsStart.IsZero():
		return PhaseDNS
	default:
		return PhaseConnect
	}
}

// connection is the far end and whether the connection had been used before.
func (t *tracer) connection() (remote string, reused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remote, t.reused
}
