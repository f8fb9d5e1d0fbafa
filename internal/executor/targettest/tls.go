package targettest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// TLSTargets are origins whose TLS is special.
type TLSTargets struct {
	// MutualURL asks for a client certificate of CAs' authority, OtherMutualURL is a second such origin. GET /peer says
	// whose it was and which connection: {"peer":"alice","connection":3}.
	MutualURL, OtherMutualURL string
	// SelfSignedURL's certificate is signed by itself; SelfSignedPEM is it.
	SelfSignedURL string
	SelfSignedPEM string
	// OldURL speaks TLS 1.1 at most, TLS12URL TLS 1.2 at most.
	OldURL, TLS12URL string
	// RequiredURL, of TLS 1.3, talks to nobody without a client certificate of CAs' authority.
	RequiredURL string
	// HangURL takes a connection and says nothing, GarbageURL says what is not TLS, CutURL closes in the handshake,
	// HugeChainURL sends a chain of 900 certificates.
	HangURL, GarbageURL, CutURL, HugeChainURL string

	mu    sync.Mutex
	peers map[int64]map[string]bool // of each connection, whose certificates it was used with
}

// Client is a client certificate that MutualURL takes, for one person.
type Client struct{ Certificate, Key string } // PEM

// Client makes a certificate.
func (s *Server) Client(tb testing.TB, name string) Client {
	tb.Helper()
	now := time.Now()
	cert := s.authority.issueFor(tb, now.Add(-time.Hour), now.Add(time.Hour), name, nil, x509.ExtKeyUsageClientAuth)
	return Client{Certificate: certPEM(cert.Certificate[0]), Key: keyPEM(tb, cert.PrivateKey)}
}

// CAPEM is the certificate of the authority that signed the targets'.
func (s *Server) CAPEM() string { return certPEM(s.authority.cert.Raw) }

// Peers returns, of each connection to MutualURL, whose certificates it was used with.
func (s *Server) Peers() map[int64]map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[int64]map[string]bool, len(s.peers))
	for c, names := range s.peers {
		out[c] = names
	}
	return out
}

func certPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func keyPEM(tb testing.TB, key any) string {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (s *Server) startTLS(tb testing.TB) {
	tb.Helper()
	s.peers = map[int64]map[string]bool{}
	good := s.goodCertificate(tb)
	s.MutualURL = s.startMutual(tb, good).URL
	s.OtherMutualURL = s.startMutual(tb, good).URL
	s.RequiredURL = s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.CAs}).URL
	s.TLS12URL = s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS12}).URL
	s.OldURL = s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).URL
	self := selfSigned(tb)
	s.SelfSignedPEM = certPEM(self.Certificate[0])
	s.SelfSignedURL = s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{self}, MinVersion: tls.VersionTLS12}).URL
	huge := good
	for range 900 {
		huge.Certificate = append(huge.Certificate[:len(huge.Certificate):len(huge.Certificate)], good.Certificate[0])
	}
	s.HugeChainURL = s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{huge}, MinVersion: tls.VersionTLS12}).URL
	s.HangURL = s.startRaw(tb, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // until the client gives up
	s.GarbageURL = s.startRaw(tb, func(c net.Conn) {
		_, _ = io.WriteString(c, "\x16\x03\x03\x40\x00"+"this is no handshake, whatever its first bytes say")
	})
	s.CutURL = s.startRaw(tb, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 16))
	})
}

// goodCertificate is one for localhost and 127.0.0.1.
func (s *Server) goodCertificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	now := time.Now()
	return s.authority.issue(tb, now.Add(-time.Hour), now.Add(time.Hour), "localhost", net.IPv4(127, 0, 0, 1))
}

func (s *Server) startWith(tb testing.TB, config *tls.Config) *httptest.Server {
	tb.Helper()
	return s.serve(tb, s.routes(), config)
}

// serve starts handler over TLS as config has it.
func (s *Server) serve(tb testing.TB, handler http.Handler, config *tls.Config) *httptest.Server {
	tb.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ErrorLog = discardLog()
	srv.Config.ReadHeaderTimeout = 30 * time.Second
	srv.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, s.connections.Add(1))
	}
	srv.EnableHTTP2 = true
	srv.TLS = config
	srv.StartTLS()
	tb.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv
}

// connectionKey is where a request's context has the number of its connection.
type connectionKey struct{}

func (s *Server) startMutual(tb testing.TB, cert tls.Certificate) *httptest.Server {
	tb.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) {
		name, connection := "", r.Context().Value(connectionKey{}).(int64)
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		// What the run says it is, so that a connection that serves two runs is seen.
		s.mu.Lock()
		if s.peers[connection] == nil {
			s.peers[connection] = map[string]bool{}
		}
		s.peers[connection][name+" "+r.Header.Get("X-Run")] = true
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Set-Cookie", "who="+r.Header.Get("X-Run"))
		_ = json.NewEncoder(w).Encode(map[string]any{"peer": name, "connection": connection, "cookie": r.Header.Get("Cookie")})
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, s.OtherMutualURL+"/peer", http.StatusFound)
	})
	// A certificate is asked for and, if shown, checked, so that /peer can say that there was none.
	return s.serve(tb, mux, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: s.CAs,
	})
}

// startRaw listens and gives each connection to do, then closes it. What do reads and writes fails when the test ends.
func (s *Server) startRaw(tb testing.TB, do func(c net.Conn)) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
				do(c)
			})
		}
	})
	tb.Cleanup(func() {
		stop()
		_ = l.Close()
		wg.Wait()
	})
	return fmt.Sprintf("https://%s", l.Addr())
}

func selfSigned(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "self"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// hostileTLS are the origins that are hostile by TLS.
func (s *Server) hostileTLS(tb testing.TB) {
	tb.Helper()
	good := s.goodCertificate(tb)
	// With TLS 1.3 the refusal comes when the client is done with the handshake, and may get lost behind a reset.
	required := s.startWith(tb, &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.CAs})
	for name, url := range map[string]string{
		"expired": s.ExpiredURL, "wrong-host": s.WrongNameURL, "self-signed": s.SelfSignedURL, "old-version": s.OldURL,
		"garbage": s.GarbageURL, "cut": s.CutURL, "huge-chain": s.HugeChainURL, "not-tls": s.NotTLSURL,
		"certificate-required": required.URL,
		"renegotiates":         s.startRenegotiating(tb, good),
		"alert":                s.startRaw(tb, func(c net.Conn) { _, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 40}) }),
		"warnings": s.startRaw(tb, func(c net.Conn) {
			until(func() error { _, err := c.Write(bytes.Repeat([]byte{21, 3, 3, 0, 2, 1, 90}, 100)); return err }) //nolint:wrapcheck // only whether
		}),
		"endless-record": s.startRaw(tb, func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 3, 0x40, 0x00, 2, 0xff, 0xff, 0xff})
			until(func() error { _, err := c.Write(make([]byte, 16<<10)); return err }) //nolint:wrapcheck // only whether
		}),
	} {
		s.Origins["tls-"+name] = HostileOrigin{URL: url, Code: "tls"}
	}
	s.Origins["tls-hang"] = HostileOrigin{URL: s.HangURL, Code: "timeout"}
	s.Origins["tls-drip"] = HostileOrigin{Code: "timeout", URL: s.startRaw(tb, func(c net.Conn) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		_, err := c.Write([]byte{22, 3, 3, 0x10, 0x00, 2, 0, 0x0f, 0xfc})
		for err == nil {
			<-tick.C
			_, err = c.Write([]byte{0})
		}
	})}
}
