package app_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPieces_serveAndWorker: the API in one process, a region's runs in another. A worker that is killed in the middle of
// a run is noticed, and another one ends the run.
func TestPieces_serveAndWorker(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	called, hold := make(chan struct{}, 8), make(chan struct{})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" && calls.Add(1) == 1 {
			called <- struct{}{}
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		_, _ = w.Write([]byte(`{"echo":"hello","list":[1]}`))
	}))
	t.Cleanup(target.Close)
	t.Cleanup(func() { close(hold) })
	key := strings.Repeat("k", 48)
	in := newInstallation(t, allow(target), "JWT_SECRET=jwt"+key, "JWT_REFRESH_SECRET=refresh"+key, "TESTFLOW_MASTER_KEY=bWFzdGVybWFzdGVybWFzdGVybWFzdGVybWFzdGVybWE=", "TESTFLOW_REGISTRATION=open")
	server := in.serve()
	first := in.work()
	u := registerFirst(t, server)
	_, test := u.newTest("pieces", "hold", map[string]any{"steps": []any{map[string]any{
		"name": "hold", "request": map[string]any{"method": "GET", "url": target.URL + "/hold"},
		"assertions": []any{map[string]any{"source": "status", "operator": "equals", "expected": 200}},
	}}})
	var out struct{ Runs []identified }
	u.must(http.StatusAccepted, "POST", "/api/tests/"+test+"/execute", map[string]any{}, &out)
	select {
	case <-called:
	case <-time.After(30 * time.Second):
		t.Fatalf("the worker never called the target:\n%s", first.errs)
	}
	first.kill()
	second := in.work()
	require.Eventually(t, func() bool {
		var run struct {
			Status   string
			Attempts int
		}
		u.must(http.StatusOK, "GET", "/api/runs/"+out.Runs[0].ID, nil, &run)
		return run.Status == "passed" && run.Attempts == 2
	}, time.Minute, 250*time.Millisecond, "the run of the killed worker never ended")

	var leaders int
	require.NoError(t, in.db.System.QueryRow(context.Background(), `SELECT count(*) FROM river.river_leader WHERE expires_at > now()`).Scan(&leaders))
	require.Equal(t, 1, leaders, "somebody looks after the queue")
	require.Zero(t, second.stop(), second.errs)
	require.Zero(t, server.stop(), server.errs)
	report, code := in.command(t.Context(), "doctor")
	require.Zero(t, code, report)
}

// registerFirst registers the installation's first account with the setup token that serve has logged.
func registerFirst(t *testing.T, server *program) *user {
	t.Helper()
	_, rest, found := strings.Cut(server.errs.String(), `"setup_token":"`)
	require.True(t, found, server.errs)
	token, _, _ := strings.Cut(rest, `"`)
	u := &user{t: t, url: func() string { return server.url }}
	var in struct {
		AccessToken  string
		Organization identified
	}
	u.must(http.StatusCreated, "POST", "/api/auth/register", map[string]any{
		"email": "first@example.com", "password": "marble otter sunset first", "name": "First", "setupToken": token,
	}, &in)
	u.token, u.orgID = in.AccessToken, in.Organization.ID
	return u
}
