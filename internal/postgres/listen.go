package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// Defaults of ListenConfig, and the pauses between attempts to connect.
const (
	defaultPingEvery   = 2 * time.Second
	defaultPingTimeout = 3 * time.Second
	minBackoff         = 50 * time.Millisecond
	maxBackoff         = 5 * time.Second
)

// ListenConfig says what to listen to.
type ListenConfig struct {
	Conn        *pgx.ConnConfig // as from DB.ConnConfig; not changed
	Channel     string
	PingEvery   time.Duration // a silent connection is asked for a sign of life after it; 0 = 2 s
	PingTimeout time.Duration // for that sign and for connecting; 0 = 3 s
	// OnUp is called each time the connection listens, before its first notification: what was sent while it did not
	// must be caught up from the caller's own position now. May be nil.
	OnUp func(ctx context.Context)
	// OnDown is called when a connection that listened is lost. May be nil.
	OnDown func(err error)
	// OnNotify gets each payload, in order. Anybody who may connect can send one, so it is a hint and not a fact.
	OnNotify func(payload string)
	Logger   *slog.Logger
}

// Listen listens to a channel on a connection of its own until ctx ends, and returns ctx's error. A connection that
// breaks, or that doesn't answer a ping in time although nothing reset it, is replaced, at first at once and then with
// growing pauses up to 5 s. The callbacks run on Listen's goroutine and must return soon.
func Listen(ctx context.Context, cfg ListenConfig) error {
	if cfg.PingEvery <= 0 {
		cfg.PingEvery = defaultPingEvery
	}
	if cfg.PingTimeout <= 0 {
		cfg.PingTimeout = defaultPingTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	log := cfg.Logger.With(slog.String("channel", cfg.Channel))
	pause := backoff{}
	for {
		up, err := listenOnce(ctx, cfg)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if up {
			pause = backoff{}
			if cfg.OnDown != nil {
				cfg.OnDown(err)
			}
		}
		log.WarnContext(ctx, "listening again", slog.Any("err", err))
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// Listen is the plain form of the function Listen, with its defaults: ready is called each time the channel is heard,
// notify with each payload.
func (d *DB) Listen(ctx context.Context, channel string, ready func(), notify func(payload string)) error {
	return Listen(ctx, ListenConfig{
		Conn: d.ConnConfig(), Channel: channel, Logger: d.log,
		OnUp: func(context.Context) { ready() }, OnNotify: notify,
	})
}

// listenOnce holds one connection until it fails, and says whether it ever listened.
func listenOnce(ctx context.Context, cfg ListenConfig) (up bool, err error) {
	conn, err := connectOwn(ctx, cfg.Conn, cfg.PingTimeout)
	if err != nil {
		return false, err
	}
	defer abandon(ctx, conn)
	begin, cancel := context.WithTimeout(ctx, cfg.PingTimeout)
	_, err = conn.Exec(begin, "LISTEN "+quote(cfg.Channel))
	cancel()
	if err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	if cfg.OnUp != nil {
		cfg.OnUp(ctx)
	}
	for {
		quiet, cancel := context.WithTimeout(ctx, cfg.PingEvery)
		n, err := conn.WaitForNotification(quiet)
		silent := quiet.Err() != nil
		cancel()
		switch {
		case err == nil:
			cfg.OnNotify(n.Payload)
			continue
		case ctx.Err() != nil:
			return true, ctx.Err()
		case !silent || conn.IsClosed():
			return true, fmt.Errorf("wait for a notification: %w", err)
		}
		alive, cancel := context.WithTimeout(ctx, cfg.PingTimeout)
		err = conn.Ping(alive)
		cancel()
		if err != nil {
			return true, fmt.Errorf("no sign of life: %w", err)
		}
	}
}

// LeadConfig says what to be the only one for.
type LeadConfig struct {
	Conn  *pgx.ConnConfig // as from DB.ConnConfig; not changed
	Key   int64           // of the advisory lock, in that database
	Retry time.Duration   // how often one who does not lead asks; 0 = 1 s
	// Logger says who leads when that changes.
	Logger *slog.Logger
}

// Lead runs fn while this process, alone among all that use the key, holds an advisory lock, and returns when ctx ends,
// with ctx's error. conn holds the lock: when it breaks the lock is free, so fn must do what only a leader may do over
// conn itself, and return when conn fails or ctx ends. After fn returns, Lead gives the lock up and stands again.
func Lead(ctx context.Context, cfg LeadConfig, fn func(ctx context.Context, conn *pgx.Conn) error) error {
	if cfg.Retry <= 0 {
		cfg.Retry = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	log := cfg.Logger.With(slog.Int64("lock", cfg.Key))
	pause := backoff{}
	for {
		led, err := leadOnce(ctx, cfg, log, fn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if led {
			pause = backoff{}
		}
		if err != nil {
			log.WarnContext(ctx, "not leading any more", slog.Any("err", err))
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

func leadOnce(ctx context.Context, cfg LeadConfig, log *slog.Logger, fn func(ctx context.Context, conn *pgx.Conn) error) (led bool, err error) {
	conn, err := connectOwn(ctx, cfg.Conn, defaultPingTimeout)
	if err != nil {
		return false, err
	}
	defer abandon(ctx, conn)
	tick := time.NewTicker(cfg.Retry)
	defer tick.Stop()
	for {
		var got bool
		ask, cancel := context.WithTimeout(ctx, defaultPingTimeout)
		err := conn.QueryRow(ask, `SELECT pg_try_advisory_lock($1)`, cfg.Key).Scan(&got)
		cancel()
		if err != nil {
			return false, fmt.Errorf("ask for the lock: %w", err)
		}
		if got {
			log.InfoContext(ctx, "leading")
			return true, fn(ctx, conn)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}

// ConnConfig returns the settings of a connection outside the pools that acts as the system role, for Listen and Lead.
func (d *DB) ConnConfig() *pgx.ConnConfig { return d.System.Config().ConnConfig.Copy() }

// connectOwn opens a connection outside the pools.
func connectOwn(ctx context.Context, cc *pgx.ConnConfig, limit time.Duration) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cc.Copy())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	registerTypes(conn.TypeMap())
	return conn, nil
}

// abandon closes a connection that may not answer any more: a goodbye that can't be sent must not hold us up.
func abandon(ctx context.Context, conn *pgx.Conn) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancel()
	_ = conn.Close(end) // the server notices by itself
}

// backoff gives growing pauses, spread so that many nodes don't come back at once.
type backoff struct{ next time.Duration }

func (b *backoff) wait(ctx context.Context) error {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
