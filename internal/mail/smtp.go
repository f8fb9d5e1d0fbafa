package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// TLSMode says how the connection to the server is encrypted.
type TLSMode string

// The modes.
const (
	StartTLS TLSMode = "starttls" // begins in the open and is encrypted before anything is said; without that, nothing is sent
	Implicit TLSMode = "tls"      // encrypted from the first byte
	Plain    TLSMode = "none"     // readable on the way; no password is sent so
)

// SMTPConfig says how a server is reached.
type SMTPConfig struct {
	Host     string
	Port     int
	User     string // empty = without signing in
	Password string
	TLS      TLSMode
	Timeout  time.Duration // of the connection and of each answer; 0 = 15 s
	From     Sender
	RootCAs  *x509.CertPool // nil = the system's
}

// SMTP hands letters to a server. Each letter has a connection of its own: there are few.
type SMTP struct {
	cfg     SMTPConfig
	options []gomail.Option
}

var (
	errAuth = errors.New("not let in")
	errTLS  = errors.New("not encrypted")
)

const defaultTimeout = 15 * time.Second

// NewSMTP returns an SMTP. It reaches for nothing yet.
func NewSMTP(cfg SMTPConfig) (*SMTP, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	o := []gomail.Option{
		gomail.WithPort(cfg.Port), gomail.WithTimeout(cfg.Timeout), gomail.WithHELO(cfg.From.domain()),
		gomail.WithTLSConfig(&tls.Config{ServerName: cfg.Host, RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}),
	}
	switch cfg.TLS {
	case StartTLS:
		o = append(o, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case Implicit:
		o = append(o, gomail.WithSSL())
	case Plain:
		if cfg.User != "" {
			return nil, errors.New("a password isn't sent over a connection that everybody can read: use starttls or tls")
		}
		o = append(o, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("TLS mode %q: there are starttls, tls and none", cfg.TLS)
	}
	if cfg.User != "" {
		o = append(o, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(cfg.User), gomail.WithPassword(cfg.Password))
	}
	if _, err := gomail.NewClient(cfg.Host, o...); err != nil {
		return nil, fmt.Errorf("set up mail: %w", err)
	}
	return &SMTP{cfg: cfg, options: o}, nil
}

// Deliver hands a letter to the server.
func (s *SMTP) Deliver(ctx context.Context, l Letter) error {
	m, err := s.cfg.From.compose(l, gomail.EncodingQP)
	if err != nil {
		return err
	}
	c, err := gomail.NewClient(s.cfg.Host, s.options...)
	if err != nil {
		return fmt.Errorf("set up mail: %w", err)
	}
	conn, err := c.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return dialError(err)
	}
	// Whatever came after the server had taken it, such as a QUIT that nobody answers, is no reason to send it twice.
	err = c.SendWithSMTPClient(conn, m)
	_ = c.CloseWithSMTPClient(conn)
	if err == nil || m.IsDelivered() {
		return nil
	}
	var sent *gomail.SendError
	if errors.As(err, &sent) && sent.ErrorCode() >= 500 {
		return &Refused{Code: sent.ErrorCode(), Err: err}
	}
	return fmt.Errorf("send: %w", err)
}

// dialError sorts what can go wrong before a letter is named. None of it is the letter's fault, so all of it is tried
// again: an operator will have mended it by then.
func dialError(err error) error {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		network      *net.OpError
		answer       *textproto.Error
	)
	switch {
	case errors.As(err, &verification), errors.As(err, &record):
		return fmt.Errorf("%w: %w", errTLS, err)
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("connect: %w", err)
	case errors.Is(err, gomail.ErrNoSupportedAuthDiscovered), errors.As(err, &answer) && answer.Code >= 530 && answer.Code <= 538:
		return fmt.Errorf("%w: %w", errAuth, err)
	case strings.Contains(err.Error(), "STARTTLS"): // that there is none, which is told in words alone
		return fmt.Errorf("%w: %w", errTLS, err)
	case strings.Contains(err.Error(), "SMTP AUTH"):
		return fmt.Errorf("%w: %w", errAuth, err)
	}
	return fmt.Errorf("connect: %w", err)
}
