package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/stretchr/testify/require"
)

// target is an API that tests run against; what it answers holds the canary that was asked for.
func newTarget(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"echo": r.URL.Query().Get("say"), "list": []int{1, 2, 3}})
	}))
	t.Cleanup(s.Close)
	return s
}

func allow(s *httptest.Server) string {
	return "TESTFLOW_EGRESS_ALLOW=" + strings.TrimPrefix(s.URL, "http://")
}

// frame is what /api/live sends.
type frame struct {
	Type   string
	From   string
	To     string
	Events []struct {
		ID, Type, Subject string
		Position          int64
		Data              json.RawMessage
	}
}

// listen opens the live stream and subscribes; hear gets each frame as it came and decoded, until the test or ctx ends.
func (u *user) listen(ctx context.Context, topics []string, hear func(raw []byte, f frame)) (closed <-chan struct{}) {
	u.t.Helper()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(u.url(), "http")+"/api/live", nil)
	require.NoError(u.t, err)
	conn.SetReadLimit(4 << 20)
	require.NoError(u.t, wsjson.Write(ctx, conn, map[string]any{"type": "auth", "token": u.token}))
	require.NoError(u.t, wsjson.Write(ctx, conn, map[string]any{"type": "subscribe", "topics": topics}))
	subscribed, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = conn.CloseNow() }() // it is over either way
		for first := true; ; {
			_, raw, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var f frame
			if err := json.Unmarshal(raw, &f); err != nil {
				u.t.Errorf("a frame doesn't parse: %s", raw)
				return
			}
			if f.Type == "subscribed" && first {
				first = false
				close(subscribed)
			}
			hear(raw, f)
		}
	}()
	select {
	case <-subscribed:
	case <-done:
		u.t.Fatal("the live stream closed before it was subscribed")
	case <-time.After(10 * time.Second):
		u.t.Fatal("no answer to the subscription")
	}
	return done
}

func sayTest(target string) map[string]any {
	return map[string]any{"variables": map[string]string{"say": "hello"}, "steps": []any{map[string]any{
		"name":    "say",
		"request": map[string]any{"method": "GET", "url": target + "/?say={{say}}"},
		"assertions": []any{
			map[string]any{"source": "status", "operator": "equals", "expected": 200},
			map[string]any{"source": "jsonpath", "property": "$.echo", "operator": "equals", "expected": "{{say}}"},
			map[string]any{"source": "jsonpath", "property": "$.list[0]", "operator": "equals", "expected": 1},
		},
		"captures": []any{map[string]any{"name": "said", "source": "jsonpath", "property": "$.echo"}},
	}}}
}

// TestWhole_whoHearsOfAnEnd_readsIt: the run is read in the very moment in which run.finished arrives on the socket.
func TestWhole_whoHearsOfAnEnd_readsIt(t *testing.T) {
	const runs = 1000
	target := newTarget(t)
	in := newInstallation(t, allow(target))
	p := in.mustStart()
	u := register(t, func() string { return p.url }, "reader")
	_, testID := u.newTest("p", "say", sayTest(target.URL))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		mu   sync.Mutex
		read = map[string]string{} // run → status as it was read
		wg   sync.WaitGroup
		all  = make(chan struct{})
	)
	slots := make(chan struct{}, 8)
	u.listen(ctx, []string{"organization"}, func(_ []byte, f frame) {
		for _, e := range f.Events {
			if e.Type != "run.finished" {
				continue
			}
			id := strings.TrimPrefix(e.Subject, "run/")
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				a, err := u.do(ctx, "GET", "/api/runs/"+id, nil)
				if err != nil || a.status != http.StatusOK {
					t.Errorf("run %s: %d %s %v", id, a.status, a.body, err)
					return
				}
				var run struct {
					Status string
					Steps  []struct{ Assertions []struct{ Pass bool } }
				}
				if err := json.Unmarshal(a.body, &run); err != nil {
					t.Error(err)
					return
				}
				status := run.Status
				if len(run.Steps) != 1 || len(run.Steps[0].Assertions) != 3 {
					status += " without all its results"
				}
				mu.Lock()
				defer mu.Unlock()
				read[id] = status
				if len(read) == runs {
					close(all)
				}
			})
		}
	})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range runs / 4 {
				a, err := u.do(ctx, "POST", "/api/tests/"+testID+"/execute", map[string]any{})
				if err != nil || a.status != http.StatusAccepted {
					t.Errorf("execute: %d %s %v", a.status, a.body, err)
					return
				}
			}
		})
	}
	clients.Wait()
	select {
	case <-all:
	case <-time.After(2 * time.Minute):
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("heard and read %d of %d", len(read), runs)
	}
	wg.Wait()
	for id, status := range read {
		require.Equal(t, "passed", status, "run %s", id)
	}
	require.Len(t, read, runs)
}

// TestWhole_twoOrganizations_neverMeet: both do the same; whatever one is answered, shown live, exported or measured holds
// no id and no word of the other.
func TestWhole_twoOrganizations_neverMeet(t *testing.T) {
	target := newTarget(t)
	in := newInstallation(t, allow(target))
	p := in.mustStart()
	one := newResident(t, p, target.URL, "canaryone")
	two := newResident(t, p, target.URL, "canarytwo")

	var wg sync.WaitGroup
	for _, r := range []*resident{one, two} {
		wg.Go(func() { r.live() })
	}
	wg.Wait()
	for _, pair := range [][2]*resident{{one, two}, {two, one}} {
		me, other := pair[0], pair[1]
		require.NotEmpty(t, me.seen())
		for where, said := range me.seen() {
			require.NotContains(t, said, other.name, "%s of %s", where, me.name)
			for id := range other.own() {
				require.NotContains(t, said, id, "%s of %s", where, me.name)
			}
		}
		// And what belongs to the other isn't there.
		for _, path := range other.paths {
			a, err := me.do(t.Context(), "GET", path, nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusNotFound, a.status, "GET %s: %s", path, a.body)
			a, err = me.do(t.Context(), "GET", path, nil, "X-Organization-Id", other.orgID)
			require.NoError(t, err)
			require.Equal(t, http.StatusNotFound, a.status, "GET %s as %s", path, other.orgID)
		}
	}
}

// resident is a user who keeps all that was said to them.
type resident struct {
	*user
	name, target string
	paths        []string // of what is theirs

	mu   sync.Mutex
	said map[string]string
}

func newResident(t *testing.T, p *program, target, name string) *resident {
	t.Helper()
	return &resident{user: register(t, func() string { return p.url }, name), name: name, target: target, said: map[string]string{}}
}

func (r *resident) keep(where string, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said[fmt.Sprintf("%s #%d", where, len(r.said))] = string(raw)
}

func (r *resident) seen() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// own are the ids in what was said to them. Request ids are each caller's own too.
func (r *resident) own() map[string]bool {
	ids := map[string]bool{r.orgID: true}
	for _, said := range r.seen() {
		for _, id := range uuids.FindAllString(said, -1) {
			ids[id] = true
		}
	}
	return ids
}

func (r *resident) get(path string) []byte {
	a := r.must(http.StatusOK, "GET", path, nil, nil)
	r.keep("GET "+path, a.body)
	return a.body
}

// live does what an organization does, and looks at all that it can see.
func (r *resident) live() {
	t := r.t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{}, 64)
	hear := func(raw []byte, f frame) {
		r.keep("live", raw)
		for _, e := range f.Events {
			if e.Type == "run.finished" {
				ended <- struct{}{}
			}
		}
	}
	project, test := r.newTest("Project of "+r.name, "Test of "+r.name, sayTest(r.target))
	var env identified
	r.must(http.StatusCreated, "POST", "/api/projects/"+project+"/environments", map[string]any{"name": "Env of " + r.name, "variables": map[string]string{"say": r.name}}, &env)
	r.listen(ctx, []string{"organization", "project:" + project, "test:" + test}, hear)
	r.must(http.StatusOK, "PATCH", "/api/organizations/"+r.orgID, map[string]any{"name": "Renamed by " + r.name}, nil)
	var runs []string
	for range 5 {
		var out struct{ Runs []identified }
		a := r.must(http.StatusOK, "POST", "/api/tests/"+test+"/execute", map[string]any{"variables": map[string]string{"say": r.name}}, &out, "Prefer", "wait=30")
		r.keep("execute", a.body)
		runs = append(runs, out.Runs[0].ID)
	}
	for range 5 {
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Errorf("%s did not hear of all its runs", r.name)
			return
		}
	}
	r.paths = []string{
		"/api/organizations/" + r.orgID, "/api/projects/" + project, "/api/projects/" + project + "/environments/" + env.ID, "/api/tests/" + test,
		"/api/tests/" + test + "/revisions/1", "/api/runs/" + runs[0], "/api/runs/" + runs[0] + "/events", "/api/runs/" + runs[0] + "/steps/0/response",
	}
	for _, path := range append([]string{
		"/api/auth/me", "/api/organizations", "/api/organizations/" + r.orgID + "/members", "/api/projects", "/api/projects/" + project + "/environments",
		"/api/tests", "/api/tests/" + test + "/revisions", "/api/runs", "/api/events", "/api/audit/events", "/api/audit/export?format=ndjson",
		"/api/analytics/metrics?interval=1m", "/api/analytics/summary", "/api/analytics/usage",
	}, r.paths...) {
		if strings.HasPrefix(path, "/api/analytics") {
			a := r.must(http.StatusOK, "GET", path, nil, nil)
			r.keep(path, a.body)
			continue
		}
		r.get(path)
	}
	if !strings.Contains(string(r.get("/api/audit/export?format=ndjson")), "Renamed by "+r.name) {
		t.Errorf("the export doesn't hold what %s did", r.name)
	}
}
