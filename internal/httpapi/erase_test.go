package httpapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What is personal of the person that is erased, each told from everything else.
const (
	canaryEmail   = "tfcanary-erased@erase.example"
	canaryName    = "Tfcanary Erasmus"
	canaryAddress = "203.0.113.77"
	canaryAgent   = "TfCanaryAgent/1.0"
)

// TestErase_nothingOfAPersonIsLeft: a person registers, works, uses a key, is refused and invited; then they are erased.
// No column of any table of both databases holds anything of them any more, and the log still proves what it held.
func TestErase_nothingOfAPersonIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	header := map[string]string{"User-Agent": canaryAgent, "X-Request-Id": "req-of-canary"}
	as := func(token string, c call) answer {
		c.as, c.address = token, canaryAddress
		if c.header == nil {
			c.header = map[string]string{}
		}
		for k, v := range header {
			c.header[k] = v
		}
		return w.do(c)
	}
	in := as("", call{method: "POST", path: "/api/auth/register", body: `{"email":"` + canaryEmail + `","password":"` + password + `","name":"` + canaryName + `","organizationName":"Of the canary"}`})
	require.Equal(t, 201, in.status, in.text)
	token, _ := in.json["accessToken"].(string)
	own, _ := in.json["organization"].(map[string]any)["id"].(string)
	id, _ := in.json["user"].(map[string]any)["id"].(string)
	require.Equal(t, 401, as("", call{method: "POST", path: "/api/auth/login", body: `{"email":"` + canaryEmail + `","password":"not the right one"}`}).status)

	// A member of another organization too, invited there by mail; and their answers are kept for repeats.
	invited := w.do(call{
		method: "POST", path: "/api/organizations/" + w.orgA.String() + "/invitations", as: "admin-a",
		body: `{"email":"` + canaryEmail + `","role":"admin"}`, header: map[string]string{"Idempotency-Key": "invite-canary"},
	})
	require.Equal(t, 201, invited.status, invited.text)
	accepted := as(token, call{method: "POST", path: "/api/invitations/accept", body: `{"token":"` + w.mail.Code(t, canaryEmail, "org.invited") + `"}`})
	require.Equal(t, 200, accepted.status, accepted.text)
	require.Equal(t, 202, as("", call{method: "POST", path: "/api/auth/password/forgot", body: `{"email":"` + canaryEmail + `"}`}).status)
	project := as(token, call{method: "POST", path: "/api/projects", body: `{"name":"Theirs"}`, header: map[string]string{"Idempotency-Key": "project-of-canary"}})
	require.Equal(t, 201, project.status, project.text)
	key := as(token, call{method: "POST", path: "/api/api-keys", body: `{"name":"CI","scopes":["project.read","project.write"]}`})
	require.Equal(t, 201, key.status, key.text)
	secret, _ := key.json["key"].(string)
	require.NotEmpty(t, secret, key.text)
	require.Equal(t, 201, as(secret, call{method: "POST", path: "/api/projects", body: `{"name":"By key"}`}).status)
	require.Equal(t, 403, as(secret, call{method: "GET", path: "/api/audit/events"}).status)
	require.Equal(t, 200, as(token, call{method: "GET", path: "/api/audit/export"}).status)
	require.NoError(t, w.base.orgs.FlushKeyUses(t.Context()))
	held := strings.Join(w.canaries(), "\n")
	for _, table := range []string{"public.accounts", "public.sessions", "public.org_invitations", "public.org_api_key_uses"} {
		require.Contains(t, held, table, "the walk finds what is there")
	}
	require.NotContains(t, held, "ledger_event", "there it is sealed")
	kept := func() (n int) {
		require.NoError(t, w.base.db.System.QueryRow(t.Context(), `SELECT count(*) FROM es.idempotency_answers WHERE principal = $1`, "user:"+id).Scan(&n))
		return n
	}
	require.Positive(t, kept(), "answers are kept for repeats")
	require.Equal(t, 200, as(secret, call{method: "GET", path: "/api/projects"}).status) // counted, and not yet written

	wrong := as(token, call{method: "DELETE", path: "/api/auth/me", body: `{"password":"not the right one"}`})
	require.Equal(t, 422, wrong.status, wrong.text)
	require.Equal(t, "account.password_wrong", wrong.json["code"])
	require.Equal(t, 200, as(token, call{method: "GET", path: "/api/auth/me"}).status)
	hashes := w.hashes()

	erased := as(token, call{method: "DELETE", path: "/api/auth/me", body: `{"password":"` + password + `"}`})
	require.Equal(t, 204, erased.status, erased.text)
	assert.Empty(t, w.canaries())
	assert.Zero(t, kept())
	assert.Subset(t, w.hashes(), hashes, "every event is there with its hash")

	// Nobody signs in, nothing of theirs opens a door.
	for _, credential := range []string{token, secret} {
		assert.Equal(t, 401, as(credential, call{method: "GET", path: "/api/projects"}).status)
	}
	assert.Equal(t, 401, as("", call{method: "POST", path: "/api/auth/login", body: `{"email":"` + canaryEmail + `","password":"` + password + `"}`}).status)
	require.NoError(t, w.base.orgs.FlushKeyUses(t.Context()))
	assert.Empty(t, w.canaries(), "neither vain attempts nor what was still in memory leave anything")
	var frozen bool
	require.NoError(t, w.base.db.System.QueryRow(t.Context(), `SELECT erase_at IS NOT NULL FROM orgs WHERE org_id = $1`, own).Scan(&frozen))
	assert.True(t, frozen, "an organization that nobody is in any more goes too")

	// What the organization that they were in reads of it.
	for _, e := range w.auditEvents("limit=200&actor=" + id) {
		for _, field := range []string{"address", "userAgent"} {
			if value, ok := e[field]; ok {
				assert.Equal(t, "erased", value)
			}
		}
	}
	server := httptest.NewServer(w.server.Handler())
	defer server.Close()
	for _, format := range []string{"ndjson", "csv", "cloudevents"} {
		text := readAll(t, w.export(server, "format="+format, nil).Body) //nolint:bodyclose // export closes it at the end
		for _, canary := range []string{canaryEmail, canaryName, canaryAddress, canaryAgent} {
			assert.NotContains(t, text, canary)
		}
	}
	// The address is free again.
	again := w.do(call{method: "POST", path: "/api/auth/register", body: `{"email":"` + canaryEmail + `","password":"` + password + `","name":"Another"}`})
	assert.Equal(t, 201, again.status, again.text)
}

func TestErase_neverLeavesAnOrganizationWithoutAdmin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := `{"password":"` + password + `"}`
	// admin-a was the first to register, so the installation is theirs.
	got := w.do(call{method: "DELETE", path: "/api/auth/me", as: "admin-b", body: body})
	require.Equal(t, 409, got.status, got.text)
	assert.Equal(t, "account.last_admin", got.json["code"])
	assert.Contains(t, got.json["detail"], "Org admin-b")
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/auth/me", as: "admin-b"}).status, "nothing was done")
	handed := w.do(call{method: "PATCH", path: "/api/organizations/" + w.orgB.String() + "/members/" + w.users["manager-b"].String(), as: "admin-b", body: `{"role":"admin"}`})
	require.Equal(t, 200, handed.status, handed.text)
	require.Equal(t, 204, w.do(call{method: "DELETE", path: "/api/auth/me", as: "admin-b", body: body}).status)

	handed = w.do(call{method: "PATCH", path: "/api/organizations/" + w.orgA.String() + "/members/" + w.users["manager-a"].String(), as: "admin-a", body: `{"role":"admin"}`})
	require.Equal(t, 200, handed.status, handed.text)
	got = w.do(call{method: "DELETE", path: "/api/auth/me", as: "admin-a", body: body})
	assert.Equal(t, 409, got.status, got.text)
	assert.Equal(t, "account.is_operator", got.json["code"])
}

// hashes are the content hashes of all events.
func (w *world) hashes() (list []string) {
	w.t.Helper()
	rows, err := w.base.db.System.Query(w.t.Context(), `SELECT position || ':' || encode(content_hash, 'hex') FROM es.ledger_event`)
	require.NoError(w.t, err)
	list, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(w.t, err)
	return list
}

// canaries looks at every row of every table of both databases, as a superuser, and names the tables that hold something
// of the canary: as it is, in any case, and in bytea as it is, in hexadecimal and in base64.
func (w *world) canaries() (found []string) {
	w.t.Helper()
	var patterns []string
	for _, canary := range []string{canaryEmail, canaryName, canaryAddress, canaryAgent} {
		for _, text := range []string{canary, hex.EncodeToString([]byte(canary)), hex.EncodeToString(bytes.ToLower([]byte(canary))), base64.RawStdEncoding.EncodeToString([]byte(canary))[:8]} {
			patterns = append(patterns, "%"+strings.NewReplacer("_", `\_`, "%", `\%`).Replace(text)+"%")
		}
	}
	tables := 0
	for _, url := range []string{w.base.db.URL, w.base.db.AnalyticsURL} {
		conn, err := pgx.Connect(w.t.Context(), url)
		require.NoError(w.t, err)
		rows, err := conn.Query(w.t.Context(), `
			SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			 WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'`)
		require.NoError(w.t, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(w.t, err)
		for _, name := range names {
			tables++
			var row *string
			err := conn.QueryRow(w.t.Context(), `SELECT min(t::text) FROM `+name+` t WHERE t::text ILIKE ANY ($1)`, patterns).Scan(&row)
			require.NoError(w.t, err, name)
			if row != nil {
				found = append(found, name+": "+*row)
			}
		}
		require.NoError(w.t, conn.Close(context.WithoutCancel(w.t.Context())))
	}
	require.Greater(w.t, tables, 40, "both databases were walked")
	return found
}
