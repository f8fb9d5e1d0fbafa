package executor_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/testspec"
)

// The two benchmarks talk to the same kind of target in the same process: a keep-alive GET of a small JSON document.
// BenchmarkRun has one step with three assertions, BenchmarkBareClient reads and decodes in a loop of net/http.

func petServer(b *testing.B) *httptest.Server {
	b.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, targettest.Pet)
	}))
	b.Cleanup(srv.Close)
	return srv
}

func BenchmarkRun(b *testing.B) {
	srv := petServer(b)
	e := executor.New(executor.Config{Guard: loopback(b), Now: time.Now})
	b.Cleanup(e.Close)
	spec := mustRead(b, `{"steps":[{"request":{"method":"GET","url":"{{base}}/pets/1"},"assertions":[
		{"source":"status","operator":"equals","expected":200},
		{"source":"jsonpath","property":"$.id","operator":"isInteger"},
		{"source":"responseTime","operator":"lessThan","expected":5000,"severity":"soft"}]}]}`)
	in := executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: spec, Environment: map[string]string{"base": srv.URL}}
	b.ReportAllocs()
	for b.Loop() {
		if r := e.Run(context.Background(), in, nil); r.Status != executor.Passed {
			b.Fatal(r.Error)
		}
	}
}

func BenchmarkBareClient(b *testing.B) {
	srv := petServer(b)
	client := &http.Client{Transport: &http.Transport{}}
	b.Cleanup(client.CloseIdleConnections)
	b.ReportAllocs()
	for b.Loop() {
		ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/pets/1", nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
		stop()
		var doc map[string]any
		if err := json.Unmarshal(body, &doc); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead is what a worker pays to read a stored spec.
func BenchmarkRead(b *testing.B) {
	data := []byte(`{"steps":[{"request":{"method":"GET","url":"http://a.example/pets/1"},"assertions":[
		{"source":"status","operator":"equals","expected":200},
		{"source":"jsonpath","property":"$.id","operator":"isInteger"},
		{"source":"responseTime","operator":"lessThan","expected":5000,"severity":"soft"}]}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := testspec.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
