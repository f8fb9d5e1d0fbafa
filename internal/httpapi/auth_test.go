package httpapi_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAuth_fromRegistrationToLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.do(call{method: "POST", path: "/api/auth/register", body: `{"email":"ada@example.com","password":"` + password + `","name":"Ada","organizationName":"Engines"}`})
	require.Equal(t, 201, in.status, in.text)
	assert.Equal(t, "Bearer", in.json["tokenType"])
	assert.InDelta(t, 900, in.json["expiresIn"], 0)
	assert.Equal(t, "no-store", in.header.Get("Cache-Control"))

	again := w.do(call{method: "POST", path: "/api/auth/register", body: `{"email":"ada@example.com","password":"` + password + `","name":"Ada"}`})
	assert.Equal(t, 409, again.status, again.text)
	wrong := w.do(call{method: "POST", path: "/api/auth/login", body: `{"email":"ada@example.com","password":"not that one"}`})
	assert.Equal(t, 401, wrong.status, wrong.text)
	assert.NotContains(t, wrong.text, "not that one")
	login := w.do(call{method: "POST", path: "/api/auth/login", body: `{"email":"ada@example.com","password":"` + password + `"}`})
	require.Equal(t, 200, login.status, login.text)

	token, _ := login.json["accessToken"].(string)
	me := w.do(call{method: "GET", path: "/api/auth/me", as: token})
	require.Equal(t, 200, me.status, me.text)
	assert.Equal(t, "admin", me.json["role"])
	assert.Len(t, me.json["organizations"], 1)
	assert.NotEmpty(t, me.json["permissions"])

	refresh, _ := login.json["refreshToken"].(string)
	renewed := w.do(call{method: "POST", path: "/api/auth/refresh", body: `{"refreshToken":"` + refresh + `"}`})
	require.Equal(t, 200, renewed.status, renewed.text)
	assert.Equal(t, 401, w.do(call{method: "POST", path: "/api/auth/refresh", body: `{"refreshToken":"nonsense"}`}).status)

	out := w.do(call{method: "POST", path: "/api/auth/logout", as: token})
	assert.Equal(t, 204, out.status, out.text)
	assert.Equal(t, 401, w.do(call{method: "GET", path: "/api/auth/me", as: token}).status)
	for _, secret := range []string{password, token, refresh} {
		assert.NotContains(t, w.log.String(), secret)
	}
}

func TestOrganizations_overHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(call{method: "POST", path: "/api/organizations", as: "admin-a", body: `{"name":"Second"}`, header: map[string]string{"Idempotency-Key": "o-1"}})
	require.Equal(t, 201, made.status, made.text)
	again := w.do(call{method: "POST", path: "/api/organizations", as: "admin-a", body: `{"name":"Second"}`, header: map[string]string{"Idempotency-Key": "o-1"}})
	assert.Equal(t, made.text, again.text)

	list := w.do(call{method: "GET", path: "/api/organizations", as: "admin-a"})
	require.Equal(t, 200, list.status, list.text)
	assert.Len(t, list.json["items"], 2)
	page := w.do(call{method: "GET", path: "/api/organizations?limit=1", as: "admin-a"})
	cursor, _ := page.json["nextCursor"].(string)
	require.NotEmpty(t, cursor)
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/organizations?cursor=" + cursor, as: "admin-a"}).status)
	assert.Equal(t, 422, w.do(call{method: "GET", path: "/api/organizations?cursor=" + cursor, as: "admin-b"}).status)

	path := made.header.Get("Location")
	got := w.do(call{method: "GET", path: path, as: "admin-a"})
	require.Equal(t, 200, got.status, got.text)
	renamed := w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"name":"Third"}`, header: map[string]string{"If-Match": got.header.Get("ETag")}})
	require.Equal(t, 200, renamed.status, renamed.text)
	assert.Equal(t, "Third", renamed.json["name"])
	assert.Equal(t, 412, w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"name":"Fourth"}`, header: map[string]string{"If-Match": got.header.Get("ETag")}}).status)
	assert.Equal(t, 404, w.do(call{method: "GET", path: path, as: "admin-b"}).status)

	members := w.do(call{method: "GET", path: "/api/organizations/" + w.orgA.String() + "/members", as: "viewer-a"})
	require.Equal(t, 200, members.status, members.text)
	assert.Len(t, members.json["items"], 4)
	first, _ := members.json["items"].([]any)[0].(map[string]any)
	assert.Equal(t, "admin-a", first["name"])
	assert.Equal(t, "admin-a@example.com", first["email"])
	assert.Equal(t, "admin", first["role"])
	assert.Equal(t, 404, w.do(call{method: "GET", path: "/api/organizations/" + w.orgB.String() + "/members", as: "viewer-a"}).status)
	assert.Equal(t, 403, w.do(call{method: "PATCH", path: "/api/organizations/" + w.orgA.String(), as: "manager-a", body: `{"name":"Mine"}`}).status)

	// The header selects among the caller's own, and nothing else.
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: "admin-a", header: map[string]string{"X-Organization-Id": made.id()}}).status)
	assert.Equal(t, 404, w.do(call{method: "GET", path: "/api/projects", as: "admin-a", header: map[string]string{"X-Organization-Id": w.orgB.String()}}).status)
}

func TestRegister_namesAllFaultsInOneAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := w.do(call{method: "POST", path: "/api/auth/register", body: `{"email":"nobody","password":"short","name":7,"organizationName":" ","admin":true}`})
	require.Equal(t, 422, got.status, got.text)
	for _, place := range []string{"/email", "/password", "/name", "/organizationName", "/admin"} {
		require.Contains(t, got.faults(), place, got.text)
	}
}
