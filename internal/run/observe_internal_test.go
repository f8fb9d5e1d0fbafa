package run

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/executor"
)

func TestObserve_credentialsThatAStepKeptAreMasked(t *testing.T) {
	t.Parallel()
	r := newRecorder(ExecuteArgs{Region: "default"}, 1)
	r.observe(executor.StepFinished{Status: executor.Passed, Captures: []executor.Captured{
		{Name: "token", Value: json.RawMessage(`"TFCANARY"`), Hidden: true},
		{Name: "petId", Value: json.RawMessage(`7`)},
	}})
	events, _ := r.take()
	require.Len(t, events, 1)
	text, err := json.Marshal(events[0].Data)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "TFCANARY")
	assert.Contains(t, string(text), `"captures":[{"name":"token","value":"•••"},{"name":"petId","value":7}]`)
}
