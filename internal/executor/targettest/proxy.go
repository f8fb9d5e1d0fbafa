package targettest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Proxy is a proxy that dials whatever it is asked for, by all three protocols.
type Proxy struct {
	// HTTP, HTTPS and SOCKS5 are its "host:port"s. HTTPS's certificate is of the target's authority.
	HTTP, HTTPS, SOCKS5 string
	// User and Password are asked for when User is set; set them before the first request.
	User, Password string

	mu      sync.Mutex
	targets []string
}

// Targets are the "host:port"s that it was asked for so far, in order.
func (p *Proxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.targets...)
}

func (p *Proxy) asked(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets = append(p.targets, target)
}

// NewProxy starts a proxy, which looks up names as the machine does, and takes any name that ends in .behind for
// loopback.
func (s *Server) NewProxy(tb testing.TB, user, password string) *Proxy {
	tb.Helper()
	p := &Proxy{User: user, Password: password}
	bare := func(url string) string { return strings.TrimPrefix(url, "https://") }
	p.HTTP = bare(s.startRaw(tb, p.http))
	now := s.goodCertificate(tb)
	p.HTTPS = bare(s.startRaw(tb, func(c net.Conn) {
		secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{now}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert})
		if secured.HandshakeContext(tb.Context()) != nil {
			return
		}
		if len(secured.ConnectionState().PeerCertificates) > 0 {
			p.asked("a client certificate") // which is none of its business
		}
		p.http(secured)
	}))
	p.SOCKS5 = bare(s.startRaw(tb, p.socks5))
	return p
}

func dialTarget(target string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err //nolint:wrapcheck // for the test's eyes
	}
	if strings.HasSuffix(host, ".behind") {
		host = "127.0.0.1"
	}
	var d net.Dialer
	return d.DialContext(context.Background(), "tcp", net.JoinHostPort(host, port)) //nolint:wrapcheck // for the test's eyes
}

func (p *Proxy) http(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password))
		if p.User != "" && req.Header.Get("Proxy-Authorization") != want {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		target := req.Host
		if req.Method != http.MethodConnect && req.URL.Port() == "" {
			target += ":80"
		}
		p.asked(target)
		out, err := dialTarget(target)
		if err != nil {
			_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			continue
		}
		if req.Method == http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			both(c, in, out)
			return
		}
		req.Header.Del("Proxy-Authorization")
		resp, err := (&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return out, nil }, DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			_ = out.Close()
			return
		}
		err = resp.Write(c)
		_ = resp.Body.Close()
		_ = out.Close()
		if err != nil {
			return
		}
	}
}

// both copies in both directions until one ends.
func both(c net.Conn, in io.Reader, out net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, in)
		_ = out.Close()
	}()
	_, _ = io.Copy(c, out)
	_ = out.Close()
	_ = c.Close()
	<-done
}

func (p *Proxy) socks5(c net.Conn) {
	in := bufio.NewReader(c)
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil || head[0] != 5 {
		return
	}
	if _, err := io.CopyN(io.Discard, in, int64(head[1])); err != nil {
		return
	}
	if p.User == "" {
		_, _ = c.Write([]byte{5, 0})
	} else {
		_, _ = c.Write([]byte{5, 2})
		user, password, err := readLogin(in)
		if err != nil {
			return
		}
		if user != p.User || password != p.Password {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	}
	target, err := readTarget(in)
	if err != nil {
		return
	}
	p.asked(target)
	out, err := dialTarget(target)
	if err != nil {
		_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	both(c, in, out)
}

func readLogin(in *bufio.Reader) (user, password string, err error) {
	if _, err = in.ReadByte(); err != nil { // the version
		return "", "", err //nolint:wrapcheck // only whether
	}
	if user, err = readText(in); err != nil {
		return "", "", err
	}
	password, err = readText(in)
	return user, password, err
}

func readText(in *bufio.Reader) (string, error) {
	n, err := in.ReadByte()
	if err != nil {
		return "", err //nolint:wrapcheck // only whether
	}
	b := make([]byte, n)
	_, err = io.ReadFull(in, b)
	return string(b), err //nolint:wrapcheck // only whether
}

func readTarget(in *bufio.Reader) (string, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", err //nolint:wrapcheck // only whether
	}
	var host string
	switch head[3] {
	case 3:
		name, err := readText(in)
		if err != nil {
			return "", err
		}
		host = name
	case 1, 4:
		b := make([]byte, map[byte]int{1: 4, 4: 16}[head[3]])
		if _, err := io.ReadFull(in, b); err != nil {
			return "", err //nolint:wrapcheck // only whether
		}
		host = net.IP(b).String()
	default:
		return "", fmt.Errorf("address type %d", head[3])
	}
	port := make([]byte, 2)
	_, err := io.ReadFull(in, port)
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port)))), err //nolint:wrapcheck // only whether
}
