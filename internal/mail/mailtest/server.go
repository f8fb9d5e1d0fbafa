package mailtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

// The user that the server lets in.
const (
	User     = "mailer"
	Password = "TFCANARY-smtp-password"
)

// Mail is what the server took.
type Mail struct {
	From, To string
	Data     string
	TLS      bool
	User     string // who was signed in
}

// Server is an SMTP server on loopback.
type Server struct {
	Host string
	Port int
	CAs  *x509.CertPool

	mu    sync.Mutex
	taken []Mail
	// OnRcpt and OnData, when set, answer in place of the server; n counts their calls from 1. A cut is a closed connection.
	OnRcpt func(n int) error
	OnData func(n int) (err error, cut bool)
	rcpts  int
	datas  int
}

// Option changes a server before it starts.
type Option func(*smtp.Server)

// Plain leaves STARTTLS out.
func Plain(s *smtp.Server) { s.TLSConfig = nil }

// NewServer starts a server that offers STARTTLS, and ends it with the test. With implicit it speaks TLS from the first byte.
func NewServer(tb testing.TB, implicit bool, options ...Option) *Server {
	tb.Helper()
	certificate, pool := selfSigned(tb)
	s := &Server{Host: "127.0.0.1", CAs: pool}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{server: s, conn: c}, nil }))
	server.Domain, server.ReadTimeout, server.WriteTimeout = "localhost", 30*time.Second, 30*time.Second
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	for _, o := range options {
		o(server)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	s.Port = l.Addr().(*net.TCPAddr).Port
	if implicit {
		l = tls.NewListener(l, server.TLSConfig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	tb.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

// Taken is what the server has taken so far.
func (s *Server) Taken() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.taken...)
}

type session struct {
	server *Server
	conn   *smtp.Conn
	mail   Mail
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != User || password != Password {
			return smtp.ErrAuthFailed
		}
		s.mail.User = user
		return nil
	}), nil
}

func (s *session) Reset()        { s.mail = Mail{User: s.mail.User} }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.mail.From = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.rcpts++
	if s.server.OnRcpt != nil {
		if err := s.server.OnRcpt(s.server.rcpts); err != nil {
			return err
		}
	}
	s.mail.To = to
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.datas++
	s.mail.Data = string(data)
	_, s.mail.TLS = s.conn.TLSConnectionState()
	if s.server.OnData != nil {
		answer, cut := s.server.OnData(s.server.datas)
		if cut { // it has the mail, and nobody hears of it
			s.server.taken = append(s.server.taken, s.mail)
			return s.conn.Close()
		}
		if answer != nil {
			return answer
		}
	}
	s.server.taken = append(s.server.taken, s.mail)
	return nil
}

func selfSigned(tb testing.TB) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mailtest"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(tb, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(tb, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
