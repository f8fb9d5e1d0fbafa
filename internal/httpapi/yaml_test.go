package httpapi_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestYAML_isTakenForDefinitions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	project := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Yams"}`})
	require.Equal(t, 201, project.status, project.text)
	yaml := map[string]string{"Content-Type": "application/yaml"}
	text := "projectId: " + project.id() + `
name: Read a pet
steps:
  - request: {method: GET, url: "https://pets.example/1"}
    assertions:
      - {source: status, operator: equals, expected: 200} # found
`
	made := w.do(call{method: "POST", path: "/api/tests", as: "developer-a", body: text, header: yaml})
	require.Equal(t, 201, made.status, made.text)
	assert.Equal(t, "Read a pet", made.json["name"])
	checked := w.do(call{method: "POST", path: "/api/tests/validate", as: "developer-a", body: text + "retries: 3\n", header: yaml})
	require.Equal(t, 200, checked.status, checked.text)
	assert.Contains(t, checked.text, `"/retries"`)
	for name, body := range map[string]string{"alias": "a: &a 1\nb: *a\n", "twice": text + "name: again\n", "no YAML": "a: [", "two documents": text + "---\n" + text} {
		got := w.do(call{method: "POST", path: "/api/tests", as: "developer-a", body: body, header: yaml})
		assert.Equal(t, 400, got.status, "%s: %s", name, got.text)
	}
	assert.Equal(t, 415, w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: "name: x\n", header: yaml}).status)
}
