package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/httpapi"
)

// key makes an API key as who; rest are further fields of the body, such as `,"rateLimit":5`.
func (w *world) key(who, scopes, rest string) (id, key string) {
	w.t.Helper()
	made := w.do(call{method: "POST", path: "/api/api-keys", as: who, body: `{"name":"key","scopes":` + scopes + rest + `}`})
	require.Equal(w.t, 201, made.status, made.text)
	key, _ = made.json["key"].(string)
	require.Len(w.t, key, 75)
	return made.id(), key
}

func scopeList(list ...auth.Permission) string {
	raw, err := json.Marshal(list)
	if err != nil {
		panic(err) // texts always encode
	}
	return string(raw)
}

func TestApiKeys_lifeOfOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(call{method: "POST", path: "/api/api-keys", as: "manager-a", body: `{"name":"CI","scopes":["read","run.execute"],"expiresAt":null,"allowedAddresses":["127.0.0.1","2001:db8::/48"],"rateLimit":5}`})
	require.Equal(t, 201, made.status, made.text)
	key, _ := made.json["key"].(string)
	path := "/api/api-keys/" + made.id()
	require.Equal(t, path, made.header.Get("Location"))
	require.Equal(t, "manager", made.json["role"])
	require.NotContains(t, made.json, "expiresAt")
	require.Equal(t, []any{"127.0.0.1/32", "2001:db8::/48"}, made.json["allowedAddresses"])

	for _, c := range []call{{header: map[string]string{"X-API-Key": key}}, {as: key}, {as: key, header: map[string]string{"X-Organization-Id": w.orgA.String()}}} {
		c.method, c.path = "GET", "/api/projects"
		require.Equal(t, 200, w.do(c).status)
	}
	require.NoError(t, w.deps.Orgs.FlushKeyUses(t.Context()))
	got := w.do(call{method: "GET", path: path, as: "manager-a"})
	require.Equal(t, "active", got.json["status"])
	require.Equal(t, "127.0.0.1", got.json["lastAddress"])
	require.NotContains(t, got.json, "key")
	usage := w.do(call{method: "GET", path: path + "/usage", as: "manager-a"})
	require.InDelta(t, 3, usage.json["requests"], 0)
	require.Equal(t, []any{map[string]any{"day": time.Now().UTC().Format(time.DateOnly), "route": "GET /api/projects", "requests": 3.0, "refused": 0.0}}, usage.json["items"])

	changed := w.do(call{method: "PATCH", path: path, as: "manager-a", body: `{"name":"CI of main","rateLimit":null,"expiresAt":"2099-01-01T00:00:00Z","allowedAddresses":[]}`, header: map[string]string{"If-Match": made.header.Get("ETag")}})
	require.Equal(t, 200, changed.status, changed.text)
	require.NotContains(t, changed.json, "rateLimit")
	require.Equal(t, "2099-01-01T00:00:00.000Z", changed.json["expiresAt"])
	stale := w.do(call{method: "PATCH", path: path, as: "manager-a", body: `{"name":"x"}`, header: map[string]string{"If-Match": made.header.Get("ETag")}})
	require.Equal(t, 412, stale.status)

	rotated := w.do(call{method: "POST", path: path + "/rotate", as: "manager-a"})
	require.Equal(t, 200, rotated.status, rotated.text)
	second, _ := rotated.json["key"].(string)
	until, err := time.Parse(time.RFC3339, rotated.json["previousUntil"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), until, time.Minute)
	for _, k := range []string{key, second} {
		require.Equal(t, 200, w.do(call{method: "GET", path: "/api/runs", as: k}).status)
	}
	third := w.do(call{method: "POST", path: path + "/rotate", as: "manager-a", body: `{"overlap":"0s"}`})
	require.Equal(t, 200, third.status, third.text)
	require.NotContains(t, third.json, "previousUntil")
	for _, k := range []string{key, second} {
		require.Equal(t, 401, w.do(call{method: "GET", path: "/api/runs", as: k}).status)
	}
	for _, overlap := range []string{"169h", "-1h", "1d", "24", "99999999999999999999h"} {
		require.Equal(t, 422, w.do(call{method: "POST", path: path + "/rotate", as: "manager-a", body: `{"overlap":"` + overlap + `"}`}).status, overlap)
	}
	require.Equal(t, 204, w.do(call{method: "DELETE", path: path, as: "manager-a"}).status)
	last, _ := third.json["key"].(string)
	gone := w.do(call{method: "GET", path: "/api/runs", as: last})
	require.Equal(t, 401, gone.status)
	require.Equal(t, "auth.api_key_revoked", gone.json["code"])
	kept := w.do(call{method: "GET", path: path, as: "manager-a"})
	require.Equal(t, 200, kept.status)
	require.Equal(t, "revoked", kept.json["status"])
	require.NotEmpty(t, kept.json["revokedAt"])
	by, _ := kept.json["revokedBy"].(map[string]any)
	require.Equal(t, "user", by["kind"])
	require.NotEmpty(t, by["id"])
	id := strings.TrimPrefix(path, "/api/api-keys/")
	for query, listed := range map[string]bool{"": false, "?status=active": false, "?status=expired": false, "?status=suspended": false, "?status=revoked": true, "?status=all": true} {
		page := w.do(call{method: "GET", path: "/api/api-keys" + query, as: "manager-a"})
		require.Equal(t, 200, page.status, query)
		require.Equal(t, listed, strings.Contains(fmt.Sprint(page.json["items"]), "id:"+id), query)
	}
	require.Equal(t, 422, w.do(call{method: "GET", path: "/api/api-keys?status=gone", as: "manager-a"}).status)
	require.Equal(t, 200, w.do(call{method: "GET", path: path + "/usage", as: "manager-a"}).status, "what it did can be looked into")
}

func TestApiKeyUsage_days(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, key := w.key("admin-a", `["run.read"]`, "")
	require.Equal(t, 403, w.do(call{method: "GET", path: "/api/projects", as: key}).status)
	require.Equal(t, 404, w.do(call{method: "GET", path: "/api/runs/" + newID().String(), as: key}).status)
	require.Equal(t, 200, w.do(call{method: "GET", path: "/api/runs?limit=1", as: key}).status)
	require.NoError(t, w.deps.Orgs.FlushKeyUses(t.Context()))
	path := "/api/api-keys/" + id + "/usage"
	all := w.do(call{method: "GET", path: path, as: "admin-a"})
	require.InDelta(t, 3, all.json["requests"], 0)
	require.InDelta(t, 2, all.json["refused"], 0)
	var routes []string
	next := path + "?limit=1"
	for {
		page := w.do(call{method: "GET", path: next, as: "admin-a"})
		require.Equal(t, 200, page.status, page.text)
		item, _ := page.json["items"].([]any)[0].(map[string]any)
		routes = append(routes, item["route"].(string))
		cursor, more := page.json["nextCursor"].(string)
		if !more {
			break
		}
		next = path + "?limit=1&cursor=" + cursor
	}
	require.Equal(t, []string{"GET /api/projects", "GET /api/runs", "GET /api/runs/{id}"}, routes, "by template, never by URL")
	require.Empty(t, w.do(call{method: "GET", path: path + "?from=2026-01-01&to=2026-03-01", as: "admin-a"}).json["items"])
	for _, query := range []string{"from=2026-02-01&to=2026-01-01", "from=2026-01-01&to=2026-04-03", "from=yesterday"} {
		require.Equal(t, 422, w.do(call{method: "GET", path: path + "?" + query, as: "admin-a"}).status, query)
	}
}

// A key that may execute and not read is told what it started, not that it failed.
func TestApiKeys_thatMayNotReadDoNotWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	_, key := w.key("admin-a", `["run.execute"]`, "")
	got := w.do(call{method: "POST", path: "/api/tests/" + th["tests"] + "/execute", as: key, header: map[string]string{"Prefer": "wait=5"}})
	require.Equal(t, 202, got.status, got.text)
	require.Empty(t, got.header.Get("Preference-Applied"))
}

// TestAttack_keyScopesByOperations tries every operation with a key of each single scope, and with one that has all but
// the right one: nothing opens but what the document says.
func TestAttack_keyScopesByOperations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	only, but := map[auth.Permission]string{}, map[auth.Permission]string{}
	for _, g := range auth.Grants() {
		_, only[g.Permission] = w.key("admin-a", scopeList(g.Permission), "")
		_, but[g.Permission] = w.key("admin-a", scopeList(auth.ScopesOf(auth.Admin).Without(auth.NewScopes(g.Permission)).List()...), "")
	}
	_, all := w.key("admin-a", `["admin"]`, "")
	// What refuses a key for what it asks, and not for its scope.
	beyond := []any{"api_key.above_yours", "auth.person_required", "org.role_above_yours", "auth.operator_required"}
	walk(func(method, template string, op *openapi3.Operation) {
		permission := auth.Permission(op.Extensions["x-permission"].(string))
		target := th
		if method != http.MethodGet {
			target = th.nowhere() // so that who may does no harm to the next
		}
		ask := func(key string) answer {
			return w.do(call{method: method, path: target.fill(t, template), as: key, body: exampleOf(t, op, target)})
		}
		name := method + " " + template
		if permission == "self" {
			got := ask(all)
			assert.Equal(t, 403, got.status, "%s: what a person does for themselves, no key does: %s", name, got.text)
			assert.Equal(t, "auth.person_required", got.json["code"], name)
			return
		}
		for _, g := range auth.Grants() {
			got := ask(only[g.Permission])
			if g.Permission != permission {
				assert.Equal(t, 403, got.status, "%s with %s alone: %s", name, g.Permission, got.text)
				assert.Equal(t, "auth.scope_missing", got.json["code"], "%s with %s alone", name, g.Permission)
				continue
			}
			if got.status == 403 && slices.Contains(beyond, got.json["code"]) {
				continue
			}
			if op.OperationID == "removeMember" { // people may leave with what the document says; a key removes others, which asks for more
				assert.Equal(t, "auth.scope_missing", got.json["code"], got.text)
				continue
			}
			assert.NotContains(t, []int{401, 403}, got.status, "%s with its scope: %s", name, got.text)
		}
		got := ask(but[permission])
		assert.Equal(t, "auth.scope_missing", got.json["code"], "%s with all but its scope: %s", name, got.text)
	})
}

// TestAttack_keyOfAnotherOrganization: a key opens its own organization alone, whatever header it comes with.
func TestAttack_keyOfAnotherOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	_, key := w.key("admin-b", `["admin"]`, "")
	walk(func(method, template string, op *openapi3.Operation) {
		if op.Extensions["x-permission"] == "self" {
			return
		}
		name := method + " " + template
		c := call{method: method, path: th.fill(t, template), as: key, body: exampleOf(t, op, th)}
		if strings.Contains(template, "{") {
			got := w.do(c)
			assert.Equal(t, 404, got.status, "%s: %s", name, got.text)
		}
		if !strings.HasPrefix(template, "/api/organizations") {
			c.header = map[string]string{"X-Organization-Id": w.orgA.String()}
			got := w.do(c)
			assert.Equal(t, 404, got.status, "%s with the other's header: %s", name, got.text)
			assert.Equal(t, "org.not_found", got.json["code"], name)
		}
	})
}

func TestAttack_keyCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, key := w.key("admin-a", `["read"]`, "")
	stranger, _ := auth.MintKey(newID())
	other, _ := auth.MintKey(uuid.MustParse(id))
	type header = map[string]string
	for name, c := range map[string]struct {
		call   call
		status int
		code   string
	}{
		"as X-API-Key":            {call{header: header{"X-API-Key": key}}, 200, ""},
		"as Bearer":               {call{as: key}, 200, ""},
		"as bearer":               {call{header: header{"Authorization": "bearer " + key}}, 200, ""},
		"both":                    {call{as: "admin-a", header: header{"X-API-Key": key}}, 401, "auth.two_credentials"},
		"both, one empty":         {call{as: key, header: header{"X-API-Key": ""}}, 401, "auth.two_credentials"},
		"Basic":                   {call{header: header{"Authorization": "Basic " + key}}, 401, "auth.token_invalid"},
		"token as X-API-Key":      {call{header: header{"X-API-Key": w.tokens["admin-a"]}}, 401, "auth.api_key_malformed"},
		"empty X-API-Key":         {call{header: header{"X-API-Key": ""}}, 401, "auth.api_key_malformed"},
		"cut":                     {call{as: key[:74]}, 401, "auth.api_key_malformed"},
		"wrong checksum":          {call{as: key[:69] + flip(key[69:])}, 401, "auth.api_key_malformed"},
		"wrong secret":            {call{as: other}, 401, "auth.api_key_unknown"},
		"no such key":             {call{as: stranger}, 401, "auth.api_key_unknown"},
		"other organization":      {call{as: key, header: header{"X-Organization-Id": w.orgB.String()}}, 404, "org.not_found"},
		"no organization":         {call{as: key, header: header{"X-Organization-Id": newID().String()}}, 404, "org.not_found"},
		"in the URL":              {call{path: "/api/projects?key=" + key}, 400, "auth.credential_in_url"},
		"in the URL, by its look": {call{path: "/api/projects?q=" + key, as: key}, 400, "auth.credential_in_url"},
		"in the URL, as a name":   {call{path: "/api/projects?" + key + "=1", as: key}, 400, "auth.credential_in_url"},
		"token in the URL":        {call{path: "/api/projects?access_token=x", as: key}, 400, "auth.credential_in_url"},
		"API-Key in the URL":      {call{path: "/api/projects?X-API-Key=x", as: key}, 400, "auth.credential_in_url"},
		"in the stream's URL":     {call{path: "/api/live?token=" + key}, 400, "auth.credential_in_url"},
	} {
		c.call.method = "GET"
		if c.call.path == "" {
			c.call.path = "/api/projects"
		}
		got := w.do(c.call)
		assert.Equal(t, c.status, got.status, "%s: %s", name, got.text)
		if c.code != "" {
			assert.Equal(t, c.code, got.json["code"], name)
		}
		assert.NotContains(t, got.text, key[30:60], "%s: an answer repeats no secret", name)
	}
	assert.NotContains(t, w.log.String(), key[30:60], "nor does the log")
}

// flip changes the last character to another one.
func flip(s string) string {
	last := "0"
	if strings.HasSuffix(s, "0") {
		last = "1"
	}
	return s[:len(s)-1] + last
}

// TestAttack_keyWithSpoofedAddress: what a client says of its address counts for nothing.
func TestAttack_keyWithSpoofedAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, far := w.key("admin-a", `["read"]`, `,"allowedAddresses":["203.0.113.0/24"]`)
	_, near := w.key("admin-a", `["read"]`, `,"allowedAddresses":["127.0.0.0/8"]`)
	for _, header := range []map[string]string{
		nil,
		{"X-Forwarded-For": "203.0.113.7"},
		{"X-Forwarded-For": "203.0.113.7, 127.0.0.1"},
		{"X-Real-IP": "203.0.113.7"},
		{"Forwarded": "for=203.0.113.7"},
		{"True-Client-IP": "203.0.113.7"},
		{"CF-Connecting-IP": "203.0.113.7"},
		{"X-Client-IP": "203.0.113.7"},
	} {
		got := w.do(call{method: "GET", path: "/api/projects", as: far, header: header})
		assert.Equal(t, 403, got.status, "%v: %s", header, got.text)
		assert.Equal(t, "auth.address_not_allowed", got.json["code"])
		assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: near, header: header}).status, "%v", header)
	}
	// The right secret at the wrong place is news: it may have leaked.
	news := w.do(call{method: "GET", path: "/api/audit/events?type=org.api_key_used_from_new_address", as: "admin-a"})
	items, _ := news.json["items"].([]any)
	require.Len(t, items, 2)
}

// A key's own limit is a lower one: nobody lifts the installation's by writing a large number into a key.
func TestAttack_keyLiftsItsLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, small := w.key("admin-a", `["read"]`, `,"rateLimit":2`)
	_, large := w.key("admin-a", `["read"]`, `,"rateLimit":1000000`)
	_, plain := w.key("admin-a", `["read"]`, "")
	w.limited() // keys have 6
	for key, most := range map[string]int{small: 2, large: 6, plain: 6} {
		passed := 0
		for range 8 {
			if got := w.do(call{method: "GET", path: "/api/projects", as: key}); got.status == 200 {
				passed++
			}
		}
		assert.Equal(t, most, passed)
	}
}

func TestAttack_keyMassAssignment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id, _ := w.key("admin-a", `["read"]`, "")
	for _, field := range []string{
		"orgId", "organizationId", "createdBy", "createdKind", "holderId", "hash", "keyHash", "secretHash", "key", "secret", "label", "role", "status",
		"generation", "version", "revokedAt", "previousUntil", "lastUsedAt", "id", "permissions", "operator", "Scopes", "SCOPES", "expires_at",
	} {
		for _, c := range []call{
			{method: "POST", path: "/api/api-keys", body: `{"name":"k","scopes":["read"],"` + field + `":"admin"}`},
			{method: "PATCH", path: "/api/api-keys/" + id, body: `{"name":"k2","` + field + `":"admin"}`},
			{method: "POST", path: "/api/api-keys/" + id + "/rotate", body: `{"overlap":"1h","` + field + `":"admin"}`},
		} {
			c.as = "admin-a"
			got := w.do(c)
			assert.Equal(t, 422, got.status, "%s %s: %s", c.method, field, got.text)
			assert.Contains(t, got.faults(), "/"+field, "%s", c.method)
		}
	}
	doubled := w.do(call{method: "PATCH", path: "/api/api-keys/" + id, as: "admin-a", body: `{"scopes":["read"],"scopes":["admin"]}`})
	assert.Equal(t, 400, doubled.status/100*100, doubled.text)
	got := w.do(call{method: "GET", path: "/api/api-keys/" + id, as: "admin-a"})
	assert.InDelta(t, 1, got.json["version"], 0, "nothing of it happened")
}

// TestAttack_keyMakesAStrongerOne is what somebody with a stolen key of a CI tries first.
func TestAttack_keyMakesAStrongerOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	strong, _ := w.key("admin-a", `["admin"]`, "")
	id, key := w.key("admin-a", `["key.manage","key.read","run.read"]`, `,"allowedAddresses":["127.0.0.1"],"rateLimit":50`)
	for name, c := range map[string]call{
		"more scopes":          {method: "POST", path: "/api/api-keys", body: `{"name":"k","scopes":["admin"],"allowedAddresses":["127.0.0.1"],"rateLimit":50}`},
		"more addresses":       {method: "POST", path: "/api/api-keys", body: `{"name":"k","scopes":["run.read"],"rateLimit":50}`},
		"more rate":            {method: "POST", path: "/api/api-keys", body: `{"name":"k","scopes":["run.read"],"allowedAddresses":["127.0.0.1"]}`},
		"for ever":             {method: "POST", path: "/api/api-keys", body: `{"name":"k","scopes":["run.read"],"allowedAddresses":["127.0.0.1"],"rateLimit":50,"expiresAt":null}`},
		"widens itself":        {method: "PATCH", path: "/api/api-keys/" + id, body: `{"scopes":["admin"]}`},
		"frees itself":         {method: "PATCH", path: "/api/api-keys/" + id, body: `{"allowedAddresses":[]}`},
		"prolongs itself":      {method: "PATCH", path: "/api/api-keys/" + id, body: `{"expiresAt":null}`},
		"takes a stronger one": {method: "POST", path: "/api/api-keys/" + strong + "/rotate", body: `{"overlap":"0s"}`},
		"bends a stronger one": {method: "PATCH", path: "/api/api-keys/" + strong, body: `{"name":"mine"}`},
	} {
		c.as = key
		got := w.do(c)
		assert.Equal(t, 403, got.status, "%s: %s", name, got.text)
		assert.Equal(t, "api_key.above_yours", got.json["code"], name)
	}
	child := w.do(call{method: "POST", path: "/api/api-keys", as: key, body: `{"name":"k","scopes":["run.read"],"allowedAddresses":["127.0.0.1"],"rateLimit":50}`})
	require.Equal(t, 201, child.status, child.text)
	require.Equal(t, w.users["admin-a"].String(), child.json["holderId"], "the person behind it stays the same")
	require.Equal(t, "apiKey", child.json["createdBy"].(map[string]any)["kind"])
	// With all scopes of an admin it still makes nobody an admin who isn't one: roles are given by people above.
	_, manager := w.key("manager-a", `["manager"]`, "")
	got := w.do(call{method: "PATCH", path: "/api/organizations/" + w.orgA.String() + "/members/" + w.users["viewer-a"].String(), as: manager, body: `{"role":"admin"}`})
	assert.Equal(t, 403, got.status, got.text)
}

// TestAttack_keySecretIsSoughtEverywhere: never in a later answer, an event, an export, the log or the memory of an answer.
func TestAttack_keySecretIsSoughtEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var secrets []string
	send := func(path, body, idempotencyKey string) (key string, replayed bool) {
		got := w.do(call{method: "POST", path: path, as: "admin-a", body: body, header: map[string]string{"Idempotency-Key": idempotencyKey}})
		require.Less(t, got.status, 300, got.text)
		key, _ = got.json["key"].(string)
		return key, got.header.Get("Idempotency-Replayed") == "true"
	}
	made := `{"name":"once","scopes":["read"]}`
	first, replayed := send("/api/api-keys", made, "make-1")
	require.False(t, replayed)
	again, replayed := send("/api/api-keys", made, "make-1")
	require.True(t, replayed)
	require.Equal(t, first, again, "a lost answer can be had again, by whoever sent the request")
	list := w.do(call{method: "GET", path: "/api/api-keys", as: "admin-a"})
	items, _ := list.json["items"].([]any)
	require.Len(t, items, 1)
	id, _ := items[0].(map[string]any)["id"].(string)
	rotate := "/api/api-keys/" + id + "/rotate"
	second, _ := send(rotate, `{"overlap":"1h"}`, "rotate-1")
	again, replayed = send(rotate, `{"overlap":"1h"}`, "rotate-1")
	require.True(t, replayed)
	require.Equal(t, second, again)
	for _, key := range []string{first, second} {
		require.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: key}).status)
		secrets = append(secrets, key[26:46], key[40:60])
	}
	var texts []string
	for _, path := range []string{"/api/api-keys", "/api/api-keys/" + id, "/api/api-keys/" + id + "/usage", "/api/audit/events", "/api/audit/export", "/api/audit/export?format=csv", "/api/events"} {
		got := w.do(call{method: "GET", path: path, as: "admin-a"})
		require.Equal(t, 200, got.status, got.text)
		texts = append(texts, got.text)
	}
	changed := w.do(call{method: "PATCH", path: "/api/api-keys/" + id, as: "admin-a", body: `{"name":"twice"}`})
	texts = append(texts, changed.text, w.log.String())
	rows, err := w.base.db.System.Query(t.Context(), `SELECT encode(body, 'escape') FROM es.idempotency_answers UNION ALL SELECT to_jsonb(e)::text FROM es.ledger_event e UNION ALL SELECT to_jsonb(k)::text FROM org_api_keys k UNION ALL SELECT to_jsonb(s)::text FROM org_api_key_secrets s`)
	require.NoError(t, err)
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		texts = append(texts, text)
	}
	require.NoError(t, rows.Err())
	for _, text := range texts {
		for _, secret := range secrets {
			assert.NotContains(t, text, secret)
		}
	}
	var sealed int
	require.NoError(t, w.base.db.System.QueryRow(t.Context(), `SELECT count(*) FROM es.idempotency_answers WHERE sealed`).Scan(&sealed))
	assert.Equal(t, 2, sealed)
}

// TestAttack_keyBehindAProxy: only a trusted one tells whence a request comes, and only the last hop that it saw.
func TestAttack_keyBehindAProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, far := w.key("admin-a", `["read"]`, `,"allowedAddresses":["203.0.113.0/24"]`)
	w.deps.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	w.deps.Registry = prometheus.NewRegistry()
	var err error
	w.server, err = httpapi.New(w.deps)
	require.NoError(t, err)
	for forwarded, status := range map[string]int{
		"203.0.113.7": 200, "::ffff:203.0.113.7": 200, "198.51.100.1": 403, "203.0.113.7, 198.51.100.1": 403, "203.0.113.7, nonsense": 403, "": 403,
		"198.51.100.1, 203.0.113.7": 200, "203.0.113.7:1234": 403,
	} {
		header := map[string]string{}
		if forwarded != "" {
			header["X-Forwarded-For"] = forwarded
		}
		got := w.do(call{method: "GET", path: "/api/projects", as: far, header: header})
		assert.Equal(t, status, got.status, "%q: %s", forwarded, got.text)
	}
}
