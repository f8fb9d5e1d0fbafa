package run_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/run"
)

// aged is a log with a run of each of some ages, in days, whole with its row and a body.
type aged struct {
	*pgtest.DB
	store *eventstore.Store
	last  int64 // position of the last event
}

func newAged(t *testing.T, ages ...int) *aged {
	t.Helper()
	f := &aged{DB: pgtest.New(t)}
	f.store = eventstore.New(eventstore.Config{DB: f.DB.DB, Types: run.Types(), Now: time.Now, NewID: newID})
	require.NoError(t, f.store.Sync(t.Context()))
	admin, err := pgx.Connect(t.Context(), f.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close(context.Background())) }()
	for _, age := range ages {
		day := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -age)
		for _, table := range []string{"es.run_event", "public.run_body"} {
			_, err := admin.Exec(t.Context(), fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %[1]s_%[2]s PARTITION OF %[1]s FOR VALUES FROM ('%[3]s') TO ('%[4]s');
				ALTER TABLE %[1]s_%[2]s OWNER TO %[5]s_owner`, table, day.Format("20060102"), day.Format(time.DateOnly), day.AddDate(0, 0, 1).Format(time.DateOnly), f.RolePrefix))
			require.NoError(t, err)
		}
		_, err := admin.Exec(t.Context(), `INSERT INTO es.sealed_day (day) VALUES ($1)`, day)
		require.NoError(t, err)
		id, org := newID(), newID()
		ms := uint64(day.UnixMilli())
		for i := range 6 {
			id[i] = byte(ms >> (40 - 8*i))
		}
		require.NoError(t, f.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			in, err := f.store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: org, RunID: id, Version: eventstore.VersionFinished, Data: run.Finished{Status: run.Passed}}})
			if err != nil {
				return err
			}
			f.last = in[0].Position
			_, err = tx.Exec(ctx, `INSERT INTO runs (run_id, org_id, project_id, test_id, test_name, revision, environment_name, region, trigger, requested_kind, requested_at, timeout_ms, status)
				VALUES ($1, $2, $2, $2, 'old', 1, '', 'default', 'manual', 'user', $3, 1000, 'passed')`, id, org, day)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `INSERT INTO run_body (run_id, attempt, step, day, org_id, status, content_type, headers, headers_truncated, request_headers, size, truncated, body)
				VALUES ($1, 1, 0, es.uuid7_day($1), $2, 200, '', '', false, '', 0, false, '')`, id, org)
			return err
		}))
	}
	return f
}

// left returns how many rows, bodies and events there are.
func (f *aged) left(t *testing.T) (rows, bodies, events int) {
	t.Helper()
	require.NoError(t, f.System.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM run_body), (SELECT count(*) FROM es.run_event)`).Scan(&rows, &bodies, &events))
	return rows, bodies, events
}

func (f *aged) drop(t *testing.T, runDays, bodyDays int, followed int64) {
	t.Helper()
	r := &run.Retention{
		DB: f.DB.DB, Store: f.store, Followed: func(context.Context) (int64, error) { return followed, nil },
		RunDays: runDays, BodyDays: bodyDays, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, r.Drop(t.Context()))
}

func TestRetention_dropsWholeDaysThatAreOver(t *testing.T) {
	t.Parallel()
	f := newAged(t, 100, 91, 90, 40, 2, 0)
	f.drop(t, 90, 30, f.last)
	rows, bodies, events := f.left(t)
	require.Equal(t, []int{4, 2, 4}, []int{rows, bodies, events}, "the 90th day is whole")
	oldest, err := f.store.Oldest(t.Context())
	require.NoError(t, err)
	require.Positive(t, oldest, "cursors from before are told of a gap")
	f.drop(t, 90, 30, f.last)
	rows, bodies, events = f.left(t)
	require.Equal(t, []int{4, 2, 4}, []int{rows, bodies, events}, "a second time does nothing")
	f.drop(t, 1, 1, f.last)
	rows, bodies, events = f.left(t)
	require.Equal(t, []int{2, 2, 2}, []int{rows, bodies, events}, "the last days stay, whatever is set")
}

func TestRetention_ofZeroDays_keeps(t *testing.T) {
	t.Parallel()
	f := newAged(t, 1000, 0)
	f.drop(t, 0, 0, f.last)
	rows, bodies, events := f.left(t)
	require.Equal(t, []int{2, 2, 2}, []int{rows, bodies, events})
	f.drop(t, 90, 0, f.last)
	rows, bodies, events = f.left(t)
	require.Equal(t, []int{1, 1, 1}, []int{rows, bodies, events}, "bodies go with their runs")
}

// Analytics make something lasting of runs: what they have not read yet is not dropped.
func TestRetention_beforeTheProjectionsHavePassed_keeps(t *testing.T) {
	t.Parallel()
	f := newAged(t, 100)
	f.drop(t, 90, 0, f.last-1)
	rows, _, events := f.left(t)
	require.Equal(t, []int{1, 1}, []int{rows, events})
	f.drop(t, 90, 0, f.last)
	rows, _, events = f.left(t)
	require.Zero(t, rows+events)
}

// A day whose digest isn't in the audit log yet stays, and so do the days after it: the list and the log go together.
func TestRetention_ofADayThatIsNotSealed_keeps(t *testing.T) {
	t.Parallel()
	f := newAged(t, 120, 110, 100)
	admin, err := pgx.Connect(t.Context(), f.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	open := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -110)
	_, err = admin.Exec(t.Context(), `DELETE FROM es.sealed_day WHERE day = $1`, open)
	require.NoError(t, err)
	f.drop(t, 90, 0, f.last)
	rows, _, events := f.left(t)
	require.Equal(t, []int{2, 2}, []int{rows, events})
	_, err = admin.Exec(t.Context(), `INSERT INTO es.sealed_day (day) VALUES ($1)`, open)
	require.NoError(t, err)
	f.drop(t, 90, 0, f.last)
	rows, _, events = f.left(t)
	require.Zero(t, rows+events)
}
