package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAttack_racesOverTwoNodes is somebody who sends everything that may happen once many times at the same moment, to
// two processes on one database, and a member who goes on while they are demoted; at the end a process is killed in
// the middle of it, and the database is sound.
func TestAttack_racesOverTwoNodes(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	in := serving(t, allow(target), "RATE_LIMIT_AUTH_MAX_REQUESTS=0", "RATE_LIMIT_AUTH_MAX_PER_ADDRESS=0", "RATE_LIMIT_AUTH_MAX_PER_ACCOUNT=0", "RATE_LIMIT_REFRESH_MAX_REQUESTS=0")
	a, b := in.serve(), in.serve()
	admin := registerFirst(t, a)
	nodes := func(u *user) []*user { return []*user{u, u.at(b)} }
	const many = 24

	// One invitation makes one membership.
	friend := register(t, func() string { return a.url }, "friend")
	var invitation struct{ Token string }
	admin.must(http.StatusCreated, "POST", "/api/organizations/"+admin.orgID+"/invitations", map[string]any{"email": "friend@example.com", "role": "admin"}, &invitation)
	statuses, answers := atOnce(t, many, nodes(friend), "POST", "/api/invitations/accept", map[string]any{"token": invitation.Token})
	assertOnly(t, statuses, answers, http.StatusOK, http.StatusConflict, http.StatusNotFound, http.StatusUnprocessableEntity)
	require.Equal(t, 1, in.events(t, admin.orgID, "org.member_added", friend.accountID(t)), "%v", statuses)
	outsider := register(t, func() string { return b.url }, "outsider")
	stolen, err := outsider.do(t.Context(), "POST", "/api/invitations/accept", map[string]any{"token": invitation.Token})
	require.NoError(t, err)
	require.GreaterOrEqual(t, stolen.status, 400, "%s", stolen.body)

	// Two admins who demote each other at once: one stays.
	friend.orgID = admin.orgID
	me, them := admin.accountID(t), friend.accountID(t)
	for range 5 {
		var both sync.WaitGroup
		for _, c := range []struct {
			who  *user
			whom string
		}{{admin, them}, {friend.at(b), me}, {admin.at(b), me}, {friend, them}} {
			both.Go(func() {
				_, err := c.who.do(t.Context(), "PATCH", "/api/organizations/"+admin.orgID+"/members/"+c.whom, map[string]any{"role": "viewer"}, "X-Organization-Id", admin.orgID)
				assert.NoError(t, err)
			})
		}
		both.Wait()
		require.Equal(t, 1, in.count(t, `SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'admin'`, admin.orgID), "an organization without an admin, or with two")
		by, whom := admin, them
		if in.count(t, `SELECT count(*) FROM org_members WHERE org_id = $1 AND account_id = $2 AND role = 'admin'`, admin.orgID, me) == 0 {
			by, whom = friend, me
		}
		by.must(http.StatusOK, "PATCH", "/api/organizations/"+admin.orgID+"/members/"+whom, map[string]any{"role": "admin"}, nil, "X-Organization-Id", admin.orgID)
	}

	// However often a key is rotated at once, its last secret works, the first one doesn't, and none beyond two.
	id, first := admin.keyOf(map[string]any{"scopes": []string{"read"}})
	statuses, answers = atOnce(t, many, nodes(admin), "POST", "/api/api-keys/"+id+"/rotate", map[string]any{"overlap": "1h"})
	assertOnly(t, statuses, answers, http.StatusOK, http.StatusConflict, http.StatusPreconditionFailed)
	alive := map[string]bool{}
	for _, secret := range append(secretsOf(t, answers), first) {
		holder := user{t: t, url: admin.url, token: secret}
		here, err := holder.do(t.Context(), "GET", "/api/projects", nil)
		require.NoError(t, err)
		there, err := holder.at(b).do(t.Context(), "GET", "/api/projects", nil)
		require.NoError(t, err)
		require.Equal(t, here.status, there.status, "the nodes disagree")
		alive[secret] = here.status == http.StatusOK
	}
	living := 0
	for _, is := range alive {
		if is {
			living++
		}
	}
	require.LessOrEqual(t, living, 2, "%v", statuses)
	require.Positive(t, living)

	// One refresh token makes one child within the grace; another client's replay ends the family on both nodes.
	var session struct{ AccessToken, RefreshToken string }
	nobody := &user{t: t, url: admin.url}
	nobody.must(http.StatusOK, "POST", "/api/auth/login", map[string]any{"email": "first@example.com", "password": "marble otter sunset first"}, &session)
	_, answers = atOnce(t, many, nodes(nobody), "POST", "/api/auth/refresh", map[string]any{"refreshToken": session.RefreshToken})
	for _, got := range answers {
		assert.Contains(t, []int{http.StatusOK, http.StatusUnauthorized}, got.status, "%s", got.body)
	}
	children := map[string]bool{}
	for _, got := range answers {
		if got.status == http.StatusOK {
			var tokens struct{ RefreshToken string }
			got.into(t, &tokens)
			children[tokens.RefreshToken] = true
		}
	}
	family := in.count(t, `SELECT count(*) FROM refresh_tokens`) // of all sign-ins
	require.LessOrEqual(t, family, 4+len(children), "more tokens than were given out")

	// What a member begins after their demotion was answered is refused on every node.
	var in2 struct{ Token string }
	admin.must(http.StatusCreated, "POST", "/api/organizations/"+admin.orgID+"/invitations", map[string]any{"email": "outsider@example.com", "role": "developer"}, &in2)
	outsider.must(http.StatusOK, "POST", "/api/invitations/accept", map[string]any{"token": in2.Token}, nil)
	_, test := admin.newTest("races", "say", sayTest(target.URL))
	demoted := make(chan struct{})
	var runners sync.WaitGroup
	for _, u := range nodes(outsider) {
		runners.Go(func() {
			for range 40 {
				after := false
				select {
				case <-demoted:
					after = true
				default:
				}
				got, err := u.do(t.Context(), "POST", "/api/tests/"+test+"/execute", map[string]any{}, "X-Organization-Id", admin.orgID)
				if err != nil {
					t.Error(err)
					return
				}
				if after {
					assert.Equal(t, http.StatusForbidden, got.status, "executed after the demotion: %s", got.body)
				}
			}
		})
	}
	admin.at(b).must(http.StatusOK, "PATCH", "/api/organizations/"+admin.orgID+"/members/"+outsider.accountID(t), map[string]any{"role": "viewer"}, nil)
	close(demoted)
	runners.Wait()

	// A node dies in the middle of changes; the other one goes on, and the database is sound.
	worker := in.work()
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() {
			for range 15 {
				_, _ = nodes(admin)[i%2].do(t.Context(), "POST", "/api/tests/"+test+"/execute", map[string]any{}) // one node dies
				_, _ = nodes(admin)[i%2].do(t.Context(), "PATCH", "/api/organizations/"+admin.orgID, map[string]any{"name": "n"})
			}
		})
	}
	a.kill()
	clients.Wait()
	admin.at(b).must(http.StatusOK, "GET", "/api/projects", nil, nil)
	require.Eventually(t, func() bool {
		return in.count(t, `SELECT count(*) FROM runs WHERE finished_at IS NULL`) == 0
	}, time.Minute, 100*time.Millisecond)
	out, code := in.command(t.Context(), "doctor", "--invariants")
	require.Zero(t, code, "%s", out)
	for _, p := range []*program{a, b, worker} {
		for _, secret := range append(secretsOf(t, answers), first, invitation.Token, session.RefreshToken, admin.token) {
			require.NotContains(t, p.errs.String(), secret, "a log keeps a secret")
		}
	}
}

// assertOnly fails on a status that is none of these.
func assertOnly(t *testing.T, statuses map[int]int, answers []answer, allowed ...int) {
	t.Helper()
	for status := range statuses {
		if !assert.Contains(t, allowed, status, "%v", statuses) {
			for _, a := range answers {
				if a.status == status {
					t.Logf("%d: %s", status, a.body)
					break
				}
			}
		}
	}
	assert.Positive(t, statuses[allowed[0]], "%v", statuses)
}

// secretsOf are the API keys that answers show.
func secretsOf(t *testing.T, answers []answer) (secrets []string) {
	t.Helper()
	for _, a := range answers {
		var made struct{ Key string }
		if a.status < 300 && json.Unmarshal(a.body, &made) == nil && strings.HasPrefix(made.Key, "tf_") {
			secrets = append(secrets, made.Key)
		}
	}
	return secrets
}

// count asks the database as the system.
func (i *installation) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, i.db.System.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

// events counts an organization's events of a type that are about an account.
func (i *installation) events(t *testing.T, org, kind, account string) int {
	t.Helper()
	return i.count(t, `SELECT count(*) FROM es.ledger_event e JOIN es.event_type t USING (type_id) WHERE e.org_id = $1 AND t.name = $2 AND e.data->>'accountId' = $3`, org, kind, account)
}
