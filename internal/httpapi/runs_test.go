package httpapi_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/netguard"
	"github.com/testflow/testflow/internal/run"
)

// work puts a worker, the pulse and the feed beside the world's door, so that runs really run.
func (w *world) work() {
	w.t.Helper()
	b := w.base
	ctx, cancel := context.WithCancel(context.Background())
	pulse := eventstore.NewPulse(eventstore.PulseConfig{DB: b.db.DB, Logger: b.log})
	done := make(chan error, 3)
	go func() { done <- pulse.Run(ctx) }()
	go func() { done <- b.feed.Run(ctx) }()
	go func() { done <- b.runner.Run(ctx) }()
	b.pos.analytics = func(ctx context.Context, position int64) error { return b.runner.Wait(ctx, position) }
	unfollow := b.feed.Subscribe(func(eventstore.Batch) { b.runner.Look() })
	require.NoError(w.t, b.db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := run.EnsureBodyPartitions(ctx, tx)
		return err
	}))
	rules, err := netguard.ParseAllow("127.0.0.1")
	require.NoError(w.t, err)
	guard := netguard.New(netguard.Policy{Allow: rules}, time.Now)
	sink := eventstore.NewSink(eventstore.SinkConfig{Store: b.store, DB: b.db.DB, OnBatch: run.StoreBodies, Now: time.Now, Logger: b.log})
	worker := run.NewWorker(run.WorkerConfig{
		DB: b.db.DB, Store: b.store, Sink: sink, Plans: b.plans, Engine: executor.New(executor.Config{Guard: guard, Now: time.Now, Log: b.log}),
		ID: "door", Regions: []string{"default"}, Now: time.Now, NewID: newID, Log: b.log,
	})
	unsubscribe := b.feed.Subscribe(worker.Hear)
	workers := river.NewWorkers()
	require.NoError(w.t, run.AddWorker(workers, worker))
	require.NoError(w.t, worker.Begin(ctx))
	client, err := run.NewWorkingClient(b.db.DB, workers, run.ClientConfig{ID: "door", Regions: map[string]int{"default": 4}, Leads: true, StopTimeout: 5 * time.Second, Log: b.log})
	require.NoError(w.t, err)
	require.NoError(w.t, client.Start(ctx))
	w.t.Cleanup(func() {
		stop, end := context.WithTimeout(context.Background(), 20*time.Second)
		defer end()
		assert.NoError(w.t, client.Stop(stop))
		assert.NoError(w.t, sink.Close(stop))
		unsubscribe()
		unfollow()
		cancel()
		for range cap(done) {
			assert.NoError(w.t, <-done)
		}
	})
}

// pets is a target: it answers after what the path asks for.
func pets(t *testing.T) *httptest.Server {
	t.Helper()
	block := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/never") {
			select {
			case <-block:
			case <-r.Context().Done():
			}
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusCreated)
		fmt.Fprint(rw, `{"id":7,"name":"Rex"}`)
	}))
	t.Cleanup(func() { close(block); s.Close() })
	return s
}

// makeTest makes a project, an environment and a test in organization a, and returns the test.
func (w *world) makeTest(who, base, path string) answer {
	w.t.Helper()
	p := w.do(call{method: "POST", path: "/api/projects", as: who, body: `{"name":"Pets ` + newID().String() + `"}`})
	require.Equal(w.t, 201, p.status, p.text)
	e := w.do(call{method: "POST", path: p.header.Get("Location") + "/environments", as: who, body: `{"name":"staging","variables":{"base":"` + base + `"}}`})
	require.Equal(w.t, 201, e.status, e.text)
	made := w.do(call{method: "POST", path: "/api/tests", as: who, body: `{
		"projectId":"` + p.id() + `","environmentId":"` + e.id() + `","name":"Create a pet","tags":["smoke"],"timeout":"20s","steps":[{
			"name":"create","request":{"method":"POST","url":"{{base}}` + path + `","headers":{"Accept":"application/json"},"body":{"json":{"name":"Rex"}}},
			"assertions":[
				{"source":"status","operator":"equals","expected":201},
				{"source":"jsonpath","property":"$.id","operator":"isInteger"},
				{"source":"jsonpath","property":"$.name","operator":"equals","expected":"Max","severity":"soft"}],
			"captures":[{"name":"petId","source":"jsonpath","property":"$.id"}]}]}`})
	require.Equal(w.t, 201, made.status, made.text)
	return made
}

// A run says by which filters and which quantifier something was judged.
func TestRun_tellsFiltersAndQuantifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	target := pets(t)
	test := w.makeTest("admin-a", target.URL, "/pets")
	changed := w.do(call{method: "PATCH", path: test.header.Get("Location"), as: "admin-a", header: map[string]string{"If-Match": test.header.Get("ETag")}, body: `{"steps":[{
		"request":{"method":"POST","url":"{{base}}/pets"},"assertions":[
			{"source":"jsonpath","property":"$","filters":[{"keys":true},{"nth":-1}],"operator":"equals","expected":"name"},
			{"source":"jsonpath","property":"$.*","quantifier":"any","operator":"equals","expected":7}],
		"captures":[{"name":"low","source":"jsonpath","property":"$.name","filters":[{"lower":true}]}]}]}`})
	require.Equal(t, 200, changed.status, changed.text)
	done := w.do(call{method: "POST", path: test.header.Get("Location") + "/execute", as: "developer-a", header: map[string]string{"Prefer": "wait=20"}})
	require.Equal(t, 200, done.status, done.text)
	first, _ := done.json["runs"].([]any)[0].(map[string]any)
	assert.Equal(t, "passed", first["status"], done.text)
	got := w.do(call{method: "GET", path: "/api/runs/" + first["id"].(string), as: "viewer-a"})
	require.Equal(t, 200, got.status, got.text)
	assert.Contains(t, got.text, `"filters":[{"keys":true},{"nth":-1}]`)
	assert.Contains(t, got.text, `"quantifier":"any"`)
	assert.Contains(t, got.text, `"value":"rex"`)

	wrong := w.do(call{method: "PATCH", path: test.header.Get("Location"), as: "admin-a", header: map[string]string{"If-Match": changed.header.Get("ETag")}, body: `{"steps":[{
		"request":{"method":"GET","url":"{{base}}/"},"assertions":[{"source":"status","operator":"lesThan","expected":300}]}]}`})
	assert.Equal(t, 422, wrong.status)
	assert.Contains(t, wrong.text, "did you mean lessThan?")
	assert.Contains(t, wrong.text, "/steps/0/assertions/0/operator")
}

func TestRun_fromExecuteToDetail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	target := pets(t)
	test := w.makeTest("admin-a", target.URL, "/pets")
	path := test.header.Get("Location")

	done := w.do(call{method: "POST", path: path + "/execute", as: "developer-a", header: map[string]string{"Prefer": "wait=20", "Idempotency-Key": "e-1"}})
	require.Equal(t, 200, done.status, done.text)
	assert.Equal(t, "wait=20", done.header.Get("Preference-Applied"))
	assert.NotEmpty(t, done.header.Get("X-Event-Position"))
	runs, _ := done.json["runs"].([]any)
	require.Len(t, runs, 1)
	first, _ := runs[0].(map[string]any)
	assert.Equal(t, "passed", first["status"], done.text)

	// The same key again: the same run, and the wait still holds.
	again := w.do(call{method: "POST", path: path + "/execute", as: "developer-a", header: map[string]string{"Prefer": "wait=20", "Idempotency-Key": "e-1"}})
	assert.Equal(t, 200, again.status)
	assert.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	assert.Equal(t, done.json["runs"], again.json["runs"])

	id, _ := first["id"].(string)
	got := w.do(call{method: "GET", path: "/api/runs/" + id, as: "viewer-a"})
	require.Equal(t, 200, got.status, got.text)
	steps, _ := got.json["steps"].([]any)
	require.Len(t, steps, 1)
	step, _ := steps[0].(map[string]any)
	assert.Len(t, step["assertions"], 3)
	soft, _ := step["assertions"].([]any)[2].(map[string]any)
	assert.Equal(t, "Rex", soft["actual"])
	assert.Equal(t, "Max", soft["expected"])
	assert.Equal(t, false, soft["pass"])
	capture, _ := step["captures"].([]any)[0].(map[string]any)
	assert.Equal(t, "petId", capture["name"])
	assert.InDelta(t, 7, capture["value"], 0)
	timings, _ := step["timings"].(map[string]any)
	assert.NotEmpty(t, timings["totalMs"])

	events := w.do(call{method: "GET", path: "/api/runs/" + id + "/events?limit=3", as: "viewer-a"})
	require.Equal(t, 200, events.status, events.text)
	assert.Len(t, events.json["items"], 3)
	cursor, _ := events.json["nextCursor"].(string)
	rest := w.do(call{method: "GET", path: "/api/runs/" + id + "/events?cursor=" + cursor, as: "viewer-a"})
	items, _ := rest.json["items"].([]any)
	require.NotEmpty(t, items)
	last, _ := items[len(items)-1].(map[string]any)
	assert.Equal(t, "run.finished", last["type"])
	assert.Equal(t, "run/"+id, last["subject"])

	body := w.do(call{method: "GET", path: "/api/runs/" + id + "/steps/0/response", as: "viewer-a"})
	require.Equal(t, 200, body.status, body.text)
	assert.Equal(t, "text", body.json["encoding"])
	assert.JSONEq(t, `{"id":7,"name":"Rex"}`, body.json["body"].(string))
	assert.Equal(t, 404, w.do(call{method: "GET", path: "/api/runs/" + id + "/steps/9/response", as: "viewer-a"}).status)

	listed := w.do(call{method: "GET", path: "/api/runs?status=passed&status=failed&testId=" + test.id(), as: "viewer-a"})
	require.Equal(t, 200, listed.status, listed.text)
	assert.Len(t, listed.json["items"], 1)
	assert.Empty(t, w.do(call{method: "GET", path: "/api/runs?status=failed", as: "viewer-a"}).json["items"])
	assert.Equal(t, 422, w.do(call{method: "GET", path: "/api/runs?status=nonsense", as: "viewer-a"}).status)

	rerun := w.do(call{method: "POST", path: "/api/runs/" + id + "/rerun", as: "developer-a", header: map[string]string{"Prefer": "wait=20"}})
	require.Equal(t, 200, rerun.status, rerun.text)
	assert.Equal(t, 409, w.do(call{method: "POST", path: "/api/runs/" + id + "/cancel", as: "developer-a"}).status)

	project, _ := test.json["projectId"].(string)
	suite := w.do(call{method: "POST", path: "/api/projects/" + project + "/execute", as: "developer-a", body: `{"tags":["smoke"]}`, header: map[string]string{"Prefer": "wait=20"}})
	require.Equal(t, 200, suite.status, suite.text)
	assert.Equal(t, "passed", suite.json["verdict"])
	assert.Equal(t, 409, w.do(call{method: "POST", path: "/api/projects/" + project + "/execute", as: "developer-a", body: `{"tags":["none"]}`}).status)

	w.feedHolds(id)
	w.analyticsCount(items)
}

// analyticsCount asks for metrics that hold what was just done, by the position of the last event.
func (w *world) analyticsCount(events []any) {
	w.t.Helper()
	last, _ := events[len(events)-1].(map[string]any)
	position := fmt.Sprintf("%.0f", last["position"])
	metrics := w.do(call{method: "GET", path: "/api/analytics/metrics?interval=1m&groupBy=region&minPosition=" + position, as: "viewer-a"})
	require.Equal(w.t, 200, metrics.status, metrics.text)
	items, _ := metrics.json["items"].([]any)
	require.NotEmpty(w.t, items, metrics.text)
	bucket, _ := items[0].(map[string]any)
	assert.Equal(w.t, "default", bucket["group"])
	assert.InDelta(w.t, 1, bucket["uptime"], 0)
	summary := w.do(call{method: "GET", path: "/api/analytics/summary", as: "viewer-a", header: map[string]string{"X-Min-Position": position}})
	require.Equal(w.t, 200, summary.status, summary.text)
	current, _ := summary.json["current"].(map[string]any)
	assert.GreaterOrEqual(w.t, current["runs"], 1.0)
	usage := w.do(call{method: "GET", path: "/api/analytics/usage?minPosition=" + position, as: "viewer-a"})
	require.Equal(w.t, 200, usage.status, usage.text)
	assert.Len(w.t, usage.json["items"], 1)
	assert.Empty(w.t, w.do(call{method: "GET", path: "/api/analytics/metrics", as: "viewer-b"}).json["items"])
	assert.Equal(w.t, 422, w.do(call{method: "GET", path: "/api/analytics/metrics?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", as: "viewer-a"}).status)
}

// feedHolds reads the organization's feed to its end and finds the run's end in it.
func (w *world) feedHolds(id string) {
	w.t.Helper()
	path, found := "/api/events?limit=200", false
	for range 20 {
		page := w.do(call{method: "GET", path: path, as: "viewer-a"})
		require.Equal(w.t, 200, page.status, page.text)
		items, _ := page.json["items"].([]any)
		next, _ := page.json["nextCursor"].(string)
		require.NotEmpty(w.t, next)
		for _, item := range items {
			e, _ := item.(map[string]any)
			found = found || e["type"] == "run.finished" && e["subject"] == "run/"+id
			assert.NotContains(w.t, []any{"org.member_signed_in"}, e["type"], "viewers may not read security events")
		}
		if len(items) == 0 {
			break
		}
		assert.Equal(w.t, 422, w.do(call{method: "GET", path: "/api/events?after=" + next, as: "viewer-b"}).status)
		path = "/api/events?limit=200&after=" + next
	}
	assert.True(w.t, found, "the feed holds the end of the run")
}

func TestPrefer_waitEndsBeforeTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	path := w.makeTest("admin-a", pets(t).URL, "/never").header.Get("Location")
	began := time.Now()
	got := w.do(call{method: "POST", path: path + "/execute", as: "developer-a", header: map[string]string{"Prefer": "respond-async, wait=1"}})
	assert.Equal(t, 202, got.status, got.text)
	assert.GreaterOrEqual(t, time.Since(began), time.Second)
	assert.Equal(t, "wait=1", got.header.Get("Preference-Applied"), "it was waited for as long")
	assert.NotEmpty(t, got.header.Get("Location"))
	first, _ := got.json["runs"].([]any)[0].(map[string]any)
	assert.Equal(t, "running", first["status"])

	canceled := w.do(call{method: "POST", path: got.header.Get("Location") + "/cancel", as: "developer-a"})
	require.Equal(t, 202, canceled.status, canceled.text)
	// A preference that isn't one is no preference.
	for _, prefer := range []string{"wait=x", "wait=-1", "wait", "handling=strict"} {
		got := w.do(call{method: "POST", path: path + "/execute", as: "developer-a", header: map[string]string{"Prefer": prefer}})
		assert.Equal(t, 202, got.status, prefer)
		assert.Empty(t, got.header.Get("Preference-Applied"), prefer)
	}
}

func TestRanges_thatEndBeforeTheyBegin_areRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, path := range []string{"/api/runs", "/api/analytics/metrics", "/api/analytics/summary", "/api/analytics/usage"} {
		for _, from := range []string{"2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"} { // half-open: an empty range is a mistake too
			got := w.do(call{method: "GET", path: path + "?from=" + from + "&to=2026-11-22T09:00:00Z", as: "viewer-a"})
			require.Equal(t, 422, got.status, "%s: %s", path, got.text)
			faults, _ := got.json["errors"].([]any)
			require.Len(t, faults, 1, path)
			first, _ := faults[0].(map[string]any)
			assert.Equal(t, "from", first["parameter"], path)
		}
	}
}

func TestTest_revisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.makeTest("admin-a", "https://pets.example", "/pets")
	path := test.header.Get("Location")
	assert.Equal(t, "Create a pet", test.json["name"])
	assert.InDelta(t, 1, test.json["revision"], 0)

	patched := w.do(call{method: "PATCH", path: path, as: "developer-a", body: `{"name":"Make a pet","environmentId":null}`, header: map[string]string{"If-Match": `"1"`}})
	require.Equal(t, 200, patched.status, patched.text)
	assert.Equal(t, `"2"`, patched.header.Get("ETag"))
	assert.NotContains(t, patched.json, "environmentId")
	assert.Len(t, patched.json["steps"], 1)

	replaced := w.do(call{method: "PUT", path: path, as: "developer-a", body: `{"name":"Another","steps":[{"request":{"method":"GET","url":"https://pets.example/"}}]}`})
	require.Equal(t, 200, replaced.status, replaced.text)
	same := w.do(call{method: "PUT", path: path, as: "developer-a", body: `{"name":"Another","steps":[{"request":{"method":"GET","url":"https://pets.example/"}}]}`})
	require.Equal(t, 200, same.status)
	assert.Equal(t, `"3"`, same.header.Get("ETag"))
	assert.Empty(t, same.header.Get("X-Event-Position"))

	restored := w.do(call{method: "POST", path: path + "/revisions/1/restore", as: "developer-a"})
	require.Equal(t, 200, restored.status, restored.text)
	assert.Equal(t, "Create a pet", restored.json["name"])
	list := w.do(call{method: "GET", path: path + "/revisions?limit=3", as: "viewer-a"})
	require.Equal(t, 200, list.status, list.text)
	assert.Len(t, list.json["items"], 3)
	assert.NotEmpty(t, list.json["nextCursor"])
	one := w.do(call{method: "GET", path: path + "/revisions/4", as: "viewer-a"})
	require.Equal(t, 200, one.status, one.text)
	assert.InDelta(t, 1, one.json["restoredFrom"], 0)
	assert.Equal(t, 404, w.do(call{method: "GET", path: path + "/revisions/99", as: "viewer-a"}).status)
	assert.Len(t, w.do(call{method: "GET", path: "/api/tests?tag=smoke&q=PET", as: "viewer-a"}).json["items"], 1)

	assert.Equal(t, 204, w.do(call{method: "DELETE", path: path, as: "developer-a"}).status)
	assert.Equal(t, 404, w.do(call{method: "GET", path: path, as: "viewer-a"}).status)
}

func TestTest_everythingWrongIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	definition := `{"name":"","name":"x","typo":1,"tags":"smoke","timeout":"soon","steps":[
		{"request":{"method":"GET","url":"ftp://x/","Headers":{}},
		 "assertions":[{"source":"jsonpath","property":"$[","operator":"equals","expected":1},{"source":"nothing","operator":"equals"}]}]}`
	want := []string{"/name", "/typo", "/tags", "/timeout", "/steps/0/request/url", "/steps/0/request/Headers", "/steps/0/assertions/0/property", "/steps/0/assertions/1/source"}

	checked := w.do(call{method: "POST", path: "/api/tests/validate", as: "viewer-a", body: definition})
	require.Equal(t, 200, checked.status, checked.text)
	assert.Equal(t, false, checked.json["valid"])
	for _, place := range want {
		assert.Contains(t, checked.faults(), place, checked.text)
	}
	made := w.do(call{method: "POST", path: "/api/tests?odd=1", as: "developer-a", body: definition})
	require.Equal(t, 422, made.status, made.text)
	for _, place := range append(want, "odd") {
		assert.Contains(t, made.faults(), place, made.text)
	}
	good := w.do(call{method: "POST", path: "/api/tests/validate", as: "viewer-a", body: `{"name":"Front page","steps":[{"request":{"method":"GET","url":"https://pets.example/"}}]}`})
	require.Equal(t, 200, good.status, good.text)
	assert.Equal(t, true, good.json["valid"], good.text)
	assert.Equal(t, 400, w.do(call{method: "POST", path: "/api/tests/validate", as: "viewer-a", body: `{`}).status)
	assert.Equal(t, 422, w.do(call{method: "POST", path: "/api/tests/validate", as: "viewer-a", body: `[]`}).status)
}

func TestAudit_listAndExport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	project := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`})
	require.Equal(t, 201, project.status)
	w.do(call{method: "POST", path: "/api/projects", as: "admin-b", body: `{"name":"Canary of b"}`})

	list := w.do(call{method: "GET", path: "/api/audit/events?type=project.created", as: "manager-a"})
	require.Equal(t, 200, list.status, list.text)
	items, _ := list.json["items"].([]any)
	require.Len(t, items, 1)
	e, _ := items[0].(map[string]any)
	assert.Equal(t, "project/"+project.id(), e["subject"])
	assert.Equal(t, "127.0.0.1", e["address"])
	assert.Equal(t, project.header.Get("X-Request-Id"), e["requestId"])
	assert.Equal(t, 403, w.do(call{method: "GET", path: "/api/audit/events", as: "developer-a"}).status)

	server := httptest.NewServer(w.server.Handler())
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/audit/export", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+w.tokens["manager-a"])
	r.Header.Set("X-Organization-Id", w.orgA.String())
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { assert.NoError(t, res.Body.Close()) }()
	require.Equal(t, 200, res.StatusCode)
	assert.Equal(t, "application/x-ndjson", res.Header.Get("Content-Type"))
	text := readAll(t, res.Body)
	assert.Equal(t, "true", res.Trailer.Get("X-Export-Complete"))
	assert.Contains(t, text, "project.created")
	assert.NotContains(t, text, "Canary")
	assert.NotContains(t, text, w.orgB.String())
	lines := strings.Split(strings.TrimSpace(text), "\n")
	assert.Greater(t, len(lines), 4)
}
