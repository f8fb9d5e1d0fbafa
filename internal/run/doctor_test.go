package run_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/run"
)

func TestDoctor_seesWhatMustNotBe(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	now := time.Now()
	doctor := &run.Doctor{DB: w.db, Store: w.Store, Now: func() time.Time { return now }}
	check := func() map[string]int {
		found, err := doctor.Check(t.Context())
		require.NoError(t, err)
		kinds := map[string]int{}
		for _, v := range found {
			kinds[v.Invariant+" "+v.Detail]++
		}
		return kinds
	}
	test := w.test(t, w.get("/a")+","+w.get("/b"))
	for range 3 {
		w.finish(t, w.begin(t, test, run.StartInput{}).ID)
	}
	canceled := w.begin(t, w.test(t, w.get("/a"), `"regions": ["eu"]`), run.StartInput{})
	_, err := w.Cancel(w.ctx, w.org, canceled.ID)
	require.NoError(t, err)
	waiting := w.begin(t, w.test(t, w.get("/a"), `"regions": ["eu"]`, `"timeout": "10s"`), run.StartInput{})
	assert.Empty(t, check())

	now = time.Now().Add(10*time.Second + 3*time.Minute + 61*time.Second) // from here: the run was requested some time after the start
	assert.Len(t, check(), 1, "a run without end")
	_, err = w.Cancel(w.ctx, w.org, waiting.ID)
	require.NoError(t, err)
	assert.Empty(t, check())

	w.exec(t, `UPDATE runs SET status = 'failed' WHERE run_id = $1`, waiting.ID)
	assert.Equal(t, map[string]int{"I2 it ended canceled and its row says failed": 1}, check())
	w.exec(t, `DELETE FROM runs WHERE run_id = $1`, waiting.ID)
	assert.Equal(t, map[string]int{"I2 1 runs have events and no row": 1}, check())

	wild := newID()
	put := func(version int, data eventstore.Data, status run.Status) {
		require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := w.Store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: w.org, RunID: wild, Version: version, Data: data, RunColumns: eventstore.RunColumns{Status: string(status)}}})
			return err
		}))
	}
	put(1, run.Requested{TestID: test.ID, Trigger: run.TriggerManual, RequestedBy: run.By{Kind: "user"}, Region: "default", TimeoutMs: 1000}, "")
	put(100_001, run.Started{Attempt: 1}, "")
	put(100_002, run.StepFinished{Attempt: 1, Step: 0}, "")
	put(100_003, run.StepFinished{Attempt: 1, Step: 0}, "")
	put(300_001, run.Started{Attempt: 3}, "")
	put(eventstore.VersionFinished, run.Finished{Status: run.Passed}, run.Passed)
	found := check()
	for _, want := range []string{"I8 attempt 1 has two results of step 0", "I8 attempt 3 follows attempt 1", "I2 it ended while attempt 3 had no end"} {
		assert.Contains(t, found, want)
	}
}
