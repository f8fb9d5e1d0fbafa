package httpapi_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReevaluate_overTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	target := pets(t)
	test := w.makeTest("admin-a", target.URL, "/pets")
	started := w.do(call{method: "POST", path: "/api/tests/" + test.id() + "/execute", as: "developer-a", header: map[string]string{"Prefer": "wait=20"}})
	require.Equal(t, 200, started.status, started.text)
	first, _ := started.json["runs"].([]any)[0].(map[string]any)
	path := "/api/runs/" + first["id"].(string) + "/reevaluate"

	same := w.do(call{method: "POST", path: path, as: "viewer-a"})
	require.Equal(t, 200, same.status, same.text)
	assert.Equal(t, "passed", same.json["status"])
	assert.Equal(t, false, same.json["flipped"])

	strict := `{"steps": [{"step": 0, "assertions": [{"source": "jsonpath", "property": "$.name", "operator": "equals", "expected": "Max"},
		{"source": "reason", "operator": "equals", "expected": "Created", "severity": "soft"}]}]}`
	got := w.do(call{method: "POST", path: path, as: "viewer-a", body: strict})
	require.Equal(t, 200, got.status, got.text)
	assert.Equal(t, "passed", got.json["recordedStatus"])
	assert.Equal(t, "failed", got.json["status"])
	assert.Equal(t, true, got.json["flipped"])
	step, _ := got.json["steps"].([]any)[0].(map[string]any)
	assert.Equal(t, "create", step["name"])
	verdicts, _ := step["assertions"].([]any)
	require.Len(t, verdicts, 2)
	assert.Equal(t, "Rex", verdicts[0].(map[string]any)["actual"])
	assert.Equal(t, true, verdicts[1].(map[string]any)["undecided"])

	many := w.do(call{method: "POST", path: "/api/tests/" + test.id() + "/reevaluate", as: "viewer-a", body: strict})
	require.Equal(t, 200, many.status, many.text)
	assert.InDelta(t, 1, many.json["judged"], 0)
	assert.InDelta(t, 1, many.json["flipped"], 0)
	assert.Equal(t, false, many.json["partial"])
	one, _ := many.json["items"].([]any)[0].(map[string]any)
	failure, _ := one["firstFailure"].(map[string]any)
	assert.Equal(t, "create", failure["name"])
	assert.Contains(t, failure["message"], "$.name")

	bad := w.do(call{method: "POST", path: path, as: "viewer-a", body: `{"steps": [{"step": 7, "assertions": [{"source": "stattus", "operator": "equals"}]}, {"step": 0, "assertions": [{"source": "stattus"}], "x": 1}], "y": 2}`})
	require.Equal(t, 422, bad.status, bad.text)
	for _, pointer := range []string{"/steps/0/step", "/steps/1/assertions/0/source", "/steps/1/assertions/0/operator", "/steps/1/x", "/y"} {
		assert.Contains(t, bad.text, `"`+pointer+`"`)
	}
	assert.Equal(t, 404, w.do(call{method: "POST", path: path, as: "admin-b"}).status)
	assert.Equal(t, 401, w.do(call{method: "POST", path: path}).status)
}
