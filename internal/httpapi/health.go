package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/testflow/testflow/internal/fault"
)

// Check is one thing that must be well for requests to be answered.
type Check struct {
	Name     string // such as database
	Critical bool   // without it /readyz is 503; otherwise /health says degraded
	// Run returns nil when it is well. Only the message of a *fault.Error is shown; the error itself is logged.
	Run func(ctx context.Context) error
}

const (
	checkTime     = 2 * time.Second // after which a check has failed
	checkKeep     = time.Second     // how long results are given again, so that probes cost little
	drainingRetry = "5"             // seconds
)

type checkResult struct {
	Name       string  `json:"name"`
	Status     string  `json:"status"` // ok, degraded, down
	Detail     string  `json:"detail,omitempty"`
	DurationMs float64 `json:"durationMs"`
}

type healthReport struct {
	Status   string        `json:"status"`
	Version  string        `json:"version"`
	UptimeMs float64       `json:"uptimeMs"`
	Checks   []checkResult `json:"checks"`
}

// health runs the checks, at most once a second.
type health struct {
	deps     Deps
	log      *slog.Logger
	draining *atomic.Bool

	mu      sync.Mutex
	at      time.Time
	results []checkResult
}

func newHealth(deps Deps, log *slog.Logger, draining *atomic.Bool) *health {
	return &health{deps: deps, log: log, draining: draining}
}

// check returns the results of all checks, which run side by side.
func (h *health) check(ctx context.Context) []checkResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.deps.Now(); h.results != nil && now.Sub(h.at) < checkKeep {
		return h.results
	}
	// The result is kept for others too, so the one who asked may not cut it short.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime)
	defer cancel()
	results := make([]checkResult, len(h.deps.Checks))
	var all sync.WaitGroup
	for i, c := range h.deps.Checks {
		all.Go(func() { results[i] = h.one(ctx, c) })
	}
	all.Wait()
	h.at, h.results = h.deps.Now(), results
	return results
}

func (h *health) one(ctx context.Context, c Check) checkResult {
	start := h.deps.Now()
	err := c.Run(ctx)
	result := checkResult{Name: c.Name, Status: "ok", DurationMs: float64(h.deps.Now().Sub(start).Microseconds()) / 1000}
	if err == nil {
		return result
	}
	h.log.WarnContext(ctx, "check failed", slog.String("check", c.Name), slog.Any("err", err))
	result.Status = "degraded"
	if c.Critical {
		result.Status = "down"
	}
	var f *fault.Error
	if errors.As(err, &f) {
		result.Detail = f.Message
	}
	return result
}

// worst is down when a critical check failed, degraded when another did.
func worst(results []checkResult) string {
	status := "ok"
	for _, r := range results {
		if r.Status == "down" {
			return r.Status
		}
		if r.Status == "degraded" {
			status = r.Status
		}
	}
	return status
}

func (s *Server) livez(c echo.Context) error { return c.String(http.StatusOK, "ok\n") }

// readyz answers 200 while requests are welcome.
func (s *Server) readyz(c echo.Context) error {
	status, text := http.StatusOK, "ok\n"
	results := s.health.check(c.Request().Context())
	switch {
	case s.draining.Load():
		status, text = http.StatusServiceUnavailable, "draining\n"
		c.Response().Header().Set("Retry-After", drainingRetry)
	case worst(results) == "down":
		status, text = http.StatusServiceUnavailable, "not ready\n"
		c.Response().Header().Set("Retry-After", "1")
	}
	if _, verbose := c.QueryParams()["verbose"]; verbose {
		var b strings.Builder
		for _, r := range results {
			fmt.Fprintf(&b, "%-8s %s %s\n", r.Status, r.Name, r.Detail)
		}
		text = b.String() + text
	}
	return c.String(status, text)
}

// healthz answers /health, as text for those that accept text and not JSON.
func (s *Server) healthz(c echo.Context) error {
	results := s.health.check(c.Request().Context())
	report := healthReport{
		Status: worst(results), Version: s.deps.Version,
		UptimeMs: float64(s.deps.Now().Sub(s.started).Milliseconds()), Checks: results,
	}
	if s.draining.Load() {
		report.Status = "down"
		report.Checks = append([]checkResult{{Name: "draining", Status: "down", Detail: "This process is stopping."}}, results...)
	}
	status := http.StatusOK
	if report.Status == "down" {
		status = http.StatusServiceUnavailable
	}
	if accept := c.Request().Header.Get("Accept"); strings.HasPrefix(accept, "text/") {
		var b strings.Builder
		fmt.Fprintf(&b, "TestFlow %s is %s, up %s\n", report.Version, report.Status, s.deps.Now().Sub(s.started).Round(time.Second))
		for _, r := range report.Checks {
			fmt.Fprintf(&b, "  %-10s %-24s %8.1f ms  %s\n", r.Status, r.Name, r.DurationMs, r.Detail)
		}
		return c.String(status, b.String())
	}
	return c.JSON(status, report)
}
