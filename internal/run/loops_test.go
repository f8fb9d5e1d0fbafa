package run_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/run"
)

// A run that is canceled still cleans up, and says so.
func TestCancel_executesTheTeardown(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	r := w.begin(t, w.test(t, w.get("/held")+`,`+w.get("/a"), `"teardown": [`+w.step("DELETE", "/clean")+`]`), run.StartInput{})
	w.held(t)
	_, err := w.Cancel(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.Equal(t, run.Canceled, w.finish(t, r.ID).Status)
	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.Len(t, d.Steps, 3)
	assert.Equal(t, "teardown", d.Steps[2].Phase)
	assert.Equal(t, run.StepPassed, d.Steps[2].Status)
	assert.Equal(t, run.StepSkipped, d.Steps[1].Status)
	assert.Equal(t, run.Counts{Steps: 2, StepsFailed: 1, StepsSkipped: 1, Assertions: 3, ResponseBytes: d.Counts.ResponseBytes}, d.Counts)
}

// Every iteration is written, in order and once, while the run goes on; what one came to can be read.
func TestRun_manyIterations(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	step := `{"repeat": 1000, "request": {"method": "GET", "url": "` + w.target.URL + `/{{$index}}"}, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}`
	r := w.finish(t, w.begin(t, w.test(t, step), run.StartInput{}).ID)
	require.Equal(t, run.Passed, r.Status)
	assert.Equal(t, 1000, r.Counts.Steps)
	assert.Equal(t, 1000, r.Counts.Assertions)
	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.Len(t, d.Steps, 1000)
	for i, s := range d.Steps {
		require.Equal(t, i, s.Iteration)
		require.Len(t, s.Assertions, 1)
	}
	events, err := w.Events(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	require.Len(t, events, 2004) // requested, started, a thousand of each, the attempt's end and the run's
	body, err := w.StepResponse(w.ctx, w.org, r.ID, 0, 1, 999)
	require.NoError(t, err)
	assert.Contains(t, string(body.Body), `"/999"`)
}
