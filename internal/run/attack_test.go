package run_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
)

// TestAttack_job_ofAnotherOrganization: the queue knows no tenants, so a job could name anything. One that says another
// organization's ids executes nothing, ends nothing and leaves no event on the other's run.
func TestAttack_job_ofAnotherOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.newWorker(t, "attacker")
	require.NoError(t, node.worker.Begin(t.Context()))
	test := w.test(t, w.get("/ok"))
	victim := w.begin(t, test, run.StartInput{})
	honest := run.ExecuteArgs{
		RunID: victim.ID, OrgID: w.org, ProjectID: w.project.ID, TestID: test.ID, Revision: 1, Region: "default", TimeoutMs: 10_000,
	}
	stranger := newID()
	theirs, err := w.projects.Create(as(t.Context(), stranger, auth.Admin), stranger, project.Draft{Name: "pets"})
	require.NoError(t, err)
	own, err := w.tests.Create(as(t.Context(), stranger, auth.Admin), stranger, json.RawMessage(`{"name":"own","projectId":"`+theirs.ID.String()+`","steps":[`+w.get("/own")+`]}`))
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		change func(*run.ExecuteArgs)
	}{
		{"their run, our organization", func(a *run.ExecuteArgs) { a.OrgID = stranger }},
		{"their test, our organization", func(a *run.ExecuteArgs) { a.OrgID, a.RunID = stranger, newID() }},
		{"their run, our test", func(a *run.ExecuteArgs) { a.OrgID, a.TestID, a.ProjectID = stranger, own.ID, theirs.ID }},
		{"no organization", func(a *run.ExecuteArgs) { a.OrgID = uuid.Nil }},
	} {
		args, before := honest, w.target.hits.Load()
		c.change(&args)
		// What it answers doesn't matter: the queue drops or repeats it.
		_ = node.worker.Work(t.Context(), &river.Job[run.ExecuteArgs]{JobRow: &rivertype.JobRow{Attempt: 1, MaxAttempts: 1}, Args: args})
		if args.TestID != own.ID { // its own test it may execute
			assert.Equal(t, before, w.target.hits.Load(), "%s: a request was sent", c.name)
		}
		after, err := w.Get(as(t.Context(), w.org, auth.Viewer), w.org, victim.ID)
		require.NoError(t, err)
		assert.Equal(t, run.Queued, after.Status, c.name)
		var events int
		conn, err := pgx.Connect(t.Context(), w.db.System.Config().ConnString())
		require.NoError(t, err)
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM es.run_event WHERE stream_id = $1 AND org_id = $2`, victim.ID, w.org).Scan(&events))
		require.NoError(t, conn.Close(t.Context()))
		assert.Equal(t, 1, events, "%s: the run has an event besides run.requested", c.name)
	}
	before := w.target.hits.Load()
	require.NoError(t, node.worker.Work(t.Context(), &river.Job[run.ExecuteArgs]{JobRow: &rivertype.JobRow{Attempt: 1, MaxAttempts: 1}, Args: honest}))
	assert.Equal(t, before+1, w.target.hits.Load(), "the honest job still does its work")
}
