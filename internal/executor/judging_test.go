package executor_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/executor/targettest"
)

// TestRun_judgesTheExchange: what assertions see of an exchange besides its body is what happened on the wire.
func TestRun_judgesTheExchange(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	o := run(t, e, target, `{"variables":{"limit":"5"},"steps":[
		{"request":{"method":"GET","url":"{{tls}}/pets/1"},"assertions":[
			{"source":"certificate","property":"notAfter","operator":"after","expected":"now"},
			{"source":"certificate","property":"daysUntilExpiry","operator":"greaterOrEqual","expected":0},
			{"source":"certificate","property":"fingerprint","operator":"matches","expected":"^[0-9a-f]{64}$"},
			{"source":"certificate","property":"sans","quantifier":"any","operator":"equals","expected":"127.0.0.1"},
			{"source":"tls","property":"version","operator":"equals","expected":"1.3"},
			{"source":"remoteIp","operator":"equals","expected":"127.0.0.1"},
			{"source":"httpVersion","operator":"in","expected":["1.1","2"]},
			{"source":"url","operator":"endsWith","expected":"/pets/1"},
			{"source":"timing","property":"tls","operator":"greaterThan","expected":0},
			{"source":"timing","property":"total","operator":"greaterThan","expected":0},
			{"source":"sha256","operator":"hasLength","expected":64},
			{"source":"redirects","operator":"isEmpty"},
			{"source":"variable","property":"limit","operator":"equals","expected":5}]},
		{"request":{"method":"GET","url":"{{base}}/pets/1"},"assertions":[
			{"source":"reason","operator":"equals","expected":"OK"},
			{"source":"tls","property":"version","operator":"exists","not":true},
			{"source":"certificate","property":"subject","operator":"exists","not":true},
			{"source":"jsonpath","property":"$","filters":[{"keys":true},{"count":true}],"operator":"greaterThan","expected":1}],
			"captures":[{"name":"id","source":"jsonpath","property":"$.id","filters":[{"toString":true}]}]},
		{"request":{"method":"GET","url":"{{base}}/pets/1"},"assertions":[{"source":"variable","property":"id","operator":"exists"}]}]}`)
	if o.Status != executor.Passed {
		t.Fatalf("%s: %v", o.Status, o.Error)
	}
	c := o.steps[0].Response.TLS.Certificate
	if c == nil || len(c.Fingerprint) != 64 || c.NotAfter.IsZero() || c.Subject == "" && c.Issuer == "" {
		t.Errorf("the response tells of the certificate %+v", c)
	}
}

// TestRun_judgesCookiesOfRedirects: a cookie that a redirect sets is asserted at the end, one of an earlier step by the jar.
func TestRun_judgesCookiesOfRedirects(t *testing.T) {
	login := http.NewServeMux()
	login.HandleFunc("/login", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "session=abc; Path=/; HttpOnly")
		w.Header().Set("Location", "/home")
		w.WriteHeader(http.StatusFound)
	})
	login.HandleFunc("/home", func(http.ResponseWriter, *http.Request) {})
	srv := httptest.NewServer(login)
	t.Cleanup(srv.Close)
	target := targettest.New(t)
	e := newEngine(t, target)
	o := run(t, e, target, `{"steps":[
		{"request":{"method":"GET","url":"`+srv.URL+`/login"},"assertions":[
			{"source":"cookie","property":"session","operator":"equals","expected":"abc"},
			{"source":"cookie","property":"session[HttpOnly]","operator":"equals","expected":true},
			{"source":"redirects","filters":[{"nth":0},{"location":true}],"operator":"endsWith","expected":"/home"},
			{"source":"redirects","filters":[{"jsonpath":"$[0].status"}],"operator":"equals","expected":302}]},
		{"request":{"method":"GET","url":"`+srv.URL+`/home"},"assertions":[
			{"source":"cookie","property":"session","operator":"equals","expected":"abc"}]}]}`)
	if o.Status != executor.Passed {
		t.Fatalf("%s: %v", o.Status, o.Error)
	}
}
