package ratelimit_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/ratelimit"
)

var general = ratelimit.Limit{Name: "general", Max: 3, Window: 15 * time.Minute}

func newLimiter(tb testing.TB, db *pgtest.DB, now func() time.Time) *ratelimit.Limiter {
	tb.Helper()
	l, err := ratelimit.New(ratelimit.Config{DB: db.DB, Key: []byte(strings.Repeat("k", 32)), Now: now, Log: slog.New(slog.DiscardHandler)})
	require.NoError(tb, err)
	return l
}

// age lets every window end.
func age(t *testing.T, db *pgtest.DB) {
	t.Helper()
	for _, table := range []string{"rate_counters", "sign_in_counters"} {
		_, err := db.System.Exec(t.Context(), `UPDATE `+table+` SET ends_at = ends_at - interval '1 hour'`)
		require.NoError(t, err)
	}
}

func TestTake_aWindowHasItsNumber(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var skew atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	l := newLimiter(t, db, now)
	for left := 2; left >= 0; left-- {
		v := l.Take(t.Context(), general, "ada")
		require.True(t, v.Admitted)
		require.Equal(t, left, v.Left)
		require.InDelta(t, (15 * time.Minute).Seconds(), v.Reset.Seconds(), 5)
	}
	v := l.Take(t.Context(), general, "ada")
	assert.False(t, v.Admitted)
	assert.Zero(t, v.Left)
	assert.InDelta(t, (15 * time.Minute).Seconds(), v.Reset.Seconds(), 5)
	// Somebody else, and the same one in something else, have their own.
	assert.True(t, l.Take(t.Context(), general, "bob").Admitted)
	assert.True(t, l.Take(t.Context(), ratelimit.Limit{Name: "execution", Max: 1, Window: time.Minute}, "ada").Admitted)
	// 0 is no limit.
	for range 5 {
		assert.True(t, l.Take(t.Context(), ratelimit.Limit{Name: "general", Window: time.Minute}, "ada").Admitted)
	}
	// A limit that is raised counts at once, also for who had reached it.
	raised := general
	raised.Max = 4
	assert.True(t, l.Take(t.Context(), raised, "ada").Admitted)
	assert.False(t, l.Take(t.Context(), raised, "ada").Admitted)
	// The next window begins with the next request.
	age(t, db)
	skew.Store(int64(16 * time.Minute)) // the node remembers for as long as the window lasted
	v = l.Take(t.Context(), general, "ada")
	assert.True(t, v.Admitted)
	assert.Equal(t, 2, v.Left)
}

// 300 at once over two nodes, at a limit of 100: one node never admits what the other one has given away.
func TestTake_exactOverNodes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	nodes := []*ratelimit.Limiter{newLimiter(t, db, time.Now), newLimiter(t, db, time.Now)}
	limit := ratelimit.Limit{Name: "general", Max: 100, Window: time.Hour}
	var admitted atomic.Int64
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			if nodes[i%2].Take(context.Background(), limit, "ada").Admitted {
				admitted.Add(1)
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 100, admitted.Load())
	var taken int
	require.NoError(t, db.System.QueryRow(t.Context(), `SELECT taken FROM rate_counters`).Scan(&taken))
	assert.Equal(t, 100, taken, "who is refused isn't counted")
}

// wrote reports whether the statement made its transaction one that writes: it has an id of its own then.
func wrote(ctx context.Context, tx pgx.Tx, statement string) (did bool, err error) {
	if _, err := tx.Exec(ctx, statement); err != nil {
		return false, err
	}
	err = tx.QueryRow(ctx, `SELECT pg_current_xact_id_if_assigned() IS NOT NULL`).Scan(&did)
	return did, err
}

// An admitted request is one write and a refused one none, not even a row lock: also when it waited for the last place.
func TestTake_aRefusalWritesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const take, takeSignIn = `SELECT take_rate(decode(repeat('aa', 16), 'hex'), 2, '1 hour')`, `SELECT take_sign_in(ARRAY[decode(repeat('bb', 16), 'hex'), decode(repeat('cc', 16), 'hex')], '{2,9}', '1 hour')`
	for _, statement := range []string{take, takeSignIn} {
		// What fails leaves no transaction open: the pool would wait for it for ever.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		begin := func() pgx.Tx {
			tx, err := db.System.Begin(ctx)
			require.NoError(t, err)
			t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(ctx)) })
			return tx
		}
		does := func(tx pgx.Tx) bool {
			did, err := wrote(ctx, tx, statement)
			require.NoError(t, err)
			return did
		}
		first := begin()
		require.True(t, does(first))
		require.NoError(t, first.Commit(ctx))

		holder, waiter := begin(), begin()
		require.True(t, does(holder)) // the last place, not committed
		var pid int
		require.NoError(t, waiter.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid))
		var late bool
		var lateErr error
		done := make(chan struct{})
		go func() {
			defer close(done)
			late, lateErr = wrote(ctx, waiter, statement)
		}()
		t.Cleanup(func() { cancel(); <-done }) // before the waiter's own: a connection has one user
		require.Eventually(t, func() bool {
			var waiting bool
			err := db.API.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)`, pid).Scan(&waiting)
			return err == nil && waiting
		}, 10*time.Second, 5*time.Millisecond, "the second one does not wait for the first")
		require.NoError(t, holder.Commit(ctx))
		select {
		case <-done:
		case <-ctx.Done():
			require.Fail(t, "who waited for the last place waits on", "%s", statement)
		}
		require.NoError(t, lateErr)
		assert.False(t, late, "who waited and was refused wrote: %s", statement)
		require.NoError(t, waiter.Rollback(ctx))

		last := begin()
		assert.False(t, does(last), "who came late wrote: %s", statement)
		require.NoError(t, last.Rollback(ctx))
	}
}

// Who is over the limit costs the database nothing at all until the window ends.
func TestTake_aRefusalIsRemembered(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLimiter(t, db, time.Now)
	for range 4 {
		l.Take(t.Context(), general, "ada")
	}
	_, err := db.System.Exec(t.Context(), `DELETE FROM rate_counters`)
	require.NoError(t, err)
	assert.False(t, l.Take(t.Context(), general, "ada").Admitted, "it asked the database")
}

func TestTake_goesOnWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLimiter(t, db, time.Now)
	_, err := db.System.Exec(t.Context(), `SELECT 1`)
	require.NoError(t, err)
	db.System.Close()
	var admitted int
	for range 10 {
		if l.Take(t.Context(), general, "ada").Admitted {
			admitted++
		}
	}
	assert.Equal(t, general.Max, admitted, "by itself the node holds the same number")
	v := l.Take(t.Context(), general, "ada")
	assert.InDelta(t, (5 * time.Minute).Seconds(), v.Reset.Seconds(), 10, "the next one comes after a third of the window")
	_, err = l.TakeSignIn(t.Context(), signIns, ratelimit.SignIn{Operation: "login", Address: "192.0.2.1", Account: "ada@example.com"})
	assert.Equal(t, fault.Unavailable, fault.KindOf(err), "a sign-in that can't be counted is none")
}

func TestPrune(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	l := newLimiter(t, db, time.Now)
	l.Take(t.Context(), general, "ada")
	_, err := l.TakeSignIn(t.Context(), signIns, ratelimit.SignIn{Operation: "login", Address: "192.0.2.1", Account: "ada@example.com"})
	require.NoError(t, err)
	pruned, err := l.Prune(t.Context())
	require.NoError(t, err)
	assert.Zero(t, pruned, "windows that go on")
	age(t, db)
	l.Take(t.Context(), general, "bob")
	pruned, err = l.Prune(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 4, pruned)
}

func TestNew_needsAKey(t *testing.T) {
	t.Parallel()
	_, err := ratelimit.New(ratelimit.Config{Key: []byte("short")})
	assert.Error(t, err)
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::1": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "": "", "unknown": "unknown",
	} {
		assert.Equal(t, want, ratelimit.Network(address), address)
	}
}

// BenchmarkTake compares an admitted and a refused request with the least that any counter in the database could cost.
func BenchmarkTake(b *testing.B) {
	db := pgtest.New(b)
	l := newLimiter(b, db, time.Now)
	many := ratelimit.Limit{Name: "general", Max: 1 << 30, Window: time.Hour}
	one := ratelimit.Limit{Name: "one", Max: 1, Window: time.Hour}
	var n atomic.Int64
	each := func(b *testing.B, do func(who string)) {
		b.Helper()
		b.SetParallelism(2)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				do(fmt.Sprintf("caller-%d", n.Add(1)%1000))
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	}
	b.Run("admitted", func(b *testing.B) {
		each(b, func(who string) {
			if v := l.Take(context.Background(), many, who); !v.Admitted {
				b.Error("refused")
			}
		})
	})
	b.Run("admitted, one caller", func(b *testing.B) {
		each(b, func(string) { l.Take(context.Background(), many, "ada") })
	})
	b.Run("refused", func(b *testing.B) {
		l.Take(context.Background(), one, "ada")
		each(b, func(string) {
			if v := l.Take(context.Background(), one, "ada"); v.Admitted {
				b.Error("admitted")
			}
		})
	})
	b.Run("refused, by the database", func(b *testing.B) {
		each(b, func(string) {
			var admitted bool
			err := db.System.QueryRow(context.Background(), `SELECT admitted FROM take_rate(decode(repeat('aa', 16), 'hex'), 0, '1 hour')`).Scan(&admitted)
			if err != nil {
				b.Error(err)
			}
		})
	})
	b.Run("bare update", func(b *testing.B) {
		_, err := db.System.Exec(context.Background(), `INSERT INTO rate_counters SELECT decode(md5('c' || i), 'hex'), 0, now() + interval '1 hour' FROM generate_series(0, 999) i ON CONFLICT DO NOTHING`)
		require.NoError(b, err)
		each(b, func(who string) {
			_, err := db.System.Exec(context.Background(), `UPDATE rate_counters SET taken = taken + 1 WHERE counter = decode(md5('c' || right($1, 3)), 'hex')`, who)
			if err != nil {
				b.Error(err)
			}
		})
	})
	b.Run("sign-in", func(b *testing.B) {
		limits := signIns
		limits.Pair.Max, limits.Address.Max, limits.Account.Max = 1<<30, 1<<30, 1<<30
		each(b, func(who string) {
			if _, err := l.TakeSignIn(context.Background(), limits, ratelimit.SignIn{Operation: "login", Address: "192.0.2.1", Account: who}); err != nil {
				b.Error(err)
			}
		})
	})
}
