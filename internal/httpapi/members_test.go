package httpapi_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMembers_overHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	members := "/api/organizations/" + w.orgA.String() + "/members"
	list := w.do(call{method: "GET", path: members, as: "admin-a"})
	require.Equal(t, 200, list.status, list.text)
	ids := map[string]string{}
	items, _ := list.json["items"].([]any)
	for _, item := range items {
		m, _ := item.(map[string]any)
		role, _ := m["role"].(string)
		ids[role], _ = m["userId"].(string)
	}
	require.Len(t, ids, 4, list.text)
	set := func(who, role, to string) answer {
		return w.do(call{method: "PATCH", path: members + "/" + ids[role], as: who, body: `{"role":"` + to + `"}`})
	}
	remove := func(who, role string) answer {
		return w.do(call{method: "DELETE", path: members + "/" + ids[role], as: who})
	}
	assert.Equal(t, 403, set("developer-a", "viewer", "developer").status)
	assert.Equal(t, 403, set("manager-a", "admin", "viewer").status, "nobody changes those above")
	assert.Equal(t, 403, set("manager-a", "viewer", "admin").status, "nor gives more than they have")
	assert.Equal(t, 404, set("admin-b", "viewer", "admin").status)
	assert.Equal(t, 409, set("admin-a", "admin", "viewer").status, "the last admin")
	assert.Equal(t, 422, set("admin-a", "viewer", "owner").status)
	changed := set("manager-a", "viewer", "developer")
	require.Equal(t, 200, changed.status, changed.text)
	assert.Equal(t, "developer", changed.json["role"])
	assert.NotEmpty(t, changed.header.Get("X-Event-Position"))

	assert.Equal(t, 403, remove("developer-a", "manager").status)
	assert.Equal(t, 404, remove("admin-b", "manager").status)
	assert.Equal(t, 409, remove("admin-a", "admin").status)
	assert.Equal(t, 204, remove("viewer-a", "viewer").status, "everybody may leave")
	assert.Equal(t, 404, w.do(call{method: "GET", path: members, as: "viewer-a"}).status, "and is a stranger at once")
	assert.Equal(t, 404, remove("admin-a", "viewer").status)
	assert.Equal(t, 204, remove("admin-a", "manager").status)
}
