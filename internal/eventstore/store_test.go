package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

// The events of these tests.
type (
	noted struct {
		Text string `json:"text"`
	}
	began struct {
		N int `json:"n"`
	}
	happened struct {
		Text string          `json:"text"`
		Raw  json.RawMessage `json:"raw,omitempty"`
	}
	ended struct {
		Status string `json:"status"`
	}
)

func (noted) EventType() string    { return "note.noted" }
func (began) EventType() string    { return "run.began" }
func (happened) EventType() string { return "run.happened" }
func (ended) EventType() string    { return "run.ended" }

func types() []eventstore.Type {
	return []eventstore.Type{
		{Name: "note.noted", Lane: eventstore.Ledger, Schema: 1, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &noted{} }},
		{Name: "run.began", Lane: eventstore.Runs, Schema: 1, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &began{} }},
		{Name: "run.happened", Lane: eventstore.Runs, Schema: 1, Visibility: eventstore.VisibleDetail, New: func() eventstore.Data { return &happened{} }},
		{Name: "run.ended", Lane: eventstore.Runs, Schema: 1, Visibility: eventstore.VisibleOrganization, New: func() eventstore.Data { return &ended{} }},
	}
}

// recorder is an inline read model that keeps what it was given, and fails on a marked event.
type recorder struct {
	mu     sync.Mutex
	events []eventstore.Event
}

func (r *recorder) Apply(_ context.Context, _ pgx.Tx, events []eventstore.Event) error {
	for _, e := range events {
		if strings.Contains(string(e.Data), "poison") {
			return errors.New("this event cannot be projected")
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, events...)
	return nil
}

func (r *recorder) all() []eventstore.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]eventstore.Event(nil), r.events...)
}

type fixture struct {
	*pgtest.DB
	store *eventstore.Store
	model *recorder
}

func newFixture(tb testing.TB) *fixture {
	tb.Helper()
	f := &fixture{DB: pgtest.New(tb), model: &recorder{}}
	f.store = eventstore.New(eventstore.Config{DB: f.DB.DB, Types: types(), Inline: []eventstore.ReadModel{f.model}, Now: time.Now, NewID: newID})
	require.NoError(tb, f.store.Sync(tb.Context()))
	return f
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// note appends to a ledger stream in a transaction of its own.
func (f *fixture) note(ctx context.Context, org, stream uuid.UUID, expected int, texts ...string) (out eventstore.Appended, err error) {
	data := make([]eventstore.Data, len(texts))
	for i, t := range texts {
		data[i] = noted{t}
	}
	err = f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		out, err = f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: stream, Kind: "note"}, expected, nil, data...)
		return err
	})
	return out, err
}

func (f *fixture) appendRuns(ctx context.Context, events ...eventstore.RunEvent) (out []eventstore.Inserted, err error) {
	err = f.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		out, err = f.store.AppendRuns(ctx, tx, events)
		return err
	})
	return out, err
}

func (f *fixture) superuser(tb testing.TB) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), f.URL)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func sqlState(err error) string { return postgres.SQLState(err) }

func TestAppend_storesInOrderWithHash(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org, stream := t.Context(), newID(), newID()
	out, err := f.note(ctx, org, stream, 0, "a", "b")
	require.NoError(t, err)
	require.Equal(t, 2, out.Version)
	out2, err := f.note(ctx, org, stream, 2, "c")
	require.NoError(t, err)
	require.Equal(t, 3, out2.Version)
	require.Greater(t, out2.Position, out.Position)

	var events []eventstore.Event
	require.NoError(t, f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, err = f.store.Read(ctx, tx, org, stream)
		return err
	}))
	require.Len(t, events, 3)
	var raw json.RawMessage
	for i, e := range events {
		require.Equal(t, i+1, e.Version)
		require.Equal(t, "note.noted", e.Type)
		require.Equal(t, "note", e.Kind)
		require.Equal(t, eventstore.Ledger, e.Lane)
		require.NoError(t, f.System.QueryRow(ctx, `SELECT meta FROM es.ledger_event WHERE position = $1`, e.Position).Scan(&raw))
		want, err := eventstore.ContentHash(eventstore.Stream{OrgID: org, ID: stream, Kind: e.Kind}, e.Type, e.Schema, raw, e.Data)
		require.NoError(t, err)
		require.Equal(t, want, e.ContentHash, "the hash holds for what is read back")
	}
	require.Equal(t, f.model.all()[2].Position, events[2].Position, "inline read models saw what was stored")
}

func TestAppend_ofAnotherVersion_isConflict(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, stream := newID(), newID()
	_, err := f.note(t.Context(), org, stream, 0, "a", "b")
	require.NoError(t, err)
	for _, expected := range []int{0, 1, 3} {
		_, err = f.note(t.Context(), org, stream, expected, "x")
		var conflict *eventstore.VersionConflict
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, 2, conflict.Actual)
		require.Equal(t, expected, conflict.Expected)
		require.Equal(t, fault.Conflict, fault.KindOf(err))
	}
	out, err := f.note(t.Context(), org, stream, eventstore.AnyVersion, "x")
	require.NoError(t, err)
	require.Equal(t, 3, out.Version)
}

// Of many who decided on the same version exactly one wins, at the first event of a stream as well.
func TestAppend_race_hasOneWinner(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, stream := newID(), newID()
	for version := range 10 {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { _, errs[i] = f.note(t.Context(), org, stream, version, fmt.Sprint(i)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			var conflict *eventstore.VersionConflict
			if err == nil {
				won++
			} else {
				require.ErrorAs(t, err, &conflict)
			}
		}
		require.Equal(t, 1, won)
	}
	var n, last int
	require.NoError(t, f.System.QueryRow(t.Context(), `SELECT count(*), max(version) FROM es.ledger_event WHERE stream_id = $1`, stream).Scan(&n, &last))
	require.Equal(t, 10, n)
	require.Equal(t, 10, last)
}

func TestAppendOnce_again_storesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org, stream, id := t.Context(), newID(), newID(), newID()
	once := func(expected int) (out eventstore.Appended) {
		require.NoError(t, f.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) (err error) {
			out, err = f.store.AppendOnce(ctx, tx, id, eventstore.Stream{OrgID: org, ID: stream, Kind: "note"}, expected, nil, noted{"a"}, noted{"b"})
			return err
		}))
		return out
	}
	first := once(0)
	_, err := f.note(ctx, org, stream, 2, "later")
	require.NoError(t, err)
	require.Equal(t, first, once(0), "not only the last append is known")
	require.Len(t, f.model.all(), 3, "a replay reaches no read model")
}

func TestAppendRuns_again_storesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, run := newID(), newID()
	ok := true
	batch := []eventstore.RunEvent{
		{OrgID: org, RunID: run, Version: eventstore.VersionRequested, Data: began{1}},
		{OrgID: org, RunID: run, Version: 100_001, Data: began{2}, RunColumns: eventstore.RunColumns{ProjectID: newID(), TestID: newID(), EnvironmentID: newID(), Region: "default", Status: "running", Duration: 3 * time.Millisecond, OK: &ok}},
	}
	in, err := f.appendRuns(t.Context(), batch...)
	require.NoError(t, err)
	require.Len(t, in, 2)
	require.Less(t, in[0].Position, in[1].Position)
	in, err = f.appendRuns(t.Context(), append(batch, eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}})...)
	require.NoError(t, err)
	require.Len(t, in, 1)
	require.Equal(t, eventstore.VersionFinished, in[0].Version)
	in, err = f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"failed"}})
	require.NoError(t, err)
	require.Empty(t, in, "a run ends once")

	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, err := f.store.ReadRun(ctx, tx, org, run)
		require.NoError(t, err)
		require.Len(t, events, 3)
		require.Equal(t, batch[1].RunColumns, events[1].RunColumns)
		require.JSONEq(t, `{"status":"passed"}`, string(events[2].Data))
		return nil
	}))
	require.Len(t, f.model.all(), 3)
}

// What is new in a batch stands before what is there already: it is stored once, and nothing is returned of the insert
// that came upon the old.
func TestAppendRuns_halfKnown_returnsWhatIsStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, run := newID(), newID()
	_, err := f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}})
	require.NoError(t, err)
	var batch []eventstore.RunEvent
	for i := range 5 {
		batch = append(batch, eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_002 + i, Data: happened{Text: "new"}})
	}
	in, err := f.appendRuns(t.Context(), append(batch, eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"failed"}})...)
	require.NoError(t, err)
	require.Len(t, in, 5)
	for i, one := range in {
		require.Equal(t, 100_002+i, one.Version)
		e, ok, err := f.store.ReadAt(t.Context(), one.Position)
		require.NoError(t, err)
		require.True(t, ok, "what was returned is there")
		require.Equal(t, one.Version, e.Version)
	}
	require.Len(t, f.model.all(), 6)
}

func TestAppendRuns_startOfAnEndedRun_isLeftOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, run, other := newID(), newID(), newID()
	_, err := f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"canceled"}})
	require.NoError(t, err)
	in, err := f.appendRuns(t.Context(),
		eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001, Data: began{1}},
		eventstore.RunEvent{OrgID: org, RunID: run, Version: 200_001, Data: began{1}},
		eventstore.RunEvent{OrgID: org, RunID: run, Version: 200_002, Data: happened{Text: "late"}},
		eventstore.RunEvent{OrgID: org, RunID: other, Version: 100_001, Data: began{1}})
	require.NoError(t, err)
	var got []string
	for _, i := range in {
		got = append(got, fmt.Sprint(i.RunID == other, i.Version))
	}
	require.ElementsMatch(t, []string{"false 200002", "true 100001"}, got)
}

func TestAppendRuns_ofAnotherDay_isRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := newID()
	old[0], old[1] = 0, 1 // a time in 1970
	_, err := f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: newID(), RunID: old, Version: eventstore.VersionRequested, Data: began{1}})
	require.ErrorIs(t, err, eventstore.ErrRunID)
	_, err = f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: newID(), RunID: old, Version: 100_001, Data: began{1}})
	require.ErrorIs(t, err, eventstore.ErrRunID, "its partition is gone")
}

// What jsonb refuses comes from targets and must not keep a run from ending; in the ledger it is the caller's mistake.
func TestAppend_ofWhatJSONBRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, run := newID(), newID()
	_, err := f.appendRuns(t.Context(), eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_002, Data: happened{
		Text: "a\x00b \\u0000 \xff", Raw: json.RawMessage(`{"lone":"\ud800x","low":"\udc00","pair":"\ud83d\ude00","huge":1e400000,"ok":-1.5e10,"nul":"\u0000"}`),
	}})
	require.NoError(t, err)
	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		events, err := f.store.ReadRun(ctx, tx, org, run)
		require.NoError(t, err)
		require.JSONEq(t, `{"text":"a\ufffdb \\u0000 \ufffd","raw":{"lone":"\ufffdx","low":"\ufffd","pair":"😀","huge":null,"ok":-1.5e10,"nul":"\ufffd"}}`, string(events[0].Data))
		return nil
	}))
	for _, e := range f.model.all() {
		var d happened
		require.NoError(t, e.Decode(&d))
		require.Equal(t, "a\ufffdb \\u0000 \ufffd", d.Text, "read models write what is stored, not what was given")
	}
	_, err = f.note(t.Context(), org, newID(), 0, "a\x00b")
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}
