// Package projection keeps tables that follow the log: it feeds each projection the log's events in order and writes the
// checkpoint in the transaction that writes the tables, so each event counts exactly once whatever dies. It rebuilds a
// projection beside the live one and swaps, puts events aside that a projection cannot take, and proves by checksum that
// a projection equals its rebuild. It knows no projection by name; slices bring them.
package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection/internal/projectiondb"
)

const (
	defaultInterval = 250 * time.Millisecond
	defaultBatch    = 2000
	idlePoll        = time.Second
	pruneEvery      = time.Minute
	maxBackoff      = 10 * time.Second
)

// Projection is a set of tables that follow the log.
type Projection struct {
	Name    string   // [a-z_]+
	Version int      // of the tables and of Apply; another one is built beside the live one and swapped in
	Types   []string // events it wants
	// DDL makes the tables, with names that carry no schema. It runs as the owner role.
	DDL string
	// Tables are those of DDL. Each is shown as a view of its name in public; each needs org_id and gets row-level security.
	Tables []string
	// Apply writes what events changed: some of the wanted types, in order, each once. Names without schema are the build's
	// own tables. Its result must depend on the order of events alone, not on where a batch is cut. An error that isn't the
	// database's fault has the batch cut down to the event that causes it, which is put aside.
	Apply func(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error
}

// Config is what a Runner stands on.
type Config struct {
	Store       *eventstore.Store // whose log is followed
	DB          *postgres.DB      // where the tables are
	Projections []Projection
	Interval    time.Duration // shortest time between two batches of one projection while it keeps up; 0 = 250 ms
	BatchSize   int           // 0 = 2 000 events
	Now         func() time.Time
	Logger      *slog.Logger
	Metrics     prometheus.Registerer // nil = none
}

// Runner follows the log for all projections. Several runners, in several processes, share the work.
type Runner struct {
	cfg     Config
	byName  map[string]*follower
	applied *prometheus.CounterVec
	dead    *prometheus.CounterVec
	lag     *prometheus.GaugeVec
}

// follower is one projection at work.
type follower struct {
	Projection
	wake  chan struct{} // the log has grown
	hurry chan struct{} // somebody waits

	mu     sync.Mutex
	limits map[int32]int // events in the next batch of a build; cut down while an event is being looked for
	moved  chan struct{} // closed and replaced after each step
}

// ErrUnknown says that no projection has that name.
var ErrUnknown = errors.New("there is no such projection")

// NewRunner returns a Runner; Setup and then Run start it.
func NewRunner(cfg Config) *Runner {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.BatchSize <= 0 {
		cfg.BatchSize = defaultBatch
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{cfg: cfg, byName: map[string]*follower{}}
	for _, p := range cfg.Projections {
		r.byName[p.Name] = &follower{Projection: p, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), limits: map[int32]int{}, moved: make(chan struct{})}
	}
	r.applied = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testflow_projection_events_total", Help: "Events that a projection applied."}, []string{"projection"})
	r.dead = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "testflow_projection_dead_letters_total", Help: "Events that a projection could not take and put aside."}, []string{"projection"})
	r.lag = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "testflow_projection_lag_positions", Help: "Positions between a projection and the end of the log, when it last looked."}, []string{"projection"})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(r.applied, r.dead, r.lag)
	}
	return r
}

// Look has every projection read on without waiting for its next turn. The feed calls it.
func (r *Runner) Look() {
	for _, f := range r.byName {
		signal(f.wake)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Setup makes what the projections need: on a new database each gets a live build, and one whose version is not the live
// one's gets a build beside it, which Run brings up and swaps in. It is called once at start.
func (r *Runner) Setup(ctx context.Context) error {
	for _, p := range r.cfg.Projections {
		err := r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, 10)`); err != nil {
				return err
			}
			q := projectiondb.New(tx)
			live, err := q.LiveBuild(ctx, p.Name)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				_, err := r.addBuild(ctx, tx, p, stateLive)
				return err
			case err != nil:
				return err
			case int(live.Version) == p.Version:
				return nil
			case int(live.Version) > p.Version:
				return nil // an older process beside a newer one: its projection is followed by others
			}
			if _, err := q.BuildingBuild(ctx, projectiondb.BuildingBuildParams{Name: p.Name, Version: int32(p.Version)}); !errors.Is(err, pgx.ErrNoRows) { //nolint:gosec // versions are small
				return err
			}
			_, err = r.addBuild(ctx, tx, p, stateBuilding)
			return err
		})
		if err != nil {
			return fmt.Errorf("set up projection %s: %w", p.Name, err)
		}
	}
	return nil
}

// Run follows the log until ctx ends. It returns nil: an error is logged and tried again.
func (r *Runner) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, f := range r.byName {
		wg.Go(func() { r.follow(ctx, f) })
	}
	wg.Go(func() { r.pruneNowAndThen(ctx) })
	wg.Wait()
	return nil
}

// follow keeps one projection's builds at the end of the log.
func (r *Runner) follow(ctx context.Context, f *follower) {
	log := r.cfg.Logger.With(slog.String("projection", f.Name))
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		more, err := r.pass(ctx, f)
		switch {
		case err != nil && ctx.Err() == nil:
			backoff = min(max(2*backoff, r.cfg.Interval), maxBackoff)
			log.WarnContext(ctx, "the projection stands still and is tried again", slog.Any("err", err))
			sleep(ctx, backoff)
			continue
		case more:
			backoff = 0
			continue
		}
		backoff = 0
		// Those who wait are served at once; else events are gathered for a moment, since a batch costs the same for many.
		if !sleep(ctx, r.cfg.Interval, f.hurry) {
			return
		}
		timer := time.NewTimer(idlePoll)
		select {
		case <-ctx.Done():
		case <-f.wake:
		case <-f.hurry:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pass does one step of each build and says whether one of them has more to do.
func (r *Runner) pass(ctx context.Context, f *follower) (more bool, err error) {
	builds, err := projectiondb.New(r.cfg.DB.System).ActiveBuilds(ctx, projectiondb.ActiveBuildsParams{Name: f.Name, Version: int32(f.Version)}) //nolint:gosec // versions are small
	if err != nil {
		return false, fmt.Errorf("list builds: %w", err)
	}
	building := false
	for _, b := range builds {
		building = building || b.State == stateBuilding
		done, err := r.step(ctx, f, b.Build)
		if err != nil {
			return false, err
		}
		more = more || !done
	}
	if !more && building {
		return false, r.swapIfReady(ctx, f)
	}
	return more, nil
}

// Wait returns when the live builds of the named projections (none = all) have reached pos, or with ctx's error.
func (r *Runner) Wait(ctx context.Context, pos int64, names ...string) error {
	for name, f := range r.byName {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		for {
			moved := f.movedSoon()
			live, err := projectiondb.New(r.cfg.DB.System).LiveBuild(ctx, name)
			if err != nil {
				return fmt.Errorf("wait for projection %s: %w", name, err)
			}
			if live.Position >= pos {
				break
			}
			signal(f.hurry)
			// Another process may hold the checkpoint, so that nobody here sees it move.
			if !sleep(ctx, 50*time.Millisecond, moved) {
				return fmt.Errorf("wait for projection %s to reach %d: %w", name, pos, ctx.Err())
			}
		}
	}
	return nil
}

// movedSoon returns a channel that is closed after the follower's next step.
func (f *follower) movedSoon() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

func (f *follower) hasMoved() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.moved)
	f.moved = make(chan struct{})
}

// sleep waits for d or an earlier signal, and says whether ctx still lasts.
func sleep(ctx context.Context, d time.Duration, early ...<-chan struct{}) bool {
	var signal <-chan struct{}
	if len(early) > 0 {
		signal = early[0]
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-signal:
	}
	return true
}
