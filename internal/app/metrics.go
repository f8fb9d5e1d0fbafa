package app

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/run"
)

// measure registers what /metrics tells of the rooms that keep no metrics of their own: the feed, the live stream, runs,
// the connections to the database. Nothing has a label per organization.
func (p *platform) measure() {
	gauge := func(name, help string, value func() float64) {
		p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		p.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	gauge("testflow_feed_position", "Position in the log up to which this node has told its watchers.", func() float64 { return float64(p.feed.Position()) })
	gauge("testflow_live_sockets", "Open connections to the live stream.", func() float64 { return float64(p.live.Stats().Sockets) })
	counter("testflow_live_frames_total", "Frames sent over the live stream.", func() float64 { return float64(p.live.Stats().Frames) })
	counter("testflow_live_events_total", "Events sent over the live stream, counted for each connection.", func() float64 { return float64(p.live.Stats().Events) })
	counter("testflow_live_gaps_total", "Clients of the live stream that fell behind and were told so.", func() float64 { return float64(p.live.Stats().Gaps) })
	gauge("testflow_audit_seal_lag_seconds", "How long the oldest event of the audit log waits for its seal.", func() float64 { return p.sealer.Lag().Seconds() })
	gauge("testflow_audit_seal_damaged_organizations", "Organizations whose sealed audit log was changed in the database.", func() float64 { return float64(p.sealer.Stats().Damaged) })
	counter("testflow_audit_sealed_events_total", "Events of the audit log that this node sealed.", func() float64 { return float64(p.sealer.Stats().Events) })
	counter("testflow_audit_seals_total", "Heads of audit logs that this node signed.", func() float64 { return float64(p.sealer.Stats().Heads) })
	for name, pool := range map[string]*pgxpool.Pool{"api": p.db.main.API, "system": p.db.main.System, "analytics": p.db.analytics.System} {
		p.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "testflow_database_connections_in_use", Help: "Connections to the database that are in use, by pool.", ConstLabels: prometheus.Labels{"pool": name},
		}, func() float64 { return float64(pool.Stat().AcquiredConns()) }))
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testflow_runs_finished_total", Help: "Runs of the whole installation that ended since this node started, by status."}, []string{"status"})
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testflow_events_total", Help: "Events of the log that this node has seen since it started, by type."}, []string{"type"})
	p.registry.MustRegister(ended, events)
	p.feed.Subscribe(func(b eventstore.Batch) {
		for _, e := range b.Events {
			events.WithLabelValues(e.Type).Inc()
			if e.Type == run.TypeFinished {
				ended.WithLabelValues(e.Status).Inc()
			}
		}
	})
}
