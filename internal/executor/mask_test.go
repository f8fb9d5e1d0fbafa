package executor_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/vault"
)

// echo gives back all that it gets, in many forms, in body, headers, cookies, redirects and reason of errors.
func echo(t *testing.T) *httptest.Server {
	t.Helper()
	forms := func(s string) map[string]string {
		return map[string]string{
			"Raw": s, "Query": url.QueryEscape(s), "Path": url.PathEscape(s), "Hex": hex.EncodeToString([]byte(s)),
			"B0": base64.StdEncoding.EncodeToString([]byte(s)), "B1": base64.StdEncoding.EncodeToString([]byte("x" + s)),
			"B2": base64.URLEncoding.EncodeToString([]byte("xy" + s)),
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/echo/"+url.PathEscape(r.Header.Get("X-Plain"))+"?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset="+r.Header.Get("X-Plain"))
		out := map[string]any{}
		for name, values := range map[string]string{"body": string(body), "header": r.Header.Get("X-Plain"), "auth": r.Header.Get("Authorization"), "query": r.URL.Query().Get("q")} {
			f := forms(values)
			out[name] = f
			for k, v := range f {
				if !strings.ContainsAny(v, "\r\n") {
					w.Header().Add("X-Back-"+name+"-"+k, v)
				}
			}
		}
		http.SetCookie(w, &http.Cookie{Name: r.Header.Get("X-Plain"), Value: "v", Path: "/" + url.PathEscape(r.Header.Get("X-Plain"))})
		if strings.HasPrefix(r.URL.Path, "/long") {
			_, _ = io.WriteString(w, strings.Repeat(" ", limits.MaxStoredBody-len(`{"auth":{"B0":"x`)-5))
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(srv.Close)
	return srv
}

const canary = `TFCANARY-0123456789/+"x`

// runSecret runs a spec with the secret canary and returns all that came out of it, as JSON, and the log.
func runSecret(t *testing.T, base, spec string) (executor.Result, string) {
	t.Helper()
	e := executor.New(executor.Config{Guard: loopback(t), Now: time.Now})
	t.Cleanup(e.Close)
	var all strings.Builder
	say := func(v any) {
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		all.Write(raw)
		fmt.Fprintf(&all, "%+v\n", v)
	}
	result := e.Run(context.Background(), executor.Input{
		RunID: uuid.New(), OrgID: uuid.New(), Spec: mustRead(t, spec), Environment: map[string]string{"base": base, "same": canary},
		Secrets: map[string]vault.Secret{"token": vault.NewSecret(canary)},
	}, func(o executor.Observation) {
		say(o)
		if s, ok := o.(executor.StepFinished); ok && s.Response != nil {
			all.WriteString(string(s.Response.Body) + "\n")
			say(s.Request)
			say(s.Response)
		}
	})
	say(result)
	if result.Error != nil {
		say(result.Error)
	}
	return result, all.String()
}

// requireHidden fails when text holds any of the value's forms, or the beginning of one.
func requireHidden(t *testing.T, text, value string) {
	t.Helper()
	beginning := value[:8]
	for name, form := range map[string]string{
		"raw": beginning, "hex": hex.EncodeToString([]byte(beginning)), "base64": base64.RawStdEncoding.EncodeToString([]byte(value))[:10],
		"base64+1": base64.RawStdEncoding.EncodeToString([]byte("x" + value))[2:12], "base64+2": base64.RawStdEncoding.EncodeToString([]byte("xy" + value))[3:13],
	} {
		if i := strings.Index(text, form); i >= 0 {
			t.Fatalf("%s shows: …%s…", name, text[max(0, i-200):min(len(text), i+100)])
		}
	}
	require.Contains(t, text, "•••")
}

func secretSpec(path, more string) string {
	return `{"steps":[{"request":{"method":"POST","url":"{{base}}` + path + `?q={{secrets.token}}","headers":{"X-Plain":"{{secrets.token}}","Authorization":"Basic {{secrets.token}}"},
		"body":{"json":{"token":"{{secrets.token}}","same":"{{same}}"}}}` + more + `}]}`
}

func TestAttack_targetGivesSecretsBack(t *testing.T) {
	t.Parallel()
	base := echo(t).URL
	for name, spec := range map[string]string{
		"all": secretSpec("/echo/{{secrets.token}}", `,"assertions":[
			{"source":"body","operator":"contains","expected":"{{secrets.token}}"},
			{"source":"jsonpath","property":"$.header.Raw","operator":"equals","expected":"{{secrets.token}}"},
			{"source":"jsonpath","property":"$","operator":"equals","expected":{"a":"{{secrets.token}}"}},
			{"source":"header","property":"X-Back-header-B1","operator":"equals","expected":"x"}],
			"captures":[{"name":"x","source":"jsonpath","property":"$.header.B2"},{"name":"all","source":"jsonpath","property":"$"}]`),
		"redirect":  secretSpec("/redirect", ""),
		"long":      secretSpec("/long", `,"assertions":[{"source":"body","operator":"equals","expected":"{{secrets.token}}"}]`),
		"bad host":  `{"steps":[{"request":{"method":"GET","url":"http://{{secrets.token}}/"}}]}`,
		"no target": `{"steps":[{"request":{"method":"GET","url":"http://127.0.0.1:1/{{secrets.token}}"}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, text := runSecret(t, base, spec)
			if name == "bad host" {
				require.NotContains(t, text, "TFCANARY")
				return
			}
			requireHidden(t, text, canary)
		})
	}
}

// TestAttack_sentBytesComeBack: a secret that is base64 is sent as what it stands for, which is shown as base64 again.
func TestAttack_sentBytesComeBack(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(srv.Close)
	key := base64.StdEncoding.EncodeToString([]byte("\xff\xfe\x01k"))
	e := executor.New(executor.Config{Guard: loopback(t), Now: time.Now})
	t.Cleanup(e.Close)
	for _, body := range []string{
		`{"base64":"{{secrets.key}}"}`,
		`{"multipart":[{"name":"f","file":{"name":"f.bin","base64":"{{secrets.key}}"}}]}`,
	} {
		e.Run(context.Background(), executor.Input{
			RunID: uuid.New(), OrgID: uuid.New(), Environment: map[string]string{"base": srv.URL},
			Spec:    mustRead(t, `{"steps":[{"request":{"method":"POST","url":"{{base}}","body":`+body+`}}]}`),
			Secrets: map[string]vault.Secret{"key": vault.NewSecret(key)},
		}, func(o executor.Observation) {
			if s, ok := o.(executor.StepFinished); ok {
				require.Equal(t, executor.Passed, s.Status, "%v", s.Error)
				require.NotContains(t, string(s.Response.Body), "\xff\xfe\x01k", body)
				require.Contains(t, string(s.Response.Body), "•••", body)
			}
		})
	}
}

// TestAttack_secretsAtTheCut moves the border of what is kept over a secret, byte by byte.
func TestAttack_secretsAtTheCut(t *testing.T) {
	t.Parallel()
	var fill int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("-", fill)+canary)
	}))
	t.Cleanup(srv.Close)
	for _, border := range []int{limits.MaxStoredBody, limits.MaxActual, 120} {
		for n := range len(canary) + 2 {
			fill = border - n
			_, text := runSecret(t, srv.URL, `{"steps":[{"request":{"method":"GET","url":"{{base}}","headers":{"X":"{{secrets.token}}"}},
				"assertions":[{"source":"body","operator":"equals","expected":"x"}]}]}`)
			require.NotContains(t, text, "TFC", "%d of %d", n, border)
		}
	}
}

func TestAttack_capturedSecretsComeBack(t *testing.T) {
	t.Parallel()
	base := echo(t).URL
	const issued = "ISSUED-9876543210"
	result, text := runSecret(t, base, `{"steps":[
		{"request":{"method":"POST","url":"{{base}}/echo","body":{"text":"`+issued+`"}},
		 "assertions":[{"source":"jsonpath","property":"$.body.Raw","operator":"equals","expected":"x","severity":"soft"}],
		 "captures":[{"name":"t","source":"jsonpath","property":"$.body.Raw","secret":true}]},
		{"request":{"method":"POST","url":"{{base}}/echo?q={{t}}","headers":{"X-Plain":"{{t}}"},"body":{"json":{"a":"{{t}}"}}}}]}`)
	require.Equal(t, executor.Passed, result.Status, "%v", result.Error)
	requireHidden(t, text, issued)
}

func TestRun_aBodyThatHoldsASecretHasNoHash(t *testing.T) {
	t.Parallel()
	base := echo(t).URL
	e := executor.New(executor.Config{Guard: loopback(t), Now: time.Now})
	t.Cleanup(e.Close)
	for spec, hashed := range map[string]bool{
		`{"steps":[{"request":{"method":"GET","url":"{{base}}/echo","headers":{"X-Plain":"{{secrets.pin}}"}}}]}`: false,
		`{"steps":[{"request":{"method":"GET","url":"{{base}}/echo"}}]}`:                                         true,
	} {
		e.Run(context.Background(), executor.Input{
			RunID: uuid.New(), OrgID: uuid.New(), Spec: mustRead(t, spec), Environment: map[string]string{"base": base},
			Secrets: map[string]vault.Secret{"pin": vault.NewSecret("48151623")},
		}, func(o executor.Observation) {
			if s, ok := o.(executor.StepFinished); ok {
				require.Equal(t, executor.Passed, s.Status, "%v", s.Error)
				require.Equal(t, hashed, s.Response.SHA256 != [32]byte{}, spec)
				require.True(t, json.Valid(s.Response.Body), "%s", s.Response.Body)
			}
		})
	}
}
