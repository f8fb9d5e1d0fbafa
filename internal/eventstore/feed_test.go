package eventstore_test

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
)

const patience = 20 * time.Second

// running starts a loop and stops it at the end of the test, or when stop is called.
func running(tb testing.TB, run func(context.Context) error) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("loop: %v", err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

// follower keeps what a feed handed out.
type follower struct {
	mu     sync.Mutex
	events []eventstore.Event
	broken bool // a batch that didn't begin where the last one ended
	last   int64
}

func follow(feed *eventstore.Feed) *follower {
	f := &follower{last: -1}
	feed.Subscribe(func(b eventstore.Batch) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.broken = f.broken || f.last >= 0 && b.From < f.last
		f.last = b.To
		f.events = append(f.events, b.Events...)
	})
	return f
}

func (f *follower) positions() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return positions(f.events)
}

func (f *fixture) pulse(tb testing.TB) (stop func()) {
	tb.Helper()
	return running(tb, eventstore.NewPulse(eventstore.PulseConfig{DB: f.DB.DB, Retry: 20 * time.Millisecond}).Run)
}

// slowPoll is a poll that no test waits for.
const slowPoll = time.Hour

func waitFor(tb testing.TB, feed *eventstore.Feed, pos int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(tb, feed.Wait(ctx, pos))
}

func TestFeed_handsOutEachEventOnceInOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	_, err := f.note(ctx, org, newID(), 0, "before")
	require.NoError(t, err)
	f.pulse(t)
	require.Eventually(t, func() bool { return f.watermark(t) > 0 }, patience, time.Millisecond)

	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: time.Now, Limit: 7})
	got := follow(feed)
	running(t, feed.Run)
	waitFor(t, feed, 0)
	var want []int64
	for range 10 {
		in, err := f.note(ctx, org, newID(), 0, "1", "2", "3")
		require.NoError(t, err)
		want = append(want, in.Position-2, in.Position-1, in.Position)
	}
	waitFor(t, feed, want[len(want)-1])
	require.Equal(t, want, got.positions())
	require.False(t, got.broken)
	require.Equal(t, want[len(want)-1], feed.Position())
}

func (f *fixture) watermark(tb testing.TB) (pos int64) {
	tb.Helper()
	require.NoError(tb, f.System.QueryRow(context.Background(), `SELECT position FROM es.watermark`).Scan(&pos))
	return pos
}

// A NOTIFY only says "look": lost, doubled and forged ones change nothing.
func TestFeed_lostDoubledForgedNotify_isHarmless(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: time.Now, Poll: 20 * time.Millisecond})
	got := follow(feed)
	running(t, feed.Run)
	waitFor(t, feed, 0)
	notify := func(payloads ...string) {
		for _, p := range payloads {
			_, err := f.System.Exec(ctx, `SELECT pg_notify($1, $2)`, eventstore.Channel, p)
			require.NoError(t, err)
		}
	}
	// Forged: a position far ahead, nonsense, and one while an append is open.
	notify("999999999", "'; DROP TABLE", "", "-1")
	open, err := f.System.Begin(ctx)
	require.NoError(t, err)
	first, err := f.store.Append(ctx, open, eventstore.Stream{OrgID: org, ID: newID(), Kind: "note"}, 0, nil, noted{"open"})
	require.NoError(t, err)
	second, err := f.note(ctx, org, newID(), 0, "second")
	require.NoError(t, err)
	notify(strconv.FormatInt(second.Position, 10), strconv.FormatInt(second.Position, 10))
	require.NoError(t, open.Commit(ctx))
	// Lost: nobody pulses here, so nobody tells of these two; the poll finds them.
	waitFor(t, feed, second.Position)
	notify(strconv.FormatInt(second.Position, 10), strconv.FormatInt(second.Position, 10), "1") // doubled, and an old one
	third, err := f.note(ctx, org, newID(), 0, "third")
	require.NoError(t, err)
	waitFor(t, feed, third.Position)
	require.Equal(t, []int64{first.Position, second.Position, third.Position}, got.positions())
}

// With no poll to help, what came while the listener was cut off is read when it listens again.
func TestFeed_droppedListener_readsOnFromItsOwnPosition(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"reset", "killed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ctx, org := t.Context(), newID()
			conn := f.ConnConfig()
			proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "pg", "127.0.0.1:0", net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port))))
			require.NoError(t, proxy.Start())
			t.Cleanup(proxy.Stop)
			host, port, err := net.SplitHostPort(proxy.Listen)
			require.NoError(t, err)
			n, err := strconv.ParseUint(port, 10, 16)
			require.NoError(t, err)
			conn.Host, conn.Port, conn.RuntimeParams["application_name"] = host, uint16(n), "listener"
			f.pulse(t)
			feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: time.Now, Conn: conn, Poll: slowPoll})
			got := follow(feed)
			running(t, feed.Run)
			first, err := f.note(ctx, org, newID(), 0, "first")
			require.NoError(t, err)
			waitFor(t, feed, first.Position)

			switch how {
			case "reset":
				proxy.Stop()
			case "killed":
				var killed int
				require.Eventually(t, func() bool {
					err := f.superuser(t).QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'listener' AND datname = current_database()`).Scan(&killed)
					return err == nil && killed > 0
				}, patience, 10*time.Millisecond)
			}
			second, err := f.note(ctx, org, newID(), 0, "while it was away")
			require.NoError(t, err)
			if how == "reset" {
				proxy.Listen = net.JoinHostPort(host, port)
				require.NoError(t, proxy.Start())
			}
			require.Eventually(t, func() bool { return feed.Position() >= second.Position }, patience, 5*time.Millisecond)
			third, err := f.note(ctx, org, newID(), 0, "third")
			require.NoError(t, err)
			require.Eventually(t, func() bool { return feed.Position() >= third.Position }, patience, 5*time.Millisecond)
			require.Equal(t, []int64{first.Position, second.Position, third.Position}, got.positions())
		})
	}
}

func TestFeed_waitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: time.Now})
	running(t, feed.Run)
	waitFor(t, feed, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- feed.Wait(ctx, 1<<40) }()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestFeed_canceledSubscription_getsNoMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: time.Now, Poll: 5 * time.Millisecond})
	var calls int
	cancel := feed.Subscribe(func(eventstore.Batch) { calls++ })
	other := follow(feed)
	running(t, feed.Run)
	a, err := f.note(ctx, org, newID(), 0, "a")
	require.NoError(t, err)
	waitFor(t, feed, a.Position)
	cancel()
	was := calls
	b, err := f.note(ctx, org, newID(), 0, "b")
	require.NoError(t, err)
	waitFor(t, feed, b.Position)
	require.Equal(t, was, calls)
	require.Equal(t, []int64{a.Position, b.Position}, other.positions())
}

// When the holder of the pulse dies the other one takes over, and the watermark never goes back.
func TestPulse_holderDies_anotherTakesOver(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	listener, err := pgx.ConnectConfig(ctx, f.ConnConfig())
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close(context.Background()) })
	_, err = listener.Exec(ctx, "LISTEN "+eventstore.Channel)
	require.NoError(t, err)
	heard := func(want int64) {
		wait, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		n, err := listener.WaitForNotification(wait)
		require.NoError(t, err)
		require.Equal(t, strconv.FormatInt(want, 10), n.Payload)
	}
	stopFirst := f.pulse(t)
	a, err := f.note(ctx, org, newID(), 0, "a")
	require.NoError(t, err)
	heard(a.Position)
	f.pulse(t) // the second one waits
	stopFirst()
	b, err := f.note(ctx, org, newID(), 0, "b")
	require.NoError(t, err)
	heard(b.Position)
	require.Equal(t, b.Position, f.watermark(t))

	// The second one's session is killed: it takes itself up again.
	_, err = f.superuser(t).Exec(ctx, `SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.objid = 215753 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	require.NoError(t, err)
	c, err := f.note(ctx, org, newID(), 0, "c")
	require.NoError(t, err)
	heard(c.Position)
}

// One NOTIFY for many appends, and none while nothing is settled.
func TestPulse_coalesces(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	pulse := func() (w int64) {
		require.NoError(t, f.System.QueryRow(ctx, `SELECT es.pulse()`).Scan(&w))
		return w
	}
	require.Zero(t, pulse())
	var last int64
	for range 5 {
		out, err := f.note(ctx, org, newID(), 0, "x")
		require.NoError(t, err)
		last = out.Position
	}
	open, err := f.System.Begin(ctx)
	require.NoError(t, err)
	_, err = f.store.Append(ctx, open, eventstore.Stream{OrgID: org, ID: newID(), Kind: "note"}, 0, nil, noted{"open"})
	require.NoError(t, err)
	_, err = f.note(ctx, org, newID(), 0, "after it")
	require.NoError(t, err)
	require.Equal(t, last, pulse())
	require.Equal(t, last, pulse())
	require.NoError(t, open.Rollback(ctx))
	require.Greater(t, pulse(), last)
}

// The data of runs is most of what the feed weighs, and is read when somebody has a use for it.
func TestFeed_withoutSomebodyWhoWantsIt_leavesTheDataOfRunsOut(t *testing.T) {
	t.Parallel()
	for _, want := range []bool{false, true} {
		t.Run(strconv.FormatBool(want), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Poll: slowPoll})
			var got []eventstore.Batch
			feed.Subscribe(func(eventstore.Batch) {})
			feed.SubscribeData(func(b eventstore.Batch) { got = append(got, b) }, func() bool { return want })
			stop := running(t, feed.Run)
			waitFor(t, feed, 0)
			org := newID()
			in, err := f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 1, Data: began{1}, RunColumns: eventstore.RunColumns{Status: "queued"}})
			require.NoError(t, err)
			out, err := f.note(t.Context(), org, newID(), 0, "kept")
			require.NoError(t, err)
			waitFor(t, feed, out.Position)
			stop()
			var events []eventstore.Event
			for _, b := range got {
				require.Equal(t, !want, b.Bare)
				events = append(events, b.Events...)
			}
			require.Len(t, events, 2)
			require.Equal(t, in[0].Position, events[0].Position)
			require.Equal(t, want, len(events[0].Data) > 0)
			require.Equal(t, "queued", events[0].Status, "what is routed by is always there")
			require.NotEmpty(t, events[1].Data)
		})
	}
}
