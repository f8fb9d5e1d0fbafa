package run_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
)

func TestStart_executesAndKeepsWhatCame(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, w.get("/pets/1"))
	r := w.begin(t, test, run.StartInput{})
	assert.Equal(t, run.Queued, r.Status)
	assert.Equal(t, run.TriggerManual, r.Trigger)
	assert.Positive(t, r.Position)

	row, err := w.Summary(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	assert.Equal(t, r.RequestedAt, row.RequestedAt)
	end := w.finish(t, r.ID)
	assert.Equal(t, run.Passed, end.Status)
	assert.Equal(t, 1, end.Attempts)
	assert.Equal(t, run.Counts{Steps: 1, Assertions: 3}, end.Counts)
	assert.Positive(t, end.DurationMs)
	assert.NotNil(t, end.StartedAt)
	assert.NotNil(t, end.FinishedAt)
	assert.Equal(t, []string{
		run.TypeRequested, run.TypeStarted, run.TypeStepFinished, run.TypeAssertionEvaluated, run.TypeAssertionEvaluated,
		run.TypeAssertionEvaluated, run.TypeAttemptFinished, run.TypeFinished,
	}, w.types(t, r.ID))

	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.Len(t, d.AttemptResults, 1)
	assert.Equal(t, run.Passed, d.AttemptResults[0].Status)
	require.Len(t, d.Steps, 1)
	step := d.Steps[0]
	assert.Equal(t, 200, step.Response.Status)
	assert.Equal(t, "1/0", step.Response.BodyRef)
	assert.Len(t, step.Response.SHA256, 64)
	assert.Positive(t, step.Timings.TotalMs)
	require.NotNil(t, step.Timings.ConnectMs)
	require.Len(t, step.Assertions, 3)
	assert.JSONEq(t, "200", string(step.Assertions[0].Expected))
	assert.JSONEq(t, "200", string(step.Assertions[0].Actual))
	assert.Equal(t, "Step 1", step.Assertions[0].StepName)
	assert.Equal(t, "soft", step.Assertions[2].Severity)

	body, err := w.StepResponse(w.ctx, w.org, r.ID, 0, 0, 0)
	require.NoError(t, err)
	assert.JSONEq(t, `{"id": 7, "path": "/pets/1", "who": ""}`, string(body.Body))
	assert.NotEmpty(t, body.Headers)
	_, err = w.StepResponse(w.ctx, w.org, r.ID, 1, 0, 0)
	assert.Equal(t, fault.NotFound, kind(err))
}

func TestStart_outcomes(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	refused := `{"request": {"method": "GET", "url": "http://127.0.0.1:1/"}}`
	blocked := `{"request": {"method": "GET", "url": "http://169.254.169.254/latest"}}`
	for name, c := range map[string]struct {
		steps  string
		status run.Status
		reason run.Reason
		code   string
	}{
		"an assertion is false":     {w.get("/broken"), run.Failed, "", "assertion"},
		"nobody listens":            {refused, run.Errored, "", "connect"},
		"policy refuses":            {blocked, run.Inconclusive, run.Blocked, "blocked"},
		"a later step isn't sent":   {w.get("/a") + "," + refused + "," + w.get("/c"), run.Errored, "", "connect"},
		"a variable has no value":   {w.get("/{{nothing}}"), run.Errored, "", "variable"},
		"all of several steps pass": {w.get("/a") + "," + w.get("/b") + "," + w.get("/c"), run.Passed, "", ""},
	} {
		end := w.finish(t, w.begin(t, w.test(t, c.steps), run.StartInput{}).ID)
		assert.Equal(t, c.status, end.Status, name)
		assert.Equal(t, c.reason, end.Reason, name)
		if c.code != "" {
			require.NotNil(t, end.Error, name)
			assert.Equal(t, c.code, end.Error.Code, name)
		} else {
			assert.Nil(t, end.Error, name)
		}
	}
	end := w.finish(t, w.begin(t, w.test(t, w.get("/a")+","+refused+","+w.get("/c")), run.StartInput{}).ID)
	assert.Equal(t, run.Counts{Steps: 2, StepsFailed: 1, StepsSkipped: 1, Assertions: 3}, end.Counts)
}

func TestStart_variablesOfEnvironmentTestAndExecution(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	env, err := w.projects.CreateEnvironment(w.ctx, w.org, w.project.ID, project.EnvironmentDraft{Name: "staging", Variables: map[string]string{"who": "environment", "path": "env"}})
	require.NoError(t, err)
	step := `{"request": {"method": "GET", "url": "` + w.target.URL + `/{{path}}", "headers": {"X-Who": "{{who}}"}},
		"captures": [{"name": "heard", "source": "jsonpath", "property": "$.who"}]},
		{"request": {"method": "GET", "url": "` + w.target.URL + `/{{heard}}"}}`
	test := w.test(t, step, `"environmentId": "`+env.ID.String()+`"`)
	heard := func(in run.StartInput) (string, run.Run) {
		r := w.begin(t, test, in)
		end := w.finish(t, r.ID)
		require.Equal(t, run.Passed, end.Status)
		body, err := w.StepResponse(w.ctx, w.org, r.ID, 1, 0, 0)
		require.NoError(t, err)
		var got struct{ Path string }
		require.NoError(t, json.Unmarshal(body.Body, &got))
		return got.Path, end
	}
	who, first := heard(run.StartInput{})
	assert.Equal(t, "/environment", who)
	assert.Equal(t, env.ID, first.EnvironmentID)
	who, second := heard(run.StartInput{Variables: map[string]string{"who": "execution"}})
	assert.Equal(t, "/execution", who)

	changed := "changed"
	_, err = w.projects.UpdateEnvironment(w.ctx, w.org, w.project.ID, env.ID, project.EnvironmentPatch{Variables: map[string]*string{"who": &changed}}, nil)
	require.NoError(t, err)
	who, _ = heard(run.StartInput{})
	assert.Equal(t, "/changed", who)

	again, err := w.Rerun(w.ctx, w.org, second.ID)
	require.NoError(t, err)
	assert.Equal(t, run.TriggerRerun, again.Trigger)
	assert.Equal(t, second.ID, again.RerunOf)
	w.finish(t, again.ID)
	d, err := w.Get(w.ctx, w.org, again.ID)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"who": "execution"}, d.Variables)
	again, err = w.Rerun(w.ctx, w.org, first.ID)
	require.NoError(t, err)
	w.finish(t, again.ID)
	d, err = w.Get(w.ctx, w.org, again.ID)
	require.NoError(t, err)
	assert.JSONEq(t, `"environment"`, string(d.Steps[0].Captures[0].Value), "a rerun has the environment as it was")

	_, err = w.tests.Patch(w.ctx, w.org, test.ID, json.RawMessage(`{"steps": [`+w.get("/broken")+`]}`), nil)
	require.NoError(t, err)
	again, err = w.Rerun(w.ctx, w.org, first.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, again.Revision)
	assert.Equal(t, run.Passed, w.finish(t, again.ID).Status, "a rerun has the revision as it was")
	none := uuid.Nil
	assert.Equal(t, run.Failed, w.finish(t, w.begin(t, test, run.StartInput{EnvironmentID: &none}).ID).Status, "an execution has the newest")

	_, err = w.tests.Delete(w.ctx, w.org, test.ID, nil)
	require.NoError(t, err)
	_, err = w.Rerun(w.ctx, w.org, first.ID)
	assert.Equal(t, fault.Conflict, kind(err))
	_, err = w.Start(w.ctx, w.org, test.ID, run.StartInput{})
	assert.Equal(t, fault.NotFound, kind(err))
}

func TestStart_oneRunARegion(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, w.get("/"), `"regions": ["default", "eu"]`)
	runs, err := w.Start(w.ctx, w.org, test.ID, run.StartInput{})
	require.NoError(t, err)
	require.Len(t, runs, 2)
	assert.Equal(t, "eu", runs[1].Region)
	assert.Equal(t, run.Passed, w.finish(t, runs[0].ID).Status)
	d, err := w.Get(w.ctx, w.org, runs[1].ID)
	require.NoError(t, err)
	assert.Equal(t, run.Queued, d.Status, "a region without workers keeps its runs queued")
	eu := w.newWorker(t, "eu")
	w.start(t, eu, map[string]int{"eu": 2}, 0)
	assert.Equal(t, run.Passed, w.finish(t, runs[1].ID).Status)
}

func TestStart_faults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Regions = []string{"default"}
	test := w.test(t, w.get("/"))
	_, err := w.Start(w.ctx, w.org, test.ID, run.StartInput{Variables: map[string]string{"1": "x", "ok": "\x00"}, Regions: []string{"mars"}})
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	assert.Equal(t, fault.Invalid, f.Kind)
	require.Len(t, f.Fields, 3)
	assert.Equal(t, "/regions/0", f.Fields[2].Pointer)
	id := newID()
	_, err = w.Start(w.ctx, w.org, test.ID, run.StartInput{EnvironmentID: &id})
	assert.Equal(t, fault.Invalid, kind(err))
	_, err = w.Start(as(t.Context(), w.org, auth.Viewer), w.org, test.ID, run.StartInput{})
	assert.Equal(t, fault.Forbidden, kind(err))
}

func TestRun_otherOrg_is404(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, w.get("/"))
	r := w.begin(t, test, run.StartInput{})
	w.finish(t, r.ID)
	other := newID()
	ctx := as(t.Context(), other, auth.Admin)
	for name, call := range map[string]func() error{
		"start":    func() error { _, err := w.Start(ctx, other, test.ID, run.StartInput{}); return err },
		"suite":    func() error { _, err := w.StartSuite(ctx, other, w.project.ID, run.SuiteInput{}); return err },
		"get":      func() error { _, err := w.Get(ctx, other, r.ID); return err },
		"get in":   func() error { _, err := w.Get(ctx, w.org, r.ID); return err },
		"events":   func() error { _, err := w.Events(ctx, other, r.ID); return err },
		"cancel":   func() error { _, err := w.Cancel(ctx, other, r.ID); return err },
		"rerun":    func() error { _, err := w.Rerun(ctx, other, r.ID); return err },
		"response": func() error { _, err := w.StepResponse(ctx, other, r.ID, 0, 1, 0); return err },
	} {
		assert.Equal(t, fault.NotFound, kind(call()), name)
	}
	runs, _, err := w.List(ctx, other, run.Filter{Limit: 10})
	require.NoError(t, err)
	assert.Empty(t, runs)
	runs, err = w.WaitFinished(ctx, other, []uuid.UUID{r.ID})
	require.NoError(t, err)
	assert.Empty(t, runs)
}

func TestSuite_hasOneVerdict(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	w.test(t, w.get("/a"), `"tags": ["smoke"]`)
	w.test(t, w.get("/b"), `"tags": ["smoke", "slow"]`)
	w.test(t, w.get("/broken"), `"tags": ["broken"]`)
	verdict := func(tags ...string) (run.Status, int) {
		suite, err := w.StartSuite(w.ctx, w.org, w.project.ID, run.SuiteInput{Tags: tags})
		require.NoError(t, err)
		assert.Equal(t, run.Queued, suite.Verdict)
		assert.Positive(t, suite.Position)
		for _, r := range suite.Runs {
			assert.Equal(t, run.TriggerSuite, r.Trigger)
			w.finish(t, r.ID)
		}
		got, err := w.GetSuite(w.ctx, w.org, suite.ID)
		require.NoError(t, err)
		return got.Verdict, len(got.Runs)
	}
	status, n := verdict("smoke")
	assert.Equal(t, run.Passed, status)
	assert.Equal(t, 2, n)
	status, n = verdict()
	assert.Equal(t, run.Failed, status)
	assert.Equal(t, 3, n)
	_, err := w.StartSuite(w.ctx, w.org, w.project.ID, run.SuiteInput{Tags: []string{"absent"}})
	assert.Equal(t, fault.Conflict, kind(err))
	_, err = w.GetSuite(w.ctx, w.org, newID())
	assert.Equal(t, fault.NotFound, kind(err))
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	of := func(list ...run.Status) run.Status {
		runs := make([]run.Run, len(list))
		for i, s := range list {
			runs[i].Status = s
		}
		return run.Verdict(runs)
	}
	assert.Equal(t, run.Passed, of())
	assert.Equal(t, run.Queued, of(run.Queued, run.Queued))
	assert.Equal(t, run.Running, of(run.Failed, run.Queued))
	assert.Equal(t, run.Failed, of(run.Passed, run.Errored, run.Failed, run.Inconclusive))
	assert.Equal(t, run.Errored, of(run.Passed, run.Errored, run.Inconclusive))
	assert.Equal(t, run.Inconclusive, of(run.Passed, run.Inconclusive, run.Canceled))
	assert.Equal(t, run.Canceled, of(run.Passed, run.Canceled))
}

func TestList_filtersAndPages(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	good, bad := w.test(t, w.get("/")), w.test(t, w.get("/broken"))
	var ids []uuid.UUID
	for range 3 {
		ids = append(ids, w.begin(t, good, run.StartInput{}).ID, w.begin(t, bad, run.StartInput{}).ID)
	}
	for _, id := range ids {
		w.finish(t, id)
	}
	list := func(f run.Filter) (got []uuid.UUID) {
		f.Limit = 2
		for {
			items, next, err := w.List(w.ctx, w.org, f)
			require.NoError(t, err)
			for _, r := range items {
				got = append(got, r.ID)
			}
			if next == nil {
				return got
			}
			f.After = next
		}
	}
	newest := []uuid.UUID{ids[5], ids[4], ids[3], ids[2], ids[1], ids[0]}
	assert.Equal(t, newest, list(run.Filter{}))
	assert.Equal(t, []uuid.UUID{ids[4], ids[2], ids[0]}, list(run.Filter{TestIDs: []uuid.UUID{good.ID}}))
	assert.Equal(t, []uuid.UUID{ids[5], ids[3], ids[1]}, list(run.Filter{Statuses: []run.Status{run.Failed}}))
	assert.Equal(t, newest, list(run.Filter{
		ProjectIDs: []uuid.UUID{w.project.ID, newID()}, Statuses: []run.Status{run.Failed, run.Passed}, Triggers: []run.Trigger{run.TriggerManual}, Regions: []string{"default"},
	}))
	assert.Empty(t, list(run.Filter{Regions: []string{"eu"}}))
	third, err := w.Get(w.ctx, w.org, ids[2])
	require.NoError(t, err)
	assert.Equal(t, newest[:4], list(run.Filter{From: third.RequestedAt}))
	assert.Equal(t, newest[4:], list(run.Filter{To: third.RequestedAt}))
}
