package executor_test

import (
	"testing"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// TestRun_schemasAndExpressions: what the test carries reaches the judging of a response: its schemas, its variables.
func TestRun_schemasAndExpressions(t *testing.T) {
	target := targettest.New(t)
	o := run(t, newEngine(t, target), target, `{
		"schemas":{"echo":{"type":"object","required":["method","body"],"properties":{"method":{"const":"POST"},"length":{"$ref":"schemas/count"}}},"count":{"type":"integer","minimum":1}},
		"variables":{"wanted":"2"},
		"steps":[{"request":{"method":"POST","url":"{{base}}/echo","body":{"text":"hi"}},
		"captures":[{"name":"size","source":"expression","property":"json.length * 2"}],
		"assertions":[
			{"source":"jsonSchema","operator":"matchesSchema","expected":{"$ref":"schemas/echo"}},
			{"source":"jsonSchema","operator":"matchesSchema","expected":{"properties":{"length":{"maximum":1}}},"severity":"soft"},
			{"source":"expression","property":"json.length == int(vars.wanted) && status == 200 && headers[\"content-type\"] startsWith \"application/json\"","operator":"equals","expected":true},
			{"source":"jsonpath","property":"$[?match(@, 'hi|PO.*')]","operator":"equals","expected":["hi","POST"]}]}]}`)
	if o.Status != executor.Passed || o.SoftFailed != 1 || len(o.Captures) != 1 || string(o.Captures[0].Value) != "4" {
		t.Fatalf("%+v %+v", o.Error, o.verdicts)
	}
	const want = `Expected the body to match the schema {"properties":{"length":{"maximum":1}}}, but /length: it is 2, which is more than 1 (maximum).`
	if got := o.verdicts[1].Message; got != want {
		t.Errorf("%s", got)
	}
}
