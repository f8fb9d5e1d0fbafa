package eventstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
)

// Events are facts, for a superuser too, and by whatever name the table is called.
func TestEvents_cannotBeChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	_, err := f.note(ctx, org, newID(), 0, "a")
	require.NoError(t, err)
	_, err = f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 1, Data: began{1}})
	require.NoError(t, err)
	admin := f.superuser(t)
	partition := "es.run_event_" + time.Now().UTC().Format("20060102")
	for _, table := range []string{"es.ledger_event", "es.run_event", partition} {
		for _, sql := range []string{"UPDATE %s SET data = '{}'", "DELETE FROM %s", "TRUNCATE %s"} {
			_, err := admin.Exec(ctx, fmt.Sprintf(sql, table))
			require.Equal(t, "TF403", sqlState(err), sql, table)
		}
	}
	for _, sql := range []string{"DELETE FROM es.ledger_stream", "TRUNCATE es.ledger_stream"} {
		_, err := admin.Exec(ctx, sql)
		require.Equal(t, "TF403", sqlState(err), sql)
	}
	// The roles may not even try.
	for _, table := range []string{"es.ledger_event", "es.run_event", partition} {
		for _, sql := range []string{"UPDATE %s SET version = 9", "DELETE FROM %s", "TRUNCATE %s"} {
			for name, try := range map[string]func(string) error{"api": f.tryAPI(ctx, org), "system": f.trySystem(ctx)} {
				require.Equal(t, "42501", sqlState(try(fmt.Sprintf(sql, table))), name, sql, table)
			}
		}
	}
	require.Equal(t, "42501", sqlState(f.tryAPI(ctx, org)("SELECT * FROM "+partition)), "a partition is no way around the wall")
	require.Equal(t, "42501", sqlState(f.tryAPI(ctx, org)("SELECT es.ensure_partitions()")))
	require.Equal(t, "42501", sqlState(f.tryAPI(ctx, org)("SELECT * FROM es.read_feed(0, 10, NULL, true, true)")))
	require.Equal(t, "42501", sqlState(f.tryAPI(ctx, org)("UPDATE es.watermark SET position = 9")))
	require.Equal(t, "42501", sqlState(f.tryAPI(ctx, org)("INSERT INTO es.event_type VALUES (99, 'x.y', 'L', 1)")))
}

func (f *fixture) tryAPI(ctx context.Context, org uuid.UUID) func(string) error {
	return func(sql string) error {
		return f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error { _, err := tx.Exec(ctx, sql); return err })
	}
}

func (f *fixture) trySystem(ctx context.Context) func(string) error {
	return func(sql string) error {
		return f.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, sql); return err })
	}
}

// I9 for the log's tables: a tenant reads and writes its own rows only, and none without a tenant.
func TestTables_keepTenantsApart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org, other := t.Context(), newID(), newID()
	stream, run := newID(), newID()
	_, err := f.note(ctx, org, stream, 0, "a")
	require.NoError(t, err)
	_, err = f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: run, Version: 1, Data: began{1}})
	require.NoError(t, err)
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now})
	_, _, err = idem.Do(ctx, eventstore.Key{OrgID: org, Principal: "p", Route: "r", Key: "k", BodyHash: []byte("h")}, func(context.Context) (eventstore.Answer, error) { return eventstore.Answer{Status: 201}, nil })
	require.NoError(t, err)

	for _, table := range []string{"es.ledger_stream", "es.ledger_event", "es.run_event", "es.idempotency_answers"} {
		var mine, theirs, nobodys int
		count := "SELECT count(*) FROM " + table
		require.NoError(t, f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error { return tx.QueryRow(ctx, count).Scan(&mine) }))
		require.NoError(t, f.InOrg(ctx, other, func(ctx context.Context, tx postgres.OrgTx) error { return tx.QueryRow(ctx, count).Scan(&theirs) }))
		require.NoError(t, f.API.QueryRow(ctx, count).Scan(&nobodys))
		require.Equal(t, []int{1, 0, 0}, []int{mine, theirs, nobodys}, table)
	}
	// Writing under another's name is refused by WITH CHECK, through the functions too.
	err = f.InOrg(ctx, other, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: newID(), Kind: "note"}, 0, nil, noted{"x"})
		return err
	})
	require.Equal(t, "42501", sqlState(err))
	err = f.InOrg(ctx, other, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := f.store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}}})
		return err
	})
	require.Equal(t, "42501", sqlState(err))
	// Reading another's stream by its id finds nothing.
	require.NoError(t, f.InOrg(ctx, other, func(ctx context.Context, tx postgres.OrgTx) error {
		for _, id := range []uuid.UUID{org, other} {
			events, err := f.store.Read(ctx, tx, id, stream)
			require.NoError(t, err)
			require.Empty(t, events)
			events, err = f.store.ReadRun(ctx, tx, id, run)
			require.NoError(t, err)
			require.Empty(t, events)
			events, _, err = f.store.ReadOrg(ctx, tx, id, eventstore.OrgQuery{})
			require.NoError(t, err)
			require.Empty(t, events)
		}
		return nil
	}))
}

func TestReadOrg_selects(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	a, b, run, project := newID(), newID(), newID(), newID()
	_, err := f.note(ctx, org, a, 0, "1", "2")
	require.NoError(t, err)
	_, err = f.note(ctx, org, b, 0, "3")
	require.NoError(t, err)
	_, err = f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: run, Version: 1, Data: began{1}, RunColumns: eventstore.RunColumns{ProjectID: project}},
		eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001, Data: happened{Text: "x"}})
	require.NoError(t, err)
	read := func(q eventstore.OrgQuery) (out []eventstore.Event, upTo int64) {
		require.NoError(t, f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
			out, upTo, err = f.store.ReadOrg(ctx, tx, org, q)
			return err
		}))
		return out, upTo
	}
	all, upTo := read(eventstore.OrgQuery{})
	require.Len(t, all, 5)
	require.Equal(t, all[4].Position, upTo)
	past := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		q    eventstore.OrgQuery
		want []int
	}{
		"ledger":             {eventstore.OrgQuery{Lanes: []eventstore.Lane{eventstore.Ledger}}, []int{0, 1, 2}},
		"runs":               {eventstore.OrgQuery{Lanes: []eventstore.Lane{eventstore.Runs}}, []int{3, 4}},
		"types":              {eventstore.OrgQuery{Types: []string{"run.happened", "note.noted"}}, []int{0, 1, 2, 4}},
		"unknown type":       {eventstore.OrgQuery{Types: []string{"no.such"}}, nil},
		"kind":               {eventstore.OrgQuery{Kinds: []string{"note"}}, []int{0, 1, 2}},
		"kind run":           {eventstore.OrgQuery{Kinds: []string{"run"}}, []int{3, 4}},
		"stream":             {eventstore.OrgQuery{StreamIDs: []uuid.UUID{b}}, []int{2}},
		"run":                {eventstore.OrgQuery{StreamIDs: []uuid.UUID{run}}, []int{3, 4}},
		"streams":            {eventstore.OrgQuery{StreamIDs: []uuid.UUID{run, b}}, []int{2, 3, 4}},
		"project":            {eventstore.OrgQuery{ProjectID: project}, []int{3}},
		"project and kind":   {eventstore.OrgQuery{ProjectID: project, Kinds: []string{"note"}}, nil},
		"project and actor":  {eventstore.OrgQuery{ProjectID: project, ActorIDs: []uuid.UUID{a}}, nil},
		"actor":              {eventstore.OrgQuery{ActorIDs: []uuid.UUID{newID()}}, nil},
		"after":              {eventstore.OrgQuery{After: all[1].Position}, []int{2, 3, 4}},
		"before, descending": {eventstore.OrgQuery{Before: all[3].Position, Desc: true, Limit: 2}, []int{2, 1}},
		"limit":              {eventstore.OrgQuery{Limit: 4}, []int{0, 1, 2, 3}},
		"time":               {eventstore.OrgQuery{From: past, To: time.Now().Add(time.Hour)}, []int{0, 1, 2, 3, 4}},
		"another time":       {eventstore.OrgQuery{To: past}, nil},
	} {
		got, _ := read(c.q)
		var want []int64
		for _, i := range c.want {
			want = append(want, all[i].Position)
		}
		require.Equal(t, want, positions(got), name)
	}
	_, upTo = read(eventstore.OrgQuery{Limit: 2})
	require.Equal(t, all[1].Position, upTo, "a full page reaches to its last event")
}

func TestEnsurePartitions_againAndAtOnce_isHarmless(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	admin := f.superuser(t)
	day := time.Now().UTC().AddDate(0, 0, 7).Format("20060102")
	_, err := admin.Exec(ctx, "DROP TABLE es.run_event_"+day)
	require.NoError(t, err)
	made := make(chan int, 4)
	for range 4 {
		go func() {
			n, err := f.store.EnsurePartitions(ctx)
			if err != nil {
				t.Error(err)
			}
			made <- n
		}()
	}
	total := 0
	for range 4 {
		total += <-made
	}
	require.Equal(t, 1, total)
	_, err = admin.Exec(ctx, "TRUNCATE es.run_event_"+day)
	require.Equal(t, "TF403", sqlState(err), "a new partition is append-only too")
}
