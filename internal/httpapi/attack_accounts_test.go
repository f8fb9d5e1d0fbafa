package httpapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/org"
)

// TestAttack_enumeration_byAnswerAndTime asks, in every way that takes an address, about one that has an account and one
// that hasn't: the answers are the same, and none comes before the least time, under which all the work is done.
func TestAttack_enumeration_byAnswerAndTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.base.orgs.Policy = org.Confirmed
	const least = 700 * time.Millisecond
	w.accounts.LeastTime = least
	for name, c := range map[string]struct{ path, body string }{
		"login":    {"/api/auth/login", `{"email":"ADDRESS","password":"not the right one"}`},
		"forgot":   {"/api/auth/password/forgot", `{"email":"ADDRESS"}`},
		"register": {"/api/auth/register", `{"email":"ADDRESS","password":"seven brave otters swim","name":"X"}`},
	} {
		var same []string
		for _, address := range []string{"viewer-a@example.com", "nobody-at-all@example.com", "ADMIN-b@example.com"} {
			start := time.Now()
			got := w.do(call{method: "POST", path: c.path, body: strings.ReplaceAll(c.body, "ADDRESS", address)})
			assert.GreaterOrEqual(t, time.Since(start), least, "%s tells by its time", name)
			headers := slices.Sorted(maps.Keys(got.header))
			same = append(same, fmt.Sprint(got.same(), headers))
		}
		assert.Equal(t, same[0], same[1], "%s tells by its answer", name)
		assert.Equal(t, same[0], same[2], "%s tells by its answer", name)
	}
	// And nothing that follows tells either: who has registered can't sign in before the code came back.
	for _, address := range []string{"viewer-a@example.com", "nobody-at-all@example.com"} {
		got := w.do(call{method: "POST", path: "/api/auth/login", body: `{"email":"` + address + `","password":"seven brave otters swim"}`})
		assert.Equal(t, http.StatusUnauthorized, got.status, address)
	}
}

func TestAuth_passwordsSessionsAndCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.newcomer("admin-ada")
	post := func(as, path, body string) answer {
		return w.do(call{method: "POST", path: "/api/auth/" + path, as: as, body: body})
	}
	me := w.do(call{method: "GET", path: "/api/auth/me", as: ada})
	assert.Equal(t, false, me.json["user"].(map[string]any)["emailVerified"])
	verify := w.mail.Code(t, ada+"@example.com", "account.verify")
	require.Equal(t, 204, post("", "email/verify", `{"token":"`+verify+`"}`).status)
	again := post("", "email/verify", `{"token":"`+verify+`"}`)
	assert.Equal(t, 422, again.status, again.text)
	assert.Equal(t, "account.code_invalid", again.json["code"])
	assert.Contains(t, again.faults(), "/token")
	assert.Equal(t, 202, post(ada, "email/resend", "").status)

	weak := post(ada, "password/change", `{"currentPassword":"`+password+`","newPassword":"Password1234!"}`)
	assert.Equal(t, 422, weak.status, weak.text)
	assert.Contains(t, weak.faults(), "/newPassword")
	wrong := post(ada, "password/change", `{"currentPassword":"not this one","newPassword":"seven brave otters swim"}`)
	assert.Equal(t, "account.password_wrong", wrong.json["code"], wrong.text)
	in := post("", "login", `{"email":"`+ada+`@example.com","password":"`+password+`"}`)
	require.Equal(t, 200, in.status, in.text)
	second, _ := in.json["accessToken"].(string)
	list := w.do(call{method: "GET", path: "/api/auth/sessions", as: ada})
	require.Len(t, list.json["items"], 2, list.text)
	require.Equal(t, 204, post(ada, "password/change", `{"currentPassword":"`+password+`","newPassword":"seven brave otters swim"}`).status)
	assert.Equal(t, 401, w.do(call{method: "GET", path: "/api/auth/me", as: second}).status, "the other session has ended")

	require.Equal(t, 202, post("", "password/forgot", `{"email":"`+ada+`@example.com"}`).status)
	reset := w.mail.Code(t, ada+"@example.com", "account.reset")
	done := post("", "password/reset", `{"token":"`+reset+`","newPassword":"nine calm herons wade"}`)
	require.Equal(t, 204, done.status, done.text)
	assert.NotEmpty(t, done.header.Get("X-Event-Position"))
	assert.Equal(t, 401, w.do(call{method: "GET", path: "/api/auth/me", as: ada}).status, "every session has")
	in = post("", "login", `{"email":"`+ada+`@example.com","password":"nine calm herons wade"}`)
	require.Equal(t, 200, in.status, in.text)
	token, _ := in.json["accessToken"].(string)
	assert.Equal(t, 204, w.do(call{method: "DELETE", path: "/api/auth/sessions?keepCurrent=true", as: token}).status)
	assert.Equal(t, 204, w.do(call{method: "DELETE", path: "/api/auth/sessions", as: token}).status)
	assert.Equal(t, 401, w.do(call{method: "GET", path: "/api/auth/sessions", as: token}).status)
	for _, secret := range []string{verify, reset, "nine calm herons wade", "seven brave otters swim"} {
		assert.NotContains(t, w.log.String(), secret)
	}

	w.accounts.Mail = nil
	for _, address := range []string{ada + "@example.com", "nobody@example.com"} {
		off := post("", "password/forgot", `{"email":"`+address+`"}`)
		assert.Equal(t, 503, off.status, off.text)
		assert.Equal(t, "mail.not_configured", off.json["code"], off.text)
	}
}

// newcomer registers somebody; their address is their name at example.com.
func (w *world) newcomer(name string) string {
	w.t.Helper()
	in := w.do(call{method: "POST", path: "/api/auth/register", body: `{"email": "` + name + `@example.com", "password": "` + password + `", "name": "` + name + `"}`})
	require.Equal(w.t, 201, in.status, in.text)
	w.tokens[name], _ = in.json["accessToken"].(string)
	return name
}
