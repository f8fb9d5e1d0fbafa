package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/httpapi"
)

// served is a door on a real socket, with what it says in its log.
type served struct {
	*world
	address string
	said    *logBuffer
}

// serve opens the door on a port of its own.
func (w *world) serve(change func(*httpapi.Deps)) *served {
	w.t.Helper()
	s := &served{world: w, said: &logBuffer{}}
	deps := w.deps
	deps.Registry = prometheus.NewRegistry()
	deps.Logger = slog.New(slog.NewTextHandler(s.said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&deps)
	}
	server, err := httpapi.New(deps)
	require.NoError(w.t, err)
	w.server = server
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	s.address = l.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(w.t, server.Shutdown(ctx))
		assert.NoError(w.t, <-ended)
	})
	return s
}

func (s *served) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.address)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() }) // the server may have closed it
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn
}

// send writes bytes as they are and returns all that comes until the server closes the connection.
func (s *served) send(text string) string {
	s.t.Helper()
	conn := s.dial()
	_, err := io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n"))
	require.NoError(s.t, err)
	got, err := io.ReadAll(conn)
	if err != nil && len(got) == 0 {
		require.NoError(s.t, err)
	}
	return string(got)
}

// cut waits until the server ends the connection, and returns when that was.
func cut(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	start := time.Now()
	_, err := io.Copy(io.Discard, conn)
	var late net.Error
	if ok := asTimeout(err, &late); ok {
		t.Fatal("the connection was not ended")
	}
	return time.Since(start)
}

func asTimeout(err error, target *net.Error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // io.Copy returns it bare
	if ok {
		*target = e
	}
	return ok && e.Timeout()
}

// TestSlowClients_areCut: heads and bodies that drip, and answers that nobody reads.
func TestSlowClients_areCut(t *testing.T) {
	t.Parallel()
	s := newWorld(t).serve(func(d *httpapi.Deps) {
		d.Limits.ReadHeader, d.Limits.RequestTimeout, d.Limits.SlowClient = 300*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	})
	const soon = 5 * time.Second
	drip := func(conn net.Conn) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
		}
	}
	t.Run("head", func(t *testing.T) {
		conn := s.dial()
		_, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		require.NoError(t, err)
		go drip(conn)
		assert.Less(t, cut(t, conn), soon)
	})
	t.Run("nothing at all", func(t *testing.T) {
		assert.Less(t, cut(t, s.dial()), soon)
	})
	for name, length := range map[string]string{"body": "Content-Length: 100000", "body in chunks": "Transfer-Encoding: chunked"} {
		t.Run(name, func(t *testing.T) {
			conn := s.dial()
			_, err := io.WriteString(conn, "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"+length+"\r\n\r\n1000\r\n{")
			require.NoError(t, err)
			go drip(conn)
			assert.Less(t, cut(t, conn), soon)
		})
	}
	t.Run("answer", func(t *testing.T) {
		conn := s.dial()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
		// Far more answers than the kernel keeps, and nobody reads them: the server may not wait for long.
		ask := strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", 300)
		_, err := io.WriteString(conn, ask)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
			return err != nil && !os.IsTimeout(err) // it was the server
		}, 8*time.Second, 50*time.Millisecond, "the server still waits for a client that doesn't read")
	})
	r, err := http.Get("http://" + s.address + "/livez")
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	assert.Equal(t, 200, r.StatusCode, "others are served")
}

// TestFraming_isReadInOneWay: what a proxy and we could read differently is refused, or ends its connection.
func TestFraming_isReadInOneWay(t *testing.T) {
	t.Parallel()
	s := newWorld(t).serve(nil)
	const smuggled = "GET /livez HTTP/1.1\nHost: smuggled\n\n"
	for name, c := range map[string]struct {
		request string
		status  string
	}{
		"two lengths":               {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Length: 0\nContent-Length: 38\n\n" + smuggled, "400"},
		"a list of lengths":         {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Length: 0, 38\n\n" + smuggled, "400"},
		"a length with a sign":      {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Length: +0\n\n" + smuggled, "400"},
		"a negative length":         {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Length: -1\n\n" + smuggled, "400"},
		"a length in hex":           {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Length: 0x0\n\n" + smuggled, "400"},
		"an unknown coding":         {"POST /api/auth/login HTTP/1.1\nHost: a\nTransfer-Encoding: xchunked\n\n" + smuggled, "501"},
		"two codings":               {"POST /api/auth/login HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n0\n\n" + smuggled, "501"},
		"a coding twice":            {"POST /api/auth/login HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n" + smuggled, "400|501"},
		"space before the colon":    {"POST /api/auth/login HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\nContent-Length: 0\n\n" + smuggled, "400"},
		"a folded header":           {"GET /livez HTTP/1.1\nHost: a\nX: b\n Content-Length: 5\nY\n\n" + smuggled, "400"},
		"two hosts":                 {"GET /livez HTTP/1.1\nHost: a\nHost: b\n\n" + smuggled, "400"},
		"no host":                   {"GET /livez HTTP/1.1\n\n" + smuggled, "400"},
		"a host that is none":       {"GET /livez HTTP/1.1\nHost: a/b\n\n" + smuggled, "400"},
		"a byte that is no header":  {"GET /livez HTTP/1.1\nHost: a\nX\x00: b\n\n" + smuggled, "400"},
		"HTTP/2 without TLS":        {"PRI * HTTP/2.0\n\nSM\n\n", "400|505|404|405"},
		"too many headers":          {"GET /livez HTTP/1.1\nHost: a\nX: " + strings.Repeat("x", 64<<10) + "\n\n", "431"},
		"chunks beside a length":    {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n" + smuggled, "400"},
		"chunks, and more after it": {"POST /api/auth/login HTTP/1.1\nHost: a\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n0\n\n" + smuggled, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.send(c.request)
			head, _, _ := strings.Cut(got, "\r\n")
			proto, status, _ := strings.Cut(head, " ")
			status, _, _ = strings.Cut(status, " ")
			assert.Equal(t, "HTTP/1.1", proto)
			assert.Contains(t, strings.Split(c.status, "|"), status, got)
			assert.Equal(t, 1, strings.Count(got, "HTTP/1.1 "), "what was smuggled was answered: %s", got)
		})
	}
	t.Run("an upgrade to HTTP/2 without TLS", func(t *testing.T) {
		got := s.send("GET /livez HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n")
		assert.True(t, strings.HasPrefix(got, "HTTP/1.1 200"), got)
	})
}

// TestBody_limitsHoldForEveryFraming: in chunks without a length, packed, of two kinds.
func TestBody_limitsHoldForEveryFraming(t *testing.T) {
	t.Parallel()
	s := newWorld(t).serve(nil)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
	big := strings.Repeat(chunk, 20) + "0\r\n\r\n"
	head := "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
	for name, c := range map[string]struct {
		text   string
		status string
		code   string
	}{
		"chunks without a length": {head + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + big, "413", "request.too_large"},
		"gzip":                    {head + "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
		"GZIP behind identity":    {head + "Content-Type: application/json\r\nContent-Encoding: identity\r\nContent-Encoding: GZIP\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
		"a form":                  {head + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
		"text, as a form can":     {head + "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
		"two types":               {head + "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
		"a list of types":         {head + "Content-Type: application/json, text/plain\r\nContent-Length: 2\r\n\r\n{}", "415", "request.media_type"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := s.dial()
			go func() { _, _ = io.WriteString(conn, c.text) }() // the server may answer before it has read it all
			got, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			body, err := io.ReadAll(got.Body)
			require.NoError(t, err)
			require.NoError(t, got.Body.Close())
			assert.Equal(t, c.status, got.Status[:3], string(body))
			assert.Contains(t, string(body), c.code)
		})
	}
}

// TestHeaders_ofEveryAnswer: what a browser is told, whatever it asked for.
func TestHeaders_ofEveryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.server = w.node(httpapi.RateLimits{})
	get := func(server *httpapi.Server, method, path string) http.Header {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		rec := httptest.NewRecorder()
		server.Handler().ServeHTTP(rec, r)
		return rec.Header()
	}
	for _, path := range []string{"/livez", "/api/projects", "/api/nothing", "/", "/api-docs", "/openapi.json", "/api-docs/swagger-ui.css"} {
		for _, method := range []string{"GET", "POST", "OPTIONS", "TRACE"} {
			h := get(w.server, method, path)
			name := method + " " + path
			assert.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), name)
			assert.Equal(t, "DENY", h.Get("X-Frame-Options"), name)
			assert.Equal(t, "no-referrer", h.Get("Referrer-Policy"), name)
			assert.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"), name)
			assert.Equal(t, "same-origin", h.Get("Cross-Origin-Opener-Policy"), name)
			assert.Contains(t, h.Get("Permissions-Policy"), "geolocation=()", name)
			assert.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'", name)
			assert.Contains(t, h.Get("Content-Security-Policy"), "frame-ancestors 'none'", name)
			assert.NotContains(t, h.Get("Content-Security-Policy"), "script-src 'self' 'unsafe", name)
			assert.NotEmpty(t, h.Get("Cache-Control"), name)
			assert.Contains(t, strings.Join(h.Values("Vary"), ","), "Origin", name)
			assert.NotEmpty(t, h.Get("X-Request-Id"), name)
			assert.Empty(t, h.Get("Strict-Transport-Security"), "over HTTP it would mean nothing")
			assert.Empty(t, h.Values("Server"), name)
			assert.Empty(t, h.Values("Set-Cookie"), name)
		}
	}
	assert.Equal(t, "require-corp", get(w.server, "GET", "/api-docs").Get("Cross-Origin-Embedder-Policy"))
	https := w.deps
	https.Registry, https.HTTPS = prometheus.NewRegistry(), true
	server, err := httpapi.New(https)
	require.NoError(t, err)
	assert.Equal(t, "max-age=31536000", get(server, "GET", "/api/nothing").Get("Strict-Transport-Security"))
}

// TestCORS_allowsTheListAlone: letter by letter, with no credentials, and only what the API takes.
func TestCORS_allowsTheListAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	deps := w.deps
	deps.Registry, deps.AllowedOrigins = prometheus.NewRegistry(), []string{"https://status.example.com"}
	server, err := httpapi.New(deps)
	require.NoError(t, err)
	ask := func(method, path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Header.Set("Authorization", "Bearer "+w.tokens["admin-a"])
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		server.Handler().ServeHTTP(rec, r)
		assert.Contains(t, strings.Join(rec.Header().Values("Vary"), ","), "Origin")
		assert.Empty(t, rec.Header().Get("Access-Control-Allow-Credentials"))
		assert.NotEqual(t, "*", rec.Header().Get("Access-Control-Allow-Origin"))
		return rec
	}
	for _, foreign := range []string{
		"null", "*", "http://status.example.com", "https://status.example.com.evil.example", "https://evil-status.example.com", "https://status.example.com:8443",
		"https://STATUS.example.com", "https://status.example.com/", "https://status.example.com@evil.example", "https://evil.example#https://status.example.com",
		"https://statusxexample.com", "https://sub.status.example.com", "https://status.example.com https://evil.example", "", "file://", "https://status.example.com\x00",
	} {
		for _, rec := range []*httptest.ResponseRecorder{
			ask("GET", "/api/projects", "Origin", foreign),
			ask("OPTIONS", "/api/projects", "Origin", foreign, "Access-Control-Request-Method", "GET"),
		} {
			for name := range rec.Header() {
				assert.False(t, strings.HasPrefix(name, "Access-Control-"), "%q: %s", foreign, name)
			}
		}
	}
	assert.Empty(t, ask("GET", "/api/projects", "Origin", "https://status.example.com", "Origin", "https://evil.example").Header().Get("Access-Control-Allow-Origin"), "two origins")

	good := ask("GET", "/api/projects", "Origin", "https://status.example.com")
	assert.Equal(t, 200, good.Code)
	assert.Equal(t, "https://status.example.com", good.Header().Get("Access-Control-Allow-Origin"))
	for _, name := range []string{"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "ETag", "Content-Disposition", "X-Export-Complete", "X-Export-Events", "X-Export-Position"} {
		assert.Contains(t, good.Header().Get("Access-Control-Expose-Headers"), name)
	}
	preflight := func(method, headers string) *httptest.ResponseRecorder {
		return ask("OPTIONS", "/api/projects", "Origin", "https://status.example.com", "Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers)
	}
	fine := preflight("PATCH", "authorization, Content-Type,if-match")
	assert.Equal(t, 204, fine.Code)
	assert.Equal(t, "GET, POST, PUT, PATCH, DELETE", fine.Header().Get("Access-Control-Allow-Methods"))
	for method, headers := range map[string]string{"TRACE": "", "CONNECT": "authorization", "GET": "authorization, cookie", "POST": "x-forwarded-for", "DELETE": "x-http-method-override", "patch": ""} {
		got := preflight(method, headers)
		assert.Equal(t, 403, got.Code, method)
		assert.Empty(t, got.Header().Get("Access-Control-Allow-Origin"), method)
	}
}

// TestCookies_areNoCredential: nothing sets one, and none is believed, so there is nothing for another site's form to use.
func TestCookies_areNoCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	token := w.tokens["admin-a"]
	cookies := []string{}
	for _, name := range []string{"token", "access_token", "accessToken", "session", "sid", "jwt", "Authorization", "testflow", "__Host-testflow", "X-API-Key"} {
		cookies = append(cookies, name+"="+token, name+"=Bearer "+token)
	}
	walk(func(method, template string, _ *openapi3.Operation) {
		got := w.do(call{method: method, path: th.fill(t, template), header: map[string]string{"Cookie": strings.Join(cookies, "; ")}})
		assert.Equal(t, 401, got.status, "%s %s", method, template)
	})
}

// TestProxyHeaders_areBelievedFromProxiesAlone: who is limited, logged and recorded is who is connected.
func TestProxyHeaders_areBelievedFromProxiesAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const stranger, proxy, inner = "203.0.113.1", "10.0.0.1", "10.0.0.2"
	trusting := w.deps
	trusting.Registry, trusting.Rates = prometheus.NewRegistry(), w.rates()
	trusting.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	behind, err := httpapi.New(trusting)
	require.NoError(t, err)
	alone := w.node(w.rates())
	for i, c := range []struct {
		name   string
		server *httpapi.Server
		from   string
		header map[string]string
		want   string
	}{
		{"nobody is trusted", alone, stranger, map[string]string{"X-Forwarded-For": "198.51.100.1"}, stranger},
		{"nobody is trusted, on this machine", alone, "127.0.0.1", map[string]string{"X-Forwarded-For": "198.51.100.2"}, "127.0.0.1"},
		{"a stranger says so", behind, stranger, map[string]string{"X-Forwarded-For": "198.51.100.3"}, stranger},
		{"a stranger names the proxy", behind, stranger, map[string]string{"X-Forwarded-For": "198.51.100.4, 10.0.0.1"}, stranger},
		{"the proxy says so", behind, proxy, map[string]string{"X-Forwarded-For": "198.51.100.5"}, "198.51.100.5"},
		{"the client spoofed in front of it", behind, proxy, map[string]string{"X-Forwarded-For": "192.0.2.99, 198.51.100.6"}, "198.51.100.6"},
		{"two proxies", behind, proxy, map[string]string{"X-Forwarded-For": "192.0.2.99, 198.51.100.7, " + inner}, "198.51.100.7"},
		{"a private address that is no proxy", behind, proxy, map[string]string{"X-Forwarded-For": "198.51.100.20, 192.168.1.5"}, "192.168.1.5"},
		{"IPv6", behind, proxy, map[string]string{"X-Forwarded-For": "2001:db8::7"}, "2001:db8::7"},
		{"garbage", behind, proxy, map[string]string{"X-Forwarded-For": "198.51.100.8, not-an-address"}, proxy},
		{"garbage with a line end", behind, proxy, map[string]string{"X-Forwarded-For": "198.51.100.9\r\nX: y"}, proxy},
		{"other spellings", behind, proxy, map[string]string{"X-Real-Ip": "198.51.100.10", "Forwarded": "for=198.51.100.11", "X-Client-Ip": "198.51.100.12", "True-Client-Ip": "198.51.100.13", "Cf-Connecting-Ip": "198.51.100.14"}, proxy},
		{"names of others", alone, stranger, map[string]string{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Original-Url": "/livez", "X-Rewrite-Url": "/livez"}, stranger},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.server = c.server
			got := w.from(c.from, call{method: "GET", path: "/api/projects?limit=" + fmt.Sprint(i+1), as: "admin-b", header: c.header})
			require.Equal(t, 200, w.from(c.from, call{method: "GET", path: "/health", header: c.header}).status)
			assert.Contains(t, []int{200, 429}, got.status)
			assert.Contains(t, lastLine(w.log.String(), "route=/api/projects"), "address="+c.want+"\n")
		})
	}
}

// lastLine is the last line of a log that contains the text, with its end.
func lastLine(log, text string) string {
	var last string
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			last = line
		}
	}
	return last
}

// A spoofed address doesn't make a limit anew.
func TestProxyHeaders_dontMoveALimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	var looked int
	for i := range 10 {
		c := login("viewer-a@example.com", "wrong by intent")
		c.header = map[string]string{"X-Forwarded-For": fmt.Sprintf("198.51.100.%d", i), "X-Real-Ip": fmt.Sprintf("198.51.100.%d", i), "Forwarded": fmt.Sprintf("for=198.51.100.%d", i)}
		if w.from("203.0.113.9", c).status == 401 {
			looked++
		}
	}
	assert.Equal(t, 5, looked)
}

// TestHost_isNotRepeated: links are relative or of the public address; what a client calls us doesn't get around.
func TestHost_isNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []call{
		{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`},
		{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Birds"}`},
		{method: "GET", path: "/api/projects?limit=1", as: "admin-a"},
		{method: "GET", path: "/openapi.json"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+w.tokens["admin-a"])
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		require.Less(t, rec.Code, 300, rec.Body.String())
		assert.NotContains(t, rec.Body.String(), "evil.example", c.path)
		for name, values := range rec.Header() {
			assert.NotContains(t, strings.Join(values, " "), "evil.example", "%s: %s", c.path, name)
		}
	}
}

// TestMethod_cannotBeOverridden: a header, a field and a parameter make no other method of it.
func TestMethod_cannotBeOverridden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`}).header.Get("Location")
	for _, name := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"} {
		assert.Equal(t, 200, w.do(call{method: "GET", path: path, as: "admin-a", header: map[string]string{name: "DELETE"}}).status, name)
		assert.Equal(t, 405, w.do(call{method: "POST", path: path, as: "admin-a", header: map[string]string{name: "DELETE"}}).status, name)
	}
	assert.Equal(t, 422, w.do(call{method: "GET", path: path + "?_method=DELETE", as: "admin-a"}).status)
	for _, method := range []string{"TRACE", "CONNECT", "PROPFIND", "TRACK", "get"} {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Header.Set("Authorization", "Bearer "+w.tokens["admin-a"])
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		assert.Equal(t, 405, rec.Code, method)
		assert.NotContains(t, rec.Body.String(), w.tokens["admin-a"])
	}
	assert.Equal(t, 200, w.do(call{method: "GET", path: path, as: "admin-a"}).status, "it is still there")
}

// TestPath_isNotReadTwice: another spelling of a path is another path, or the same with the same guards.
func TestPath_isNotReadTwice(t *testing.T) {
	t.Parallel()
	s := newWorld(t).serve(nil)
	for _, path := range []string{
		"//api/projects", "/api//projects", "/./api/projects", "/livez/../api/projects", "/api/%2e%2e/api/projects", "/api/projects/", "/API/projects",
		"/api/projects;x=1", "/api%2fprojects", "/api/projects%00", "/livez%2f..%2fapi/projects", "/api/projects%20", "http://evil.example/api/projects", "/metrics/../api/projects", `/api\projects`,
	} {
		got := s.send("GET " + path + " HTTP/1.1\nHost: a\nConnection: close\n\n")
		status := got[9:12]
		assert.Contains(t, []string{"400", "401", "404", "405"}, status, "%s: %s", path, got)
	}
}

// TestLog_linesAreOurs: whatever a client sends, a log line is one line, and a terminal isn't told to do anything.
func TestLog_linesAreOurs(t *testing.T) {
	t.Parallel()
	const esc = "\x1b[31mred\x1b]0;owned\x07"
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"text": func(out io.Writer) slog.Handler {
			return slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"json": func(out io.Writer) slog.Handler {
			return slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"terminal": func(out io.Writer) slog.Handler {
			return tint.NewTextHandler(out, &tint.Options{Level: slog.LevelDebug, NoColor: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			said := &logBuffer{}
			w.deps.Logger = slog.New(handler(said))
			rates := w.rates()
			w.server = w.node(rates)
			evil := "a\r\nlevel=ERROR msg=\"all is lost\"\n{\"level\":\"ERROR\"}" + esc
			for range 6 {
				for _, c := range []call{
					{method: "GET", path: "/api/%0d%0alevel=ERROR%20msg=lost%1b%5b31m"},
					{method: "GET", path: "/api/runs/%0d%0alevel=ERROR%1b%5b31m?x=%0d%0a%1b", as: "admin-a"},
					{method: "POST", path: "/api/auth/login", body: fmt.Sprintf(`{"email":%q,"password":"x"}`, "a@example.com\u2028")},
					{method: "BAD\x1b[31m", path: "/api/projects", as: "admin-a"},
				} {
					r := httptest.NewRequestWithContext(t.Context(), "GET", c.path, strings.NewReader(c.body))
					r.Method = c.method
					r.RemoteAddr = "203.0.113.77:1"
					for _, h := range []string{"User-Agent", "X-Request-Id", "Referer", "X-Forwarded-For", "X-Organization-Id", "Idempotency-Key", "Authorization", "Origin", "Content-Type"} {
						r.Header.Set(h, evil)
					}
					if c.body != "" {
						r.Header.Set("Content-Type", "application/json")
					}
					rec := httptest.NewRecorder()
					w.server.Handler().ServeHTTP(rec, r)
					assert.NotContains(t, rec.Header().Get("X-Request-Id"), "level")
					for name, values := range rec.Header() {
						assert.False(t, strings.ContainsAny(strings.Join(values, ""), "\r\n\x1b"), "header %s", name)
					}
				}
			}
			log := said.String()
			assert.Contains(t, log, "203.0.113.77", "nothing was logged")
			for line := range strings.Lines(log) {
				line = strings.TrimSuffix(line, "\n")
				assert.False(t, strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == '\u2028' }), "%q", line)
				assert.NotRegexp(t, `^(level=ERROR|\{"level":"ERROR"\})`, line)
			}
		})
	}
}

// TestURL_holdsNoSecret: a token in the address is refused on every route, and stands in no log.
func TestURL_holdsNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	token := w.tokens["admin-a"]
	walk(func(method, template string, _ *openapi3.Operation) {
		for _, name := range []string{"access_token", "token", "apiKey", "key", "jwt"} {
			for _, as := range []string{"", "admin-a"} {
				got := w.do(call{method: method, path: th.fill(t, template) + "?" + name + "=" + token, as: as})
				assert.Contains(t, []int{400, 401, 422}, got.status, "%s %s?%s", method, template, name)
				assert.NotContains(t, got.text, token)
			}
		}
	})
	assert.NotContains(t, w.log.String(), token)
}
