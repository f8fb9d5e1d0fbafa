// Package targettest is a target to run tests against: a well-behaved API, and a hostile one that does everything that
// a client must survive. It is for tests only and listens on loopback; nothing in it sleeps longer than a client waits.
package targettest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Server is the target, over plain HTTP and over TLS (HTTP/1.1 and 2).
type Server struct {
	URL, TLSURL string
	// CAs trusts TLSURL's certificate, which is for 127.0.0.1 and localhost.
	CAs *x509.CertPool
	// OtherURL is a second origin with the same routes.
	OtherURL string
	// ExpiredURL and WrongNameURL speak TLS with a certificate that CAs' authority signed but that is no good.
	ExpiredURL, WrongNameURL string
	// NotTLSURL is https:// to a port that speaks plain HTTP, HTTP1OnlyURL TLS without HTTP/2.
	NotTLSURL, HTTP1OnlyURL string
	// RefusedURL is a port of loopback that nobody listens on.
	RefusedURL string
	TLSTargets
	// Origins are hostile as a whole, by TLS or HTTP/2, by name.
	Origins map[string]HostileOrigin

	connections atomic.Int64
	authState   *authState
	authority   *authority
}

// Connections is how many connections were accepted so far.
func (s *Server) Connections() int64 { return s.connections.Load() }

// New starts the target; it is stopped when tb ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{Origins: map[string]HostileOrigin{}, authState: newAuthState()}
	ca := newAuthority(tb)
	s.CAs = ca.pool
	plain := s.start(tb, nil, true)
	s.URL = plain.URL
	s.OtherURL = s.start(tb, nil, true).URL
	s.NotTLSURL = "https://" + strings.TrimPrefix(s.URL, "http://")
	now := time.Now()
	good := ca.issue(tb, now.Add(-time.Hour), now.Add(time.Hour), "localhost", net.IPv4(127, 0, 0, 1))
	s.TLSURL = s.start(tb, &good, true).URL
	s.HTTP1OnlyURL = s.start(tb, &good, false).URL
	expired := ca.issue(tb, now.Add(-2*time.Hour), now.Add(-time.Hour), "localhost", net.IPv4(127, 0, 0, 1))
	s.ExpiredURL = s.start(tb, &expired, true).URL
	wrong := ca.issue(tb, now.Add(-time.Hour), now.Add(time.Hour), "other.example", nil)
	s.WrongNameURL = s.start(tb, &wrong, true).URL
	s.RefusedURL = refusedURL(tb)
	s.authority = ca
	s.startTLS(tb)
	s.hostileTLS(tb)
	s.hostileHTTP2(tb)
	return s
}

func (s *Server) start(tb testing.TB, cert *tls.Certificate, http2 bool) *httptest.Server {
	tb.Helper()
	srv := httptest.NewUnstartedServer(s.routes())
	srv.Config.ErrorLog = discardLog()
	srv.Config.ReadHeaderTimeout = 30 * time.Second
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	srv.EnableHTTP2 = http2
	if cert == nil {
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetHTTP1(true)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
	} else {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
		srv.StartTLS()
	}
	tb.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv
}

// refusedURL takes a port and gives it back.
func refusedURL(tb testing.TB) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	return "http://" + addr
}

// authority signs certificates for the tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "targettest"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}
}

func (a *authority) issue(tb testing.TB, from, to time.Time, name string, ip net.IP) tls.Certificate {
	tb.Helper()
	return a.issueFor(tb, from, to, name, ip, x509.ExtKeyUsageServerAuth)
}

func (a *authority) issueFor(tb testing.TB, from, to time.Time, name string, ip net.IP, use x509.ExtKeyUsage) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
