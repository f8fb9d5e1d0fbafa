package targettest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// HTTP3 is the target over HTTP/3, and what is hostile over QUIC.
type HTTP3 struct {
	// URL has the same routes as the target's, MutualURL /peer.
	URL, MutualURL string
	// Hostile are origins that each do one thing to a client, by name, with the code that a GET must end in.
	Hostile map[string]HostileOrigin

	connections atomic.Int64
}

// Connections is how many QUIC connections were accepted by URL and MutualURL so far.
func (h *HTTP3) Connections() int64 { return h.connections.Load() }

// NewHTTP3 starts it; it is stopped when tb ends.
func (s *Server) NewHTTP3(tb testing.TB) *HTTP3 {
	tb.Helper()
	h := &HTTP3{Hostile: map[string]HostileOrigin{}}
	good := s.goodCertificate(tb)
	h.URL = h.serve(tb, s.routes(), &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS13})
	mux := http.NewServeMux()
	mux.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}
	})
	h.MutualURL = h.serve(tb, mux, &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.CAs})
	h.hostile(tb, good)
	return h
}

func (h *HTTP3) serve(tb testing.TB, handler http.Handler, config *tls.Config) string {
	tb.Helper()
	conn := listenUDP(tb)
	srv := &http3.Server{
		Handler: handler, TLSConfig: config,
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			h.connections.Add(1)
			return ctx
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(conn) })
	tb.Cleanup(func() {
		_ = srv.Close()
		_ = conn.Close()
		wg.Wait()
	})
	return fmt.Sprintf("https://%s", conn.LocalAddr())
}

func listenUDP(tb testing.TB) *net.UDPConn {
	tb.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

// Frames of HTTP/3, as bytes.
var (
	controlStream = []byte{0x00, 0x04, 0x00} // type control, SETTINGS without any
	headers200    = []byte{0x01, 0x03, 0x00, 0x00, 0xd9}
	headers103    = []byte{0x01, 0x03, 0x00, 0x00, 0xd8}
	headersOf100  = []byte{0x01, 0x08, 0x00, 0x00, 0xd9, 0x54, 0x03, '1', '0', '0'} // content-length: 100
)

// hostile starts the hostile origins.
func (h *HTTP3) hostile(tb testing.TB, cert tls.Certificate) {
	tb.Helper()
	add := func(name, code, url string) { h.Hostile["h3-"+name] = HostileOrigin{URL: url, Code: code} }
	onStream := func(name, code string, do func(c *quic.Conn, s *quic.Stream)) {
		add(name, code, h.listen(tb, cert, http3.NextProtoH3, func(ctx context.Context, c *quic.Conn) {
			control, err := c.OpenUniStream()
			if err != nil {
				return
			}
			_, _ = control.Write(controlStream)
			for {
				s, err := c.AcceptStream(ctx)
				if err != nil {
					return
				}
				do(c, s)
			}
		}))
	}
	silent := listenUDP(tb)
	tb.Cleanup(func() { _ = silent.Close() })
	add("silent", "timeout", "https://"+silent.LocalAddr().String())
	add("garbage", "timeout", h.garbage(tb))
	add("other-protocol", "protocol", h.listen(tb, cert, "other", func(ctx context.Context, _ *quic.Conn) { <-ctx.Done() }))
	add("closes", "protocol", h.listen(tb, cert, http3.NextProtoH3, func(_ context.Context, c *quic.Conn) { _ = c.CloseWithError(0x102, "no") }))
	add("settings-twice", "protocol", h.listen(tb, cert, http3.NextProtoH3, func(ctx context.Context, c *quic.Conn) {
		if control, err := c.OpenUniStream(); err == nil {
			_, _ = control.Write(append(append([]byte{}, controlStream...), 0x04, 0x00))
		}
		<-ctx.Done()
	}))
	add("no-settings", "protocol", h.listen(tb, cert, http3.NextProtoH3, func(ctx context.Context, c *quic.Conn) {
		if control, err := c.OpenUniStream(); err == nil {
			_, _ = control.Write([]byte{0x00, 0x00, 0x04, 1, 2, 3, 4})
		}
		<-ctx.Done()
	}))
	add("stream-flood", "timeout", h.listen(tb, cert, http3.NextProtoH3, func(ctx context.Context, c *quic.Conn) {
		for {
			s, err := c.OpenUniStreamSync(ctx)
			if err != nil {
				return
			}
			_, _ = s.Write([]byte{0x21})
			s.CancelWrite(1)
		}
	}))
	onStream("hang", "timeout", func(*quic.Conn, *quic.Stream) {})
	onStream("reset", "protocol", func(_ *quic.Conn, s *quic.Stream) { s.CancelWrite(0x102); s.CancelRead(0x102) })
	onStream("rejected", "protocol", func(_ *quic.Conn, s *quic.Stream) { s.CancelWrite(0x10b); s.CancelRead(0x10b) })
	onStream("closes-in-answer", "protocol", func(c *quic.Conn, s *quic.Stream) {
		_, _ = s.Write(headers200)
		_ = c.CloseWithError(0x102, "enough")
	})
	onStream("data-first", "protocol", func(_ *quic.Conn, s *quic.Stream) { _, _ = s.Write([]byte{0x00, 0x01, 'x'}); _ = s.Close() })
	onStream("ends-at-once", "protocol", func(_ *quic.Conn, s *quic.Stream) { _ = s.Close() })
	onStream("broken-headers", "protocol", func(_ *quic.Conn, s *quic.Stream) {
		_, _ = s.Write([]byte{0x01, 0x03, 0x00, 0x00, 0xff})
		_ = s.Close()
	})
	onStream("huge-headers", "tooLarge", func(_ *quic.Conn, s *quic.Stream) {
		_, _ = s.Write([]byte{0x01, 0x80, 0x10, 0x00, 0x00}) // a frame of 1 MiB
	})
	onStream("flood-103", "tooLarge", func(_ *quic.Conn, s *quic.Stream) {
		for range 10_000 {
			if _, err := s.Write(headers103); err != nil {
				return
			}
		}
	})
	onStream("endless", "tooLarge", func(_ *quic.Conn, s *quic.Stream) {
		_, err := s.Write(headers200)
		frame := append([]byte{0x00, 0x80, 0x01, 0x00, 0x00}, make([]byte, 64<<10)...)
		for err == nil {
			_, err = s.Write(frame)
		}
	})
	onStream("drip", "timeout", func(c *quic.Conn, s *quic.Stream) {
		_, err := s.Write(headers200)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for err == nil {
			select {
			case <-tick.C:
				_, err = s.Write([]byte{0x00, 0x01, 'x'})
			case <-c.Context().Done():
				return
			}
		}
	})
	onStream("long-length", "protocol", func(_ *quic.Conn, s *quic.Stream) {
		_, _ = s.Write(append(append([]byte{}, headersOf100...), 0x00, 0x01, 'x'))
		_ = s.Close()
	})
	onStream("short-length", "protocol", func(_ *quic.Conn, s *quic.Stream) {
		_, _ = s.Write(append(append(append([]byte{}, headersOf100...), 0x00, 0x40, 0xc8), make([]byte, 200)...))
		_ = s.Close()
	})
	onStream("cut-body", "protocol", func(_ *quic.Conn, s *quic.Stream) {
		_, _ = s.Write(append(append([]byte{}, headersOf100...), 0x00, 0x40, 0x64, 'x')) // a frame of 100 bytes that has one
		_ = s.Close()
	})
}

// listen accepts QUIC connections and gives each to do, then closes it.
func (h *HTTP3) listen(tb testing.TB, cert tls.Certificate, protocol string, do func(ctx context.Context, c *quic.Conn)) string {
	tb.Helper()
	socket := listenUDP(tb)
	transport := &quic.Transport{Conn: socket}
	l, err := transport.Listen(&tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
	}, &quic.Config{MaxIdleTimeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				own, done := context.WithCancel(ctx)
				defer done()
				defer context.AfterFunc(c.Context(), done)()
				do(own, c)
				_ = c.CloseWithError(0, "")
			})
		}
	})
	tb.Cleanup(func() {
		stop()
		_ = l.Close()
		wg.Wait()
		_ = transport.Close()
		_ = socket.Close()
	})
	return fmt.Sprintf("https://%s", l.Addr())
}

// garbage answers each packet with what is none of QUIC's.
func (h *HTTP3) garbage(tb testing.TB) string {
	tb.Helper()
	conn := listenUDP(tb)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			for i := range buf[:n] {
				buf[i] ^= 0x5a
			}
			_, _ = conn.WriteToUDP(buf[:n], from)
		}
	})
	tb.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return "https://" + conn.LocalAddr().String()
}
