package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/run"
	"github.com/testflow/testflow/internal/testspec"
)

// shop is a target with something for every source.
func shop(t *testing.T) (url string, hits *atomic.Int64) {
	t.Helper()
	hits = &atomic.Int64{}
	serve := http.NewServeMux()
	serve.HandleFunc("/from", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/pets", http.StatusFound) })
	serve.HandleFunc("/pets", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Add("X-Many", "one")
		w.Header().Add("X-Many", "two")
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "abc", Path: "/", HttpOnly: true, MaxAge: 60})
		_, _ = fmt.Fprintf(w, `{"id": 7, "name": %q, "items": [{"n": 1}, {"n": 2.50}], "token": "s3cret-value-that-is-long", "none": null}`, r.Header.Get("X-Who"))
	})
	serve.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=iso-8859-1")
		_, _ = w.Write([]byte("<html><h1 class=a>M\xfcller</h1><a href=/x>x</a></html>"))
	})
	serve.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"id": 7, "pad": "` + strings.Repeat("x", 300<<10) + `"}`))
	})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, hits
}

func shopStep(url, path, assertions, more string) string {
	return `{"request": {"method": "GET", "url": "` + url + path + `", "verifyTls": false, "headers": {"X-Who": "{{who}}"}}, "assertions": [` + assertions + `]` + more + `}`
}

const everySource = `
	{"source": "status", "operator": "equals", "expected": 200},
	{"source": "status", "operator": "lessThan", "expected": 100, "severity": "soft"},
	{"source": "reason", "operator": "equals", "expected": "OK"},
	{"source": "httpVersion", "operator": "equals", "expected": "1.1"},
	{"source": "url", "operator": "endsWith", "expected": "/pets"},
	{"source": "redirects", "filters": [{"count": true}], "operator": "equals", "expected": 1},
	{"source": "redirects", "filters": [{"jsonpath": "$[0].location"}], "operator": "endsWith", "expected": "/pets"},
	{"source": "remoteIp", "operator": "isIpv4"},
	{"source": "header", "property": "x-many", "operator": "equals", "expected": "one, two"},
	{"source": "header", "property": "x-none", "operator": "exists", "not": true},
	{"source": "header", "property": "set-cookie", "operator": "contains", "expected": "abc"},
	{"source": "cookie", "property": "session", "operator": "equals", "expected": "abc"},
	{"source": "cookie", "property": "session[HttpOnly]", "operator": "equals", "expected": true},
	{"source": "cookie", "property": "session[Max-Age]", "operator": "equals", "expected": 60},
	{"source": "cookie", "property": "other", "operator": "exists", "not": true},
	{"source": "body", "operator": "contains", "expected": "{{who}}"},
	{"source": "bytes", "filters": [{"count": true}], "operator": "greaterThan", "expected": 10, "severity": "soft"},
	{"source": "bytes", "operator": "startsWith", "expected": "hex:7b"},
	{"source": "bodySize", "operator": "greaterThan", "expected": 20},
	{"source": "sha256", "operator": "hasLength", "expected": 64},
	{"source": "md5", "operator": "hasLength", "expected": 32},
	{"source": "jsonpath", "property": "$.items[*].n", "quantifier": "all", "operator": "greaterThan", "expected": 0},
	{"source": "jsonpath", "property": "$.items[1].n", "operator": "equals", "expected": 2.5},
	{"source": "jsonpath", "property": "$.name", "operator": "equals", "expected": "{{who}}"},
	{"source": "jsonpath", "property": "$.id", "operator": "equals", "expected": "{{seven}}", "severity": "soft"},
	{"source": "jsonpath", "property": "$.id", "operator": "equals", "expected": 8, "severity": "soft"},
	{"source": "xpath", "property": "count(//h1)", "operator": "equals", "expected": 0},
	{"source": "css", "property": "h1", "operator": "exists", "not": true},
	{"source": "regex", "property": "\"id\": (\\d+)", "operator": "equals", "expected": 7},
	{"source": "jsonSchema", "operator": "matchesSchema", "expected": {"$ref": "schemas/pet"}},
	{"source": "responseTime", "operator": "lessThan", "expected": 60000},
	{"source": "timing", "property": "firstByte", "operator": "lessThan", "expected": 60000},
	{"source": "timing", "property": "tls", "operator": "greaterThan", "expected": 0},
	{"source": "certificate", "property": "subject", "operator": "contains", "expected": "Acme"},
	{"source": "certificate", "property": "daysUntilExpiry", "operator": "greaterThan", "expected": 30},
	{"source": "certificate", "property": "notBefore", "operator": "before", "expected": "now"},
	{"source": "certificate", "property": "fingerprint", "operator": "hasLength", "expected": 64},
	{"source": "certificate", "property": "sans", "operator": "contains", "expected": "example.com"},
	{"source": "tls", "property": "version", "operator": "equals", "expected": "1.3"},
	{"source": "tls", "property": "cipher", "operator": "startsWith", "expected": "TLS_"},
	{"source": "tls", "property": "protocol", "operator": "exists", "not": true, "severity": "soft"},
	{"source": "variable", "property": "who", "operator": "equals", "expected": "rex"},
	{"source": "variable", "property": "id", "operator": "exists"},
	{"source": "expression", "property": "json.id == 7 && vars.who == \"rex\" && headers[\"x-many\"] != nil", "operator": "equals", "expected": true},
	{"source": "expression", "property": "headers[\"set-cookie\"]", "operator": "exists"}`

// TestReevaluate_sameAssertions_sameVerdicts: what can be judged again comes to the recorded verdict, word for word, and
// what cannot says so.
func TestReevaluate_sameAssertions_sameVerdicts(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	url, hits := shop(t)
	env, err := w.projects.CreateEnvironment(w.ctx, w.org, w.project.ID, project.EnvironmentDraft{Name: "staging", Variables: map[string]string{"seven": "7", "who": "nobody"}})
	require.NoError(t, err)
	test := w.test(t, shopStep(url, "/pets", "", `, "captures": [{"name": "id", "source": "jsonpath", "property": "$.id"}]`)+","+
		shopStep(url, "/from", everySource, "")+","+
		shopStep(url, "/page", `{"source": "css", "property": "h1.a", "operator": "equals", "expected": "Müller"}, {"source": "body", "operator": "contains", "expected": "ü"},
			{"source": "xpath", "property": "//a/@href", "operator": "equals", "expected": "/x"}, {"source": "jsonpath", "property": "$.id", "operator": "exists"}`, "")+","+
		`{"repeat": 3, "request": {"method": "GET", "url": "`+url+`/pets", "verifyTls": false}, "always": true, "variables": {"mine": "{{id}}-{{$index}}"}, "assertions": [
			{"source": "jsonpath", "property": "$.id", "operator": "equals", "expected": "{{id}}"},
			{"source": "variable", "property": "mine", "operator": "equals", "expected": "7-{{$index}}"},
			{"source": "expression", "property": "index", "operator": "lessThan", "expected": 2}]}`,
		`"environmentId": "`+env.ID.String()+`"`, `"variables": {"who": "rex", "made": "{{$uuid}}"}`, `"schemas": {"pet": {"type": "object", "required": ["id"]}}`)
	r := w.finish(t, w.begin(t, test, run.StartInput{}).ID)
	d, err := w.Get(w.ctx, w.org, r.ID)
	require.NoError(t, err)
	before := hits.Load()

	// The environment changes; the run keeps its own version.
	other := "8"
	_, err = w.projects.UpdateEnvironment(w.ctx, w.org, w.project.ID, env.ID, project.EnvironmentPatch{Variables: map[string]*string{"seven": &other}}, nil)
	require.NoError(t, err)
	viewer := as(t.Context(), w.org, auth.Viewer)
	got, err := w.Reevaluate(viewer, w.org, r.ID, nil)
	require.NoError(t, err)
	assert.Equal(t, before, hits.Load(), "a request was sent")
	assert.Equal(t, run.Failed, r.Status)
	assert.Equal(t, run.Failed, got.Status)
	assert.False(t, got.Flipped())

	require.Len(t, got.Steps, len(d.Steps))
	undecided, covered := map[string]string{}, map[string]bool{}
	for i, step := range d.Steps {
		require.Len(t, got.Steps[i].Assertions, len(step.Assertions), "step %d", i)
		for k, recorded := range step.Assertions {
			again := got.Steps[i].Assertions[k]
			covered[recorded.Source] = true
			if again.Undecided {
				assert.True(t, strings.HasSuffix(again.Message, "."), again.Message)
				undecided[recorded.Source+" "+recorded.Property] = again.Message
				continue
			}
			recorded.Attempt, recorded.Region = 0, ""
			want, err := json.Marshal(recorded)
			require.NoError(t, err)
			have, err := json.Marshal(again.AssertionEvaluated)
			require.NoError(t, err)
			assert.JSONEq(t, string(want), string(have))
		}
	}
	for _, name := range testspec.SourceNames() {
		assert.True(t, covered[name], "no assertion about %s", name)
	}
	assert.Equal(t, map[string]string{
		"reason ":                          "The reason phrase was not kept.",
		"header set-cookie":                "The header's value is hidden, or holds what could not be kept.",
		"cookie session":                   "Values of cookies are not kept.",
		"cookie other":                     "An earlier response may have set the cookie, and the cookies of a run are not kept.",
		"certificate sans":                 "This field of the certificate was not kept.",
		"tls protocol":                     "The protocol that was chosen by ALPN was not kept.",
		`expression headers["set-cookie"]`: "The header's value is hidden, or holds what could not be kept.",
	}, undecided)
}

func TestReevaluateTest_tellsWhatWouldHaveFlipped(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, `{"request": {"method": "GET", "url": "`+w.target.URL+`/{{path}}", "headers": {"X-Who": "{{path}}"}}, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}`)
	for i := range 20 {
		path := "a"
		if i%4 == 0 {
			path = "b"
		}
		if i == 19 {
			path = "broken"
		}
		w.finish(t, w.begin(t, test, run.StartInput{Variables: map[string]string{"path": path}}).ID)
	}
	before := w.target.hits.Load()
	body := json.RawMessage(`{"steps": [{"step": 0, "assertions": [{"source": "jsonpath", "property": "$.who", "operator": "equals", "expected": "a"}]}], "last": 20}`)
	items, next, err := w.ReevaluateTest(w.ctx, w.org, test.ID, body, nil)
	require.NoError(t, err)
	require.Nil(t, next)
	require.Len(t, items, 20)
	flipped := 0
	for i, one := range items {
		if i > 0 {
			assert.False(t, one.RequestedAt.After(items[i-1].RequestedAt), "newest first")
		}
		if one.Flipped() {
			flipped++
			assert.Equal(t, run.Passed, one.RecordedStatus)
			assert.Equal(t, run.Failed, one.Status)
			assert.Contains(t, one.First.Reason, "$.who")
		}
	}
	assert.Equal(t, 5, flipped)
	assert.Equal(t, run.Failed, items[0].Status, "it was failed and stays so")

	// A revision, and the choice of runs.
	_, err = w.tests.Patch(w.ctx, w.org, test.ID, json.RawMessage(`{"steps": [{"request": {"method": "GET", "url": "`+w.target.URL+`/{{path}}"}, "assertions": [{"source": "status", "operator": "lessThan", "expected": 600}]}]}`), nil)
	require.NoError(t, err)
	items, _, err = w.ReevaluateTest(w.ctx, w.org, test.ID, json.RawMessage(`{"status": ["failed"]}`), nil)
	require.NoError(t, err)
	require.Len(t, items, 1)
	assert.True(t, items[0].Flipped())
	assert.Equal(t, run.Passed, items[0].Status)
	items, _, err = w.ReevaluateTest(w.ctx, w.org, test.ID, json.RawMessage(`{"revision": 1, "last": 3}`), nil)
	require.NoError(t, err)
	require.Len(t, items, 3)
	for _, one := range items {
		assert.False(t, one.Flipped())
	}

	// When the time is over, the answer says where to go on, and a run that takes too long alone is passed over.
	w.ReevaluateTime = 1
	var cursor *run.ReevaluationCursor
	seen := map[string]bool{}
	for range 3 {
		items, cursor, err = w.ReevaluateTest(w.ctx, w.org, test.ID, json.RawMessage(`{"last": 3}`), cursor)
		require.NoError(t, err)
		require.Len(t, items, 1)
		assert.Equal(t, run.Undecided, items[0].Status)
		assert.Contains(t, items[0].First.Reason, "too large")
		seen[items[0].RunID.String()] = true
	}
	assert.Len(t, seen, 3)
	assert.Nil(t, cursor)
	_, err = w.Reevaluate(w.ctx, w.org, items[0].RunID, nil)
	assert.Equal(t, fault.Unavailable, kind(err))
	assert.Equal(t, before, w.target.hits.Load(), "a request was sent")
}

// TestReevaluate_whatWasNotKept_isUndecided: nothing is guessed.
func TestReevaluate_whatWasNotKept_isUndecided(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	url, _ := shop(t)
	who := `"variables": {"who": "rex", "at": "{{$timestampMs}}"}`
	judge := func(id run.Run, step int, assertion string) (run.Reevaluation, run.Rejudged) {
		t.Helper()
		got, err := w.Reevaluate(w.ctx, w.org, id.ID, json.RawMessage(fmt.Sprintf(`{"steps": [{"step": %d, "assertions": [%s]}]}`, step, assertion)))
		require.NoError(t, err)
		return got, got.Steps[step].Assertions[0]
	}
	open := func(r run.Run, step int, assertion, why string) {
		t.Helper()
		got, v := judge(r, step, assertion)
		assert.True(t, v.Undecided, assertion)
		assert.False(t, v.Pass)
		assert.Contains(t, v.Message, why, assertion)
		assert.Equal(t, run.Undecided, got.Status, assertion)
		assert.False(t, got.Flipped())
	}
	holds := func(r run.Run, step int, assertion string) {
		t.Helper()
		got, v := judge(r, step, assertion)
		assert.False(t, v.Undecided, v.Message)
		assert.True(t, v.Pass, v.Message)
		assert.Equal(t, run.Passed, got.Status)
	}
	masked := w.finish(t, w.begin(t, w.test(t, shopStep(url, "/pets", "", `, "captures": [{"name": "token", "source": "jsonpath", "property": "$.token", "secret": true}]`)+","+shopStep(url, "/pets", "", ""), who), run.StartInput{}).ID)
	require.Equal(t, run.Passed, masked.Status)
	open(masked, 0, `{"source": "body", "operator": "contains", "expected": "rex"}`, "hidden")
	open(masked, 0, `{"source": "sha256", "operator": "hasLength", "expected": 64}`, "secret")
	open(masked, 0, `{"source": "jsonpath", "property": "$.token", "operator": "isString"}`, "hidden")
	open(masked, 0, `{"source": "jsonpath", "property": "$.absent", "operator": "exists", "not": true}`, "hidden")
	open(masked, 0, `{"source": "jsonpath", "property": "$.*", "operator": "exists"}`, "hidden")
	open(masked, 0, `{"source": "expression", "property": "json.id == 7", "operator": "equals", "expected": true}`, "hidden")
	holds(masked, 0, `{"source": "jsonpath", "property": "$.items[1].n", "operator": "equals", "expected": 2.5}`)
	open(masked, 1, `{"source": "body", "operator": "contains", "expected": "{{token}}"}`, "captured as token")
	open(masked, 1, `{"source": "variable", "property": "token", "operator": "exists"}`, "captured as token")
	open(masked, 1, `{"source": "expression", "property": "vars.token", "operator": "exists"}`, "captured as token")
	holds(masked, 1, `{"source": "expression", "property": "vars.who", "operator": "equals", "expected": "rex"}`)
	open(masked, 1, `{"source": "status", "operator": "equals", "expected": "{{secrets.x}}"}`, "secret")
	open(masked, 1, `{"source": "header", "property": "etag", "operator": "equals", "expected": "{{$uuid}}", "not": true}`, "generated")
	open(masked, 1, `{"source": "variable", "property": "at", "operator": "exists"}`, "generated")
	got, v := judge(masked, 1, `{"source": "status", "operator": "equals", "expected": "{{nobody}}"}`)
	assert.Equal(t, run.Errored, got.Status, "a variable without a value ends a step before its request")
	assert.Contains(t, v.Message, `"nobody"`)

	cut := w.finish(t, w.begin(t, w.test(t, shopStep(url, "/large", "", ""), who), run.StartInput{}).ID)
	open(cut, 0, `{"source": "jsonpath", "property": "$.id", "operator": "equals", "expected": 7}`, "Only the first 262144 of")
	holds(cut, 0, `{"source": "bodySize", "operator": "greaterThan", "expected": 300000}`)
	holds(cut, 0, `{"source": "sha256", "operator": "hasLength", "expected": 64}`)
	holds(cut, 0, `{"source": "header", "property": "content-type", "operator": "contains", "expected": "json"}`)

	failed := w.finish(t, w.begin(t, w.test(t, shopStep(url, "/pets", `{"source": "status", "operator": "equals", "expected": 201}`, "")+","+shopStep(url, "/pets", `{"source": "status", "operator": "equals", "expected": 200}`, ""), who), run.StartInput{}).ID)
	require.Equal(t, run.Failed, failed.Status)
	both := `{"steps": [{"step": 0, "assertions": [{"source": "status", "operator": "equals", "expected": %d}]}, {"step": 1, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}]}`
	got, err := w.Reevaluate(w.ctx, w.org, failed.ID, json.RawMessage(fmt.Sprintf(both, 200)))
	require.NoError(t, err)
	assert.Equal(t, run.Undecided, got.Status)
	assert.False(t, got.Flipped())
	assert.EqualValues(t, "passed", got.Steps[0].Status)
	assert.EqualValues(t, "undecided", got.Steps[1].Status)
	require.Len(t, got.Steps[1].Assertions, 1)
	assert.True(t, got.Steps[1].Assertions[0].Undecided)
	assert.Contains(t, got.Steps[1].Assertions[0].Message, "not sent")
	got, err = w.Reevaluate(w.ctx, w.org, failed.ID, json.RawMessage(fmt.Sprintf(both, 404)))
	require.NoError(t, err)
	assert.Equal(t, run.Failed, got.Status, "whatever the second step would have come to")
	assert.EqualValues(t, "skipped", got.Steps[1].Status)

	refused := w.finish(t, w.begin(t, w.test(t, `{"request": {"method": "GET", "url": "http://127.0.0.1:1/"}, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}`), run.StartInput{}).ID)
	got, err = w.Reevaluate(w.ctx, w.org, refused.ID, json.RawMessage(`{"steps": [{"step": 0, "assertions": []}]}`))
	require.NoError(t, err)
	assert.Equal(t, run.Errored, got.Status)
	capture := w.finish(t, w.begin(t, w.test(t, shopStep(url, "/pets", "", `, "captures": [{"name": "x", "source": "jsonpath", "property": "$.absent"}]`), who), run.StartInput{}).ID)
	got, err = w.Reevaluate(w.ctx, w.org, capture.ID, json.RawMessage(`{"steps": [{"step": 0, "assertions": []}]}`))
	require.NoError(t, err)
	assert.Equal(t, run.Failed, got.Status, "no assertion makes a capture keep something")

	// The retention of bodies is shorter than that of runs.
	require.NoError(t, w.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM run_body WHERE run_id = $1`, cut.ID)
		return err
	}))
	open(cut, 0, `{"source": "header", "property": "content-type", "operator": "contains", "expected": "json"}`, "no longer kept")
	holds(cut, 0, `{"source": "bodySize", "operator": "greaterThan", "expected": 300000}`)
}

func TestReevaluate_refusals(t *testing.T) {
	t.Parallel()
	w, _ := up(t)
	test := w.test(t, w.get("/a"))
	r := w.finish(t, w.begin(t, test, run.StartInput{}).ID)
	for body, pointers := range map[string][]string{
		`{"steps": [{"step": 1, "assertions": []}]}`: {"/steps/0/step"},
		`{"steps": []}`:                   {"/steps"},
		`{"steps": [{"assertions": []}]}`: {"/steps/0/step"},
		`{"revision": 9}`:                 {"/revision"},
		`{"revision": 0}`:                 {"/revision"},
		`{"revision": 1, "steps": [{"step": 0, "assertions": []}]}`: {"/revision"},
		`{"stepz": 1}`: {"/stepz"},
		`{"steps": [{"step": 0, "assertions": [{"source": "jsonpath", "property": "$[", "operator": "exists"}, {"source": "status", "operator": "equal", "expected": 1},
			{"source": 3, "operator": "exists"}, {"source": "status", "operator": "equals", "expected": 200, "x": 1}]}, {"step": 0}]}`: {
			"/steps/0/assertions/0/property", "/steps/0/assertions/1/operator", "/steps/0/assertions/2/source", "/steps/0/assertions/3/x", "/steps/1/step",
		},
	} {
		_, err := w.Reevaluate(w.ctx, w.org, r.ID, json.RawMessage(body))
		assert.ElementsMatch(t, pointers, faultPointers(err), body)
		if strings.Contains(body, "step") {
			_, _, err = w.ReevaluateTest(w.ctx, w.org, test.ID, json.RawMessage(body), nil)
			assert.ElementsMatch(t, pointers, faultPointers(err), body)
		}
	}
	_, _, err := w.ReevaluateTest(w.ctx, w.org, test.ID, json.RawMessage(`{"last": 201, "status": ["passed", "queued"], "from": "soon"}`), nil)
	assert.ElementsMatch(t, []string{"/last", "/status/1", "/from"}, faultPointers(err))

	stranger := newID()
	ctx := as(t.Context(), stranger, auth.Admin)
	_, err = w.Reevaluate(ctx, stranger, r.ID, nil)
	assert.Equal(t, fault.NotFound, kind(err))
	_, _, err = w.ReevaluateTest(ctx, stranger, test.ID, nil, nil)
	assert.Equal(t, fault.NotFound, kind(err))

	open := w.begin(t, w.test(t, w.get("/held")), run.StartInput{})
	w.held(t)
	_, err = w.Reevaluate(w.ctx, w.org, open.ID, nil)
	assert.Equal(t, fault.Conflict, kind(err))
	w.target.release <- struct{}{}
	w.finish(t, open.ID)

	_, err = w.tests.Delete(w.ctx, w.org, test.ID, nil)
	require.NoError(t, err)
	_, err = w.Reevaluate(w.ctx, w.org, r.ID, nil)
	assert.Equal(t, fault.Conflict, kind(err))
	again, err := w.Reevaluate(w.ctx, w.org, r.ID, json.RawMessage(`{"revision": 1}`))
	require.NoError(t, err)
	assert.Equal(t, run.Passed, again.Status)
}

func faultPointers(err error) (list []string) {
	var f *fault.Error
	if errors.As(err, &f) {
		for _, field := range f.Fields {
			list = append(list, field.Pointer)
		}
	}
	return list
}
