package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// removedWithin is the promise of how long a member who was removed goes on seeing anything.
const removedWithin = 5 * time.Second

// promptly is less than a round of checks.
const promptly = 3 * time.Second

// TestAttack_removedMember_isOutOnEveryNode: two nodes, one database. A member who is removed on one is out on both:
// their access token and API key at once, their open sockets within 5 s, whether the news reaches the other node by the
// feed, or by the feed's own look after its listener was cut, or, when no event arrives at all, by the check of sign-ins.
func TestAttack_removedMember_isOutOnEveryNode(t *testing.T) {
	t.Parallel()
	key := strings.Repeat("k", 48)
	in := newInstallation(t, "JWT_SECRET=jwt"+key, "JWT_REFRESH_SECRET=refresh"+key, "TESTFLOW_MASTER_KEY=bWFzdGVybWFzdGVybWFzdGVybWFzdGVybWFzdGVybWE=", "TESTFLOW_REGISTRATION=invitation")
	a, b := in.serve(), in.serve()
	admin := registerFirst(t, a)
	var project identified
	admin.must(http.StatusCreated, "POST", "/api/projects", map[string]any{"name": "pets"}, &project)

	sql := func(statement string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), in.db.URL)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), statement)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
	for _, c := range []struct{ name, cut string }{
		{"listening", "SELECT 1"},
		{"listener cut", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'listen%'`},
		{"no events at all", `ALTER TABLE es.run_event RENAME TO run_event_away`},
	} {
		name := strings.ReplaceAll(c.name, " ", "-")
		onA, onB := admin.invite(t, name, a, b)
		var apiKey struct{ Key string }
		onB.must(http.StatusCreated, "POST", "/api/api-keys", map[string]any{"name": name, "scopes": []string{"project.read", "events.read"}}, &apiKey)
		sockets := map[string]<-chan ending{
			"a": onA.socket(t, ""), "b": onB.socket(t, ""), "b by API key": onB.socket(t, apiKey.Key),
		}
		for _, u := range []*user{onA, onB} { // what could be cached is
			u.must(http.StatusOK, "GET", "/api/projects/"+project.ID, nil, nil)
		}
		byKey := &user{t: t, url: onB.url, token: apiKey.Key}
		byKey.must(http.StatusOK, "GET", "/api/projects/"+project.ID, nil, nil)

		sql(c.cut)
		began := time.Now()
		admin.must(http.StatusNoContent, "DELETE", "/api/organizations/"+admin.orgID+"/members/"+onB.accountID(t), nil, nil)
		for _, u := range []*user{onA, onB} {
			u.must(http.StatusNotFound, "GET", "/api/projects/"+project.ID, nil, nil, "X-Organization-Id", admin.orgID)
			u.must(http.StatusNotFound, "GET", "/api/projects/"+project.ID, nil, nil)
			u.must(http.StatusNotFound, "GET", "/api/organizations/"+admin.orgID, nil, nil)
		}
		byKey.must(http.StatusUnauthorized, "GET", "/api/projects/"+project.ID, nil, nil)
		for node, closed := range sockets {
			select {
			case end := <-closed:
				took := end.at.Sub(began)
				t.Logf("%s: socket on %s closed with %d after %v", c.name, node, end.status, took)
				want := websocket.StatusCode(4403)
				if node == "b by API key" {
					want = 4401 // a key that stopped is signed out
				}
				require.Equal(t, want, end.status, "%s on %s", c.name, node)
				require.Less(t, took, removedWithin, "%s on %s", c.name, node)
				if c.name == "listening" {
					require.Less(t, took, promptly, "by the event, and not by the check that comes round: %s", node)
				}
			case <-time.After(removedWithin - time.Since(began)):
				require.Fail(t, "a removed member's socket is open after 5 s", "%s on %s", c.name, node)
			}
		}
	}
}

// invite makes a person a manager of the admin's organization; they register at one program and are seen at both.
func (u *user) invite(t *testing.T, name string, at, other *program) (here, there *user) {
	t.Helper()
	var invitation struct{ Token string }
	u.must(http.StatusCreated, "POST", "/api/organizations/"+u.orgID+"/invitations", map[string]any{"email": name + "@example.com", "role": "manager"}, &invitation)
	here = &user{t: t, url: func() string { return at.url }, orgID: u.orgID}
	var in struct{ AccessToken string }
	here.must(http.StatusCreated, "POST", "/api/auth/register", map[string]any{
		"email": name + "@example.com", "password": "marble otter sunset " + name, "name": name, "invitationToken": invitation.Token,
	}, &in)
	here.token = in.AccessToken
	return here, &user{t: t, url: func() string { return other.url }, token: in.AccessToken, orgID: u.orgID}
}

func (u *user) accountID(t *testing.T) string {
	t.Helper()
	var me struct{ User identified }
	u.must(http.StatusOK, "GET", "/api/auth/me", nil, &me)
	return me.User.ID
}

// ending is how a socket was closed, and when.
type ending struct {
	status websocket.StatusCode
	at     time.Time
}

// socket opens the live stream, by an API key if one is given, and tells how it was closed.
func (u *user) socket(t *testing.T, apiKey string) <-chan ending {
	t.Helper()
	token := u.token
	if apiKey != "" {
		token = apiKey
	}
	conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(u.url(), "http")+"/api/live", nil)
	require.NoError(t, err)
	require.NoError(t, wsjson.Write(t.Context(), conn, map[string]any{"type": "auth", "token": token}))
	require.NoError(t, wsjson.Write(t.Context(), conn, map[string]any{"type": "subscribe", "topics": []string{"organization"}}))
	for {
		var f frame
		require.NoError(t, wsjson.Read(t.Context(), conn, &f))
		if f.Type == "subscribed" {
			break
		}
		require.NotEqual(t, "error", f.Type)
	}
	closed := make(chan ending, 1)
	go func() {
		for {
			if _, _, err := conn.Read(context.WithoutCancel(t.Context())); err != nil {
				closed <- ending{websocket.CloseStatus(err), time.Now()}
				return
			}
		}
	}()
	t.Cleanup(func() { _ = conn.CloseNow() })
	return closed
}
