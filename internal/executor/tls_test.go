package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
	"github.com/testflow/testflow/internal/testspec"
)

// runWith is a run with variables beside the target's names.
func runWith(tb testing.TB, e *executor.Engine, target *targettest.Server, org uuid.UUID, spec string, variables map[string]string) outcome {
	tb.Helper()
	var o outcome
	o.Result = e.Run(context.Background(), executor.Input{
		RunID: uuid.New(), OrgID: org, Spec: mustRead(tb, spec), Environment: names(target), Variables: variables,
	}, func(ob executor.Observation) {
		switch v := ob.(type) {
		case executor.StepFinished:
			o.steps = append(o.steps, v)
		case executor.AssertionEvaluated:
			o.verdicts = append(o.verdicts, v)
		}
	})
	return o
}

func TestTLS_clientCertificate(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	alice, bob := target.Client(t, "alice"), target.Client(t, "bob")
	vars := map[string]string{"cert": alice.Certificate, "key": alice.Key, "both": alice.Certificate + alice.Key, "bobCert": bob.Certificate, "bobKey": bob.Key}
	peer := func(path, tls, want string) string {
		return `{"request":{"method":"GET","url":"{{mutual}}` + path + `"` + tls + `},"assertions":[{"source":"jsonpath","property":"$.peer","operator":"equals","expected":"` + want + `"}]}`
	}
	mine := `,"tls":{"clientCertificate":"{{cert}}","clientKey":"{{key}}"}`
	theirs := `,"tls":{"clientCertificate":"{{bobCert}}","clientKey":"{{bobKey}}"}`
	for name, steps := range map[string]string{
		"shown":                  peer("/peer", mine, "alice"),
		"in one text":            peer("/peer", `,"tls":{"clientCertificate":"{{both}}"}`, "alice"),
		"over HTTP/1.1":          peer("/peer", mine+`,"httpVersion":"1.1"`, "alice"),
		"none":                   peer("/peer", "", ""),
		"each step its own":      peer("/peer", mine, "alice") + "," + peer("/peer", theirs, "bob") + "," + peer("/peer", "", ""),
		"stays with its origin":  peer("/away", mine, ""),
		"also on the way back":   peer("/away", mine, "") + "," + peer("/peer", mine, "alice"),
		"TLS 1.3 and not before": peer("/peer", `,"tls":{"clientCertificate":"{{both}}","minVersion":"1.3"}`, "alice"),
	} {
		t.Run(name, func(t *testing.T) {
			o := runWith(t, e, target, uuid.New(), `{"steps":[`+steps+`]}`, vars)
			if o.Status != executor.Passed {
				t.Errorf("%+v", o.Error)
			}
		})
	}
}

func TestTLS_settings(t *testing.T) {
	target := targettest.New(t)
	// An engine that trusts the target's authority, and one that trusts nobody but the system's.
	e := newEngine(t, target)
	stranger := executor.New(executor.Config{Guard: loopback(t), Now: time.Now})
	t.Cleanup(stranger.Close)
	vars := map[string]string{"ca": target.CAPEM(), "self": target.SelfSignedPEM, "empty": " "}
	for name, c := range map[string]struct {
		engine *executor.Engine
		spec   string
		code   executor.Code
	}{
		"own CA":                         {stranger, get("{{tls}}/pets/1", `,"tls":{"ca":"{{ca}}"}`), ""},
		"without it":                     {stranger, get("{{tls}}/pets/1", ""), executor.CodeTLS},
		"another CA":                     {e, get("{{tls}}/pets/1", `,"tls":{"ca":"{{self}}"}`), executor.CodeTLS},
		"a certificate as its own CA":    {stranger, get("{{selfSigned}}/pets/1", `,"tls":{"ca":"{{self}}"}`), ""},
		"self-signed":                    {e, get("{{selfSigned}}/pets/1", ""), executor.CodeTLS},
		"unverified":                     {stranger, get("{{selfSigned}}/pets/1", `,"verifyTls":false`), ""},
		"1.3 from 1.2":                   {e, get("{{tls12}}/pets/1", `,"tls":{"minVersion":"1.3"}`), executor.CodeTLS},
		"1.2 from 1.2":                   {e, get("{{tls12}}/pets/1", `,"tls":{"minVersion":"1.2"}`), ""},
		"1.1 at most":                    {e, get("{{old}}/pets/1", `,"verifyTls":false`), executor.CodeTLS},
		"another name":                   {e, get("{{wrongName}}/pets/1", `,"tls":{"serverName":"other.example"}`), ""},
		"another name that it isn't for": {e, get("{{tls}}/pets/1", `,"tls":{"serverName":"other.example"}`), executor.CodeTLS},
		"an empty CA":                    {e, get("{{tls}}/pets/1", `,"tls":{"ca":"{{empty}}"}`), executor.CodeRequest},
		"garbage":                        {e, get("{{garbage}}/", ""), executor.CodeTLS},
		"cut":                            {e, get("{{cut}}/", ""), executor.CodeTLS},
		"hang":                           {e, get("{{hang}}/", `,"timeout":"200ms"`), executor.CodeTimeout},
		"a huge chain":                   {e, get("{{hugeChain}}/", ""), executor.CodeTLS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := runWith(t, c.engine, target, uuid.New(), c.spec, vars)
			if o.Code != c.code {
				t.Errorf("code %q (%v), want %q", o.Code, o.Error, c.code)
			}
			if c.code == executor.CodeTLS && o.Error != nil && o.Error.Phase != executor.PhaseTLS {
				t.Errorf("phase %q", o.Error.Phase)
			}
		})
	}
}

// TestTLS_wrongMaterial: what is wrong with a certificate or a key is said without a byte of it.
func TestTLS_wrongMaterial(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	alice, bob := target.Client(t, "alice"), target.Client(t, "bob")
	body := strings.Split(alice.Key, "\n")[1]
	damaged := strings.Replace(alice.Key, body[10:20], "AAAAAAAAAA", 1)
	encrypted := "-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + strings.Join(strings.Split(alice.Key, "\n")[1:3], "\n") + "\n-----END ENCRYPTED PRIVATE KEY-----\n"
	older := "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + body + "\n-----END EC PRIVATE KEY-----\n"
	for name, c := range map[string]struct{ cert, key, says string }{
		"not PEM":                 {"hello", alice.Key, "the client certificate is not PEM"},
		"key is not PEM":          {alice.Certificate, body, "the client key is not PEM"},
		"key where a certificate": {alice.Key, alice.Key, "the client certificate is PEM, but of something else"},
		"certificate where a key": {alice.Certificate, bob.Certificate, "the client key is PEM, but of something else"},
		"no key":                  {alice.Certificate, alice.Certificate, "the client key is PEM, but of something else"},
		"of another":              {alice.Certificate, bob.Key, "does not belong"},
		"damaged":                 {alice.Certificate, damaged, "cannot be read"},
		"encrypted":               {alice.Certificate, encrypted, "encrypted"},
		"encrypted, the old way":  {alice.Certificate, older, "encrypted"},
		"line breaks lost":        {alice.Certificate, strings.ReplaceAll(alice.Key, "\n", ""), "keeps its line breaks"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := get("{{mutual}}/peer", `,"tls":{"clientCertificate":"{{cert}}","clientKey":"{{key}}"}`)
			o := runWith(t, e, target, uuid.New(), spec, map[string]string{"cert": c.cert, "key": c.key})
			if o.Code != executor.CodeRequest || !strings.Contains(o.message(), c.says) {
				t.Errorf("%+v, want %q", o.Error, c.says)
			}
			told, err := json.Marshal([]any{o.Result, o.steps})
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(alice.Key+bob.Key+encrypted, "\n") {
				if len(line) > 20 && !strings.HasPrefix(line, "--") && strings.Contains(string(told), line[:16]) {
					t.Errorf("the result holds a part of the key: %s", told)
				}
			}
			// The same as a literal is refused when the test is saved.
			literal, err := json.Marshal(map[string]any{"clientCertificate": c.cert, "clientKey": c.key})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := testspec.Read([]byte(get("https://a.example/", `,"tls":`+string(literal)))); err == nil {
				t.Error("a literal is taken")
			}
		})
	}
}

// TestAttack_clientCertificates_areNotShared: no connection serves two runs when a client certificate opened it, neither
// runs with different certificates nor with the same, of one organization or of two.
func TestAttack_clientCertificates_areNotShared(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	clients := []targettest.Client{target.Client(t, "alice"), target.Client(t, "bob"), target.Client(t, "carol")}
	people := []string{"alice", "bob", "carol"}
	orgs := []uuid.UUID{uuid.New(), uuid.New()}
	step := `{"request":{"method":"GET","url":"{{mutual}}/peer","headers":{"X-Run":"{{run}}"},"tls":{"clientCertificate":"{{cert}}","clientKey":"{{key}}"}},
		"assertions":[{"source":"jsonpath","property":"$.peer","operator":"equals","expected":"{{who}}"},
			{"source":"jsonpath","property":"$.cookie","operator":"equals","expected":"{{cookie}}"}],
		"captures":[{"name":"cookie","source":"jsonpath","property":"$.connection"}]}`
	second := strings.Replace(strings.Replace(step, `"{{cookie}}"`, `"who={{run}}"`, 1), `"$.connection"`, `"$.cookie"`, 1)
	var wg sync.WaitGroup
	for i := range 90 {
		wg.Go(func() {
			who := i % len(people)
			o := runWith(t, e, target, orgs[i/len(people)%2], `{"steps":[`+step+`,`+second+`,`+second+`]}`, map[string]string{
				"run": fmt.Sprint("run-", i), "who": people[who], "cert": clients[who].Certificate, "key": clients[who].Key, "cookie": "",
			})
			if o.Status != executor.Passed {
				t.Errorf("run %d: %+v", i, o.Error)
			}
			if len(o.steps) == 3 && (!o.steps[1].Response.Reused || !o.steps[2].Response.Reused) {
				t.Errorf("run %d does not keep its own connection", i)
			}
		})
	}
	wg.Wait()
	for connection, users := range target.Peers() {
		if len(users) > 1 {
			t.Errorf("connection %d was used by %v", connection, users)
		}
	}
	if n := len(target.Peers()); n < 90 {
		t.Errorf("%d connections for 90 runs", n)
	}
}

// A target that wants a client certificate says so after the client's handshake, in a race with a reset. However it ends,
// and whichever version was asked for, the run says what was missing.
func TestTLS_certificateRequired(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for _, version := range []string{"auto", "1.1", "2"} {
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				o := runWith(t, e, target, uuid.New(), `{"steps":[{"request":{"method":"GET","url":"{{required}}/echo","httpVersion":"`+version+`"}}]}`, nil)
				if o.Status != executor.Errored || o.Code != executor.CodeTLS || !strings.Contains(o.Error.Message, "client certificate") {
					t.Errorf("%s: %s %+v", version, o.Status, o.Error)
				}
			})
		}
		wg.Wait()
	}
}
