package httpapi_test

import (
	"net/http"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestExplain_saysWhatHappens asks of every role about every operation, and compares with what the door lets in.
func TestExplain_saysWhatHappens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	walk(func(_, _ string, op *openapi3.Operation) {
		permission, _ := op.Extensions["x-permission"].(string)
		for _, who := range roles() {
			a := w.do(call{method: http.MethodGet, path: "/api/permissions/explain?operation=" + op.OperationID, as: string(who) + "-a"})
			require.Equal(t, 200, a.status, a.text)
			want := permission == "self" || who.May(permissionOf(permission))
			assert.Equal(t, want, a.json["allowed"], "%s %s: %s", who, op.OperationID, a.text)
			assert.Equal(t, permission, a.json["permission"])
			if want {
				assert.NotContains(t, a.json, "decidedBy")
			} else {
				assert.Equal(t, "role", a.json["decidedBy"])
			}
		}
	})
}

// In an organization that is going to be deleted a leaked key can be revoked, and none is made.
func TestExplain_frozenLetsAccessBeTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := w.do(call{method: http.MethodDelete, path: "/api/organizations/" + w.orgOf("admin-a").String(), as: "admin-a"})
	require.Less(t, gone.status, 300, gone.text)
	for operation, allowed := range map[string]bool{"revokeApiKey": true, "revokeInvitation": true, "removeMember": true, "createApiKey": false, "createInvitation": false} {
		a := w.do(call{method: http.MethodGet, path: "/api/permissions/explain?operation=" + operation, as: "admin-a"})
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, allowed, a.json["allowed"], a.text)
	}
	none := "/api/api-keys/01981a52-6a7e-7cc1-9df0-3fb7e25c0a11"
	assert.Equal(t, 404, w.do(call{method: http.MethodDelete, path: none, as: "admin-a"}).status)
	assert.Equal(t, 409, w.do(call{method: http.MethodPost, path: "/api/api-keys", as: "admin-a", body: `{"name":"x","scopes":["read"]}`}).status)
}

func TestExplain_ofOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(as, query string) answer {
		return w.do(call{method: http.MethodGet, path: "/api/permissions/explain?" + query, as: as})
	}
	a := ask("admin-a", "permission=test.write&userId="+w.users["viewer-a"].String())
	require.Equal(t, 200, a.status, a.text)
	require.Equal(t, false, a.json["allowed"])
	require.Equal(t, "role", a.json["decidedBy"])
	require.Contains(t, a.text, "viewer-a has the role viewer, but test.write takes at least developer.")
	require.Contains(t, a.text, `"roles":["admin","manager","developer"]`)

	// Of a stranger it says that they are none, and not whether there is such a person.
	for _, id := range []string{w.users["viewer-b"].String(), newID().String()} {
		a = ask("viewer-a", "permission=org.read&userId="+id)
		require.Equal(t, 200, a.status, a.text)
		require.Equal(t, "membership", a.json["decidedBy"])
		require.NotContains(t, a.text, "viewer-b")
	}
	a = ask("admin-a", "operation=eraseMe&userId="+newID().String())
	require.Equal(t, false, a.json["allowed"], a.text)
	require.Equal(t, "membership", a.json["decidedBy"])
	require.NotContains(t, a.text, "signed in")
	a = ask("admin-a", "operation=eraseMe")
	require.Equal(t, true, a.json["allowed"], a.text)
	require.Contains(t, a.text, "They are the only admin of this one.")
	require.NotContains(t, ask("viewer-a", "operation=eraseMe").text, "They are the only admin of this one.")
	a = ask("admin-a", "permission=org.manage")
	require.Equal(t, true, a.json["allowed"])
	require.Contains(t, a.text, "As the last admin")

	made := w.do(call{method: http.MethodPost, path: "/api/api-keys", as: "admin-a", body: `{"name": "CI", "scopes": ["test.read"]}`})
	require.Equal(t, 201, made.status, made.text)
	a = ask("manager-a", "permission=test.write&apiKeyId="+made.id())
	require.Equal(t, 200, a.status, a.text)
	require.Equal(t, "scope", a.json["decidedBy"])
	require.Contains(t, a.text, " is good.")
	require.NotContains(t, a.text, "is signed in")
	require.Contains(t, a.text, "Its scopes lack test.write")
	require.Equal(t, 403, ask("viewer-a", "permission=test.write&apiKeyId="+made.id()).status, "it takes key.read")
	require.Equal(t, 404, ask("admin-b", "permission=test.write&apiKeyId="+made.id()).status)
	require.Equal(t, 404, ask("admin-a", "permission=test.write&apiKeyId="+newID().String()).status)
	require.Equal(t, 204, w.do(call{method: http.MethodDelete, path: "/api/api-keys/" + made.id(), as: "admin-a"}).status)
	a = ask("manager-a", "permission=test.read&apiKeyId="+made.id())
	require.Equal(t, "credential", a.json["decidedBy"])
	require.Contains(t, a.text, "was revoked")

	gone := w.do(call{method: http.MethodDelete, path: "/api/organizations/" + w.orgA.String(), as: "admin-a"})
	require.Equal(t, 202, gone.status, gone.text)
	a = ask("admin-a", "operation=createTest")
	require.Equal(t, "active", a.json["decidedBy"], a.text)
	require.Equal(t, true, ask("admin-a", "operation=restoreOrganization").json["allowed"])

	for query, parameter := range map[string]string{
		"": "permission", "permission=test.read&operation=createTest": "permission", "permission=no.such": "permission", "operation=noSuch": "operation",
		"permission=test.read&userId=" + newID().String() + "&apiKeyId=" + newID().String(): "apiKeyId",
	} {
		a := ask("admin-a", query)
		require.Equal(t, 422, a.status, query)
		require.Contains(t, a.faults(), parameter, query)
	}
}
