package executor_test

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/testspec"
)

// TestRun_generatedValues: each occurrence has a value of its own, a variable's is made once; a run can be repeated with
// the values that it had, another attempt has others, and a seed makes all runs alike.
func TestRun_generatedValues(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	const steps = `"variables":{"id":"{{$uuid}}"},"steps":[
		{"request":{"method":"POST","url":"{{base}}/echo?a={{$randomString}}","query":{"q":"{{id}}"},
			"headers":{"X-B":"{{$randomHex}}","X-A":"{{$randomHex}}","X-C":"{{$randomHex}}"},
			"body":{"json":{"n":"{{$randomInt(1,1000000)}}","id":"{{id}}","yes":"{{$boolean}}"}}},
		 "assertions":[
			{"source":"jsonpath","property":"$.body","operator":"matches","expected":"^\\{\"id\":\"[0-9a-f-]{36}\",\"n\":[0-9]+,\"yes\":(true|false)\\}$"}],
		 "captures":[{"name":"all","source":"body"}]}]`
	draw := func(spec testspec.Spec, id uuid.UUID, attempt int) string {
		t.Helper()
		r := e.Run(context.Background(), executor.Input{RunID: id, Attempt: attempt, Spec: spec, Environment: names(target)}, nil)
		if r.Status != executor.Passed {
			t.Fatal(r.Error)
		}
		return string(r.Captures[0].Value)
	}
	free, seeded := mustRead(t, `{`+steps+`}`), mustRead(t, `{"seed":42,`+steps+`}`)
	id := uuid.New()
	first := draw(free, id, 1)
	for range 5 {
		if again := draw(free, id, 1); again != first {
			t.Fatalf("the same attempt has other values:\n%s\n%s", first, again)
		}
	}
	if draw(free, id, 2) == first || draw(free, uuid.New(), 1) == first {
		t.Error("another attempt has the same values")
	}
	if draw(seeded, uuid.New(), 1) != draw(seeded, uuid.New(), 3) {
		t.Error("a seed gives other values in another run")
	}
}
