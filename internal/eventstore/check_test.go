package eventstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

// The doctor finds what a bug or a hand in the database could leave; on a healthy log it finds nothing.
func TestChecks_findWhatIsBroken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org, stream, run := t.Context(), newID(), newID(), newID()
	_, err := f.note(ctx, org, stream, 0, "1", "2", "3")
	require.NoError(t, err)
	_, err = f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: run, Version: 1, Data: began{1}}, eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001, Data: began{1}},
		eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_002, Data: happened{Text: "x"}}, eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}})
	require.NoError(t, err)
	idem := eventstore.NewIdempotency(eventstore.IdempotencyConfig{DB: f.DB.DB, Now: time.Now})
	answer := func(position string) {
		_, _, err = idem.Do(ctx, key(org, position, "b"), func(context.Context) (eventstore.Answer, error) {
			return eventstore.Answer{Status: 201, Header: map[string]string{"X-Event-Position": position}}, nil
		})
		require.NoError(t, err)
	}
	answer("1")
	checks := map[string]func(context.Context) ([]string, error){"versions": f.store.CheckVersions, "commands": f.store.CheckCommands, "feed": f.store.CheckFeed}
	for name, check := range checks {
		found, err := check(ctx)
		require.NoError(t, err)
		require.Empty(t, found, name)
	}

	admin := f.superuser(t)
	_, err = admin.Exec(ctx, `ALTER TABLE es.ledger_event DISABLE TRIGGER USER`)
	require.NoError(t, err)
	damage := func(sql string) {
		_, err := admin.Exec(ctx, sql)
		require.NoError(t, err)
	}
	expect := func(name, text string) {
		found, err := checks[name](ctx)
		require.NoError(t, err)
		require.Contains(t, strings.Join(found, "\n"), text)
	}
	answer("4711")
	expect("commands", "4711")
	damage(`UPDATE es.ledger_stream SET version = 4`)
	expect("versions", "its head says version 4")
	damage(`DELETE FROM es.ledger_event WHERE version = 2`)
	expect("versions", "versions 1 to 3, but 2 events")
	expect("commands", "2 of the versions 1 to 3")
	_, err = f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 200_002, Data: happened{Text: "x"}})
	require.NoError(t, err)
	expect("versions", "attempt 2: events 2 to 2, but 1")
	expect("versions", "never requested")
}

func TestFeed_check_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	now := time.Now()
	feed := eventstore.NewFeed(eventstore.FeedConfig{Store: f.store, DB: f.DB.DB, Now: func() time.Time { return now }})
	require.Equal(t, fault.Unavailable, fault.KindOf(feed.Check(t.Context())))
	stop := running(t, feed.Run)
	out, err := f.note(t.Context(), newID(), newID(), 0, "a")
	require.NoError(t, err)
	waitFor(t, feed, out.Position)
	require.NoError(t, feed.Check(t.Context()))
	stop()
	now = now.Add(time.Minute)
	require.Equal(t, fault.Unavailable, fault.KindOf(feed.Check(t.Context())))
}

func TestDropRuns_notesHowFar(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, org := t.Context(), newID()
	oldest, err := f.store.Oldest(ctx)
	require.NoError(t, err)
	require.Zero(t, oldest)
	// A day long gone, with a run in it.
	old := newID()
	day := time.Now().UTC().AddDate(0, 0, -40).Truncate(24 * time.Hour)
	ms := uint64(day.Add(time.Hour).UnixMilli())
	for i := range 6 {
		old[i] = byte(ms >> (40 - 8*i))
	}
	_, err = f.superuser(t).Exec(ctx, `CREATE TABLE es.run_event_`+day.Format("20060102")+` PARTITION OF es.run_event FOR VALUES FROM ('`+day.Format(time.DateOnly)+`') TO ('`+day.AddDate(0, 0, 1).Format(time.DateOnly)+`')`)
	require.NoError(t, err)
	in, err := f.appendRuns(ctx, eventstore.RunEvent{OrgID: org, RunID: old, Version: 100_001, Data: began{1}}, eventstore.RunEvent{OrgID: org, RunID: newID(), Version: 1, Data: began{1}})
	require.NoError(t, err)
	require.Len(t, in, 2)
	_, err = f.superuser(t).Exec(ctx, `ALTER TABLE es.run_event_`+day.Format("20060102")+` OWNER TO `+f.RolePrefix+`_owner`)
	require.NoError(t, err)
	days, err := f.store.DropRuns(ctx, time.Now())
	require.NoError(t, err)
	require.Zero(t, days, "what isn't sealed stays")
	_, err = f.System.Exec(ctx, `INSERT INTO es.sealed_day (day) VALUES ($1)`, day)
	require.NoError(t, err)
	days, err = f.store.DropRuns(ctx, time.Now())
	require.NoError(t, err)
	require.Equal(t, 1, days, "the last days stay, whatever is asked")
	oldest, err = f.store.Oldest(ctx)
	require.NoError(t, err)
	dropped := in[0].Position
	if in[0].RunID != old {
		dropped = in[1].Position
	}
	require.Equal(t, dropped, oldest)
	var n int
	require.NoError(t, f.System.QueryRow(ctx, `SELECT count(*) FROM es.run_event`).Scan(&n))
	require.Equal(t, 1, n)
}
