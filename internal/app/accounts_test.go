package app_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var mailedCode = regexp.MustCompile(`tfo_[A-Za-z0-9_-]{43}`)

// run runs a command of the installation to its end.
func (i *installation) run(args ...string) (out, errs string) {
	i.t.Helper()
	cmd := exec.CommandContext(i.t.Context(), i.binary, args...)
	cmd.Env = append([]string{"TESTFLOW_DATA_DIR=" + i.dataDir}, i.environ...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(i.t, cmd.Run(), "%s", &stderr)
	return stdout.String(), stderr.String()
}

// TestKeys_rotateWithoutSignOuts: nodes with the keys in another order take each other's tokens; when the old key is gone,
// its access tokens are, and nobody has to sign in again.
func TestKeys_rotateWithoutSignOuts(t *testing.T) {
	t.Parallel()
	in := serving(t)
	before, after := "jwt"+strings.Repeat("k", 48), "jwt"+strings.Repeat("n", 48)
	first := in.serve("JWT_SECRET=" + before + "," + after)
	u := registerFirst(t, first)
	second := in.serve("JWT_SECRET=" + after + "," + before)
	login := map[string]any{"email": "first@example.com", "password": "marble otter sunset first"}
	var tokens struct{ AccessToken, RefreshToken string }
	u.at(second).must(http.StatusOK, "POST", "/api/auth/login", login, &tokens)
	for _, node := range []*program{first, second} {
		for name, token := range map[string]string{"signed with the old key": u.token, "signed with the new one": tokens.AccessToken} {
			asked := u.at(node)
			asked.token = token
			a, err := asked.do(t.Context(), "GET", "/api/auth/me", nil)
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, a.status, name)
		}
	}
	first.kill()
	second.kill()
	third := in.serve("JWT_SECRET=" + after)
	a, err := u.at(third).do(t.Context(), "GET", "/api/auth/me", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusUnauthorized, a.status, "the old key is gone")
	u.at(third).must(http.StatusOK, "POST", "/api/auth/refresh", map[string]any{"refreshToken": tokens.RefreshToken}, &tokens)
	renewed := u.at(third)
	renewed.token = tokens.AccessToken
	renewed.must(http.StatusOK, "GET", "/api/auth/me", nil, nil)
}

// TestOutbox_isEnoughToGoOn: without a mail server, `up` keeps what it would send, and a person gets through with it.
func TestOutbox_isEnoughToGoOn(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	p, ok := in.start()
	require.True(t, ok, "up ended: %s", p.errs)
	u := &user{t: t, url: func() string { return p.url }}
	u.must(http.StatusCreated, "POST", "/api/auth/register", map[string]any{"email": "ada@example.com", "password": "marble otter sunset ada", "name": "Ada"}, nil)
	u.must(http.StatusAccepted, "POST", "/api/auth/password/forgot", map[string]any{"email": "ada@example.com"}, nil)
	files := filepath.Join(in.dataDir, "outbox", "*-account-reset-*.eml")
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(files)
		return err == nil && len(found) == 1
	}, 30*time.Second, 50*time.Millisecond)
	found, err := filepath.Glob(files)
	require.NoError(t, err)
	info, err := os.Stat(found[0])
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	list, _ := in.run("outbox")
	assert.Contains(t, list, "ada@example.com")
	assert.Contains(t, list, "Set a new password for TestFlow")
	shown, _ := in.run("outbox", "show", "account-reset")
	assert.Contains(t, shown, "curl "+p.url+"/api/auth/password/reset")
	u.must(http.StatusNoContent, "POST", "/api/auth/password/reset", map[string]any{"token": mailedCode.FindString(shown), "newPassword": "seven brave otters swim"}, nil)
	u.must(http.StatusOK, "POST", "/api/auth/login", map[string]any{"email": "ada@example.com", "password": "seven brave otters swim"}, nil)

	// And without any mail: the operator makes a code by hand.
	code, _ := in.run("account", "reset", "ada@example.com")
	u.must(http.StatusNoContent, "POST", "/api/auth/password/reset", map[string]any{"token": strings.TrimSpace(code), "newPassword": "nine calm herons wade"}, nil)
	assert.NotContains(t, p.errs.String(), mailedCode.FindString(shown))
}

// TestErase_emptiesTheOutbox of the mails to who is erased, over the API and on the server, and of no other.
func TestErase_emptiesTheOutbox(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	p, ok := in.start()
	require.True(t, ok, "up ended: %s", p.errs)
	u := &user{t: t, url: func() string { return p.url }}
	tokens := map[string]string{}
	for _, name := range []string{"ada", "bob", "cyd"} { // ada is the operator
		var signedIn struct{ AccessToken string }
		address := name + "@example.com"
		u.must(http.StatusCreated, "POST", "/api/auth/register", map[string]any{"email": address, "password": "marble otter sunset violin", "name": name}, &signedIn)
		u.must(http.StatusAccepted, "POST", "/api/auth/password/forgot", map[string]any{"email": address}, nil)
		tokens[name] = signedIn.AccessToken
	}
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(filepath.Join(in.dataDir, "outbox", "*-account-*.eml"))
		return err == nil && len(found) == 6 // a code for the address and one for the password
	}, 30*time.Second, 50*time.Millisecond)

	bob := &user{t: t, url: u.url, token: tokens["bob"]}
	bob.must(http.StatusNoContent, "DELETE", "/api/auth/me", map[string]any{"password": "marble otter sunset violin"}, nil)
	list, _ := in.run("outbox")
	assert.NotContains(t, list, "bob@example.com")
	assert.Equal(t, 2, strings.Count(list, "cyd@example.com"), list)
	in.run("account", "erase", "cyd@example.com", "--yes")
	list, _ = in.run("outbox")
	assert.NotContains(t, list, "cyd@example.com")
	assert.Equal(t, 2, strings.Count(list, "ada@example.com"), list)
}

// TestServe_saysThatItSendsNoMail, at its start and in its answers.
func TestServe_saysThatItSendsNoMail(t *testing.T) {
	t.Parallel()
	in := serving(t)
	p := in.serve()
	assert.Contains(t, p.errs.String(), "no mail is sent: set TESTFLOW_SMTP_HOST")
	u := registerFirst(t, p)
	a, err := u.do(t.Context(), "POST", "/api/auth/password/forgot", map[string]any{"email": "first@example.com"})
	require.NoError(t, err)
	assert.Equal(t, http.StatusServiceUnavailable, a.status)
	assert.Contains(t, string(a.body), "TESTFLOW_SMTP_HOST")
}
