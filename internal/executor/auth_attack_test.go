package executor_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// helpers are auths of each type that sends something to the target at once, none of it a secret of the run's.
var helpers = map[string]string{
	"basic":       `{"type":"basic","username":"TFCANARY-user","password":"TFCANARY-password"}`,
	"bearer":      `{"type":"bearer","token":"TFCANARY-token"}`,
	"header key":  `{"type":"apiKey","in":"header","name":"X-Mine","value":"TFCANARY-key"}`,
	"query key":   `{"type":"apiKey","in":"query","name":"mine","value":"TFCANARY-key"}`,
	"cookie key":  `{"type":"apiKey","in":"cookie","name":"mine","value":"TFCANARY-key"}`,
	"sigV4":       `{"type":"awsSigV4","accessKeyId":"TFCANARY-id","secretAccessKey":"x","sessionToken":"TFCANARY-session","region":"r","service":"s3"}`,
	"jwt":         `{"type":"jwt","algorithm":"HS256","key":"k"}`,
	"jwt, query":  `{"type":"jwt","algorithm":"HS256","key":"k","in":"query","name":"mine"}`,
	"credentials": clientCredentials("attack", "&life=600") + `}`,
}

// thief is a server that keeps all that it is sent.
func thief(t *testing.T) (server *httptest.Server, loot func() string) {
	t.Helper()
	var mu sync.Mutex
	var b strings.Builder
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b.WriteString(r.RequestURI + "\n")
		for name, values := range r.Header {
			b.WriteString(name + ": " + strings.Join(values, ", ") + "\n")
		}
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(server.Close)
	return server, func() string { mu.Lock(); defer mu.Unlock(); return b.String() }
}

// TestAttack_credentialsStayWithTheirOrigin: a target redirects to another one, with its query and without.
func TestAttack_credentialsStayWithTheirOrigin(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for name, auth := range helpers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, loot := thief(t)
			for _, route := range []string{"/redirect", "/carry"} {
				passes(t, e, target, `{"steps":[`+step("GET", "{{base}}"+route+"?to="+server.URL+"/x", auth, `,"headers":{"X-Own":"{{secrets.apiKey}}"}`, 200)+`]}`)
			}
			for _, canary := range []string{"TFCANARY", "Authorization", "Bearer", "mine=ey", "X-Amz-Security", "token-attack"} {
				if strings.Contains(loot(), canary) {
					t.Errorf("another origin got %q:\n%s", canary, loot())
				}
			}
		})
	}
}

// TestAttack_derivedCredentialsComeBack: what a helper made of its fields is given back by the target, and shown nowhere.
func TestAttack_derivedCredentialsComeBack(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for name, auth := range helpers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			var mu sync.Mutex
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				given := r.Header.Get("Authorization")
				for _, prefix := range []string{"Basic ", "Bearer "} {
					given = strings.TrimPrefix(given, prefix)
				}
				if _, signature, ok := strings.Cut(given, "Signature="); ok {
					given = signature
				}
				for _, v := range []string{r.Header.Get("X-Mine"), r.URL.Query().Get("mine"), r.Header.Get("X-Amz-Security-Token")} {
					if given == "" {
						given = v
					}
				}
				if c, err := r.Cookie("mine"); err == nil {
					given = c.Value
				}
				mu.Lock()
				got = append(got, given)
				mu.Unlock()
				w.Header().Set("X-Given", given)
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]any{"given": given})
			}))
			defer server.Close()
			s := strings.TrimSuffix(step("GET", server.URL, auth, "", 200), "]}") + `,{"source":"jsonpath","property":"$.given","operator":"equals","expected":"no","severity":"soft"}],"captures":[{"name":"c","source":"jsonpath","property":"$.given"}]}`
			o := run(t, e, target, `{"steps":[`+s+`]}`)
			told, err := json.Marshal([]any{o.steps, o.verdicts, o.Result})
			if err != nil || o.Status != executor.Passed || len(o.verdicts) != 2 {
				t.Fatalf("%v %v", o.Error, err)
			}
			all := string(told) + string(o.steps[0].Response.Body)
			if len(got) != 1 || got[0] == "" {
				t.Fatalf("the target got %q", got)
			}
			if strings.Contains(all, got[0]) {
				t.Errorf("the run tells %q: %s", got[0], all)
			}
		})
	}
}

// TestAttack_tokensOfAnotherOrganization: who knows the endpoint, but not the secret, gets no token that somebody else
// fetched, and not even one with the same secret in another organization.
func TestAttack_tokensOfAnotherOrganization(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	spec := with("{{base}}/oauth/resource", clientCredentials("theirs", "&life=600")+`}`, 200)
	passes(t, e, target, spec)
	wrong := strings.Replace(spec, "{{secrets.clientSecret}}", "guess", 1)
	fails(t, e, target, wrong, executor.CodeAuth, "invalid_client")
	asked := target.TokenRequests("theirs")
	in := executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: mustRead(t, spec), Environment: names(target), Secrets: secrets()}
	if r := e.Run(context.Background(), in, nil); r.Status != executor.Passed {
		t.Error(r.Error)
	}
	if n := target.TokenRequests("theirs"); n != asked+1 {
		t.Errorf("another organization's token was used: asked %d times, then %d", asked, n)
	}
}
