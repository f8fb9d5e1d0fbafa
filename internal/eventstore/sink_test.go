package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

func (f *fixture) sink(tb testing.TB, change func(*eventstore.SinkConfig)) *eventstore.Sink {
	tb.Helper()
	cfg := eventstore.SinkConfig{Store: f.store, DB: f.DB.DB, Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	s := eventstore.NewSink(cfg)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return s
}

func TestSink_sharesTransactionsAndTellsEachItsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var mu sync.Mutex
	batches, written := 0, 0
	s := f.sink(t, func(c *eventstore.SinkConfig) {
		c.OnBatch = func(ctx context.Context, tx pgx.Tx, attachments []any) error {
			mu.Lock()
			defer mu.Unlock()
			batches, written = batches+1, written+len(attachments)
			return nil
		}
	})
	org := newID()
	var wg sync.WaitGroup
	const calls = 300
	for i := range calls {
		wg.Go(func() {
			run := newID()
			in, err := s.Append(t.Context(), []eventstore.RunEvent{
				{OrgID: org, RunID: run, Version: 100_001, Data: began{i}},
				{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}},
			}, i)
			if err != nil || len(in) != 2 || in[0].RunID != run || in[0].Version != 100_001 || in[1].Version != eventstore.VersionFinished {
				t.Errorf("call %d: %v %v", i, in, err)
			}
			// It returns after the commit: another connection sees it.
			var n int
			if err := f.System.QueryRow(context.Background(), `SELECT count(*) FROM es.run_event WHERE stream_id = $1`, run).Scan(&n); err != nil || n != 2 {
				t.Errorf("call %d: %d events are visible, %v", i, n, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, calls, written)
	require.Less(t, batches, calls/2, "they shared transactions")
}

// The same event in one batch and in two: the first call stored it, the others know that they lost.
func TestSink_sameEventTwice_hasOneWinner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.sink(t, nil)
	org, run := newID(), newID()
	var wg sync.WaitGroup
	won := make(chan int, 50)
	for range 50 {
		wg.Go(func() {
			in, err := s.Append(t.Context(), []eventstore.RunEvent{{OrgID: org, RunID: run, Version: 100_001, Data: began{1}}}, nil)
			if err != nil {
				t.Error(err)
			}
			won <- len(in)
		})
	}
	wg.Wait()
	close(won)
	total := 0
	for n := range won {
		total += n
	}
	require.Equal(t, 1, total)
}

func TestSink_poison_failsAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	gate := make(chan struct{})
	var once sync.Once
	s := f.sink(t, func(c *eventstore.SinkConfig) {
		c.OnBatch = func(_ context.Context, _ pgx.Tx, attachments []any) error {
			once.Do(func() { <-gate }) // the rest gathers behind the first call
			for _, a := range attachments {
				if a == "bad attachment" {
					return errors.New("this cannot be written")
				}
			}
			return nil
		}
	})
	org := newID()
	var wg sync.WaitGroup
	start := func(i int, data eventstore.Data, attachment any, version int, wantErr bool) {
		wg.Go(func() {
			id := newID()
			if i == 33 {
				id[0] = 0 // of a day long gone
			}
			_, err := s.Append(t.Context(), []eventstore.RunEvent{{OrgID: org, RunID: id, Version: version, Data: data}}, attachment)
			if (err != nil) != wantErr {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	start(-1, happened{Text: "first"}, "hold", 100_001, false)
	for i := range 64 {
		switch i {
		case 7:
			start(i, happened{Text: "poison"}, nil, 100_001, true) // refused by the inline read model
		case 33:
			start(i, happened{Text: "old"}, nil, 100_001, true) // refused by the table
		case 50:
			start(i, happened{Text: "fine"}, "bad attachment", 100_001, true)
		default:
			start(i, happened{Text: "fine"}, nil, 100_001, false)
		}
	}
	close(gate)
	wg.Wait()
	var n int
	require.NoError(t, f.System.QueryRow(t.Context(), `SELECT count(*) FROM es.run_event`).Scan(&n))
	require.Equal(t, 62, n)
}

// A call that is bigger than a statement may be is written in several, in one transaction.
func TestSink_bigCall_isSplitIntoStatements(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var inside, outside, statements int // events, seen from the transaction when all are written and from elsewhere
	s := f.sink(t, func(c *eventstore.SinkConfig) {
		c.MaxBytes = 10_000
		c.OnBatch = func(ctx context.Context, tx pgx.Tx, _ []any) error {
			const count = `SELECT count(*), count(DISTINCT xmin::text) FROM es.run_event` // each statement is a subtransaction
			return errors.Join(tx.QueryRow(ctx, count).Scan(&inside, &statements), f.System.QueryRow(ctx, count).Scan(&outside, nil))
		}
	})
	org, run := newID(), newID()
	var events []eventstore.RunEvent
	for i := range 50 {
		events = append(events, eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001 + i, Data: happened{Text: strings.Repeat("x", 1000)}})
	}
	in, err := s.Append(t.Context(), events, "attached")
	require.NoError(t, err)
	require.Len(t, in, 50)
	require.Equal(t, 50, inside)
	require.Zero(t, outside, "one transaction")
	require.Equal(t, 6, statements)
}

func TestSink_close_drainsAndRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.sink(t, func(c *eventstore.SinkConfig) { c.MaxDelay = time.Hour }) // only closing writes what comes second
	org := newID()
	one := func() error {
		_, err := s.Append(context.Background(), []eventstore.RunEvent{{OrgID: org, RunID: newID(), Version: 1, Data: began{1}}}, nil)
		return err
	}
	require.NoError(t, one())
	errs := make(chan error, 3)
	for range 3 {
		go func() { errs <- one() }()
	}
	require.Eventually(t, func() bool { return s.Waiting() == 3 }, patience, time.Millisecond)
	require.NoError(t, s.Close(t.Context()))
	for range 3 {
		require.NoError(t, <-errs)
	}
	require.ErrorIs(t, one(), eventstore.ErrSinkClosed)
	require.NoError(t, s.Close(t.Context()))
}

// Cut off from the database in the middle, the sink goes on when it is back; nothing is lost and nothing doubled.
func TestSink_databaseAway_writesWhenItIsBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	url, proxy := proxied(t, f)
	db, err := postgres.Open(t.Context(), postgres.Config{URL: url, RolePrefix: pgtest.RolePrefix, MaxConns: 3})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	s := f.sink(t, func(c *eventstore.SinkConfig) { c.DB = db })
	org := newID()
	one := func() error {
		_, err := s.Append(context.Background(), []eventstore.RunEvent{{OrgID: org, RunID: newID(), Version: 1, Data: began{1}}}, nil)
		return err
	}
	require.NoError(t, one())
	addr := proxy.Listen
	proxy.Stop()
	errs := make(chan error, 20)
	for range 20 {
		go func() { errs <- one() }()
	}
	require.Eventually(t, func() bool { return s.Waiting() > 0 }, patience, time.Millisecond)
	proxy.Listen = addr
	require.NoError(t, proxy.Start())
	for range 20 {
		require.NoError(t, <-errs)
	}
	var n int
	require.NoError(t, f.System.QueryRow(t.Context(), `SELECT count(*) FROM es.run_event`).Scan(&n))
	require.Equal(t, 21, n)

	impatient := f.sink(t, func(c *eventstore.SinkConfig) { c.DB, c.Patience = db, 50*time.Millisecond })
	proxy.Stop()
	_, err = impatient.Append(t.Context(), []eventstore.RunEvent{{OrgID: org, RunID: newID(), Version: 1, Data: began{1}}}, nil)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}

// proxied returns f's address by way of a proxy.
func proxied(t *testing.T, f *fixture) (url string, proxy *toxiproxy.Proxy) {
	t.Helper()
	conn := f.ConnConfig()
	proxy = toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "pg", "127.0.0.1:0", net.JoinHostPort(conn.Host, strconv.Itoa(int(conn.Port))))
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	return strings.Replace(f.URL, fmt.Sprintf("%s:%d", conn.Host, conn.Port), proxy.Listen, 1), proxy
}
