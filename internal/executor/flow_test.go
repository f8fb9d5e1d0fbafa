package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/executor"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// counter is a target that answers with what it was asked for and remembers it.
type counter struct {
	*httptest.Server
	mu    sync.Mutex
	paths []string
}

func newCounter(tb testing.TB) *counter {
	tb.Helper()
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.paths = append(c.paths, r.Method+" "+r.URL.RequestURI())
		n := len(c.paths)
		c.mu.Unlock()
		status := http.StatusOK
		if strings.HasPrefix(r.URL.Path, "/fail") {
			status = http.StatusTeapot
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"n":%d,"path":%q,"list":[{"id":1,"name":"a"},{"id":2,"name":"b"}],"empty":[]}`, n, r.URL.Path)
	}))
	tb.Cleanup(c.Close)
	return c
}

func (c *counter) asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.paths...)
}

// flow runs a spec against c.
func (c *counter) flow(tb testing.TB, spec string, change ...func(*executor.Input)) outcome {
	tb.Helper()
	return c.flowContext(context.Background(), tb, spec, change...)
}

func (c *counter) flowContext(ctx context.Context, tb testing.TB, spec string, change ...func(*executor.Input)) outcome {
	tb.Helper()
	e := executor.New(executor.Config{Guard: loopback(tb), Now: time.Now})
	tb.Cleanup(e.Close)
	in := executor.Input{RunID: uuid.New(), OrgID: uuid.New(), Spec: mustRead(tb, spec), Environment: map[string]string{"base": c.URL}}
	for _, f := range change {
		f(&in)
	}
	var o outcome
	o.Result = e.Run(ctx, in, func(ob executor.Observation) {
		switch v := ob.(type) {
		case executor.StepFinished:
			o.steps = append(o.steps, v)
		case executor.AssertionEvaluated:
			o.verdicts = append(o.verdicts, v)
		}
	})
	return o
}

// line is what a step came to, in one line.
func line(s executor.StepFinished) string {
	text := fmt.Sprintf("%d.%d %s %s", s.Index, s.Iteration, s.Phase, s.Status)
	if s.Fragment != "" {
		text = fmt.Sprintf("%d.%d %s/%s %s", s.Index, s.Iteration, s.Phase, s.Fragment, s.Status)
	}
	if s.Error != nil {
		text += " " + string(s.Error.Code)
	}
	return text
}

func lines(o outcome) (list []string) {
	for _, s := range o.steps {
		list = append(list, line(s))
	}
	return list
}

func same(tb testing.TB, what string, got, want any) {
	tb.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// req is a request to path.
func req(path string) string {
	return `"request":{"method":"GET","url":"{{base}}` + path + `"}`
}

// ok asserts that the answer is 200.
const ok = `"assertions":[{"source":"status","operator":"equals","expected":200}]`

func TestFlow_phases(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec          string
		steps, asked  []string
		status        executor.Status
		failed        int
		run, skipped  int
		message       string
		notYetStarted bool
	}{
		"all pass": {
			spec:   `{"setup":[{` + req("/s") + `}],"steps":[{` + req("/a") + `}],"teardown":[{` + req("/t") + `}]}`,
			steps:  []string{"0.0 setup passed", "1.0 steps passed", "2.0 teardown passed"},
			asked:  []string{"GET /s", "GET /a", "GET /t"},
			status: executor.Passed, failed: -1, run: 3,
		},
		"setup fails: steps are skipped, what is always executed and the teardown are not": {
			spec: `{"setup":[{` + req("/fail") + `,` + ok + `},{` + req("/s2") + `}],"steps":[{` + req("/a") + `},{"always":true,` + req("/always") + `}],
				"teardown":[{` + req("/t") + `}]}`,
			steps: []string{"0.0 setup failed assertion", "1.0 setup skipped earlierStep", "2.0 steps skipped earlierStep", "3.0 steps passed", "4.0 teardown passed"},
			asked: []string{"GET /fail", "GET /always", "GET /t"}, status: executor.Failed, failed: 0, run: 3, skipped: 2,
			message: "Expected the status to equal 200, but it is 418.",
		},
		"teardown fails alone: the run fails and says where; each of its steps is executed": {
			spec:  `{"steps":[{` + req("/a") + `}],"teardown":[{` + req("/fail") + `,` + ok + `},{` + req("/t2") + `}]}`,
			steps: []string{"0.0 steps passed", "1.0 teardown failed assertion", "2.0 teardown passed"},
			asked: []string{"GET /a", "GET /fail", "GET /t2"}, status: executor.Failed, failed: 1, run: 3,
			message: "In the teardown: Expected the status to equal 200, but it is 418.",
		},
		"teardown fails too: the first failure is the run's": {
			spec:  `{"steps":[{` + req("/nothing/{{absent}}") + `},{` + req("/b") + `}],"teardown":[{` + req("/fail") + `,` + ok + `}]}`,
			steps: []string{"0.0 steps errored variable", "1.0 steps skipped earlierStep", "2.0 teardown failed assertion"},
			asked: []string{"GET /fail"}, status: executor.Errored, failed: 0, run: 2, skipped: 1,
			message: `In the URL the variable "absent" has no value.`,
		},
		"a soft assertion stops nothing; captures of a failed step are kept": {
			spec: `{"steps":[{` + req("/fail") + `,"assertions":[{"source":"status","operator":"equals","expected":200,"severity":"soft"}]},
				{` + req("/fail2") + `,` + ok + `,"captures":[{"name":"n","source":"jsonpath","property":"$.n"}]}],"teardown":[{` + req("/t/{{n}}") + `}]}`,
			steps: []string{"0.0 steps passed", "1.0 steps failed assertion", "2.0 teardown passed"},
			asked: []string{"GET /fail", "GET /fail2", "GET /t/2"}, status: executor.Failed, failed: 1, run: 3,
			message: "Expected the status to equal 200, but it is 418.",
		},
		"skip": {
			spec:  `{"steps":[{"skip":true,` + req("/a") + `},{"skip":"broken, see 12",` + req("/b") + `},{"skip":false,` + req("/c") + `}]}`,
			steps: []string{"0.0 steps skipped skip", "1.0 steps skipped skip", "2.0 steps passed"},
			asked: []string{"GET /c"}, status: executor.Passed, failed: -1, run: 1, skipped: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newCounter(t)
			o := target.flow(t, c.spec)
			same(t, "steps", lines(o), c.steps)
			same(t, "asked", target.asked(), c.asked)
			same(t, "run", []any{o.Status, o.FailedStep, o.StepsRun, o.StepsSkipped}, []any{c.status, c.failed, c.run, c.skipped})
			if o.Error != nil || c.message != "" {
				same(t, "message", o.Error.Message, c.message)
			}
		})
	}
}

func TestFlow_reasonOfSkip(t *testing.T) {
	t.Parallel()
	o := newCounter(t).flow(t, `{"steps":[{"skip":"broken, see 12",`+req("/b")+`}]}`)
	same(t, "reason", o.steps[0].Error.Message, "broken, see 12")
}

func TestFlow_variablesOfAStep(t *testing.T) {
	t.Parallel()
	target := newCounter(t)
	target.flow(t, `{"variables":{"a":"test","b":"test","c":"test"},"steps":[
		{`+req("/{{a}}/{{b}}/{{c}}")+`,"variables":{"b":"step-{{a}}","c":"step"},"captures":[{"name":"d","source":"status"}]},
		{`+req("/{{a}}/{{b}}/{{c}}")+`},
		{`+req("/{{d}}")+`,"variables":{"d":"step"}}]}`,
		func(in *executor.Input) { in.Variables = map[string]string{"c": "run"} })
	same(t, "asked", target.asked(), []string{"GET /test/step-test/run", "GET /test/test/run", "GET /200"})
}

func TestFlow_delayIsWaitedFor(t *testing.T) {
	t.Parallel()
	o := newCounter(t).flow(t, `{"steps":[{"delay":"120ms",`+req("/a")+`}]}`)
	if o.Duration < 120*time.Millisecond || o.steps[0].Timings.Total > o.Duration-100*time.Millisecond {
		t.Errorf("the run took %s, its request %s", o.Duration, o.steps[0].Timings.Total)
	}
	late := newCounter(t)
	o = late.flow(t, `{"timeout":"100ms","steps":[{"delay":"10s",`+req("/a")+`}],"teardown":[{`+req("/t")+`}]}`)
	same(t, "steps", lines(o), []string{"0.0 steps errored timeout", "1.0 teardown passed"})
	same(t, "asked", late.asked(), []string{"GET /t"})
	if o.Status != executor.Errored || o.Duration > 5*time.Second {
		t.Errorf("%s after %s", o.Status, o.Duration)
	}
}

func TestFlow_loops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec         string
		steps, asked []string
		status       executor.Status
		assertions   int
	}{
		"repeat": {
			spec:   `{"steps":[{"repeat":3,` + req("/{{$index}}") + `},{"if":"index == nil && row == nil",` + req("/end") + `}]}`,
			steps:  []string{"0.0 steps passed", "0.1 steps passed", "0.2 steps passed", "1.0 steps passed"},
			asked:  []string{"GET /0", "GET /1", "GET /2", "GET /end"},
			status: executor.Passed,
		},
		"rows: all are executed, then one that failed stops the rest": {
			spec: `{"steps":[{"forEach":{"rows":[{"p":"a","n":1},{"p":"fail","n":2},{"p":"c","n":null}]},` +
				`"request":{"method":"GET","url":"{{base}}/{{row.p}}/{{row.n}}"},` + ok + `},{` + req("/end") + `}]}`,
			steps:  []string{"0.0 steps passed", "0.1 steps failed assertion", "0.2 steps passed", "1.0 steps skipped earlierStep"},
			asked:  []string{"GET /a/1", "GET /fail/2", "GET /c/null"},
			status: executor.Failed, assertions: 3,
		},
		"scalars, with a name": {
			spec:   `{"steps":[{"forEach":{"rows":["x",7,true],"as":"it"},` + req("/{{it}}/{{$index}}") + `}]}`,
			steps:  []string{"0.0 steps passed", "0.1 steps passed", "0.2 steps passed"},
			asked:  []string{"GET /x/0", "GET /7/1", "GET /true/2"},
			status: executor.Passed,
		},
		"a captured list, and the last capture of a loop": {
			spec: `{"steps":[{` + req("/l") + `,"captures":[{"name":"list","source":"jsonpath","property":"$.list"}]},
				{"forEach":{"variable":"list"},` + req("/{{row.id}}/{{row.name}}") + `,"captures":[{"name":"n","source":"jsonpath","property":"$.n"}]},{` + req("/{{n}}") + `}]}`,
			steps:  []string{"0.0 steps passed", "1.0 steps passed", "1.1 steps passed", "2.0 steps passed"},
			asked:  []string{"GET /l", "GET /1/a", "GET /2/b", "GET /3"},
			status: executor.Passed,
		},
		"an empty list": {
			spec: `{"steps":[{` + req("/l") + `,"captures":[{"name":"list","source":"jsonpath","property":"$.empty"}]},
				{"forEach":{"variable":"list"},` + req("/{{row.id}}") + `},{` + req("/end") + `}]}`,
			steps:  []string{"0.0 steps passed", "1.0 steps skipped noRows", "2.0 steps passed"},
			asked:  []string{"GET /l", "GET /end"},
			status: executor.Passed,
		},
		"no list": {
			spec: `{"steps":[{` + req("/l") + `,"captures":[{"name":"list","source":"status"}]},
				{"forEach":{"variable":"list"},` + req("/{{row.id}}") + `},{` + req("/end") + `}]}`,
			steps:  []string{"0.0 steps passed", "1.0 steps errored variable", "2.0 steps skipped earlierStep"},
			asked:  []string{"GET /l"},
			status: executor.Errored,
		},
		"a condition for each row": {
			spec:   `{"steps":[{"forEach":{"rows":[{"n":1},{"n":2},{"n":3}]},"if":"row.n != 2 && index < 5",` + req("/{{row.n}}") + `}]}`,
			steps:  []string{"0.0 steps passed", "0.1 steps skipped condition", "0.2 steps passed"},
			asked:  []string{"GET /1", "GET /3"},
			status: executor.Passed,
		},
		"a row without the field": {
			spec:   `{"steps":[{"forEach":{"rows":[{"n":1},{"m":2}]},` + req("/{{row.n}}") + `}]}`,
			steps:  []string{"0.0 steps passed", "0.1 steps errored variable"},
			asked:  []string{"GET /1"},
			status: executor.Errored,
		},
		"a JSON value of a row keeps its type": {
			spec: `{"steps":[{"forEach":{"rows":[{"n":1}]},"request":{"method":"POST","url":"{{base}}/a","body":{"json":{"n":"{{row.n}}","i":"{{$index}}"}}},
				"assertions":[{"source":"status","operator":"equals","expected":"{{row.n}}","not":true}]}]}`,
			steps:  []string{"0.0 steps passed"},
			asked:  []string{"POST /a"},
			status: executor.Passed, assertions: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newCounter(t)
			o := target.flow(t, c.spec)
			same(t, "steps", lines(o), c.steps)
			same(t, "asked", target.asked(), c.asked)
			same(t, "status", o.Status, c.status)
			same(t, "assertions", o.Assertions, c.assertions)
			for i, v := range o.verdicts {
				if c.assertions == 3 && v.Iteration != i {
					t.Errorf("verdict %d is of iteration %d", i, v.Iteration)
				}
			}
		})
	}
}

func TestFlow_conditions(t *testing.T) {
	t.Parallel()
	target := newCounter(t)
	o := target.flow(t, `{"variables":{"kind":"a"},"steps":[
		{"if":"status == nil",`+req("/first")+`},
		{"if":"status == 200 && vars.kind == \"a\" && json.path == \"/first\"",`+req("/yes")+`},
		{"if":"vars.kind == \"b\"",`+req("/no")+`,`+ok+`},
		{"if":"json.n",`+req("/never")+`},
		{`+req("/skipped")+`}]}`)
	same(t, "steps", lines(o), []string{"0.0 steps passed", "1.0 steps passed", "2.0 steps skipped condition", "3.0 steps errored expression", "4.0 steps skipped earlierStep"})
	same(t, "asked", target.asked(), []string{"GET /first", "GET /yes"})
	if o.Assertions != 0 || o.Status != executor.Errored || !strings.HasPrefix(o.Error.Message, "The condition has no value: ") {
		t.Errorf("%d assertions, %s: %s", o.Assertions, o.Status, o.Error.Message)
	}
}

func TestFlow_retry(t *testing.T) {
	t.Parallel()
	retried := func(retry string) string {
		return `{"steps":[{"request":{"method":"POST","url":"{{base}}/a","retry":` + retry + `},` + ok + `,"captures":[{"name":"n","source":"jsonpath","property":"$.n"}]}]}`
	}
	for name, c := range map[string]struct {
		retry string
		line  string
		asked int
		n     string
	}{
		"assertions":            {`{"until":[{"source":"jsonpath","property":"$.n","operator":"equals","expected":3}],"delay":"1ms"}`, "0.0 steps passed", 3, "3"},
		"expression":            {`{"until":"json.n == 2","delay":"1ms","backoff":"exponential","maxDelay":"2ms"}`, "0.0 steps passed", 2, "2"},
		"at once":               {`{"until":"status == 200"}`, "0.0 steps passed", 1, "1"},
		"never":                 {`{"until":"json.n == 99","delay":"1ms","attempts":4}`, "0.0 steps failed until", 4, "4"},
		"never, by assertion":   {`{"until":[{"source":"status","operator":"equals","expected":201}],"delay":"1ms","attempts":2}`, "0.0 steps failed until", 2, "2"},
		"has no value":          {`{"until":"json.absent.more","delay":"1ms","attempts":2}`, "0.0 steps errored expression", 2, "2"},
		"has no value at first": {`{"until":"json.n == 1 ? json.absent.more : true","delay":"1ms","attempts":3}`, "0.0 steps passed", 2, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newCounter(t)
			o := target.flow(t, retried(c.retry))
			same(t, "steps", lines(o), []string{c.line})
			same(t, "asked", len(target.asked()), c.asked)
			same(t, "tries", o.steps[0].Tries, c.asked)
			if len(o.verdicts) != 1 || len(o.Captures) != 1 || string(o.Captures[0].Value) != c.n {
				t.Errorf("%d verdicts, captures %v", len(o.verdicts), o.Captures)
			}
		})
	}
	t.Run("a target that comes up", func(t *testing.T) {
		t.Parallel()
		var n int
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n++; n < 3 {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, "up")
		}))
		t.Cleanup(srv.Close)
		c := &counter{Server: srv}
		o := c.flow(t, `{"steps":[{"request":{"method":"POST","url":"{{base}}/","retry":{"until":"status == 200","delay":"1ms"}}}]}`)
		same(t, "steps", lines(o), []string{"0.0 steps passed"})
		same(t, "tries", o.steps[0].Tries, 3)
	})
	t.Run("the run's time bounds it", func(t *testing.T) {
		t.Parallel()
		target := newCounter(t)
		o := target.flow(t, `{"timeout":"150ms","steps":[{"request":{"method":"GET","url":"{{base}}/","retry":{"until":"false","delay":"40ms","attempts":100}}}]}`)
		same(t, "steps", lines(o), []string{"0.0 steps errored timeout"})
		if n := len(target.asked()); n < 2 || n > 5 || o.Duration > 3*time.Second {
			t.Errorf("%d tries in %s", n, o.Duration)
		}
	})
}

func fragment(tb testing.TB, text string) testspec.Fragment {
	tb.Helper()
	f, err := testspec.ReadFragment([]byte(text))
	if err != nil {
		b, _ := json.Marshal(err)
		tb.Fatalf("fragment: %v %s", err, b)
	}
	return f
}

func TestFlow_fragments(t *testing.T) {
	t.Parallel()
	target := newCounter(t)
	fragments := map[string]testspec.Fragment{
		"login": fragment(t, `{"parameters":{"user":{},"role":{"default":"guest"}},"steps":[
			{`+req("/login/{{user}}/{{role}}/{{kind}}")+`,"captures":[{"name":"n","source":"jsonpath","property":"$.n"}]},
			{"use":"inner","with":{"user":"in-{{user}}"}}]}`),
		"inner":  fragment(t, `{"parameters":{"user":{}},"steps":[{`+req("/inner/{{user}}/{{n}}")+`,"captures":[{"name":"user","source":"status"}]},{`+req("/after/{{user}}")+`}]}`),
		"broken": fragment(t, `{"steps":[{`+req("/fail")+`,`+ok+`},{`+req("/rest")+`}]}`),
	}
	o := target.flow(t, `{"variables":{"kind":"k","user":"outer"},
		"setup":[{"use":"login","with":{"user":"{{user}}-x"}}],
		"steps":[{"use":"login","forEach":{"rows":["a","b"]},"with":{"user":"{{row}}","role":"admin"},"if":"index == 1"},
			{"use":"broken","repeat":2},{`+req("/end/{{user}}")+`},{"always":true,"use":"broken"}],
		"teardown":[{"use":"broken"},{`+req("/t/{{user}}")+`}]}`,
		func(in *executor.Input) {
			in.Fragments = fragments
			in.Variables = map[string]string{"role": "run", "user": "run"}
		})
	same(t, "steps", lines(o), []string{
		"0.0 setup/login passed", "1.0 setup/inner passed", "2.0 setup/inner passed",
		"3.0 steps/login skipped condition", "4.0 steps/inner skipped condition", "5.0 steps/inner skipped condition",
		"3.1 steps/login passed", "4.1 steps/inner passed", "5.1 steps/inner passed",
		"6.0 steps/broken failed assertion", "7.0 steps/broken skipped earlierStep",
		"6.1 steps/broken failed assertion", "7.1 steps/broken skipped earlierStep",
		"8.0 steps skipped earlierStep",
		"9.0 steps/broken failed assertion", "10.0 steps/broken passed",
		"11.0 teardown/broken failed assertion", "12.0 teardown/broken passed", "13.0 teardown passed",
	})
	same(t, "asked", target.asked(), []string{
		"GET /login/run-x/guest/k", "GET /inner/in-run-x/1", "GET /after/200",
		"GET /login/b/admin/k", "GET /inner/in-b/4", "GET /after/200",
		"GET /fail", "GET /fail", "GET /fail", "GET /rest", "GET /fail", "GET /rest", "GET /t/200",
	})
	same(t, "run", []any{o.Status, o.FailedStep, o.StepsRun, o.StepsSkipped}, []any{executor.Failed, 6, 13, 6})
}

func TestFlow_fragmentThatIsGone(t *testing.T) {
	t.Parallel()
	target := newCounter(t)
	o := target.flow(t, `{"steps":[{"use":"gone"}]}`)
	same(t, "run", []any{o.Status, o.Code, o.FailedStep}, []any{executor.Errored, executor.CodeFragment, -1})
	same(t, "asked", len(target.asked()), 0)
}

// cancelAt ends ctx with cause when the target has been asked n times.
func cancelAt(t *testing.T, n int, cause error) (*counter, context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.paths = append(c.paths, r.Method+" "+r.URL.RequestURI())
		hit := len(c.paths) == n
		c.mu.Unlock()
		if hit {
			cancel(cause)
			<-r.Context().Done()
		}
	}))
	t.Cleanup(c.Close)
	return c, ctx
}

func TestFlow_whoEndsTheRun(t *testing.T) {
	t.Parallel()
	spec := `{"steps":[{` + req("/a") + `},{` + req("/b") + `},{"always":true,` + req("/always") + `}],"teardown":[{` + req("/t") + `}]}`
	for name, c := range map[string]struct {
		cause  error
		asked  []string
		status executor.Status
		code   executor.Code
	}{
		"canceled: the teardown, nothing else":   {executor.ErrCanceled, []string{"GET /a", "GET /b", "GET /t"}, executor.Canceled, executor.CodeCanceled},
		"shutdown: nothing":                      {executor.ErrShutdown, []string{"GET /a", "GET /b"}, executor.Inconclusive, executor.CodeShutdown},
		"the worker gave up: nothing":            {context.DeadlineExceeded, []string{"GET /a", "GET /b"}, executor.Inconclusive, executor.CodeInternal},
		"somebody else has the run now: nothing": {io.ErrClosedPipe, []string{"GET /a", "GET /b"}, executor.Canceled, executor.CodeCanceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, ctx := cancelAt(t, 2, c.cause)
			o := target.flowContext(ctx, t, spec)
			same(t, "asked", target.asked(), c.asked)
			same(t, "run", []any{o.Status, o.Code, o.FailedStep}, []any{c.status, c.code, 1})
			if n := len(o.steps); n != 4 {
				t.Errorf("%d results of 4 steps: %v", n, lines(o))
			}
		})
	}
	t.Run("canceled before anything was executed", func(t *testing.T) {
		t.Parallel()
		target := newCounter(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(executor.ErrCanceled)
		o := target.flowContext(ctx, t, spec)
		same(t, "asked", len(target.asked()), 0)
		same(t, "run", []any{o.Status, o.StepsRun, o.StepsSkipped}, []any{executor.Canceled, 0, 4})
	})
	t.Run("canceled in the teardown", func(t *testing.T) {
		t.Parallel()
		target, ctx := cancelAt(t, 4, executor.ErrShutdown)
		o := target.flowContext(ctx, t, spec)
		same(t, "run", []any{o.Status, o.Code}, []any{executor.Inconclusive, executor.CodeShutdown})
	})
}

func TestFlow_attemptThatIsFull(t *testing.T) {
	t.Parallel()
	var asked, torn int
	list := `[` + strings.TrimSuffix(strings.Repeat("0,", limits.MaxIterations), ",") + `]`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/t" {
			torn++
		}
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(srv.Close)
	c := &counter{Server: srv}
	assertions := strings.TrimSuffix(strings.Repeat(`{"source":"status","operator":"equals","expected":200},`, 99), ",")
	o := c.flow(t, `{"steps":[{"forEach":{"variable":"list"},`+req("/")+`,"assertions":[`+assertions+`]},{`+req("/after")+`}],"teardown":[{`+req("/t")+`,"assertions":[`+assertions+`]}]}`,
		func(in *executor.Input) { in.Variables = map[string]string{"list": list} })
	same(t, "run", []any{o.Status, o.Code, o.FailedStep, torn}, []any{executor.Errored, executor.CodeTooLarge, 0, 1})
	// 89 900 less two for each of three steps and the teardown's hundred, in hundreds.
	same(t, "iterations", asked-torn, 897)
	if n := len(o.steps) + len(o.verdicts); n > limits.MaxRunEvents {
		t.Errorf("%d events", n)
	}
	last := o.steps[len(o.steps)-2:]
	same(t, "last", []string{line(last[0]), line(last[1])}, []string{"1.0 steps skipped earlierStep", "2.0 teardown passed"})
}

// TestFlow_more: what a run writes while it goes on depends on knowing whether it goes on.
func TestFlow_more(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`{"steps":[{` + req("/a") + `}]}`:                                                                     "-",
		`{"steps":[{` + req("/a") + `},{` + req("/b") + `}]}`:                                                 "+-",
		`{"steps":[{` + req("/fail") + `,` + ok + `},{` + req("/b") + `}]}`:                                   "--",
		`{"steps":[{` + req("/fail") + `,` + ok + `},{` + req("/b") + `},{"always":true,` + req("/c") + `}]}`: "++-",
		`{"steps":[{` + req("/fail") + `,` + ok + `}],"teardown":[{` + req("/c") + `}]}`:                      "+-",
		`{"steps":[{"repeat":3,` + req("/fail") + `,` + ok + `}]}`:                                            "++-",
		`{"steps":[{"repeat":2,` + req("/a") + `},{` + req("/b") + `}]}`:                                      "++-",
	} {
		o := newCounter(t).flow(t, spec)
		got := ""
		for _, s := range o.steps {
			got += map[bool]string{true: "+", false: "-"}[s.More]
		}
		same(t, spec, got, want)
	}
}
