package httpapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/httpapi"
	"github.com/testflow/testflow/internal/org"
	"github.com/testflow/testflow/internal/ratelimit"
)

// rates are limits that a test can reach.
func (w *world) rates() httpapi.RateLimits {
	w.t.Helper()
	limiter, err := ratelimit.New(ratelimit.Config{DB: w.base.db.DB, Key: []byte(strings.Repeat("r", 32)), Now: time.Now, Log: w.base.log})
	require.NoError(w.t, err)
	of := func(name string, most int) ratelimit.Limit {
		return ratelimit.Limit{Name: name, Max: most, Window: 15 * time.Minute}
	}
	return httpapi.RateLimits{
		Limiter: limiter, General: of("general", 4), Execution: of("execution", 3), APIKey: of("api-key", 6), Refresh: of("refresh", 3),
		SignIn: ratelimit.SignInLimits{Pair: of("authentication", 5), Address: of("authentication-address", 12), Account: of("authentication-account", 8)},
	}
}

// node is one more process of the same installation, with limits.
func (w *world) node(rates httpapi.RateLimits) *httpapi.Server {
	w.t.Helper()
	deps := w.deps
	deps.Registry, deps.Rates = prometheus.NewRegistry(), rates
	server, err := httpapi.New(deps)
	require.NoError(w.t, err)
	return server
}

// limited gives the world limits and returns it.
func (w *world) limited() *world {
	w.server = w.node(w.rates())
	return w
}

// from sends c from another address.
func (w *world) from(address string, c call) answer {
	w.t.Helper()
	c.address = address
	return w.do(c)
}

// rate reads the RateLimit headers: the numbers of each limit.
func rate(t *testing.T, h http.Header, limit string) (quota, window, left, reset int64) {
	t.Helper()
	find := func(name string) httpsfv.Item {
		list, err := httpsfv.UnmarshalList(h.Values(name))
		require.NoError(t, err, name)
		i := slices.IndexFunc(list, func(m httpsfv.Member) bool { return m.(httpsfv.Item).Value == limit })
		require.GreaterOrEqual(t, i, 0, "%s: %v", name, h.Values(name))
		return list[i].(httpsfv.Item)
	}
	number := func(item httpsfv.Item, name string) int64 {
		v, ok := item.Params.Get(name)
		require.True(t, ok, name)
		return v.(int64)
	}
	policy, state := find("RateLimit-Policy"), find("RateLimit")
	return number(policy, "q"), number(policy, "w"), number(state, "r"), number(state, "t")
}

func TestRateLimit_everyOperationNamesItsOwn(t *testing.T) {
	t.Parallel()
	executes := []string{"executeTest", "executeProject", "rerun", "executeSpec"}
	for path, item := range contract().Paths.Map() {
		for method, op := range item.Operations() {
			name := method + " " + path
			class, _ := op.Extensions["x-rate-limit"].(string)
			assert.Contains(t, []string{"none", "general", "execution", "authentication", "refresh"}, class, "%s needs x-rate-limit", name)
			public := op.Security != nil
			switch {
			case op.OperationID == "logout": // whoever wants to go may
				assert.Equal(t, "none", class, name)
			case class == "none":
				assert.True(t, public && !strings.HasPrefix(path, "/api/") || op.OperationID == "openLive", "%s costs something, so it is limited", name)
			case slices.Contains(executes, op.OperationID):
				assert.Equal(t, "execution", class, name)
			case public && method == http.MethodPost:
				assert.Contains(t, []string{"authentication", "refresh"}, class, "%s is open to anybody, so guesses at it are limited", name)
			}
			if op.RequestBody != nil {
				for field := range op.RequestBody.Value.Content.Get("application/json").Schema.Value.Properties {
					if strings.Contains(strings.ToLower(field), "password") {
						assert.Equal(t, "authentication", class, "%s takes a password", name)
					}
				}
			}
		}
	}
}

func TestRateLimit_headersOnEveryLimitedAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	for left := int64(3); left >= 0; left-- {
		got := w.do(call{method: "GET", path: "/api/projects", as: "admin-a"})
		require.Equal(t, 200, got.status, got.text)
		q, window, r, reset := rate(t, got.header, "general")
		assert.Equal(t, []int64{4, 900, left}, []int64{q, window, r})
		assert.InDelta(t, 900, reset, 10)
		assert.Empty(t, got.header.Get("Retry-After"))
	}
	got := w.do(call{method: "GET", path: "/api/projects", as: "admin-a"})
	require.Equal(t, 429, got.status)
	assert.Equal(t, "rate.limited", got.json["code"])
	assert.Contains(t, got.json["detail"], "4 requests in 15m")
	_, _, r, reset := rate(t, got.header, "general")
	assert.Zero(t, r)
	assert.Equal(t, fmt.Sprint(reset), got.header.Get("Retry-After"))
	assert.InDelta(t, 900, reset, 10)
	// Faults of a request count like it, and others have limits of their own.
	assert.Equal(t, 429, w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: "{"}).status)
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: "viewer-a"}).status)
	// The same person in another organization is the same person.
	assert.Equal(t, 429, w.do(call{method: "GET", path: "/api/organizations", as: "admin-a"}).status)
	// To leave, and to see how the service is, is always free.
	for _, path := range []string{"/health", "/livez", "/readyz", "/metrics", "/api-docs", "/openapi.yaml"} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		r.RemoteAddr = "127.0.0.1:1234"
		rec := httptest.NewRecorder()
		w.server.Handler().ServeHTTP(rec, r)
		assert.Equal(t, 200, rec.Code, path)
		assert.Empty(t, rec.Header().Get("RateLimit"), path)
	}
	assert.Equal(t, 204, w.do(call{method: "POST", path: "/api/auth/logout", as: "admin-a"}).status)
}

func TestRateLimit_executions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.makeTest("admin-a", "https://pets.example", "/pets")
	w.limited()
	project, _ := test.json["projectId"].(string)
	for _, path := range []string{"/api/tests/" + test.id() + "/execute", "/api/projects/" + project + "/execute", "/api/tests/" + test.id() + "/execute"} {
		got := w.do(call{method: "POST", path: path, as: "developer-a"})
		require.Equal(t, 202, got.status, got.text)
		q, _, _, _ := rate(t, got.header, "execution")
		assert.EqualValues(t, 3, q)
	}
	for _, path := range []string{"/api/tests/" + test.id() + "/execute", "/api/projects/" + project + "/execute", "/api/runs/" + newID().String() + "/rerun"} {
		assert.Equal(t, 429, w.do(call{method: "POST", path: path, as: "developer-a"}).status, path)
	}
	assert.Equal(t, 202, w.do(call{method: "POST", path: "/api/tests/" + test.id() + "/execute", as: "manager-a"}).status, "another member")
	for range 4 {
		assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/tests", as: "developer-a"}).status, "runs don't count against the rest")
	}
}

// Guessed tokens count by address, whatever they claim to be; a good one still passes from there.
func TestRateLimit_guessedTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	for i := range 8 {
		as, want := "nobody", 401
		if i%2 == 0 {
			as = "tf_guess"
		}
		if i >= 4 {
			want = 429
		}
		got := w.from("203.0.113.5", call{method: "GET", path: "/api/projects", as: as})
		require.Equal(t, want, got.status, "%d: %s", i, got.text)
		_, _, left, _ := rate(t, got.header, "general")
		assert.EqualValues(t, max(0, 3-i), left)
	}
	assert.Equal(t, 200, w.from("203.0.113.5", call{method: "GET", path: "/api/projects", as: "viewer-a"}).status, "nobody locks the neighbours out")
	assert.Equal(t, 401, w.from("203.0.113.6", call{method: "GET", path: "/api/projects", as: "nobody"}).status)
	// So do sign-ins that make no sense, and organizations that are tried out.
	for i := range 6 {
		want := 400
		if i >= 4 {
			want = 429
		}
		assert.Equal(t, want, w.from("203.0.113.7", call{method: "POST", path: "/api/auth/login", body: "{"}).status, "%d", i)
	}
	for i := range 6 {
		want := 404
		if i >= 4 {
			want = 429
		}
		got := w.from("203.0.113.8", call{method: "GET", path: "/api/projects", as: "admin-b", header: map[string]string{"X-Organization-Id": newID().String()}})
		assert.Equal(t, want, got.status, "%d", i)
	}
}

func login(email, with string) call {
	return call{method: "POST", path: "/api/auth/login", body: fmt.Sprintf(`{"email":%q,"password":%q}`, email, with)}
}

// Guesses are counted over nodes before a password is looked at. Afterwards the right password is refused too, and an
// address without an account gets the same answers.
func TestSignInLimit_bruteForceOverTwoNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := []*httpapi.Server{w.node(w.rates()), w.node(w.rates())}
	for _, email := range []string{"admin-a@example.com", "nobody@example.com"} {
		statuses := make([]int, 30)
		var all sync.WaitGroup
		for i := range statuses {
			all.Go(func() {
				spelling := []string{email, strings.ToUpper(email), " " + email}[i%3]
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/auth/login", strings.NewReader(login(spelling, fmt.Sprintf("guess %d of many", i)).body))
				r.Header.Set("Content-Type", "application/json")
				r.RemoteAddr = "203.0.113.1:999"
				rec := httptest.NewRecorder()
				nodes[i%2].Handler().ServeHTTP(rec, r)
				statuses[i] = rec.Code
			})
		}
		all.Wait()
		count := map[int]int{}
		for _, s := range statuses {
			count[s]++
		}
		assert.Equal(t, map[int]int{401: 5, 429: 25}, count, email)
	}
	w.server = nodes[0]
	right := w.from("203.0.113.1", login("admin-a@example.com", password))
	nobody := w.from("203.0.113.1", login("nobody@example.com", password))
	for _, got := range []answer{right, nobody} {
		assert.Equal(t, 429, got.status)
		q, _, left, _ := rate(t, got.header, "authentication")
		assert.EqualValues(t, 5, q)
		assert.Zero(t, left)
		assert.Contains(t, got.json["detail"], "5 attempts in 15m for this account from this address.")
	}
	delete(right.json, "requestId")
	delete(nobody.json, "requestId")
	delete(right.json, "detail") // the time
	delete(nobody.json, "detail")
	assert.Equal(t, right.json, nobody.json)
	assert.Equal(t, 200, w.from("203.0.113.2", login("admin-a@example.com", password)).status, "from elsewhere")
}

// Whoever guesses at an account from everywhere can't lock its person out: they pass from where they were before.
func TestSignInLimit_nobodyLocksAnotherOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	require.Equal(t, 200, w.from("192.0.2.10", login("viewer-a@example.com", password)).status)
	for i := range 8 {
		require.Equal(t, 401, w.from(fmt.Sprintf("198.51.100.%d", i+1), login("viewer-a@example.com", "wrong by intent")).status)
	}
	stranger := w.from("198.51.100.99", login("viewer-a@example.com", password))
	assert.Equal(t, 429, stranger.status, "a stranger needs proof")
	assert.Contains(t, stranger.json["detail"], "8 attempts in 15m for this account, from all addresses together.")
	assert.Equal(t, 200, w.from("192.0.2.10", login("viewer-a@example.com", password)).status, "from home")
	for range 5 {
		assert.Equal(t, 401, w.from("192.0.2.10", login("viewer-a@example.com", "wrong by intent")).status)
	}
	assert.Equal(t, 429, w.from("192.0.2.10", login("viewer-a@example.com", password)).status, "but home isn't free to guess either")
}

// A right password costs nothing and wipes nothing.
func TestSignInLimit_onlyFailuresCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	for range 10 {
		require.Equal(t, 200, w.from("192.0.2.1", login("admin-b@example.com", password)).status)
	}
	for i := range 12 {
		require.Equal(t, 401, w.from("192.0.2.1", login(fmt.Sprintf("p%d@example.com", i), "wrong by intent")).status)
		if i < 11 {
			require.Equal(t, 200, w.from("192.0.2.1", login("admin-b@example.com", password)).status)
		}
	}
	full := w.from("192.0.2.1", login("q@example.com", "wrong by intent"))
	assert.Equal(t, 429, full.status, "an account of one's own makes no room")
	assert.Contains(t, full.json["detail"], "12 attempts in 15m from this address, whichever the account.")
}

// That guesses were stopped is told once a window, to the person and to their organizations.
func TestSignInLimit_isAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	for range 9 {
		w.from("203.0.113.4", login("admin-a@example.com", "wrong by intent"))
		w.from("203.0.113.4", login("nobody@example.com", "wrong by intent"))
	}
	got := w.do(call{method: "GET", path: "/api/audit/events?type=" + org.TypeSignInLimited, as: "admin-a"})
	require.Equal(t, 200, got.status, got.text)
	items := got.json["items"].([]any)
	require.Len(t, items, 1)
	event := items[0].(map[string]any)
	assert.Equal(t, map[string]any{"accountId": w.users["admin-a"].String(), "operation": "login", "everywhere": false}, event["data"])
	assert.Contains(t, got.text, "203.0.113.4")
}

func TestSignInLimit_refreshHasItsOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t).limited()
	in := w.from("192.0.2.1", login("admin-a@example.com", password))
	for i := range 4 {
		got := w.from("192.0.2.1", call{method: "POST", path: "/api/auth/refresh", body: fmt.Sprintf(`{"refreshToken":%q}`, in.json["refreshToken"])})
		if i == 3 {
			assert.Equal(t, 429, got.status)
			break
		}
		require.Equal(t, 200, got.status, got.text)
		in = got
		q, _, left, _ := rate(t, got.header, "refresh")
		assert.Equal(t, []int64{3, int64(2 - i)}, []int64{q, left})
	}
	assert.Equal(t, 200, w.from("192.0.2.1", login("admin-a@example.com", password)).status, "and leaves the rest alone")
}

// Without the database the API doesn't stop for its limits; nobody signs in uncounted.
func TestRateLimit_withoutItsDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	apart := w.base.db.URL
	rates := w.rates()
	away := newWorld(t)
	limiter, err := ratelimit.New(ratelimit.Config{DB: away.base.db.DB, Key: []byte(strings.Repeat("r", 32)), Now: time.Now, Log: w.base.log})
	require.NoError(t, err)
	require.NotEqual(t, apart, away.base.db.URL)
	away.base.db.Close()
	rates.Limiter = limiter
	w.server = w.node(rates)
	for range 4 {
		assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: "admin-a"}).status)
	}
	assert.Equal(t, 429, w.do(call{method: "GET", path: "/api/projects", as: "admin-a"}).status, "by this node's own count")
	got := w.do(login("admin-a@example.com", password))
	assert.Equal(t, 503, got.status)
	assert.Equal(t, "rate.unavailable", got.json["code"])
	assert.NotEmpty(t, got.header.Get("Retry-After"))
}

// All that a key does counts against the key's own limit, and against nobody else's.
func TestRateLimit_keysHaveTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	test := w.makeTest("admin-a", "https://pets.example", "/pets")
	_, own := w.key("admin-a", `["read","run.execute"]`, `,"rateLimit":2`)
	_, usual := w.key("admin-a", `["read","run.execute"]`, "")
	w.limited()
	for key, most := range map[string]int64{own: 2, usual: 6} {
		for i := range most + 2 {
			c, want := call{method: "GET", path: "/api/projects", as: key}, 200
			if i%2 == 1 {
				c, want = call{method: "POST", path: "/api/tests/" + test.id() + "/execute", as: key}, 202
			}
			if i >= most {
				want = 429
			}
			got := w.do(c)
			require.Equal(t, want, got.status, got.text)
			q, _, left, _ := rate(t, got.header, "api-key")
			assert.Equal(t, []int64{most, max(0, most-i-1)}, []int64{q, left})
		}
	}
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/projects", as: "admin-a"}).status, "the person who made them")
}
