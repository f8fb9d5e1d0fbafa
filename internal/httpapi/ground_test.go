package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProject_overHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets","description":"all"}`})
	require.Equal(t, 201, made.status, made.text)
	assert.Equal(t, `"1"`, made.header.Get("ETag"))
	assert.Equal(t, "/api/projects/"+made.id(), made.header.Get("Location"))
	assert.NotEmpty(t, made.header.Get("X-Event-Position"))
	assert.NotEmpty(t, made.header.Get("X-Request-Id"))
	assert.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, made.json["createdAt"])

	path := made.header.Get("Location")
	got := w.do(call{method: "GET", path: path, as: "viewer-a"})
	require.Equal(t, 200, got.status, got.text)
	assert.Equal(t, made.json, got.json)

	assert.Equal(t, 404, w.do(call{method: "GET", path: path, as: "admin-b"}).status)
	assert.Equal(t, 403, w.do(call{method: "PATCH", path: path, as: "viewer-a", body: `{"name":"x"}`}).status)

	stale := w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"name":"x"}`, header: map[string]string{"If-Match": `"7"`}})
	assert.Equal(t, 412, stale.status)
	renamed := w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"name":"Animals"}`, header: map[string]string{"If-Match": `"1"`}})
	require.Equal(t, 200, renamed.status, renamed.text)
	assert.Equal(t, `"2"`, renamed.header.Get("ETag"))

	gone := w.do(call{method: "DELETE", path: path, as: "admin-a"})
	assert.Equal(t, 204, gone.status, gone.text)
	assert.Empty(t, gone.text)
	assert.NotEmpty(t, gone.header.Get("X-Event-Position"))
	assert.Equal(t, 404, w.do(call{method: "GET", path: path, as: "admin-a"}).status)
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`}).header.Get("Location")
	for i, c := range []struct {
		header string
		status int
	}{
		{`"1"`, 200},
		{`*`, 200},
		{`"1"`, 412},
		{`W/"3"`, 412},
		{`"abc"`, 412},
		{`"03"`, 412},
		{`"-1"`, 412},
		{`"99999999999999999999"`, 412},
		{`3`, 400},
		{`"3`, 400},
		{`"3", "4"`, 400},
		{`"3"x`, 400},
		{`"3"`, 200},
	} {
		got := w.do(call{method: "PATCH", path: path, as: "admin-a", body: fmt.Sprintf(`{"name":"n%d"}`, i), header: map[string]string{"If-Match": c.header}})
		assert.Equal(t, c.status, got.status, "%s: %s", c.header, got.text)
	}
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`}).header.Get("Location")
	for header, status := range map[string]int{`"1"`: 304, `W/"1"`: 304, `*`: 304, `"2"`: 200, `"9", "1"`: 304, `nonsense`: 200} {
		got := w.do(call{method: "GET", path: path, as: "admin-a", header: map[string]string{"If-None-Match": header}})
		assert.Equal(t, status, got.status, header)
		assert.Equal(t, `"1"`, got.header.Get("ETag"), header)
		if status == 304 {
			assert.Empty(t, got.text)
			assert.Empty(t, got.header.Get("Content-Type"))
		}
	}
}

func TestBody_allFaultsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := w.do(call{
		method: "POST", path: "/api/projects?extra=1", as: "admin-a",
		body:   `{"Name":"x","description":7,"description":null,"nope~/":1}`,
		header: map[string]string{"X-Request-Id": "from-the-client"},
	})
	require.Equal(t, 422, bad.status, bad.text)
	assert.Equal(t, "application/problem+json", bad.header.Get("Content-Type"))
	assert.Equal(t, "from-the-client", bad.json["requestId"])
	assert.Equal(t, "request.invalid", bad.json["code"])
	faults := bad.faults()
	for _, place := range []string{"extra", "/Name", "/name", "/description", "/nope~0~1"} {
		assert.Contains(t, faults, place)
	}
}

func TestBody_refused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	for _, c := range []struct {
		name, body, media string
		status            int
		code, place       string
	}{
		{"nothing", "", "", 400, "request.malformed", ""},
		{"no JSON", "{", "application/json", 400, "request.malformed", ""},
		{"two values", `{"name":"a"} {}`, "application/json", 400, "request.malformed", ""},
		{"a comma too many", `{"name":"a",}`, "application/json", 400, "request.malformed", ""},
		{"not UTF-8", "{\"name\":\"\xff\"}", "application/json", 400, "request.malformed", ""},
		{"a list", `[]`, "application/json", 422, "request.invalid", ""},
		{"null", `null`, "application/json", 422, "request.invalid", ""},
		{"a name twice", `{"name":"a","name":"b"}`, "application/json", 422, "request.invalid", "/name"},
		{"NUL", `{"name":"a\u0000"}`, "application/json", 422, "request.invalid", "/name"},
		{"half a surrogate", `{"name":"\ud800"}`, "application/json", 422, "request.invalid", "/name"},
		{"a null", `{"name":null}`, "application/json", 422, "request.invalid", "/name"},
		{"too long", `{"name":"` + strings.Repeat("x", 101) + `"}`, "application/json", 422, "request.invalid", "/name"},
		{"other case", `{"NAME":"a","name":"a"}`, "application/json", 422, "request.invalid", "/NAME"},
		{"too deep", deep, "application/json", 422, "request.invalid", strings.Repeat("/a", 64)},
		{"too large", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, "application/json", 413, "request.too_large", ""},
		{"another type", `{"name":"a"}`, "text/plain", 415, "request.media_type", ""},
		{"no type", `{"name":"a"}`, "-", 415, "request.media_type", ""},
		{"another charset", `{"name":"a"}`, "application/json; charset=latin1", 415, "request.media_type", ""},
		{"a charset", `{"name":"with a charset"}`, "application/json; charset=UTF-8", 201, "", ""},
		{"a pair of surrogates", `{"name":"\ud83d\ude00"}`, "application/json", 201, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := map[string]string{"Content-Type": c.media}
			got := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: c.body, header: header})
			require.Equal(t, c.status, got.status, got.text)
			if c.code == "" {
				return
			}
			assert.Equal(t, "application/problem+json", got.header.Get("Content-Type"))
			assert.Equal(t, c.code, got.json["code"])
			if c.place != "" {
				assert.Contains(t, got.faults(), c.place)
			}
			assert.NotContains(t, got.text, "xxxxxxxx")
		})
	}
}

func TestProblems_ofHTTPItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		call   call
		status int
		code   string
	}{
		{call{method: "GET", path: "/api/nothing", as: "admin-a"}, 404, "request.route"},
		{call{method: "GET", path: "/", as: "admin-a"}, 404, "request.route"},
		{call{method: "PUT", path: "/api/projects", as: "admin-a"}, 405, "request.method"},
		{call{method: "GET", path: "/api/projects/17", as: "admin-a"}, 404, "request.route"},
		{call{method: "GET", path: "/api/projects?limit=0", as: "admin-a"}, 422, "request.invalid"},
		{call{method: "GET", path: "/api/projects?limit=x", as: "admin-a"}, 422, "request.invalid"},
		{call{method: "GET", path: "/api/projects?limit=5&limit=6", as: "admin-a"}, 422, "request.invalid"},
		{call{method: "GET", path: "/api/projects?lmit=5", as: "admin-a"}, 422, "request.invalid"},
		{call{method: "GET", path: "/api/projects?a=%zz", as: "admin-a"}, 400, "request.malformed"},
		{call{method: "GET", path: "/api/projects"}, 401, "auth.required"},
		{call{method: "GET", path: "/api/projects", as: "nobody"}, 401, "auth.token_invalid"},
		{call{method: "GET", path: "/api/projects", as: "tf_abc"}, 401, "auth.api_key_malformed"},
		{call{method: "GET", path: "/api/projects", header: map[string]string{"X-API-Key": "tf_abc"}}, 401, "auth.api_key_malformed"},
		{call{method: "GET", path: "/api/projects", as: "admin-a", header: map[string]string{"Accept": "image/png"}}, 406, "request.not_acceptable"},
		{call{method: "GET", path: "/api/projects", as: "admin-a", header: map[string]string{"X-Organization-Id": "x"}}, 422, "request.invalid"},
		{call{method: "GET", path: "/api/projects", as: "admin-a", header: map[string]string{"X-Organization-Id": w.orgB.String()}}, 404, "org.not_found"},
		{call{method: "GET", path: "/api/projects?minPosition=9000000000000", as: "admin-a"}, 503, "position.not_reached"},
	} {
		got := w.do(c.call)
		name := c.call.method + " " + c.call.path
		assert.Equal(t, c.status, got.status, name)
		assert.Equal(t, c.code, got.json["code"], name)
		assert.Equal(t, "application/problem+json", got.header.Get("Content-Type"), name)
		assert.NotEmpty(t, got.json["requestId"], name)
		assert.InDelta(t, c.status, got.json["status"], 0, name)
		switch c.status {
		case 401:
			assert.Contains(t, got.header.Get("WWW-Authenticate"), "Bearer", name)
		case 405:
			assert.Contains(t, got.header.Get("Allow"), "POST", name)
		case 503:
			assert.NotEmpty(t, got.header.Get("Retry-After"), name)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := map[string]string{"Idempotency-Key": "k-1"}
	make1 := call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`, header: key}
	first := w.do(make1)
	require.Equal(t, 201, first.status, first.text)
	assert.Empty(t, first.header.Get("Idempotency-Replayed"))
	again := w.do(make1)
	assert.Equal(t, 201, again.status)
	assert.Equal(t, first.text, again.text)
	assert.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	for _, name := range []string{"Location", "Etag", "X-Event-Position", "Content-Type"} {
		assert.Equal(t, first.header.Get(name), again.header.Get(name), name)
	}
	assert.NotEqual(t, first.header.Get("X-Request-Id"), again.header.Get("X-Request-Id"))

	other := make1
	other.body = `{"name":"Others"}`
	refused := w.do(other)
	assert.Equal(t, 422, refused.status)
	assert.Equal(t, "idempotency.key_reused", refused.json["code"])

	// Another person's and another organization's key of the same name is another key.
	for _, who := range []string{"manager-a", "admin-b"} {
		theirs := make1
		theirs.as, theirs.body = who, `{"name":"Of `+who+`"}`
		assert.Equal(t, 201, w.do(theirs).status, who)
	}
	// A refused command leaves the key free.
	twice := call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`, header: map[string]string{"Idempotency-Key": "k-2"}}
	require.Equal(t, 409, w.do(twice).status)
	twice.body = `{"name":"Birds"}`
	assert.Equal(t, 201, w.do(twice).status)

	for _, bad := range []string{"two words", strings.Repeat("x", 256)} {
		got := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Bad"}`, header: map[string]string{"Idempotency-Key": bad}})
		assert.Equal(t, 422, got.status, bad)
	}
}

func TestIdempotencyKey_atTheSameTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 20
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			answers[i] = w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"Pets"}`, header: map[string]string{"Idempotency-Key": "same"}})
		})
	}
	all.Wait()
	ids := map[string]int{}
	for _, a := range answers {
		switch a.status {
		case http.StatusCreated:
			ids[a.id()]++
		case http.StatusConflict:
			assert.Equal(t, "idempotency.in_progress", a.json["code"])
		default:
			t.Errorf("%d: %s", a.status, a.text)
		}
	}
	assert.Len(t, ids, 1)
	list := w.do(call{method: "GET", path: "/api/projects", as: "admin-a"})
	assert.Len(t, list.json["items"], 1)
}

func TestCursors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		require.Equal(t, 201, w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: fmt.Sprintf(`{"name":"p%d"}`, i)}).status)
	}
	first := w.do(call{method: "GET", path: "/api/projects?limit=2", as: "admin-a"})
	cursor, _ := first.json["nextCursor"].(string)
	require.NotEmpty(t, cursor, first.text)
	assert.Equal(t, `</api/projects?cursor=`+cursor+`&limit=2>; rel="next"`, first.header.Get("Link"))
	seen := map[string]bool{}
	path := "/api/projects?limit=2"
	for range 3 {
		page := w.do(call{method: "GET", path: path, as: "admin-a"})
		require.Equal(t, 200, page.status, page.text)
		for _, item := range page.json["items"].([]any) {
			seen[item.(map[string]any)["id"].(string)] = true
		}
		next, _ := page.json["nextCursor"].(string)
		path = "/api/projects?limit=2&cursor=" + next
	}
	assert.Len(t, seen, 5)

	for name, c := range map[string]call{
		"another organization": {method: "GET", path: "/api/projects?cursor=" + cursor, as: "admin-b"},
		"another filter":       {method: "GET", path: "/api/projects?q=x&cursor=" + cursor, as: "admin-a"},
		"changed":              {method: "GET", path: "/api/projects?cursor=" + cursor[:len(cursor)-4] + "AAAA", as: "admin-a"},
		"short":                {method: "GET", path: "/api/projects?cursor=AAAA", as: "admin-a"},
		"no base64":            {method: "GET", path: "/api/projects?cursor=***", as: "admin-a"},
	} {
		got := w.do(c)
		assert.Equal(t, 422, got.status, name)
		assert.Equal(t, "cursor.invalid", got.json["code"], name)
		assert.Contains(t, got.faults(), "cursor", name)
	}
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects?limit=5&cursor=" + cursor, as: "viewer-a"}).status)
}

func TestHead_isAGetWithoutItsBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := httptest.NewServer(w.server.Handler())
	defer server.Close()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/api-docs": 200, "/api/projects": 200, "/api/nothing": 404, "/api/auth/login": 405} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, server.URL+path, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+w.tokens["admin-a"])
		got, err := server.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(got.Body)
		require.NoError(t, err)
		require.NoError(t, got.Body.Close())
		assert.Equal(t, want, got.StatusCode, path)
		assert.Empty(t, body, path)
		assert.NotEmpty(t, got.Header.Get("X-Request-Id"), path)
	}
}
