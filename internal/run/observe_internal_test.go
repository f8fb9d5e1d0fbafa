package run

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/testspec"
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

func TestObserve_tellsTheCertificateAndHowWasJudged(t *testing.T) {
	t.Parallel()
	ends := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRecorder(ExecuteArgs{Region: "default"}, 1)
	r.observe(executor.StepFinished{Status: executor.Passed, Response: &executor.ResponseSummary{
		TLS:       &executor.TLSSummary{Version: "1.3", Certificate: &executor.CertificateSummary{Subject: "CN=a", Issuer: "CN=b", NotAfter: ends, Fingerprint: "ab"}},
		Redirects: []executor.Redirect{{StatusCode: 302, URL: "http://a/", Location: "http://a/b"}},
	}})
	r.observe(executor.AssertionEvaluated{Verdict: testspec.Verdict{
		Source: "body", Operator: "equals", Quantifier: testspec.QuantifierAll, Filters: []testspec.Filter{{Name: "nth", Argument: json.RawMessage("2")}},
	}})
	events, _ := r.take()
	require.Len(t, events, 2)
	text, err := json.Marshal([]any{events[0].Data, events[1].Data})
	require.NoError(t, err)
	assert.Contains(t, string(text), `"certificate":{"subject":"CN=a","issuer":"CN=b","notBefore":"0001-01-01T00:00:00Z","notAfter":"2027-01-01T00:00:00Z","fingerprint":"ab"}`)
	assert.Contains(t, string(text), `"location":"http://a/b"`)
	assert.Contains(t, string(text), `"filters":[{"nth":2}],"quantifier":"all"`)
}
