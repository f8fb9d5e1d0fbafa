package httpapi_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is refused says what would be right.
func TestRefusals_sayWhatIsRight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(call{method: "POST", path: "/api/api-keys", as: "admin-a", body: `{"name": "CI", "scopes": ["test.read"]}`})
	require.Equal(t, 201, made.status, made.text)
	rotate := "/api/api-keys/" + made.id() + "/rotate"
	for _, c := range []struct {
		call
		status int
		text   string
	}{
		{call{method: "GET", path: "/api/audit/events/abc/proof"}, 404, "position must be a whole number"},
		{call{method: "GET", path: "/api/audit/events/0/proof"}, 404, "position must be at least 1"},
		{call{method: "DELETE", path: "/api/auth/sessions/abc"}, 404, "id must be a UUID"},
		{call{method: "POST", path: rotate, body: `{"overlap": "-1s"}`}, 422, "for example 24h"},
		{call{method: "POST", path: rotate, body: `{"overlap": "169h"}`}, 422, "between 0s and 168h\""},
		{call{method: "POST", path: "/api/api-keys", body: `{"name": "CI", "scopes": []}`}, 422, "at least 1 item\""},
		{call{method: "POST", path: "/api/projects", body: strings.Repeat("[", 100_000)}, 422, "must not nest deeper than"},
		{call{method: "GET", path: "/api/projects", header: map[string]string{"X-API-Key": "tf_x"}}, 401, `"auth.two_credentials"`},
	} {
		c.as = "admin-a"
		got := w.do(c.call)
		assert.Equal(t, c.status, got.status, "%s %s: %s", c.method, c.path, got.text)
		assert.Contains(t, got.text, c.text, "%s %s", c.method, c.path)
	}
}
