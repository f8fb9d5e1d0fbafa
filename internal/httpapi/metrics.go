package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/testflow/testflow/internal/auth"
)

// metrics are what the door counts. Labels are methods and route templates, never URLs.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(registry *prometheus.Registry) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "testflow_http_requests_total", Help: "Answered requests.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "testflow_http_request_duration_seconds", Help: "Time from a request's head to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "testflow_http_requests_in_flight", Help: "Requests that are being answered.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.inFlight} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the door: %w", err)
		}
	}
	return m, nil
}

// begin counts a request in; the returned function counts it out.
func (m *metrics) begin(method, route string) func(status int, elapsed time.Duration) {
	method = knownMethod(method)
	m.inFlight.Inc()
	return func(status int, elapsed time.Duration) {
		m.inFlight.Dec()
		m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
		m.duration.WithLabelValues(method, route).Observe(elapsed.Seconds())
	}
}

// knownMethod keeps made-up methods from making series.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// serveMetrics answers /metrics to who has the token or, without one, to this machine alone.
func (s *Server) serveMetrics() echo.HandlerFunc {
	handler := promhttp.HandlerFor(s.deps.Registry, promhttp.HandlerOpts{Registry: s.deps.Registry, EnableOpenMetrics: true})
	return func(c echo.Context) error {
		if token := s.deps.MetricsToken; token != "" {
			if !sameToken(c.Request().Header.Get("Authorization"), "Bearer "+token) {
				return auth.Unauthenticated()
			}
		} else if !net.ParseIP(c.RealIP()).IsLoopback() {
			return &httpFault{http.StatusForbidden, "metrics.loopback_only", "Without a token, /metrics answers this machine alone."}
		}
		handler.ServeHTTP(c.Response(), c.Request())
		return nil
	}
}
