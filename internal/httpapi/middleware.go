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

	// writeGrace is what a client gets to read an answer beyond the time that making it may take.
	writeGrace = 30 * time.Second
	// readTime is what a body may take to come, beyond the same time. The deadline may not fall into the making of the
	// answer: net/http takes it for the client's going away.
	readTime = 30 * time.Second
	// strayTime bounds requests that nothing answers: their bodies are read and thrown away.
	strayTime = 10 * time.Second
)

// observe surrounds every request: its id, the headers of every answer, what is counted and logged, and recovery from
// panics, which are faults of ours and must not end the process.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := s.deps.Now()
		id := s.requestID(c.Request())
		setHeaders(c.Response().Header(), id)
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
func setHeaders(h http.Header, id string) {
	h.Set(headerRequestID, id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
}

// routeOf is the route's template, never the URL, so that metrics have as many series as there are routes.
func routeOf(c echo.Context) string {
	if c.Path() == "" || c.Path() == "/*" {
		return "unmatched"
	}
	return c.Path()
}

var exposedHeaders = strings.Join([]string{
	headerRequestID, headerEventPosition, "ETag", "Location", "Link", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "Idempotency-Replayed", "Preference-Applied",
}, ", ")

// cors lets pages of the allowed origins call the API. Credentials are headers, so no cookie is ever allowed with it.
func (s *Server) cors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		origin := c.Request().Header.Get("Origin")
		h := c.Response().Header()
		if len(s.deps.AllowedOrigins) > 0 {
			h.Add("Vary", "Origin")
		}
		if origin == "" || !slices.Contains(s.deps.AllowedOrigins, origin) {
			return next(c)
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if c.Request().Method != http.MethodOptions || c.Request().Header.Get("Access-Control-Request-Method") == "" {
			return next(c)
		}
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Prefer, X-API-Key, X-Min-Position, "+
			headerOrganization+", "+headerRequestID)
		h.Set("Access-Control-Max-Age", "600")
		return c.NoContent(http.StatusNoContent)
	}
}

// identify finds the operation and gives the request its deadline.
func (s *Server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		op := s.ops[c.Request().Method+" "+c.Path()]
		if op == nil {
			if err := setDeadlines(c.Response().Writer, s.deps.Now(), strayTime); err != nil {
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
		if !op.streams() {
			limit := s.deps.Limits.RequestTimeout
			if op.waits {
				limit += s.deps.Limits.Wait
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
			if err := setDeadlines(c.Response().Writer, s.deps.Now(), limit); err != nil {
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

// setDeadlines bounds what a slow client can cost. A recorder in a test has no connection and needs none.
func setDeadlines(w http.ResponseWriter, now time.Time, limit time.Duration) error {
	rc := http.NewResponseController(w)
	err := errors.Join(rc.SetReadDeadline(now.Add(limit+readTime)), rc.SetWriteDeadline(now.Add(limit+writeGrace)))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set deadlines of a connection: %w", err)
	}
	return nil
}

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
