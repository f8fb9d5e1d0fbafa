package executor

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

const (
	// silence ends a QUIC connection whose far end says nothing any more, not even to our keep-alives: it is not there. A
	// target that thinks answers those.
	silence   = 15 * time.Second
	keepAlive = 5 * time.Second
)

// http3Transport is HTTP/3 for one run: its connections live as long as the run does. It keeps them itself, since
// http3.Transport forgets a connection on which a request failed, and leaves it open.
type http3Transport struct {
	*http3.Transport

	mu     sync.Mutex
	closed bool
	conns  []*quic.Conn
}

// CloseIdleConnections closes all connections; a run that ends has nothing under way.
func (t *http3Transport) CloseIdleConnections() {
	_ = t.Close() // also ends dials; what it sends to say goodbye may be lost
	t.mu.Lock()
	conns := t.conns
	t.conns, t.closed = nil, true
	t.mu.Unlock()
	for _, c := range conns {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}

// keep has c closed with the transport.
func (t *http3Transport) keep(c *quic.Conn) {
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.conns = append(t.conns, c)
	}
	t.mu.Unlock()
	if closed {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}

func (t *transports) makeHTTP3(config *tls.Config, w *wire) *http3Transport {
	tr := &http3Transport{}
	tr.Transport = &http3.Transport{
		TLSClientConfig:        config,
		DisableCompression:     true, // we decode under caps
		MaxResponseHeaderBytes: int(t.cfg.Limits.ResponseHeaders),
		QUICConfig: &quic.Config{
			// QUIC gives a handshake twice this.
			HandshakeIdleTimeout:       handshakeTimeout / 2,
			MaxIdleTimeout:             silence,
			KeepAlivePeriod:            keepAlive,
			MaxStreamReceiveWindow:     1 << 20,
			MaxConnectionReceiveWindow: 4 << 20,
			MaxIncomingUniStreams:      16, // HTTP/3 needs three
		},
		Dial: func(ctx context.Context, addr string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
			conn, err := t.dialQUIC(ctx, w, addr, tlsConf, conf)
			if err == nil {
				tr.keep(conn)
			}
			return conn, err
		},
	}
	return tr
}

// dialQUIC connects through the guard. The socket is closed when the connection has ended.
func (t *transports) dialQUIC(ctx context.Context, w *wire, addr string, tlsConf *tls.Config, conf *quic.Config) (*quic.Conn, error) {
	socket, err := t.cfg.Guard.DialUDP(ctx, w.network("udp"), w.address(addr))
	if err != nil {
		return nil, err //nolint:wrapcheck // classify looks at it
	}
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	conn, err := quic.Dial(ctx, socket, socket.RemoteAddr(), tlsConf, conf)
	if err != nil {
		_ = socket.Close() // the handshake's error is what is told
		return nil, err    //nolint:wrapcheck // classify looks at it
	}
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(conn.ConnectionState().TLS, nil)
	}
	context.AfterFunc(conn.Context(), func() { _ = socket.Close() }) //nolint:contextcheck // the connection outlives its first request
	return conn, nil
}

// classifyQUIC words what QUIC and HTTP/3 say beside what TLS and sockets do; nil for everything else.
func classifyQUIC(err error, phase Phase) *Error {
	protocol := func(message string) *Error { return &Error{Code: CodeProtocol, Message: message, Phase: phase} }
	var (
		handshake *quic.HandshakeTimeoutError
		idle      *quic.IdleTimeoutError
		version   *quic.VersionNegotiationError
		reset     *quic.StatelessResetError
		transport *quic.TransportError
		http      *http3.Error
	)
	switch {
	case errors.As(err, &handshake):
		return &Error{Code: CodeTimeout, Phase: PhaseConnect, Message: "The target did not answer over QUIC in time; it may not speak HTTP/3."}
	case errors.As(err, &idle):
		return &Error{Code: CodeTimeout, Phase: phase, Message: "The target fell silent."}
	case errors.As(err, &version):
		return &Error{Code: CodeProtocol, Phase: PhaseConnect, Message: "The target speaks another version of QUIC."}
	case errors.As(err, &reset):
		return protocol("The target reset the connection.")
	case errors.As(err, &transport):
		return classifyTransport(transport, phase)
	case errors.Is(err, syscall.ECONNREFUSED):
		// A packet came back: to QUIC that is a handshake which failed.
		return &Error{Code: CodeConnect, Message: "The target refused the connection.", Phase: PhaseConnect}
	case strings.Contains(err.Error(), "http3: headers too large"), strings.Contains(err.Error(), "HEADERS frame too large"):
		return &Error{Code: CodeTooLarge, Message: "The response's headers are too large.", Phase: phase}
	case strings.Contains(err.Error(), "http3: too many 1xx"):
		return &Error{Code: CodeTooLarge, Message: "The target sends interim responses without end.", Phase: phase}
	case errors.As(err, &http):
		if !http.Remote {
			return protocol("What the target sent is not valid HTTP/3.")
		}
		if phase == PhaseDownload {
			return protocol("The response's body ended early.")
		}
		return protocol("The target broke the request off.")
	}
	return nil
}

// classifyTransport words the end of a QUIC connection.
func classifyTransport(err *quic.TransportError, phase Phase) *Error {
	switch {
	case err.ErrorCode == 0x100+noApplicationProtocol:
		return &Error{Code: CodeProtocol, Message: "The target does not speak the chosen version of HTTP.", Phase: PhaseTLS}
	case err.ErrorCode.IsCryptoError() && err.Remote:
		return &Error{Code: CodeTLS, Message: "The target refused the TLS handshake.", Phase: PhaseTLS}
	case err.ErrorCode.IsCryptoError():
		if e := classifyTLS(err, PhaseTLS); e != nil {
			return e
		}
		return &Error{Code: CodeTLS, Message: "The TLS handshake failed.", Phase: PhaseTLS}
	case err.Remote:
		return &Error{Code: CodeProtocol, Message: "The target ended the connection.", Phase: phase}
	default:
		return &Error{Code: CodeProtocol, Message: "What the target sent is not valid QUIC.", Phase: phase}
	}
}

var _ http.RoundTripper = (*http3Transport)(nil)
