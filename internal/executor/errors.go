package executor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/testflow/testflow/internal/netguard"
)

// runTimeout and stepTimeout are the causes of our own deadlines.
type (
	runTimeout  struct{ limit time.Duration }
	stepTimeout struct{ limit time.Duration }
)

func (e *runTimeout) Error() string { return fmt.Sprintf("The run took longer than %s.", e.limit) }
func (e *stepTimeout) Error() string {
	return fmt.Sprintf("The request took longer than %s.", e.limit)
}

// statusOf is the status that a code belongs to.
func statusOf(c Code) Status {
	switch c {
	case CodeAssertion, CodeCapture, CodeUntil:
		return Failed
	case CodeBlocked, CodeShutdown, CodeInternal:
		return Inconclusive
	case CodeCanceled:
		return Canceled
	case CodeEarlier, CodeCondition, CodeSkip, CodeNoRows:
		return Skipped
	default:
		return Errored
	}
}

// stopped says why ctx is done.
func stopped(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	var run *runTimeout
	var step *stepTimeout
	var teardown *teardownTimeout
	switch {
	case errors.As(cause, &run), errors.As(cause, &step), errors.As(cause, &teardown):
		return &Error{Code: CodeTimeout, Message: cause.Error()}
	case errors.Is(cause, ErrShutdown):
		return &Error{Code: CodeShutdown, Message: "The worker was stopped before the run ended."}
	case errors.Is(cause, context.DeadlineExceeded):
		return &Error{Code: CodeInternal, Message: "The worker gave the run up."}
	default:
		return &Error{Code: CodeCanceled, Message: "The run was canceled."}
	}
}

// failed is classify for a run's request; the operator's log gets the address of what policy refused.
func (r *runner) failed(ctx context.Context, err error, phase Phase) *Error {
	if ctx.Err() == nil {
		r.noteBlocked(err)
	}
	return classify(ctx, err, phase)
}

// noteBlocked remembers a refusal by policy for the operator's log.
func (r *runner) noteBlocked(err error) {
	var blocked *netguard.BlockedError
	if errors.As(err, &blocked) && len(r.blocked) < 20 { // a loop says no more
		r.blocked = append(r.blocked, blocked)
	}
}

// logBlocked tells the operator which addresses policy refused; those who read the run don't learn them.
func (r *runner) logBlocked(ctx context.Context) {
	for _, blocked := range r.blocked {
		attrs := []slog.Attr{
			slog.String("run_id", r.in.RunID.String()), slog.String("org_id", r.in.OrgID.String()),
			slog.String("region", r.in.Region), slog.String("reason", blocked.Reason),
		}
		if blocked.Addr.IsValid() {
			attrs = append(attrs, slog.String("address", blocked.Addr.String()))
		}
		r.engine.log.LogAttrs(ctx, slog.LevelInfo, "network policy refused a run's request", attrs...)
	}
}

// blockedMessage says what a refusal by policy says to people: no address.
func blockedMessage(err error) string {
	var blocked *netguard.BlockedError
	if !errors.As(err, &blocked) {
		return "Blocked by network policy."
	}
	return "Blocked by network policy: " + blocked.Reason + "."
}

// classify turns what went wrong while sending or reading into one of our codes. The error's own text is not passed
// on: it holds bytes of the target's, and URLs.
func classify(ctx context.Context, err error, phase Phase) *Error {
	if ctx.Err() != nil {
		e := stopped(ctx)
		e.Phase = phase
		return e
	}
	if e := classifyProxy(ctx, err, phase); e != nil {
		return e
	}
	var (
		blocked  *netguard.BlockedError
		badURL   *netguard.URLError
		large    *tooLargeError
		encoding *encodingError
		dns      *net.DNSError
		family   *net.AddrError
	)
	switch {
	case errors.As(err, &blocked):
		return &Error{Code: CodeBlocked, Message: blockedMessage(err), Phase: PhaseConnect}
	case errors.As(err, &badURL):
		return &Error{Code: CodeRequest, Message: "The URL cannot be used: " + badURL.Reason + ".", Phase: PhasePrepare}
	case errors.As(err, &large):
		return &Error{Code: CodeTooLarge, Message: large.message, Phase: phase}
	case errors.As(err, &encoding):
		return &Error{Code: CodeProtocol, Message: encoding.message, Phase: phase}
	case errors.As(err, &dns):
		return classifyDNS(dns)
	case errors.As(err, &family) && strings.Contains(family.Err, "no suitable address"):
		return &Error{Code: CodeDNS, Message: "The host has no address of the chosen version of IP.", Phase: PhaseDNS}
	}
	if e := classifyQUIC(err, phase); e != nil {
		return e
	}
	if e := classifyTLS(err, phase); e != nil {
		return e
	}
	if e := classifyConnect(err, phase); e != nil {
		return e
	}
	return classifyHTTP(err, phase)
}

func classifyDNS(err *net.DNSError) *Error {
	switch {
	case err.IsTimeout:
		return &Error{Code: CodeDNS, Message: "The name servers did not answer in time.", Phase: PhaseDNS}
	case err.IsNotFound:
		return &Error{Code: CodeDNS, Message: "The host's name has no address.", Phase: PhaseDNS}
	default:
		return &Error{Code: CodeDNS, Message: "The host's name could not be looked up.", Phase: PhaseDNS}
	}
}

// noApplicationProtocol is the number of TLS's alert no_application_protocol (RFC 7301).
const noApplicationProtocol = 120

func classifyTLS(err error, phase Phase) *Error {
	tlsError := func(message string) *Error { return &Error{Code: CodeTLS, Message: message, Phase: PhaseTLS} }
	var (
		record    tls.RecordHeaderError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &hostname):
		return tlsError("The target's certificate is for another name.")
	case errors.As(err, &authority):
		return tlsError("The target's certificate is signed by an authority that is not trusted here.")
	case errors.As(err, &invalid):
		if invalid.Reason == x509.Expired {
			return tlsError("The target's certificate has expired or is not valid yet.")
		}
		return tlsError("The target's certificate is not valid.")
	case errors.As(err, &verify):
		return tlsError("The target's certificate could not be verified.")
	case strings.Contains(err.Error(), "no renegotiation"):
		return tlsError("The target wants to renegotiate TLS, which is refused.")
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return tlsError("The target does not speak TLS on this port.")
	case errors.As(err, &alert) && uint8(alert) == noApplicationProtocol, strings.Contains(err.Error(), "no application protocol"):
		return &Error{Code: CodeProtocol, Message: "The target does not speak the chosen version of HTTP.", Phase: PhaseTLS}
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return tlsError("The target refused the TLS handshake.")
	case strings.Contains(err.Error(), "TLS handshake timeout"):
		return &Error{Code: CodeTimeout, Message: fmt.Sprintf("The TLS handshake took longer than %s.", handshakeTimeout), Phase: PhaseTLS}
	case phase == PhaseTLS:
		return tlsError("The TLS handshake failed.")
	}
	return nil
}

func classifyConnect(err error, phase Phase) *Error {
	connectError := func(message string) *Error { return &Error{Code: CodeConnect, Message: message, Phase: PhaseConnect} }
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	switch {
	case dialing && op.Timeout():
		return &Error{Code: CodeTimeout, Message: "The connection could not be made in time.", Phase: PhaseConnect}
	case errors.Is(err, syscall.ECONNREFUSED):
		return connectError("The target refused the connection.")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return connectError("The target cannot be reached.")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return &Error{Code: CodeInternal, Message: "The worker is out of sockets.", Phase: PhaseConnect}
	case dialing, phase == PhaseConnect:
		return connectError("The connection could not be made.")
	}
	return nil
}

func classifyHTTP(err error, phase Phase) *Error {
	protocol := func(message string) *Error { return &Error{Code: CodeProtocol, Message: message, Phase: phase} }
	text := err.Error()
	var netErr net.Error
	switch {
	// net/http has no type for these.
	case strings.Contains(text, "long trailer"):
		return &Error{Code: CodeTooLarge, Message: "The response's trailers are too large.", Phase: phase}
	case strings.Contains(text, "response headers exceeded"), strings.Contains(text, "header list larger"), strings.Contains(text, "header list too large"):
		return &Error{Code: CodeTooLarge, Message: "The response's headers are too large.", Phase: phase}
	case strings.Contains(text, "COMPRESSION_ERROR"):
		// HTTP/2 says no more of a single header that is over the cap.
		return &Error{Code: CodeTooLarge, Message: "The response's headers are too large, or not encoded as HTTP/2 has it.", Phase: phase}
	case strings.Contains(text, "does not support HTTP/2"), strings.Contains(text, "unsupported protocol"), strings.Contains(text, "unexpected ALPN"):
		return protocol("The target does not speak the chosen version of HTTP.")
	case strings.Contains(text, "received GOAWAY"), strings.Contains(text, "client connection force closed"), strings.Contains(text, "client conn could not be established"):
		return protocol("The target ended the connection.")
	case errors.As(err, &netErr) && netErr.Timeout():
		return &Error{Code: CodeTimeout, Message: "The target did not answer in time.", Phase: phase}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return protocol("The target reset the connection.")
	case phase == PhaseDownload && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)):
		return protocol("The response's body ended early.")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "server closed idle connection"):
		return protocol("The target closed the connection without a whole answer.")
	default:
		return protocol("What the target sent is not valid HTTP.")
	}
}

// demanded returns failed in plainer words when the target asked for a client certificate, got none, and then ended the
// connection. With TLS 1.3 it does so when the client is done with the handshake, and its alert may get lost behind a
// reset, so that the error alone says this or that.
func (t *tracer) demanded(failed *Error, err error) *Error {
	if !t.asked.Load() || failed.Code != CodeTLS && failed.Code != CodeProtocol {
		return failed
	}
	text := err.Error()
	ended := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.Contains(text, "remote error: tls:") || strings.Contains(text, "server closed idle connection") || strings.Contains(text, "connection lost")
	if !ended {
		return failed
	}
	return &Error{Code: CodeTLS, Phase: PhaseTLS, Message: "The target asked for a client certificate, got none, and ended the connection."}
}
