package eventstore_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

// wide is a fixture whose pools hold many writers.
func wide(tb testing.TB, conns int32) *fixture {
	tb.Helper()
	f := newFixture(tb)
	db, err := postgres.Open(tb.Context(), postgres.Config{URL: f.URL, RolePrefix: pgtest.RolePrefix, MaxConns: conns})
	require.NoError(tb, err)
	tb.Cleanup(db.Close)
	f.DB.DB = db
	f.store = eventstore.New(eventstore.Config{DB: db, Types: types(), Now: time.Now, NewID: newID})
	require.NoError(tb, f.store.Sync(tb.Context()))
	return f
}

// naive is the reader that everybody writes first: it loses what commits out of order.
type naive struct {
	f    *fixture
	last int64
	seen []int64
}

func (n *naive) read(ctx context.Context, tb testing.TB) {
	tb.Helper()
	rows, err := n.f.System.Query(ctx, `SELECT position FROM (SELECT position FROM es.ledger_event UNION ALL SELECT position FROM es.run_event) e WHERE position > $1 ORDER BY position`, n.last)
	require.NoError(tb, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(tb, err)
	if len(got) > 0 {
		n.seen, n.last = append(n.seen, got...), got[len(got)-1]
	}
}

var errRollback = errors.New("rolled back on purpose")

// writer appends to the ledger and to runs, in transactions that take long before or after, take their transaction id
// early, append twice, or roll back.
func (f *fixture) writer(ctx context.Context, tb testing.TB, appends int) (events int) {
	tb.Helper()
	org, streams := newID(), []uuid.UUID{newID(), newID()}
	pause := func(tx pgx.Tx) error { // an open transaction that takes its time
		_, err := tx.Exec(ctx, `SELECT pg_sleep($1)`, rand.Float64()*0.003)
		return err
	}
	for range appends {
		n := 0
		err := f.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			if rand.IntN(3) == 0 { // the transaction's id is older than its events
				if _, err := tx.Exec(ctx, `SELECT txid_current()`); err != nil {
					return err
				}
				if err := pause(tx); err != nil {
					return err
				}
			}
			for range 1 + rand.IntN(2) {
				if rand.IntN(2) == 0 {
					stream := streams[rand.IntN(len(streams))]
					if _, err := f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: stream, Kind: "note"}, eventstore.AnyVersion, nil, noted{"a"}, noted{"b"}); err != nil {
						return err
					}
					n += 2
				} else {
					run := newID()
					batch := make([]eventstore.RunEvent, 10)
					for i := range batch {
						batch[i] = eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001 + i, Data: happened{Text: "x"}}
					}
					if _, err := f.store.AppendRuns(ctx, tx, batch); err != nil {
						return err
					}
					n += len(batch)
				}
				if err := pause(tx); err != nil {
					return err
				}
			}
			if rand.IntN(10) == 0 {
				return errRollback
			}
			return nil
		})
		switch {
		case err == nil:
			events += n
		case !errors.Is(err, errRollback):
			tb.Errorf("append: %v", err)
			return events
		}
	}
	return events
}

// I4: a reader at the fence meets every event once and in order, whatever commits in whatever order.
func TestFence_underStress_losesNothing(t *testing.T) {
	t.Parallel()
	const writers, appends = 16, 110
	f := wide(t, 20)
	ctx := t.Context()

	// A transaction elsewhere that is open all the time: it has an id, holds a snapshot, and must stall nobody.
	foreign := f.superuser(t)
	tx, err := foreign.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	require.NoError(t, err)
	_, err = tx.Exec(ctx, `SELECT txid_current(), count(*) FROM es.run_event`)
	require.NoError(t, err)

	var total atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() { total.Add(int64(f.writer(ctx, t, appends))) })
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()

	var seen []eventstore.Event
	bystander := &naive{f: f}
	position, whileWriting := int64(0), 0
	for writing := true; ; {
		select {
		case <-finished:
			writing = false
		default:
		}
		b, err := f.store.ReadAll(ctx, position, 97)
		require.NoError(t, err)
		require.GreaterOrEqual(t, b.To, b.From)
		seen, position = append(seen, b.Events...), b.To
		bystander.read(ctx, t)
		if writing {
			whileWriting = len(seen)
		} else if len(b.Events) == 0 {
			break
		}
	}
	require.NoError(t, tx.Rollback(ctx))

	require.GreaterOrEqual(t, int(total.Load()), 10_000, "the test must be worth something")
	require.Greater(t, whileWriting, int(total.Load())/2, "the reader wasn't stalled by the open transaction")
	require.Len(t, seen, int(total.Load()), "lost or doubled")
	versions := map[uuid.UUID]int{}
	for i, e := range seen {
		if i > 0 {
			require.Greater(t, e.Position, seen[i-1].Position, "reordered")
		}
		require.Greater(t, e.Version, versions[e.StreamID], "reordered in its stream")
		versions[e.StreamID] = e.Version
	}
	t.Logf("%d events: the fence reader lost 0 and reordered 0; a reader of position > checkpoint lost %d", len(seen), len(seen)-len(bystander.seen))
}

// What the naive reader loses for certain, the fence reader doesn't: a smaller position that commits after a larger one.
func TestFence_outOfOrderCommit_naiveReaderLoses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	bystander := &naive{f: f}

	slow, err := f.System.Begin(ctx)
	require.NoError(t, err)
	first, err := f.store.Append(ctx, slow, eventstore.Stream{OrgID: org, ID: newID(), Kind: "note"}, 0, nil, noted{"first"})
	require.NoError(t, err)
	second, err := f.note(ctx, org, newID(), 0, "second")
	require.NoError(t, err)
	require.Less(t, first.Position, second.Position)

	bystander.read(ctx, t)
	b, err := f.store.ReadAll(ctx, 0, 10)
	require.NoError(t, err)
	require.Empty(t, b.Events, "the second isn't settled while the first may still come")
	require.Less(t, b.To, first.Position)

	require.NoError(t, slow.Commit(ctx))
	bystander.read(ctx, t)
	require.Equal(t, []int64{second.Position}, bystander.seen, "the naive reader lost the first")
	b, err = f.store.ReadAll(ctx, b.To, 10)
	require.NoError(t, err)
	require.Equal(t, []int64{first.Position, second.Position}, positions(b.Events))
}

func positions(events []eventstore.Event) (out []int64) {
	for _, e := range events {
		out = append(out, e.Position)
	}
	return out
}

// A position that was numbered and rolled back is never named as the end: a crash could bring the sequence back below it.
func TestReadAll_endsAtAnEvent_notInAGap(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	out, err := f.note(ctx, org, newID(), 0, "kept")
	require.NoError(t, err)
	err = f.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: newID(), Kind: "note"}, 0, nil, noted{"gone"})
		require.NoError(t, err)
		return errRollback
	})
	require.ErrorIs(t, err, errRollback)
	b, err := f.store.ReadAll(ctx, 0, 10)
	require.NoError(t, err)
	require.Equal(t, out.Position, b.To)
	var mark int64
	require.NoError(t, f.System.QueryRow(ctx, `SELECT es.pulse()`).Scan(&mark))
	require.Equal(t, out.Position, mark)
	end, err := f.store.End(ctx)
	require.NoError(t, err)
	require.Equal(t, out.Position, end)
}

func TestReadAll_ofTypes_saysHowFarItLooked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	a, err := f.note(ctx, org, newID(), 0, "1", "2", "3")
	require.NoError(t, err)
	in, err := f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 1, Data: began{1}}, eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 100_001, Data: happened{Text: "x"}})
	require.NoError(t, err)
	b, err := f.store.ReadAll(ctx, 0, 10, "run.began")
	require.NoError(t, err)
	require.Len(t, b.Events, 1)
	require.Equal(t, slices.Max([]int64{a.Position, in[0].Position, in[1].Position}), b.To)
	b, err = f.store.ReadAll(ctx, 0, 2, "note.noted", "run.began")
	require.NoError(t, err)
	require.Equal(t, b.Events[1].Position, b.To, "a full page ends at its last event")
	b, err = f.store.ReadAll(ctx, 0, 10, "nobody.wrote_this")
	require.NoError(t, err)
	require.Empty(t, b.Events)
	require.Equal(t, in[1].Position, b.To)
}
