// Package httpapi is the REST door: it decodes a request as openapi.yaml says, calls one slice and encodes the answer.
//
// The ground rules of the API (problem documents, strict bodies, conditional requests, idempotency, cursors, positions)
// each stand in one file of this package and hold for every route by middleware that reads the document. The package
// decides nothing about the field, knows no SQL and holds no state but that of requests in flight.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/secret"
)

// Deps is what the door needs. Every field is required unless it says otherwise.
type Deps struct {
	Orgs      *org.Service
	Projects  *project.Service
	Secrets   *secret.Service
	Tests     *apitest.Service
	Runs      *run.Service // with Ends, or Prefer: wait doesn't wait
	Analytics *analytics.Service
	Audit     *audit.Service
	Refusals  *audit.Refusals

	UnitOfWork  UnitOfWork
	Positions   Positions
	FeedCursors FeedCursors
	Live        http.Handler // GET /api/live

	Checks   []Check              // of /health and /readyz
	Registry *prometheus.Registry // of /metrics; the door adds its own
	Now      func() time.Time
	NewID    func() uuid.UUID
	Logger   *slog.Logger
	Version  string // of the program, for /health

	CursorKey      []byte         // signs cursors; the same on every node, at least 32 bytes
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed; empty = nobody's
	AllowedOrigins []string       // whose pages may call the API; empty = only our own
	HTTPS          bool           // people reach it by https alone, and browsers are told to keep to it
	MetricsToken   string         // that /metrics asks for; empty = loopback alone may read it

	Limits Limits
	Rates  RateLimits
}

// Limits bound what a request may cost. A zero field takes the default that package limits names.
type Limits struct {
	RequestBody    int64         // bytes
	RequestTimeout time.Duration // exports and waits have their own
	ReadHeader     time.Duration // that a request's head may take to come
	SlowClient     time.Duration // that a client may take to send a body, or to read an answer, beyond RequestTimeout
	PageSize       int           // items of a list, at most limits.MaxPage
	PositionWait   time.Duration // that a GET waits for its position
	Wait           time.Duration // that Prefer: wait may wait for runs
}

func (l Limits) withDefaults() Limits {
	d := limits.Defaults()
	if l.ReadHeader <= 0 {
		l.ReadHeader = limits.ReadHeaderTime
	}
	if l.SlowClient <= 0 {
		l.SlowClient = limits.SlowClient
	}
	if l.RequestBody <= 0 {
		l.RequestBody = int64(d.RequestBody)
	}
	if l.RequestTimeout <= 0 {
		l.RequestTimeout = d.RequestTimeout
	}
	if l.PageSize <= 0 || l.PageSize > limits.MaxPage {
		l.PageSize = limits.MaxPage
	}
	if l.PositionWait <= 0 {
		l.PositionWait = d.MinPosition
	}
	if l.Wait <= 0 {
		l.Wait = d.Wait
	}
	return l
}

// Server answers the REST API. It is safe for concurrent use.
type Server struct {
	deps     Deps
	log      *slog.Logger
	echo     *echo.Echo
	ops      map[string]*operation // by method and route, as in "GET /api/runs/:id"
	metrics  *metrics
	health   *health
	http     *http.Server
	draining atomic.Bool
	started  time.Time
}

// New builds the server from the document and the deps. It starts nothing.
func New(deps Deps) (*Server, error) {
	if len(deps.CursorKey) < 32 {
		return nil, errors.New("httpapi: the cursor key needs at least 32 bytes")
	}
	deps.Limits = deps.Limits.withDefaults()
	s := &Server{deps: deps, log: deps.Logger.With(slog.String("room", "httpapi")), started: deps.Now()}
	var err error
	if s.ops, err = loadOperations(); err != nil {
		return nil, fmt.Errorf("read the API document: %w", err)
	}
	if s.metrics, err = newMetrics(deps.Registry); err != nil {
		return nil, err
	}
	s.health = newHealth(deps, s.log, &s.draining)
	s.echo = echo.New()
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.HTTPErrorHandler = s.writeError
	s.echo.Binder = bodyBinder{}
	if s.echo.IPExtractor, err = ipExtractor(deps.TrustedProxies); err != nil {
		return nil, err
	}
	s.use()
	oapi.RegisterHandlers(s.echo, oapi.NewStrictHandler(&api{Server: s}, []oapi.StrictMiddlewareFunc{commandPoints}))
	if err := s.mountService(); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: deps.Limits.ReadHeader,
		IdleTimeout:       limits.IdleConnection,
		MaxHeaderBytes:    limits.MaxRequestHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// use puts the middleware in order, the outermost first.
func (s *Server) use() {
	s.echo.Use(
		s.observe,        // request id, headers, access log, metrics, recovery
		s.cors,           // pages of other origins
		s.identify,       // which operation; deadline
		s.limitStrangers, // how often nobody in particular
		s.authenticate,   // who
		s.countKeyUse,    // usage of API keys
		s.limit,          // how often
		s.refusals,       // who was refused what, for the audit log
		s.authorize,      // may they
		s.checkInput,     // parameters and body as the document says; all faults at once
		s.limitSignIn,    // how often somebody may prove who they are
		s.conditional,    // If-None-Match
		s.position,       // X-Min-Position
		s.wait,           // Prefer: wait, outside of the transaction
		s.idempotent,     // Idempotency-Key
	)
}

// Handler returns the door as a handler.
func (s *Server) Handler() http.Handler { return headAsGet(s.echo) }

// Serve answers on the listener until Shutdown; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// Drain makes /readyz answer 503 from now on; everything else goes on.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown drains, takes no new connections and waits for requests in flight until ctx ends, then cuts them.
// WebSockets are not waited for: realtime closes its own.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("wait for requests in flight: %w", err), s.http.Close())
	}
	return nil
}

// api answers the operations of the document; its methods stand in a file an area.
type api struct {
	*Server
}

var _ oapi.StrictServerInterface = (*api)(nil)
