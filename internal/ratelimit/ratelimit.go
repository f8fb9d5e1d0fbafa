// Package ratelimit counts what callers take of limits, for all nodes together.
//
// A limit is a number of requests in a window that begins with the first of them; the counters stand in Postgres, so that
// two nodes never admit one more than one node would. An admitted request is one write, a refused one none, and a node
// remembers for whom a window is full. Ordinary limits go on by an estimate of this node's own while the database is
// away; limits of sign-ins then refuse. The package knows no HTTP and doesn't decide who is limited in what.
package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
)

const (
	// askTime bounds how long a request waits for its counter; a database that takes longer counts as away.
	askTime = time.Second
	// awayTime is how long a node goes on alone after the database failed, before it asks again.
	awayTime = time.Second
	// keptTime is how long a window is kept after its end, and pruneBatch how many go in a statement.
	keptTime   = time.Minute
	pruneBatch = 5000
	// minKey is the least length of Config.Key.
	minKey = 32
)

// Limit is a number of requests in a window.
type Limit struct {
	Name   string        // as headers and counters call it: lower-case letters and hyphens
	Max    int           // 0 = there is no limit
	Window time.Duration // whole seconds
}

// Verdict is what a counter said.
type Verdict struct {
	Limit    Limit
	Admitted bool
	Left     int           // what is left after this request
	Reset    time.Duration // until the window ends, more than 0
}

// Config is what a Limiter needs. Every field is required.
type Config struct {
	DB  *postgres.DB
	Key []byte // of the counters' names: at least 32 bytes, the same on every node
	Now func() time.Time
	Log *slog.Logger
}

// Limiter counts. It is safe for concurrent use.
type Limiter struct {
	cfg    Config
	full   *full
	alone  *alone
	away   atomic.Int64 // until when the database isn't asked, in Unix nanoseconds
	writes atomic.Int64 // admitted by the database
}

// New returns a Limiter; it starts nothing.
func New(cfg Config) (*Limiter, error) {
	if len(cfg.Key) < minKey {
		return nil, errors.New("ratelimit: the key needs at least 32 bytes")
	}
	return &Limiter{cfg: cfg, full: newFull(), alone: newAlone()}, nil
}

// counter is the name of what one caller took of one limit. It is a keyed hash: the table tells neither who was there nor,
// to those who can read it, whose e-mail addresses were tried.
type counter [16]byte

func (l *Limiter) counter(parts ...string) counter {
	mac := hmac.New(sha256.New, l.cfg.Key)
	for _, p := range parts {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(p), p) // a hash takes everything
	}
	return counter(mac.Sum(nil)[:16])
}

// Take takes one of what who has of the limit. It never fails: without the database the node goes on by itself, by the
// same number, until the database is back.
func (l *Limiter) Take(ctx context.Context, limit Limit, who string) Verdict {
	if limit.Max <= 0 {
		return Verdict{Limit: limit, Admitted: true}
	}
	c, now := l.counter(limit.Name, who), l.cfg.Now()
	if left, ok := l.full.until(c, limit.Max, now); ok {
		return Verdict{Limit: limit, Reset: left}
	}
	if now.UnixNano() < l.away.Load() {
		return l.alone.take(c, limit, now)
	}
	v, err := l.ask(ctx, c, limit)
	if err != nil {
		l.away.Store(now.Add(awayTime).UnixNano())
		l.cfg.Log.WarnContext(ctx, "limits are counted by this node alone: the database doesn't count", slog.Any("err", err))
		return l.alone.take(c, limit, now)
	}
	if !v.Admitted {
		l.full.remember(c, limit.Max, now, v.Reset)
	}
	return v
}

// ask counts in the database. It doesn't end with the request: who hangs up has asked, and a canceled statement would cost
// a connection.
func (l *Limiter) ask(ctx context.Context, c counter, limit Limit) (Verdict, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	v := Verdict{Limit: limit}
	var ms int64
	err := l.cfg.DB.System.QueryRow(ctx, `SELECT admitted, left_over, resets_in_ms FROM take_rate($1, $2, $3)`, c[:], limit.Max, limit.Window).
		Scan(&v.Admitted, &v.Left, &ms)
	if err != nil {
		return Verdict{}, fmt.Errorf("count a request: %w", err)
	}
	v.Reset = max(time.Duration(ms)*time.Millisecond, time.Millisecond)
	if v.Admitted {
		l.writes.Add(1)
	}
	return v, nil
}

// Prune forgets windows that are over, and returns how many. Any number of nodes may do it at once.
func (l *Limiter) Prune(ctx context.Context) (pruned int64, err error) {
	for _, table := range []string{"rate_counters", "sign_in_counters"} {
		name := pgx.Identifier{table}.Sanitize()
		for {
			tag, err := l.cfg.DB.System.Exec(ctx, `DELETE FROM `+name+` r USING (
				SELECT counter FROM `+name+` WHERE ends_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED) old
				WHERE r.counter = old.counter AND r.ends_at < now() - $1::interval`, keptTime, pruneBatch)
			if err != nil {
				return pruned, fmt.Errorf("prune %s: %w", table, err)
			}
			if pruned += tag.RowsAffected(); tag.RowsAffected() < pruneBatch {
				break
			}
		}
	}
	return pruned, nil
}

// Network is what one caller has of addresses: an IPv4 address, or the /64 of an IPv6 address, of which a single machine
// has 2^64 to choose from. What is no address is itself.
func Network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}
