package app_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/executor/targettest"
)

// TestWhole_requestsWithAuthAndFiles: a test that signs in by Digest over a multipart body, by Basic and by OAuth 2 is
// made and run by the API, and what the helpers made is in nothing that the API gives out afterwards.
func TestWhole_requestsWithAuthAndFiles(t *testing.T) {
	t.Parallel()
	target := targettest.New(t)
	in := newInstallation(t, "TESTFLOW_EGRESS_ALLOW="+strings.TrimPrefix(target.URL, "http://"))
	p := in.mustStart()
	u := register(t, func() string { return p.url }, "requests")
	type object = map[string]any
	status := func(want int) []any {
		return []any{object{"source": "status", "operator": "equals", "expected": want}}
	}
	grant := object{
		"type": "oauth2ClientCredentials", "tokenUrl": target.URL + "/oauth/token?realm=whole&life=600",
		"clientId": targettest.ClientID, "clientSecret": "{{clientSecret}}", "scope": "pets",
	}
	parts := []any{
		object{"name": "title", "value": "Hello {{who}}"},
		object{"name": "photo", "file": object{"name": "rex.png", "contentType": "image/png", "base64": "iVBORw0KGgo="}},
	}
	variables := object{"password": targettest.Password, "clientSecret": targettest.ClientSecret, "who": "Rex"}
	steps := []any{
		object{"name": "digest", "request": object{
			"method": "POST", "url": target.URL + "/auth/digest?algorithm=SHA-256&qop=auth-int",
			"auth": object{"type": "digest", "username": targettest.User, "password": "{{password}}"},
			"body": object{"multipart": parts},
		}, "assertions": append(status(200), object{"source": "jsonpath", "property": "$.body", "operator": "contains", "expected": "Hello Rex"})},
		object{"name": "parts", "request": object{
			"method": "POST", "url": target.URL + "/multipart", "body": object{"multipart": parts},
			"auth": object{"type": "bearer", "token": "TFCANARY-bearer"},
		}, "assertions": append(status(200), object{"source": "jsonpath", "property": "$.parts[1].file", "operator": "equals", "expected": "rex.png"})},
		object{"name": "basic", "request": object{
			"method": "GET", "url": target.URL + "/auth/basic",
			"auth": object{"type": "basic", "username": targettest.UnicodeUser, "password": "{{password}}"},
		}, "assertions": status(200)},
		object{"name": "token", "request": object{"method": "GET", "url": target.URL + "/oauth/resource", "auth": grant}, "assertions": status(200)},
		object{"name": "token again", "request": object{"method": "GET", "url": target.URL + "/oauth/resource", "auth": grant}, "assertions": status(200)},
	}
	project, test := u.newTest("requests", "auth and files", object{"variables": variables, "steps": steps})

	var out struct{ Runs []identified }
	u.must(http.StatusAccepted, "POST", "/api/tests/"+test+"/execute", object{}, &out)
	var run struct {
		Status string
		Error  any
		Steps  []struct {
			Name, Status string
			Assertions   []any
		}
	}
	require.Eventually(t, func() bool {
		u.must(http.StatusOK, "GET", "/api/runs/"+out.Runs[0].ID, nil, &run)
		return run.Status != "queued" && run.Status != "running"
	}, time.Minute, 100*time.Millisecond)
	require.Equal(t, "passed", run.Status, "%+v", run)
	assert.Len(t, run.Steps, 5)
	assert.Equal(t, 1, target.TokenRequests("whole"), "one token for both steps")

	pair := base64.StdEncoding.EncodeToString([]byte(targettest.UnicodeUser + ":" + targettest.Password))
	paths := []string{"", "/events"}
	for _, n := range []string{"0", "1", "2", "3", "4"} {
		paths = append(paths, "/steps/"+n+"/response")
	}
	for _, path := range paths {
		a := u.must(http.StatusOK, "GET", "/api/runs/"+out.Runs[0].ID+path, nil, nil)
		for _, canary := range []string{pair, "token-whole-1", "TFCANARY"} {
			assert.NotContains(t, string(a.body), canary, path)
		}
	}

	// What belongs to another type is refused, with its place.
	var problem struct {
		Errors []struct{ Pointer, Detail string }
	}
	u.must(http.StatusUnprocessableEntity, "POST", "/api/tests", object{"projectId": project, "name": "refused", "steps": []any{object{"request": object{
		"method": "GET", "url": target.URL, "auth": object{"type": "basic", "username": "a", "password": "b", "token": "c"},
	}}}}, &problem)
	if assert.Len(t, problem.Errors, 1) {
		assert.Equal(t, "/steps/0/request/auth/token", problem.Errors[0].Pointer)
		assert.Contains(t, problem.Errors[0].Detail, "type basic does not have this")
	}
}
