package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// Channel is where the pulse's NOTIFY goes; its payload is the watermark.
const Channel = "testflow_position"

const (
	pulseInterval = 10 * time.Millisecond
	pulseRetry    = 200 * time.Millisecond // how soon another process takes over
	pulseLock     = 215753                 // far from the fence's key space
	pulseTimeout  = 5 * time.Second        // of one look; also how long a holder that went silent keeps the lock
)

// PulseConfig is what a Pulse stands on.
type PulseConfig struct {
	DB       *postgres.DB
	Interval time.Duration // between two looks; 0 = 10 ms
	Retry    time.Duration // between two tries to become the holder; 0 = 200 ms
	Logger   *slog.Logger
}

// Pulse publishes the log's progress: one process at a time, whoever holds an advisory lock, looks every few
// milliseconds, writes the watermark and sends one NOTIFY. Appends send none, since a NOTIFY serialises all commits.
type Pulse struct {
	cfg PulseConfig
}

// NewPulse returns a Pulse that Run starts.
func NewPulse(cfg PulseConfig) *Pulse {
	cfg.Interval = orDefault(cfg.Interval, pulseInterval)
	cfg.Retry = orDefault(cfg.Retry, pulseRetry)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Pulse{cfg: cfg}
}

// Run pulses until ctx ends, or waits to take over from the process that does. It returns nil: an error is logged and
// the database tried again.
func (p *Pulse) Run(ctx context.Context) error {
	err := postgres.Lead(ctx, postgres.LeadConfig{Conn: p.cfg.DB.ConnConfig(), Key: pulseLock, Retry: p.cfg.Retry, Logger: p.cfg.Logger}, p.hold)
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// hold pulses on the connection that holds the lock.
func (p *Pulse) hold(ctx context.Context, conn *pgx.Conn) error {
	// A holder that was paused or cut off would keep the lock: the server ends its silent session.
	settings := fmt.Sprintf(`SET synchronous_commit = off; SET idle_session_timeout = %d`, pulseTimeout.Milliseconds())
	if _, err := conn.Exec(ctx, settings); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	ticker := time.NewTicker(p.cfg.Interval)
	defer ticker.Stop()
	for {
		if err := p.look(ctx, conn); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p *Pulse) look(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, pulseTimeout)
	defer cancel()
	fault.Hit(fault.PointPulse)
	var w int64
	if err := conn.QueryRow(ctx, `SELECT es.pulse()`).Scan(&w); err != nil {
		return fmt.Errorf("look: %w", err)
	}
	return nil
}

// sleep waits for d and says whether ctx still lasts.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
