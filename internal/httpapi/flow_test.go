package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shop is a target that remembers what it was asked for; what begins with /bad is refused.
type shop struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.Path)
		n := len(s.asked)
		s.mu.Unlock()
		rw.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(r.URL.Path, "/bad") {
			rw.WriteHeader(http.StatusConflict)
		}
		fmt.Fprintf(rw, `{"n":%d,"path":%q,"pets":[{"id":1},{"id":2}]}`, n, r.URL.Path)
	}))
	t.Cleanup(s.Close)
	return s
}

// take returns what was asked since the last call.
func (s *shop) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.asked
	s.asked = nil
	return list
}

// stepLines are the results of a run's steps, one in a line.
func stepLines(got answer) (lines []string) {
	steps, _ := got.json["steps"].([]any)
	for _, s := range steps {
		m, _ := s.(map[string]any)
		line := fmt.Sprintf("%v.%v %v %v", m["index"], m["iteration"], m["phase"], m["status"])
		if m["fragment"] != nil {
			line += fmt.Sprintf(" in %v", m["fragment"])
		}
		if e, ok := m["error"].(map[string]any); ok {
			line += fmt.Sprintf(" %v", e["code"])
		}
		if m["tries"] != nil {
			line += fmt.Sprintf(" tries %v", m["tries"])
		}
		lines = append(lines, line)
	}
	return lines
}

// run executes a test and returns its run in detail.
func (w *world) run(path string) answer {
	w.t.Helper()
	done := w.do(call{method: "POST", path: path, as: "developer-a", header: map[string]string{"Prefer": "wait=20"}})
	require.Equal(w.t, 200, done.status, done.text)
	first, _ := done.json["runs"].([]any)[0].(map[string]any)
	got := w.do(call{method: "GET", path: "/api/runs/" + first["id"].(string), as: "viewer-a"})
	require.Equal(w.t, 200, got.status, got.text)
	return got
}

func TestFlow_fromTheFragmentToTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	target := newShop(t)
	project := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Shop"}`})
	require.Equal(t, 201, project.status, project.text)
	fragments := "/api/projects/" + project.id() + "/fragments"
	body := func(path string) string {
		return `{"name":"login","parameters":{"user":{},"role":{"default":"guest"}},"steps":[
			{"name":"sign in","request":{"method":"POST","url":"` + target.URL + path + `/{{user}}/{{role}}"},"captures":[{"name":"n","source":"jsonpath","property":"$.n"}]}]}`
	}
	login := w.do(call{method: "POST", path: fragments, as: "developer-a", body: body("/login"), header: map[string]string{"Idempotency-Key": "f-1"}})
	require.Equal(t, 201, login.status, login.text)
	at := login.header.Get("Location")
	assert.Equal(t, `"1"`, login.header.Get("ETag"))
	assert.Equal(t, login.id(), w.do(call{method: "POST", path: fragments, as: "developer-a", body: body("/login"), header: map[string]string{"Idempotency-Key": "f-1"}}).id())
	assert.Equal(t, 409, w.do(call{method: "POST", path: fragments, as: "developer-a", body: body("/login")}).status)
	assert.Equal(t, 403, w.do(call{method: "POST", path: fragments, as: "viewer-a", body: body("/x")}).status)

	spec := func(setup string) string {
		return `{"projectId":"` + project.id() + `","name":"Buy","variables":{"base":"` + target.URL + `"},
			"setup":[` + setup + `],
			"steps":[
				{"name":"list","if":"vars.n == 1","request":{"method":"GET","url":"{{base}}/list","retry":{"until":"json.n >= 3","delay":"1ms"}},
					"captures":[{"name":"pets","source":"jsonpath","property":"$.pets"}]},
				{"name":"each","forEach":{"variable":"pets","as":"pet"},"request":{"method":"GET","url":"{{base}}/pets/{{pet.id}}"},
					"assertions":[{"source":"jsonpath","property":"$.path","operator":"equals","expected":"/pets/1"}]},
				{"name":"never","request":{"method":"GET","url":"{{base}}/never"}},
				{"name":"count","always":true,"repeat":2,"variables":{"who":"count-{{$index}}"},"request":{"method":"GET","url":"{{base}}/{{who}}"}},
				{"name":"later","skip":"not built yet","request":{"method":"GET","url":"{{base}}/later"}}],
			"teardown":[{"use":"login","with":{"user":"bye"}},{"name":"bad","delay":"1ms","request":{"method":"DELETE","url":"{{base}}/bad"},
				"assertions":[{"source":"status","operator":"equals","expected":200}]}]}`
	}
	refused := w.do(call{method: "POST", path: "/api/tests", as: "developer-a", body: spec(`{"use":"logon"},{"use":"login","with":{"usr":"x"}}`)})
	require.Equal(t, 422, refused.status, refused.text)
	assert.Contains(t, refused.text, `"/setup/0/use"`)
	assert.Contains(t, refused.text, `"/setup/1/with/usr"`)
	assert.Contains(t, refused.text, `needs the parameter user`)
	test := w.do(call{method: "POST", path: "/api/tests", as: "developer-a", body: spec(`{"use":"login","with":{"user":"{{base}}"},"skip":true},{"use":"login","with":{"user":"ann"}}`)})
	require.Equal(t, 201, test.status, test.text)

	run := w.run(test.header.Get("Location") + "/execute")
	assert.Equal(t, "failed", run.json["status"], run.text)
	assert.Equal(t, []string{
		"0.0 setup skipped in login skip", "1.0 setup passed in login",
		"2.0 steps passed tries 2", "3.0 steps passed", "3.1 steps failed assertion", "4.0 steps skipped earlierStep",
		"5.0 steps passed", "5.1 steps passed", "6.0 steps skipped skip",
		"7.0 teardown passed in login", "8.0 teardown failed assertion",
	}, stepLines(run))
	counts, _ := run.json["counts"].(map[string]any)
	assert.Equal(t, map[string]any{"steps": 8.0, "stepsFailed": 2.0, "stepsSkipped": 3.0, "assertions": 3.0, "assertionsFailed": 2.0}, counts)
	assert.Equal(t, []string{"POST /login/ann/guest", "GET /list", "GET /list", "GET /pets/1", "GET /pets/2", "GET /count-0", "GET /count-1", "POST /login/bye/guest", "DELETE /bad"}, target.take())
	problem, _ := run.json["error"].(map[string]any)
	assert.Contains(t, problem["message"], `"/pets/2"`)
	failing := w.do(call{method: "GET", path: "/api/runs/" + run.id() + "/steps/3/response?iteration=1", as: "viewer-a"})
	require.Equal(t, 200, failing.status, failing.text)
	assert.Contains(t, failing.json["body"], `/pets/2`)
	assert.InDelta(t, 1, failing.json["iteration"], 0)
	assert.Equal(t, 404, w.do(call{method: "GET", path: "/api/runs/" + run.id() + "/steps/3/response?iteration=2", as: "viewer-a"}).status)

	// What the test needs cannot be taken away from it.
	for name, c := range map[string]call{
		"delete":          {method: "DELETE", path: at},
		"another name":    {method: "PATCH", path: at, body: `{"name":"logon"}`},
		"a new parameter": {method: "PATCH", path: at, body: `{"parameters":{"password":{}}}`},
	} {
		c.as = "developer-a"
		got := w.do(c)
		assert.Equal(t, 409, got.status, "%s: %s", name, got.text)
		assert.Contains(t, got.text, "the test Buy", name)
	}
	itself := w.do(call{method: "PATCH", path: at, as: "developer-a", body: `{"steps":[{"use":"login","with":{"user":"x"}}]}`})
	assert.Equal(t, 422, itself.status, itself.text)
	assert.Contains(t, itself.text, "circle")

	// A later run is made from the later version, a repeat from the one of its run.
	assert.Equal(t, 412, w.do(call{method: "PUT", path: at, as: "developer-a", body: body("/enter"), header: map[string]string{"If-Match": `"7"`}}).status)
	put := w.do(call{method: "PUT", path: at, as: "developer-a", body: body("/enter"), header: map[string]string{"If-Match": `"1"`}})
	require.Equal(t, 200, put.status, put.text)
	assert.Equal(t, `"2"`, put.header.Get("ETag"))
	same := w.do(call{method: "PUT", path: at, as: "developer-a", body: body("/enter")})
	assert.Equal(t, `"2"`, same.header.Get("ETag"), "the same again changes nothing")
	target.take()
	assert.Equal(t, "failed", w.run(test.header.Get("Location") + "/execute").json["status"])
	assert.Contains(t, target.take(), "POST /enter/ann/guest")
	w.run("/api/runs/" + run.id() + "/rerun")
	again := target.take()
	assert.Contains(t, again, "POST /login/ann/guest")
	assert.NotContains(t, again, "POST /enter/ann/guest")

	// Nobody uses it any more.
	require.Equal(t, 204, w.do(call{method: "DELETE", path: test.header.Get("Location"), as: "developer-a"}).status)
	require.Equal(t, 204, w.do(call{method: "DELETE", path: at, as: "developer-a"}).status)
	assert.Equal(t, 404, w.do(call{method: "GET", path: at, as: "developer-a"}).status)
	var types []string
	for _, e := range w.auditEvents("type=fragment.*") {
		types = append(types, e["type"].(string))
	}
	assert.ElementsMatch(t, []string{"fragment.created", "fragment.changed", "fragment.deleted"}, types)
}

// A fragment's secrets are those of the test that uses it: what is missing is named when the fragment, when the test, and
// when a change of the fragment is saved; set, the target gets them and nobody who reads the run.
func TestFlow_secretsOfFragments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.work()
	target := newShop(t)
	project := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Secretive shop"}`})
	require.Equal(t, 201, project.status, project.text)
	path := "/api/projects/" + project.id()
	environment := w.do(call{method: "POST", path: path + "/environments", as: "admin-a", body: `{"name":"prod"}`})
	require.Equal(t, 201, environment.status, environment.text)
	bare := w.do(call{method: "POST", path: path + "/environments", as: "admin-a", body: `{"name":"bare"}`})
	require.Equal(t, 201, bare.status, bare.text)
	set := func(at, name string) {
		got := w.do(call{method: "PUT", path: at + "/secrets/" + name, as: "manager-a", body: `{"value":"TFCANARY-` + name + `"}`})
		require.Equal(t, 200, got.status, got.text)
	}
	step := func(secrets string) string {
		return `{"request":{"method":"GET","url":"` + target.URL + `/inner` + secrets + `"}}`
	}

	inner := call{method: "POST", path: path + "/fragments", as: "developer-a", body: `{"name":"inner","steps":[` + step("/{{secrets.pin}}") + `]}`}
	refused := w.do(inner)
	require.Equal(t, 422, refused.status, refused.text)
	assert.Contains(t, refused.text, `"/steps/0/request/url"`)
	set(path+"/environments/"+environment.id(), "pin")
	fragment := w.do(inner)
	require.Equal(t, 201, fragment.status, fragment.text)
	outer := w.do(call{method: "POST", path: path + "/fragments", as: "developer-a", body: `{"name":"outer","steps":[{"use":"inner"}]}`})
	require.Equal(t, 201, outer.status, outer.text)

	test := func(environment string) call {
		return call{method: "POST", path: "/api/tests", as: "developer-a", body: `{"projectId":"` + project.id() + `","environmentId":"` + environment + `","name":"Use",
			"steps":[{"request":{"method":"GET","url":"` + target.URL + `/first"}}],"teardown":[{"use":"outer"}]}`}
	}
	refused = w.do(test(bare.id()))
	require.Equal(t, 422, refused.status, refused.text)
	assert.Contains(t, refused.text, `"/teardown/0/use"`)
	assert.Contains(t, refused.text, "{{secrets.pin}}")
	saved := w.do(test(environment.id()))
	require.Equal(t, 201, saved.status, saved.text)
	run := w.run(saved.header.Get("Location") + "/execute")
	assert.Equal(t, "passed", run.json["status"], run.text)
	assert.NotContains(t, run.text, "TFCANARY-")
	assert.Equal(t, []string{"GET /first", "GET /inner/TFCANARY-pin"}, target.take())

	set(path+"/environments/"+bare.id(), "other") // which the test's environment doesn't have
	change := call{method: "PATCH", path: fragment.header.Get("Location"), as: "developer-a", body: `{"steps":[` + step("/{{secrets.pin}}/{{secrets.other}}") + `]}`}
	broken := w.do(change)
	assert.Equal(t, 409, broken.status, broken.text)
	assert.Contains(t, broken.text, "the test Use, which has no secret other")
	set(path, "other")
	assert.Equal(t, 200, w.do(change).status)
}
