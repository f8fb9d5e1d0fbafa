package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/fault"
)

const (
	headerRequestID     = "X-Request-Id"
	headerOrganization  = "X-Organization-Id"
	headerEventPosition = "X-Event-Position"

	// strayTime bounds requests that nothing answers: their bodies are read and thrown away.
	strayTime = 10 * time.Second
)

// observe surrounds every request: its id, the headers of every answer, what is counted and logged, and recovery from
// panics, which are faults of ours and must not end the process.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := s.deps.Now()
		id := s.requestID(c.Request())
		setHeaders(c.Response().Header(), id, s.deps.HTTPS)
		if len(c.Request().TransferEncoding) > 0 {
			// net/http believes the chunks and drops a Content-Length beside them, which a proxy may have believed: what comes
			// after such a request on its connection isn't listened to (RFC 9112, 6.1).
			c.Response().Header().Set("Connection", "close")
		}
		done := s.metrics.begin(c.Request().Method, routeOf(c))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
					panic(p)
				}
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
			if err != nil {
				s.writeError(err, c)
				err = nil
			}
			elapsed := s.deps.Now().Sub(start)
			done(c.Response().Status, elapsed)
			s.log.DebugContext(c.Request().Context(), "request", slog.String("request_id", id),
				slog.String("method", c.Request().Method), slog.String("route", c.Path()),
				slog.Int("status", c.Response().Status), slog.Int64("bytes", c.Response().Size),
				slog.Duration("duration", elapsed), slog.String("address", c.RealIP()))
		}()
		return next(c)
	}
}

// headAsGet answers HEAD wherever there is a GET, as every server must (RFC 9110): load balancers ask /readyz so. The
// connection still knows the method and sends no body. The live stream is left out: only a GET opens a socket.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.URL.Path != "/api/live" {
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		next.ServeHTTP(w, r)
	})
}

// requestID takes a sane id of the client's and makes one otherwise. A sane one can stand in a log and in a URL.
func (s *Server) requestID(r *http.Request) string {
	id := r.Header.Get(headerRequestID)
	if len(id) >= 8 && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.'
	}) {
		return id
	}
	return s.deps.NewID().String()
}

// setHeaders sets what every answer carries. The API's answers are nothing that a browser should show, run or keep.
func setHeaders(h http.Header, id string, https bool) {
	h.Set(headerRequestID, id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", permissionsPolicy)
	h.Set("Content-Security-Policy", noPolicy)
	h.Set("Cache-Control", "no-store")
	if https {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// permissionsPolicy: no page of ours asks a browser for any of this.
const permissionsPolicy = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), microphone=(), midi=(), payment=(), usb=()"

// routeOf is the route's template, never the URL, so that metrics have as many series as there are routes.
func routeOf(c echo.Context) string {
	if c.Path() == "" || c.Path() == "/*" {
		return "unmatched"
	}
	return c.Path()
}

var exposedHeaders = strings.Join([]string{
	headerRequestID, headerEventPosition, "ETag", "Location", "Link", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "Idempotency-Replayed", "Preference-Applied",
	"Content-Disposition", trailerComplete, trailerEvents, trailerPosition,
}, ", ")

// What a page of an allowed origin may send.
var (
	corsMethods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	corsHeaders = []string{
		"Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "X-API-Key", "X-Min-Position",
		headerOrganization, headerRequestID,
	}
)

// cors lets pages of the allowed origins call the API: those on the list, letter by letter. Credentials are headers, so no
// cookie is ever allowed with it. Every answer says that it depends on the origin, or a cache would give it to another.
func (s *Server) cors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, h := c.Request(), c.Response().Header()
		h.Add("Vary", "Origin")
		wanted := r.Header.Get("Access-Control-Request-Method")
		preflight := r.Method == http.MethodOptions && wanted != ""
		if preflight {
			h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		}
		origins := r.Header.Values("Origin")
		if len(origins) != 1 || !slices.Contains(s.deps.AllowedOrigins, origins[0]) {
			return next(c)
		}
		if preflight && (!slices.Contains(corsMethods, wanted) || !headersAllowed(r.Header.Values("Access-Control-Request-Headers"))) {
			return &httpFault{http.StatusForbidden, "request.origin", "A page of another origin may not send that method or header."}
		}
		h.Set("Access-Control-Allow-Origin", origins[0])
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if !preflight {
			return next(c)
		}
		h.Set("Access-Control-Allow-Methods", strings.Join(corsMethods, ", "))
		h.Set("Access-Control-Allow-Headers", strings.Join(corsHeaders, ", "))
		h.Set("Access-Control-Max-Age", "600")
		return c.NoContent(http.StatusNoContent)
	}
}

// headersAllowed reports whether all the headers that a preflight asks for are ours.
func headersAllowed(asked []string) bool {
	for name := range strings.SplitSeq(strings.Join(asked, ","), ",") {
		name = strings.TrimSpace(name)
		if name != "" && !slices.ContainsFunc(corsHeaders, func(ours string) bool { return strings.EqualFold(ours, name) }) {
			return false
		}
	}
	return true
}

// identify finds the operation and gives the request its deadline.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		op := s.ops[c.Request().Method+" "+c.Path()]
		if op == nil {
			if err := s.setDeadlines(c.Response().Writer, strayTime); err != nil {
				return err
			}
			return next(c)
		}
		query, err := url.ParseQuery(c.Request().URL.RawQuery)
		if err != nil {
			return fault.New(fault.Malformed, codeMalformed, "The query does not parse.").Because(err)
		}
		r := &request{op: op, id: c.Response().Header().Get(headerRequestID), path: c.Request().URL.Path, query: query, header: c.Request().Header}
		ctx := context.WithValue(c.Request().Context(), operationKey{}, r)
		if op.streams() {
			plain := c.Response().Writer
			c.Response().Writer = steadyWriter{plain, s}
			defer func() { c.Response().Writer = plain }()
		} else {
			limit := s.deps.Limits.RequestTimeout
			if op.waits {
				limit += s.deps.Limits.Wait
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
			if err := s.setDeadlines(c.Response().Writer, limit); err != nil {
				return err
			}
		}
		// What stands around sees the connection's context again, which ends only when the client goes away.
		outer := c.Request()
		defer func() { c.SetRequest(outer) }()
		c.SetRequest(outer.WithContext(ctx))
		return next(c)
	}
}

// setDeadlines bounds what a slow client can cost: what a body may take to come and an answer to be read, beyond the time
// that making it may take. The deadline may not fall into the making: net/http takes it for the client's going away. A
// recorder in a test has no connection and needs none.
func (s *Server) setDeadlines(w http.ResponseWriter, limit time.Duration) error {
	rc, end := http.NewResponseController(w), s.deps.Now().Add(limit+s.deps.Limits.SlowClient)
	err := errors.Join(rc.SetReadDeadline(end), rc.SetWriteDeadline(end))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set deadlines of a connection: %w", err)
	}
	return nil
}

// steadyWriter gives the client the same time for every part of an answer that has no deadline as a whole.
type steadyWriter struct {
	http.ResponseWriter
	s *Server
}

// Write implements http.ResponseWriter.
func (w steadyWriter) Write(b []byte) (int, error) {
	rc := http.NewResponseController(w.ResponseWriter)
	if err := rc.SetWriteDeadline(w.s.deps.Now().Add(w.s.deps.Limits.SlowClient)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("set the deadline of a part: %w", err)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w steadyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ipExtractor says whose address a request has: the connection's, unless that is a trusted proxy.
func ipExtractor(proxies []netip.Prefix) (echo.IPExtractor, error) {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect(), nil
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		_, network, err := net.ParseCIDR(p.Masked().String())
		if err != nil {
			return nil, fmt.Errorf("trusted proxy %s: %w", p, err)
		}
		options = append(options, echo.TrustIPRange(network))
	}
	return echo.ExtractIPFromXFFHeader(options...), nil
}
