package app_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// serving returns an installation that serve can run, which needs its secrets from outside.
func serving(t *testing.T, environ ...string) *installation {
	t.Helper()
	key := strings.Repeat("k", 48)
	return newInstallation(t, append([]string{
		"JWT_SECRET=jwt" + key, "JWT_REFRESH_SECRET=refresh" + key,
		"TESTFLOW_MASTER_KEY=bWFzdGVybWFzdGVybWFzdGVybWFzdGVybWFzdGVybWE=", "TESTFLOW_REGISTRATION=open",
	}, environ...)...)
}

// at returns u talking to another process of the installation.
func (u user) at(p *program) *user {
	u.url = func() string { return p.url }
	return &u
}

// atOnce sends n requests at the same time, to the nodes in turn, and counts the statuses.
func atOnce(t *testing.T, n int, nodes []*user, method, path string, body any) (statuses map[int]int, answers []answer) {
	t.Helper()
	answers = make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			a, err := nodes[i%len(nodes)].do(t.Context(), method, path, body)
			assert.NoError(t, err)
			answers[i] = a
		})
	}
	all.Wait()
	statuses = map[int]int{}
	for _, a := range answers {
		statuses[a.status]++
	}
	return statuses, answers
}

// TestRateLimits_overTwoProcesses: 300 requests at once at two processes, at the limit of 100 that they have by default:
// 100 pass. 60 guesses at a password at once: five are looked at, also after a restart.
func TestRateLimits_overTwoProcesses(t *testing.T) {
	t.Parallel()
	in := serving(t, "RATE_LIMIT_MAX_REQUESTS=100", "RATE_LIMIT_EXECUTION_MAX_REQUESTS=10")
	first := in.serve()
	u := registerFirst(t, first)
	second := in.serve()
	nodes := []*user{u, u.at(second)}

	statuses, answers := atOnce(t, 300, nodes, "GET", "/api/projects", nil)
	require.Equal(t, map[int]int{http.StatusOK: 100, http.StatusTooManyRequests: 200}, statuses)
	for _, a := range answers {
		assert.Equal(t, `"general";q=100;w=900`, a.header.Get("RateLimit-Policy"))
		assert.Contains(t, a.header.Get("RateLimit"), `"general";r=`)
		if a.status == http.StatusTooManyRequests {
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(t, err)
			assert.InDelta(t, 900, seconds, 60)
		}
	}
	var taken int
	require.NoError(t, in.db.System.QueryRow(t.Context(), `SELECT max(taken) FROM rate_counters`).Scan(&taken))
	assert.Equal(t, 100, taken)

	// Runs count against the member's own limit, over both processes too.
	_, answers = atOnce(t, 1, nodes, "POST", "/api/runs/"+u.orgID+"/rerun", nil)
	assert.Equal(t, `"execution";q=10;w=60`, answers[0].header.Get("RateLimit-Policy"))
	statuses, _ = atOnce(t, 40, nodes, "POST", "/api/runs/"+u.orgID+"/rerun", nil)
	assert.Equal(t, map[int]int{http.StatusNotFound: 9, http.StatusTooManyRequests: 31}, statuses)

	guess := map[string]any{"email": "first@example.com", "password": "a guess among sixty"}
	nobody := []*user{{t: t, url: u.url}, {t: t, url: nodes[1].url}}
	statuses, _ = atOnce(t, 60, nobody, "POST", "/api/auth/login", guess)
	assert.Equal(t, map[int]int{http.StatusUnauthorized: 5, http.StatusTooManyRequests: 55}, statuses)
	first.kill()
	second.kill()
	third := in.serve()
	a, err := nobody[0].at(third).do(t.Context(), "POST", "/api/auth/login", map[string]any{"email": "first@example.com", "password": "marble otter sunset first"})
	require.NoError(t, err)
	assert.Equal(t, http.StatusTooManyRequests, a.status, "a restart forgets no guess")
}
