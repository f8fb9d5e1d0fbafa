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
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/netguard"
)

// TestRun_stopped: why the context ended decides how the run ends, and what was not run is skipped.
func TestRun_stopped(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	spec := `{"steps":[{"request":{"method":"GET","url":"{{base}}/pets/1"}},{"request":{"method":"GET","url":"{{base}}/hostile/hang"}},{"request":{"method":"GET","url":"{{base}}/pets/1"}}]}`
	deadline := func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), 300*time.Millisecond)
	}
	caused := func(cause error) func() (context.Context, func()) {
		return func() (context.Context, func()) {
			ctx, stop := context.WithCancelCause(context.Background())
			timer := time.AfterFunc(300*time.Millisecond, func() { stop(cause) })
			return ctx, func() { timer.Stop(); stop(nil) }
		}
	}
	for name, c := range map[string]struct {
		ctx    func() (context.Context, func())
		status executor.Status
		code   executor.Code
	}{
		"canceled":        {caused(executor.ErrCanceled), executor.Canceled, executor.CodeCanceled},
		"without a cause": {caused(nil), executor.Canceled, executor.CodeCanceled},
		"shutdown":        {caused(executor.ErrShutdown), executor.Inconclusive, executor.CodeShutdown},
		"wrapped":         {caused(fmt.Errorf("stop: %w", executor.ErrShutdown)), executor.Inconclusive, executor.CodeShutdown},
		"their deadline":  {deadline, executor.Inconclusive, executor.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := c.ctx()
			defer stop()
			o := runContext(ctx, t, e, target, spec)
			if o.Status != c.status || o.Code != c.code || o.FailedStep != 1 || o.StepsRun != 2 || o.StepsSkipped != 1 {
				t.Errorf("%+v", o.Result)
			}
			if len(o.steps) != 3 || o.steps[0].Status != executor.Passed || o.steps[1].Status != c.status || o.steps[2].Status != executor.Skipped {
				t.Errorf("%+v", o.steps)
			}
		})
	}
	t.Run("before the first step", func(t *testing.T) {
		t.Parallel()
		ctx, stop := context.WithCancelCause(context.Background())
		stop(executor.ErrShutdown)
		o := runContext(ctx, t, e, target, spec)
		if o.Status != executor.Inconclusive || o.StepsRun != 0 || o.StepsSkipped != 3 || o.FailedStep != -1 {
			t.Errorf("%+v", o.Result)
		}
	})
}

func TestRun_timeouts(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for name, c := range map[string]struct {
		spec    string
		message string
		phase   executor.Phase
	}{
		"request":    {get("{{base}}/hostile/hang", `,"timeout":"200ms"`), "The request took longer than 200ms.", executor.PhaseFirstByte},
		"run":        {`{"timeout":"200ms","steps":[{"request":{"method":"GET","url":"{{base}}/hostile/hang"}}]}`, "The run took longer than 200ms.", executor.PhaseFirstByte},
		"body":       {get("{{base}}/hostile/drip-body", `,"timeout":"200ms"`), "The request took longer than 200ms.", executor.PhaseDownload},
		"over steps": {`{"timeout":"250ms","steps":[{"request":{"method":"GET","url":"{{base}}/slow?for=100ms"}},{"request":{"method":"GET","url":"{{base}}/slow?for=100ms"}},{"request":{"method":"GET","url":"{{base}}/slow?for=100ms"}}]}`, "The run took longer than 250ms.", executor.PhaseFirstByte},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := run(t, e, target, c.spec)
			if o.Status != executor.Errored || o.Code != executor.CodeTimeout || o.Error.Message != c.message || o.Error.Phase != c.phase {
				t.Errorf("%s %+v", o.Status, o.Error)
			}
			if o.Duration > 3*time.Second || o.Duration < 150*time.Millisecond {
				t.Errorf("took %s", o.Duration)
			}
			if name == "body" && (o.steps[0].Response == nil || o.steps[0].Response.StatusCode != 200 || o.steps[0].Response.Size == 0 || !o.steps[0].Response.BodyTruncated) {
				t.Errorf("what had arrived is not told: %+v", o.steps[0].Response)
			}
		})
	}
}

func TestRun_variablePrecedence(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	in := executor.Input{
		RunID: uuid.New(), Environment: map[string]string{"base": target.URL, "v": "environment", "w": "environment", "x": "environment", "y": "environment"},
		Variables: map[string]string{"v": "run", "x": "run"},
		Spec: mustRead(t, `{"variables":{"v":"test","w":"test"},"steps":[
			{"request":{"method":"GET","url":"{{base}}/text?s=step"},"captures":[{"name":"x","source":"body"}]},
			{"request":{"method":"GET","url":"{{base}}/text","query":{"s":"{{v}} {{w}} {{x}} {{y}}"}},
			 "assertions":[{"source":"body","operator":"equals","expected":"run test step environment"}]}]}`),
	}
	if r := e.Run(context.Background(), in, nil); r.Status != executor.Passed {
		t.Errorf("%+v", r.Error)
	}
}

// TestRun_timings: phases are there when they happened, and add up to no more than the whole.
func TestRun_timings(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	spec := `{"steps":[{"request":{"method":"GET","url":"{{tls}}/slow?for=60ms"}},{"request":{"method":"GET","url":"{{tls}}/slow?for=60ms"}}]}`
	o := run(t, e, target, spec)
	if o.Status != executor.Passed {
		t.Fatal(o.Error)
	}
	first, second := o.steps[0], o.steps[1]
	if first.Timings.Connect <= 0 || first.Timings.TLS <= 0 || first.Timings.DNS != 0 || first.Response.Reused {
		t.Errorf("first %+v", first.Timings)
	}
	if second.Timings.Connect != 0 || second.Timings.TLS != 0 || !second.Response.Reused {
		t.Errorf("second %+v, reused %v", second.Timings, second.Response.Reused)
	}
	for _, s := range o.steps {
		sum := s.Timings.DNS + s.Timings.Connect + s.Timings.TLS + s.Timings.FirstByte + s.Timings.Download
		if s.Timings.FirstByte < 60*time.Millisecond || sum > s.Timings.Total || s.Timings.Total > o.Duration {
			t.Errorf("%+v, sum %s, run %s", s.Timings, sum, o.Duration)
		}
		if !strings.HasPrefix(s.Response.RemoteAddr, "127.0.0.1:") || s.Response.TLS == nil || s.Response.TLS.Version != "1.3" {
			t.Errorf("%+v", s.Response)
		}
	}
	if o.Timings.Total != first.Timings.Total+second.Timings.Total {
		t.Errorf("run %+v", o.Timings)
	}
	hops := run(t, e, target, get("{{base}}/redirect?to=%2Fslow%3Ffor%3D50ms", ""))
	if tm := hops.steps[0].Timings; tm.FirstByte < 50*time.Millisecond || tm.Total < tm.FirstByte || len(hops.steps[0].Response.Redirects) != 1 || hops.steps[0].Response.Redirects[0].Duration <= 0 {
		t.Errorf("redirect %+v %+v", tm, hops.steps[0].Response.Redirects)
	}
}

// TestRuns_apart: runs at the same time share neither cookies nor, across organizations or TLS options, connections.
func TestRuns_apart(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	spec := mustRead(t, `{"steps":[{"request":{"method":"GET","url":"{{base}}/cookies/set?who={{me}}"}},
		{"request":{"method":"GET","url":"{{base}}/echo"},"assertions":[{"source":"jsonpath","property":"$.headers.cookie","operator":"equals","expected":"who={{me}}"}]}]}`)
	org := uuid.New()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r := e.Run(context.Background(), executor.Input{
				RunID: uuid.New(), OrgID: org, Spec: spec, Environment: map[string]string{"base": target.URL, "me": fmt.Sprint("n", i)},
			}, nil)
			if r.Status != executor.Passed {
				t.Errorf("%+v", r.Error)
			}
		})
	}
	wg.Wait()

	reused := func(org uuid.UUID, rest string) bool {
		var last bool
		e.Run(context.Background(), executor.Input{
			RunID: uuid.New(), OrgID: org, Spec: mustRead(t, get("{{tls}}/pets/1", rest)), Environment: names(target),
		}, func(o executor.Observation) {
			if s, ok := o.(executor.StepFinished); ok && s.Response != nil {
				last = s.Response.Reused
			}
		})
		return last
	}
	a, b := uuid.New(), uuid.New()
	if reused(a, "") {
		t.Error("the first request of an organization was on a used connection")
	}
	if !reused(a, "") {
		t.Error("the second was not: keep-alive is lost")
	}
	if reused(b, "") {
		t.Error("another organization's request was on that connection")
	}
	if reused(a, `,"verifyTls":false`) {
		t.Error("an unverified request was on a verified connection")
	}
	if reused(a, `,"httpVersion":"1.1"`) {
		t.Error("an HTTP/1.1 request was on an HTTP/2 connection")
	}
}

// TestRun_unverifiedConnectionIsNotReused: a connection that nobody verified must not serve a request that asks for it.
func TestRun_unverifiedConnectionIsNotReused(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	if o := run(t, e, target, get("{{expired}}/pets/1", `,"verifyTls":false`)); o.Status != executor.Passed {
		t.Fatal(o.Error)
	}
	if o := run(t, e, target, get("{{expired}}/pets/1", "")); o.Code != executor.CodeTLS {
		t.Errorf("%s %+v", o.Status, o.Error)
	}
}

// TestRun_blockedByPolicy: the fence holds for the first request, redirects, and says nothing of where a name leads.
func TestRun_blockedByPolicy(t *testing.T) {
	target := targettest.New(t)
	// Only one of the two servers is allowed.
	rules, err := netguard.ParseAllow(strings.TrimPrefix(target.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	e := executor.New(executor.Config{Guard: netguard.New(netguard.Policy{Allow: rules}, time.Now), Now: time.Now})
	t.Cleanup(e.Close)
	before := target.Connections()
	for name, spec := range map[string]string{
		"at once":     get("{{other}}/pets/1", ""),
		"by a name":   get("http://localhost:"+target.OtherURL[strings.LastIndexByte(target.OtherURL, ':')+1:]+"/", ""),
		"by redirect": `{"steps":[{"request":{"method":"GET","url":"{{base}}/redirect","query":{"to":"{{other}}/pets/1"}}}]}`,
	} {
		o := run(t, e, target, spec)
		if o.Status != executor.Inconclusive || o.Code != executor.CodeBlocked {
			t.Errorf("%s: %s %+v", name, o.Status, o.Error)
		}
		if strings.Contains(o.Error.Message, "127.0.0.1") {
			t.Errorf("%s: the message names the address: %s", name, o.Error.Message)
		}
	}
	if n := target.Connections() - before; n > 1 {
		t.Errorf("%d connections, only the redirect's first is allowed", n)
	}
}

// TestRun_bodies: what is kept is cut, what is judged is whole.
func TestRun_bodies(t *testing.T) {
	target := targettest.New(t)
	e := executor.New(executor.Config{Guard: loopback(t), Now: time.Now, Limits: limits.Tests{ResponseKept: 10, ResponseBody: 1000}})
	t.Cleanup(e.Close)
	long := strings.Repeat("0123456789", 20)
	o := run(t, e, target, `{"steps":[{"request":{"method":"GET","url":"{{base}}/text","query":{"s":"`+long+`"}},
		"assertions":[{"source":"body","operator":"hasLength","expected":200}]}]}`)
	r := o.steps[0].Response
	if o.Status != executor.Passed || string(r.Body) != "0123456789" || cap(r.Body) > 64 || !r.BodyTruncated || r.Size != 200 {
		t.Errorf("%s %+v", o.Status, r)
	}
	o = run(t, e, target, get("{{base}}/text?s="+strings.Repeat("a", 1001), ""))
	r = o.steps[0].Response
	if o.Code != executor.CodeTooLarge || r == nil || r.StatusCode != 200 || r.Size != 1000 || r.SHA256 != [32]byte{} {
		t.Errorf("%+v %+v", o.Error, r)
	}
	o = run(t, e, target, get("{{base}}/text?s="+strings.Repeat("a", 1000), ""))
	if o.Status != executor.Passed {
		t.Errorf("just at the limit: %+v", o.Error)
	}
}

// TestRun_hidesCredentials: what proves who asks is in no summary.
func TestRun_hidesCredentials(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	const canary = "TFCANARY-1"
	o := run(t, e, target, `{"steps":[
		{"request":{"method":"GET","url":"{{base}}/cookies/set?sid=`+`{{c}}`+`"}},
		{"request":{"method":"GET","url":"{{base}}/pets/1","headers":{"authorization":"Bearer `+canary+`","x-api-key":"`+canary+`","Cookie":"a=`+canary+`","X-Other":"seen"}}}],"variables":{"c":"x"}}`)
	if o.Status != executor.Passed {
		t.Fatal(o.Error)
	}
	for _, s := range o.steps {
		b, err := json.Marshal([]any{s.Request, s.Response.Headers})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), canary) || strings.Contains(string(b), "sid=x") && s.Index == 0 && strings.Contains(string(b), `"sid=x`) {
			t.Errorf("step %d shows it: %s", s.Index, b)
		}
	}
	if !strings.Contains(fmt.Sprint(o.steps[1].Request.Headers), "seen") {
		t.Error("other headers are hidden too")
	}
	if !strings.Contains(fmt.Sprint(o.steps[0].Response.Headers), "sid=•••; Path=/") {
		t.Errorf("Set-Cookie: %v", o.steps[0].Response.Headers)
	}
}

// TestRun_whatVariablesBring: a value from a target must not become a part of the request that it was not put in for.
func TestRun_whatVariablesBring(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for value, want := range map[string]executor.Code{
		"a\r\nX-Evil: 1": executor.CodeRequest, "a\x00b": executor.CodeRequest, "plain": "",
		"{{base}}": "", "http://u:p@x/": "",
	} {
		in := executor.Input{
			RunID: uuid.New(), Environment: map[string]string{"base": target.URL, "v": value},
			Spec: mustRead(t, `{"steps":[{"request":{"method":"GET","url":"{{base}}/echo","headers":{"X-V":"{{v}}"}},
				"assertions":[{"source":"jsonpath","property":"$.headers['x-v']","operator":"equals","expected":"{{v}}"}]}]}`),
		}
		if r := e.Run(context.Background(), in, nil); r.Code != want {
			t.Errorf("header %q: %+v", value, r.Error)
		}
	}
	for value, want := range map[string]executor.Code{
		"/x\r\nHost: evil": executor.CodeRequest, "@169.254.169.254/": executor.CodeRequest, " ": executor.CodeRequest, "/ ": "", "/ü?ü= \"": "", "%": executor.CodeRequest, "/../../etc": "",
	} {
		in := executor.Input{
			RunID: uuid.New(), Environment: map[string]string{"base": target.URL, "v": value},
			Spec: mustRead(t, get("{{base}}{{v}}", "")),
		}
		r := e.Run(context.Background(), in, nil)
		if value == "@169.254.169.254/" && r.Code != executor.CodeRequest && r.Code != executor.CodeBlocked {
			t.Errorf("URL %q: %+v", value, r.Error)
		} else if value != "@169.254.169.254/" && r.Code != want {
			t.Errorf("URL %q: %+v", value, r.Error)
		}
	}
	for _, scheme := range []string{"file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "", "//127.0.0.1/", "http://127.1/", "http://2130706433/"} {
		in := executor.Input{RunID: uuid.New(), Environment: map[string]string{"v": scheme}, Spec: mustRead(t, get("{{v}}", ""))}
		if r := e.Run(context.Background(), in, nil); r.Code != executor.CodeRequest {
			t.Errorf("%q: %+v", scheme, r)
		}
	}
}

// TestHTTP2_headerFlood: the cap on headers holds for HTTP/2 too.
func TestHTTP2_headerFlood(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	for _, base := range []string{"{{tls}}", "{{http1Only}}"} {
		if o := run(t, e, target, get(base+"/hostile/40k-header", "")); o.Code != executor.CodeTooLarge {
			t.Errorf("%s: %s %+v", base, o.Status, o.Error)
		}
	}
}

func TestRun_heavyBodiesWaitTheirTurn(t *testing.T) {
	target := targettest.New(t)
	e := newEngine(t, target)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			o := run(t, e, target, `{"steps":[{"request":{"method":"GET","url":"{{base}}/hostile/deep-json"},"assertions":[{"source":"jsonpath","property":"$..*","operator":"exists"}]}]}`)
			if o.Status != executor.Failed || !strings.Contains(o.Error.Message, fmt.Sprintf("deeper than %d", limits.MaxResponseDepth)) {
				t.Errorf("%+v", o.Error)
			}
		})
	}
	wg.Wait()
}
