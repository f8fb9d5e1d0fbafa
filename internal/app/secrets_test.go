package app_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// secretValues are the secrets of the test below, by name: one in each scope. None holds another's beginning.
var secretValues = map[string]string{
	"org_token": "TFCANARY-org-0123456789abcdef", "project_key": `TFCANARY-project/+"&<9876`, "env_password": "TFCANARY-env-pass-word-55",
	"of_fragment": "TFCANARY-of-a-fragment-77",
}

// newEcho gives back all that it gets in many encodings: in body, headers, cookies, redirects and errors. /issue gives a
// token of its own.
func newEcho(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "body", http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/token" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"TFCANARY-access-token-2342","token_type":"Bearer","expires_in":3600}`)
			return
		}
		if r.URL.Path == "/digest" && r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Digest realm="canaries", nonce="dcd98b7102dd2f0e", qop="auth", algorithm=SHA-256`)
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/echo?"+r.URL.RawQuery+"&h="+url.QueryEscape(r.Header.Get("X-Given")), http.StatusTemporaryRedirect)
			return
		}
		out := map[string]any{}
		if strings.HasPrefix(r.URL.Path, "/echo/") { // whose step keeps it as a secret; before that nobody knows that it is one
			out["issued"] = "TFCANARY-issued-to-you-4711"
		}
		for name, v := range map[string]string{
			"body": string(body), "query": r.URL.Query().Get("q"), "header": r.Header.Get("X-Given"), "auth": r.Header.Get("Authorization"), "path": r.URL.Path, "h": r.URL.Query().Get("h"),
		} {
			forms := map[string]string{
				"raw": v, "query": url.QueryEscape(v), "path": url.PathEscape(v), "hex": hex.EncodeToString([]byte(v)),
				"base64": base64.StdEncoding.EncodeToString([]byte(v)), "base64+1": base64.StdEncoding.EncodeToString([]byte("x" + v)), "base64+2": base64.URLEncoding.EncodeToString([]byte("xy" + v)),
			}
			out[name] = forms
			w.Header().Set("X-Back-"+name, forms["base64+1"])
			http.SetCookie(w, &http.Cookie{Name: "c-" + name, Value: forms["hex"]})
		}
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/error" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(s.Close)
	return s
}

// requireNoCanary fails when a text holds a beginning of the canary in any form, also as the database shows bytes.
func requireNoCanary(t *testing.T, where, text string) {
	t.Helper()
	const canary = "TFCANARY-"
	enc := base64.RawStdEncoding.EncodeToString
	for _, form := range []string{
		canary, strings.ToLower(canary), enc([]byte(canary)), enc([]byte("x" + canary))[2:12], enc([]byte("xy" + canary))[3:13],
		hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary))),
		hex.EncodeToString([]byte(enc([]byte(canary)))), hex.EncodeToString([]byte(enc([]byte("x" + canary))[2:12])), hex.EncodeToString([]byte(enc([]byte("xy" + canary))[3:13])),
		hex.EncodeToString([]byte(hex.EncodeToString([]byte(canary)))),
	} {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("%s holds a secret as %s: …%s…", where, form, text[max(0, i-300):min(len(text), i+80)])
		}
	}
}

// everyRow returns all rows of all tables of a database as text, by table.
func everyRow(t *testing.T, url string) map[string]string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), `SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	out := map[string]string{}
	for _, table := range tables {
		var all *string
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT string_agg(x::text, E'\n') FROM `+table+` x`).Scan(&all), table)
		if all != nil {
			out[table] = *all
		}
	}
	return out
}

type secretWorld struct {
	u       *user
	project string
	test    string
}

// newSecretWorld sets a secret in each scope and makes a test that uses them in URL, header, body and auth.
func newSecretWorld(t *testing.T, u *user, target string) secretWorld {
	t.Helper()
	var project, environment, test identified
	u.must(http.StatusCreated, "POST", "/api/projects", map[string]any{"name": "secrets"}, &project)
	u.must(http.StatusCreated, "POST", "/api/projects/"+project.ID+"/environments", map[string]any{"name": "prod", "variables": map[string]string{"scope": "environment"}}, &environment)
	u.must(http.StatusOK, "PATCH", "/api/projects/"+project.ID, map[string]any{"variables": map[string]string{"scope": "project", "of_project": "yes"}}, nil)
	u.must(http.StatusOK, "PATCH", "/api/organizations/"+u.orgID, map[string]any{"variables": map[string]string{"scope": "organization", "of_project": "no", "of_org": "yes"}}, nil)
	at := map[string]string{"of_fragment": "/api/projects/" + project.ID, "org_token": "/api/organizations/" + u.orgID, "project_key": "/api/projects/" + project.ID, "env_password": "/api/projects/" + project.ID + "/environments/" + environment.ID}
	step := func(path, more string) any {
		var out any
		require.NoError(t, json.Unmarshal([]byte(`{"request":{"method":"POST","url":"`+target+path+`?q={{secrets.project_key}}","headers":{"X-Given":"{{secrets.env_password}}","Authorization":"Bearer {{secrets.org_token}}"},
			"body":{"json":{"all":["{{secrets.org_token}}","{{secrets.project_key}}","{{secrets.env_password}}"]}}}`+more+`}`), &out))
		return out
	}
	definition := map[string]any{
		"name": "uses secrets", "projectId": project.ID, "environmentId": environment.ID, "steps": []any{
			step("/echo/{{secrets.env_password}}", `,"assertions":[{"source":"body","operator":"contains","expected":"{{secrets.org_token}}"},
				{"source":"jsonpath","property":"$.header.raw","operator":"equals","expected":"{{secrets.env_password}}"},
				{"source":"jsonpath","property":"$.auth.hex","operator":"equals","expected":"x","severity":"soft"},
				{"source":"variable","property":"scope","operator":"equals","expected":"environment"},
				{"source":"variable","property":"of_project","operator":"equals","expected":"yes"},
				{"source":"variable","property":"of_org","operator":"equals","expected":"yes"}],
				"captures":[{"name":"seen","source":"jsonpath","property":"$.query.base64"},{"name":"issued","source":"jsonpath","property":"$.issued","secret":true}]`),
			step("/redirect", `,"assertions":[{"source":"status","operator":"equals","expected":200}]`),
			map[string]any{
				"request":    map[string]any{"method": "POST", "url": target + "/error?q={{issued}}", "body": map[string]any{"text": "{{issued}} {{seen}}"}},
				"assertions": []any{map[string]any{"source": "body", "operator": "equals", "expected": "{{issued}}"}},
			},
		},
	}
	steps, _ := definition["steps"].([]any)
	for _, auth := range []map[string]any{
		{"type": "basic", "username": "ann", "password": "{{secrets.env_password}}"},
		{"type": "bearer", "token": "{{secrets.org_token}}"},
		{"type": "digest", "username": "{{secrets.project_key}}", "password": "{{secrets.env_password}}"},
		{"type": "apiKey", "in": "header", "name": "X-Given", "value": "{{secrets.org_token}}"},
		{"type": "apiKey", "in": "query", "name": "q", "value": "{{secrets.project_key}}"},
		{"type": "jwt", "algorithm": "HS256", "key": "{{secrets.org_token}}", "claims": map[string]any{"sub": "{{secrets.env_password}}"}},
		{"type": "awsSigV4", "accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "{{secrets.org_token}}", "sessionToken": "{{secrets.env_password}}", "region": "eu-west-1", "service": "execute-api"},
		{"type": "oauth2ClientCredentials", "tokenUrl": target + "/token", "clientId": "client", "clientSecret": "{{secrets.project_key}}"},
	} {
		path := "/redirect"
		if auth["type"] == "digest" {
			path = "/digest"
		}
		steps = slices.Insert(steps, 0, any(map[string]any{
			"name": auth["type"], "request": map[string]any{
				"method": "POST", "url": target + path, "auth": auth, "body": map[string]any{"multipart": []any{
					map[string]any{"name": "a", "value": "{{secrets.org_token}}"},
					map[string]any{"name": "b", "file": map[string]any{"name": "{{secrets.env_password}}.txt", "text": "{{secrets.project_key}}"}},
				}},
			},
			"assertions": []any{
				map[string]any{"source": "status", "operator": "equals", "expected": 200},
				map[string]any{"source": "jsonpath", "property": "$.auth.raw", "operator": "equals", "expected": "x", "severity": "soft"},
				map[string]any{"source": "body", "operator": "contains", "expected": "nothing of the kind", "severity": "soft"},
			},
		}))
	}
	// Rows of a loop, a step's variables, an XML body, and a fragment that needs a secret itself and is given another.
	passes := []any{map[string]any{"source": "status", "operator": "equals", "expected": 200}}
	steps = append(steps[:len(steps)-1:len(steps)-1],
		map[string]any{
			"name": "rows", "forEach": map[string]any{"rows": []any{map[string]any{"id": "a"}, map[string]any{"id": "b"}}, "as": "row"}, "variables": map[string]any{"t": "{{secrets.org_token}}"},
			"request":    map[string]any{"method": "POST", "url": target + "/redirect?q={{t}}", "body": map[string]any{"xml": "<a><b>{{t}}</b><c>{{secrets.project_key}}{{row.id}}</c></a>"}},
			"assertions": passes,
		},
		map[string]any{"use": "speaks", "with": map[string]any{"given": "{{secrets.project_key}}"}},
		steps[len(steps)-1])
	fragment := map[string]any{
		"name": "speaks", "parameters": map[string]any{"given": map[string]any{}}, "steps": []any{map[string]any{
			"name": "in the fragment", "request": map[string]any{"method": "POST", "url": target + "/redirect?q={{given}}", "headers": map[string]any{"X-Given": "{{secrets.of_fragment}}"}, "body": map[string]any{"text": "{{given}} {{secrets.of_fragment}}"}},
			"assertions": append(passes, map[string]any{"source": "jsonpath", "property": "$.header.raw", "operator": "equals", "expected": "{{secrets.of_fragment}}"}),
		}},
	}
	definition["steps"] = steps
	refused := u.must(http.StatusUnprocessableEntity, "POST", "/api/tests", definition, nil)
	require.Contains(t, string(refused.body), "there is no secret org_token")
	refused = u.must(http.StatusUnprocessableEntity, "POST", "/api/projects/"+project.ID+"/fragments", fragment, nil)
	require.Contains(t, string(refused.body), "there is no secret of_fragment")
	for name, value := range secretValues {
		set := u.must(http.StatusOK, "PUT", at[name]+"/secrets/"+name, map[string]any{"value": value, "description": "a canary"}, nil)
		require.NotContains(t, string(set.body), "TFCANARY")
		list := u.must(http.StatusOK, "GET", at[name]+"/secrets", nil, nil)
		require.NotContains(t, string(list.body), "TFCANARY")
	}
	u.must(http.StatusUnprocessableEntity, "PUT", at["org_token"]+"/secrets/short", map[string]any{"value": "abc"}, nil)
	u.must(http.StatusCreated, "POST", "/api/projects/"+project.ID+"/fragments", fragment, nil)
	u.must(http.StatusCreated, "POST", "/api/tests", definition, &test)
	return secretWorld{u, project.ID, test.ID}
}

// execute runs the test to its end.
func (w secretWorld) execute(t *testing.T) (id, status, reason string) {
	t.Helper()
	var out struct {
		Runs []struct{ ID, Status, Reason string }
	}
	w.u.must(http.StatusOK, "POST", "/api/tests/"+w.test+"/execute", map[string]any{}, &out, "Prefer", "wait=20")
	return out.Runs[0].ID, out.Runs[0].Status, out.Runs[0].Reason
}

const (
	firstMaster  = "TESTFLOW_MASTER_KEY=bWFzdGVybWFzdGVybWFzdGVybWFzdGVybWFzdGVybWE="
	secondMaster = "c2Vjb25kc2Vjb25kc2Vjb25kc2Vjb25kc2Vjb25kc2U="
)

// TestAttack_secretsLeaveNoTrace: secrets go through URL, headers, body and auth of a run, and the target gives them back
// in many encodings. Then the whole database, all logs, live frames, exports and answers are searched.
func TestAttack_secretsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	target := newEcho(t)
	key := strings.Repeat("k", 48)
	in := newInstallation(t, allow(target), "JWT_SECRET=jwt"+key, "JWT_REFRESH_SECRET=refresh"+key, "TESTFLOW_REGISTRATION=open")
	server := in.serve(firstMaster, "LOG_LEVEL=debug")
	blind := in.work("LOG_LEVEL=debug")
	u := registerFirst(t, server)
	w := newSecretWorld(t, u, target.URL)
	_, status, reason := w.execute(t)
	require.Equal(t, "inconclusive internal", status+" "+reason, "a worker without the region's key sends nothing")
	require.Contains(t, blind.errs.String(), "TESTFLOW_REGION_KEY")
	require.Zero(t, blind.stop())

	in.environ = append(in.environ, firstMaster)
	regionKey, code := in.command(t.Context(), "region", "key", "default")
	require.Zero(t, code, regionKey)
	in.environ = in.environ[:len(in.environ)-1]
	worker := in.work("TESTFLOW_REGION_KEY="+strings.TrimSpace(regionKey), "LOG_LEVEL=debug")
	var mu sync.Mutex
	var frames strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	closed := u.listen(ctx, []string{"organization", "test:" + w.test, "project:" + w.project}, func(raw []byte, _ frame) {
		mu.Lock()
		defer mu.Unlock()
		frames.Write(raw)
	})
	run, status, _ := w.execute(t)
	detail := u.must(http.StatusOK, "GET", "/api/runs/"+run, nil, nil)
	require.Equal(t, "failed", status, "%s", detail.body) // the last step says so, to have a secret in a failure's sentence
	require.Contains(t, string(detail.body), "•••")
	require.Contains(t, string(detail.body), `"steps":14,"stepsFailed":1`, "every step before the last one passed: %s", detail.body)
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return strings.Contains(frames.String(), "run.finished") }, 20*time.Second, 50*time.Millisecond)
	stop()
	<-closed

	for _, path := range []string{
		"/api/runs/" + run, "/api/runs/" + run + "/events", "/api/runs/" + run + "/steps/0/response", "/api/runs/" + run + "/steps/4/response", "/api/runs/" + run + "/steps/7/response",
		"/api/runs/" + run + "/steps/8/response", "/api/runs/" + run + "/steps/10/response", "/api/runs/" + run + "/steps/11/response", "/api/runs/" + run + "/steps/12/response", "/api/events?limit=200", "/api/audit/events?limit=200&type=secret.*", "/api/tests/" + w.test,
	} {
		got := u.must(http.StatusOK, "GET", path, nil, nil)
		require.NotEmpty(t, got.body)
		requireNoCanary(t, path, string(got.body))
		if strings.Contains(path, "secret.*") {
			require.Contains(t, string(got.body), "secret.used", "who used which version is on record")
		}
	}
	requireNoCanary(t, "live frames", frames.String())
	requireNoCanary(t, "log of serve", server.errs.String())
	requireNoCanary(t, "log of the worker", worker.errs.String())
	for where, url := range map[string]string{"main": in.db.URL, "analytics": in.db.AnalyticsURL} {
		for table, rows := range everyRow(t, url) {
			requireNoCanary(t, where+" "+table, rows)
		}
	}
	for _, format := range []string{"ndjson", "csv", "cloudevents"} {
		got := u.must(http.StatusOK, "GET", "/api/audit/export?format="+format, nil, nil)
		requireNoCanary(t, "export as "+format, string(got.body))
	}
}

// TestWhole_masterKeyIsChanged: with new,old everything is wrapped anew while servers and workers run; then new alone does.
func TestWhole_masterKeyIsChanged(t *testing.T) {
	t.Parallel()
	target := newEcho(t)
	key := strings.Repeat("k", 48)
	in := newInstallation(t, allow(target), "JWT_SECRET=jwt"+key, "JWT_REFRESH_SECRET=refresh"+key, "TESTFLOW_REGISTRATION=open", "TESTFLOW_AUDIT_SEAL_EVERY=200ms")
	regionKey := func(master string) string {
		in.environ = append(in.environ, master)
		defer func() { in.environ = in.environ[:len(in.environ)-1] }()
		out, code := in.command(t.Context(), "region", "key", "default")
		require.Zero(t, code, out)
		return strings.TrimSpace(out)
	}
	old := strings.TrimPrefix(firstMaster, "TESTFLOW_MASTER_KEY=")
	both, alone := "TESTFLOW_MASTER_KEY="+secondMaster+","+old, "TESTFLOW_MASTER_KEY="+secondMaster
	server, worker := in.serve(firstMaster), in.work("TESTFLOW_REGION_KEY="+regionKey(firstMaster))
	u := registerFirst(t, server)
	w := newSecretWorld(t, u, target.URL)
	run, status, _ := w.execute(t)
	require.Equal(t, "failed", status)
	require.Zero(t, server.stop())
	require.Zero(t, worker.stop())

	server, worker = in.serve(both), in.work("TESTFLOW_REGION_KEY="+regionKey(both)+","+regionKey(firstMaster))
	u.url = func() string { return server.url }
	rekey := func() string {
		in.environ = append(in.environ, both)
		defer func() { in.environ = in.environ[:len(in.environ)-1] }()
		out, code := in.command(t.Context(), "secrets", "rekey")
		require.Zero(t, code, out)
		return out
	}
	first := rekey()
	require.NotContains(t, first, "keys of organizations      0 of")
	require.Contains(t, first, fmt.Sprintf("secrets of regions         %d sealed anew", len(secretValues)))
	again := rekey()
	require.Contains(t, again, "secrets of regions         0 sealed anew")
	for _, line := range strings.Split(again, "\n") {
		if strings.Contains(line, "wrapped anew") {
			require.Regexp(t, ` 0 of \d+ wrapped anew$`, line)
		}
	}
	require.Zero(t, server.stop())
	require.Zero(t, worker.stop())

	server, worker = in.serve(alone), in.work("TESTFLOW_REGION_KEY="+regionKey(alone))
	var me struct{ User struct{ Email string } }
	u.must(http.StatusOK, "GET", "/api/auth/me", nil, &me)
	require.Equal(t, "first@example.com", me.User.Email, "people are read")
	_, status, reason := w.execute(t)
	require.Equal(t, "failed", status, reason) // its last step always is
	var again2 identified
	u.must(http.StatusAccepted, "POST", "/api/runs/"+run+"/rerun", map[string]any{}, &again2)
	u.must(http.StatusOK, "PUT", "/api/organizations/"+u.orgID+"/secrets/org_token", map[string]any{"value": "TFCANARY-next-value-0815"}, nil)
	require.Zero(t, worker.stop())
	require.Zero(t, server.stop())
}
