package testspec_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// flowFaults returns what Read says of a spec, as "pointer detail".
func flowFaults(t *testing.T, spec string, opts ...testspec.Option) (list []string) {
	t.Helper()
	_, err := testspec.Read([]byte(spec), opts...)
	if err == nil {
		return nil
	}
	var f *fault.Error
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	for _, field := range f.Fields {
		list = append(list, field.Pointer+" "+field.Detail)
	}
	return list
}

const aRequest = `"request":{"method":"GET","url":"https://a.example/"}`

// aStep is a step with more fields.
func aStep(more string) string { return `{"steps":[{` + aRequest + `,` + more + `}]}` }

func TestFlow_refused(t *testing.T) {
	t.Parallel()
	many := func(n int, text string) string { return strings.TrimSuffix(strings.Repeat(text+",", n), ",") }
	url := func(u, more string) string {
		return `{"steps":[{"request":{"method":"GET","url":"https://a.example/` + u + `"}` + more + `}]}`
	}
	for name, c := range map[string]struct{ spec, pointer, detail string }{
		"no steps, only setup":         {`{"setup":[{` + aRequest + `}],"steps":[]}`, "/steps", "at least one step"},
		"too many together":            {`{"setup":[` + many(50, "{"+aRequest+"}") + `],"steps":[` + many(51, "{"+aRequest+"}") + `]}`, "/steps", "at most 100 steps"},
		"a fault in the teardown":      {`{"steps":[{` + aRequest + `}],"teardown":[{}]}`, "/teardown/0/request/method", "has a method"},
		"if is no expression":          {aStep(`"if":"status =="`), "/steps/0/if", "expression"},
		"skip is a number":             {aStep(`"skip":1`), "/steps/0/skip", "text with the reason"},
		"skip is long":                 {aStep(`"skip":"` + strings.Repeat("é", limits.MaxSkipReason+1) + `"`), "/steps/0/skip", "at most 200"},
		"delay is long":                {aStep(`"delay":"6m"`), "/steps/0/delay", "at most 5m"},
		"repeat 0":                     {aStep(`"repeat":0`), "/steps/0/repeat", "from 1 to 1000"},
		"repeat and forEach":           {aStep(`"repeat":2,"forEach":{"rows":[1]}`), "/steps/0/forEach", "not both"},
		"forEach of nothing":           {aStep(`"forEach":{}`), "/steps/0/forEach/rows", "needs rows"},
		"forEach of both":              {aStep(`"forEach":{"rows":[1],"variable":"x"}`), "/steps/0/forEach", "not both"},
		"forEach of an unknown":        {aStep(`"forEach":{"variable":"x"}`), "/steps/0/forEach/variable", "no variable of this name"},
		"too many rows":                {aStep(`"forEach":{"rows":[` + many(limits.MaxIterations+1, "1") + `]}`), "/steps/0/forEach/rows", "at most 1000"},
		"a reference in a row":         {aStep(`"forEach":{"rows":[{"a":"{{b}}"}]}`), "/steps/0/forEach/rows/0", "taken as it is"},
		"as secrets":                   {aStep(`"forEach":{"rows":[1],"as":"secrets"}`), "/steps/0/forEach/as", "row's name"},
		"row outside":                  {url("{{row.a}}", ""), "/steps/0/request/url", "{{row.a}}"},
		"row by another name":          {url("{{row.a}}", `,"forEach":{"rows":[{"a":1}],"as":"it"}`), "/steps/0/request/url", "{{row.a}}"},
		"no such field":                {url("{{row.b}}", `,"forEach":{"rows":[{"a":1}]}`), "/steps/0/request/url", "no row has a field"},
		"rows are scalars":             {url("{{row.b}}", `,"forEach":{"rows":[1]}`), "/steps/0/request/url", "no objects"},
		"index outside":                {url("{{$index}}", ""), "/steps/0/request/url", "only within repeat and forEach"},
		"step variable outside":        {`{"steps":[{` + aRequest + `,"variables":{"a":"1"}},{"request":{"method":"GET","url":"https://a.example/{{a}}"}}]}`, "/steps/1/request/url", "no variable of this name"},
		"step variable of an unknown":  {aStep(`"variables":{"a":"{{b}}"}`), "/steps/0/variables/a", "no variable of this name"},
		"a captured of the teardown":   {`{"steps":[{"request":{"method":"GET","url":"https://a.example/{{x}}"}}],"teardown":[{` + aRequest + `,"captures":[{"name":"x","source":"status"}]}]}`, "/steps/0/request/url", "no earlier step captures it"},
		"use and request":              {aStep(`"use":"f"`), "/steps/0/request", "not both"},
		"use and assertions":           {`{"steps":[{"use":"f","assertions":[{"source":"status","operator":"equals","expected":1}]}]}`, "/steps/0/assertions", "no assertions of its own"},
		"use and captures":             {`{"steps":[{"use":"f","captures":[{"name":"x","source":"status"}]}]}`, "/steps/0/captures", "no captures of its own"},
		"with and no use":              {aStep(`"with":{"a":"1"}`), "/steps/0/with", "uses a fragment"},
		"use of no name":               {`{"steps":[{"use":"a b"}]}`, "/steps/0/use", "fragment's name"},
		"retry without until":          {`{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"attempts":2}}}]}`, "/steps/0/request/retry/until", "until when"},
		"retry until nonsense":         {`{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"until":"(" }}}]}`, "/steps/0/request/retry/until", "expression"},
		"retry until a wrong operator": {`{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"until":[{"source":"status","operator":"is"}]}}}]}`, "/steps/0/request/retry/until/0/operator", "no such operator"},
		"retry too often":              {`{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"until":"true","attempts":101}}}]}`, "/steps/0/request/retry/attempts", "from 1 to 100"},
		"maxDelay of fixed":            {`{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"until":"true","maxDelay":"1s"}}}]}`, "/steps/0/request/retry/maxDelay", "exponential"},
		"an unknown field":             {aStep(`"retries":1`), "/steps/0/retries", "no such field"},
		"too many events":              {aStep(`"repeat":1000,"assertions":[` + many(90, `{"source":"status","operator":"equals","expected":1}`) + `]`), "/steps", "comes to 91000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faults := flowFaults(t, c.spec)
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, c.pointer+" ") && strings.Contains(f, c.detail) }) {
				t.Errorf("got %q, want %s … %s", faults, c.pointer, c.detail)
			}
		})
	}
}

func TestFlow_accepted(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]string{
		"names in order": `{"setup":[{` + aRequest + `,"captures":[{"name":"a","source":"status"}]}],"steps":[{"request":{"method":"GET","url":"https://a.example/{{a}}"},
			"captures":[{"name":"b","source":"status"}]}],"teardown":[{"request":{"method":"GET","url":"https://a.example/{{a}}{{b}}"}}]}`,
		"rows":          `{"steps":[{"request":{"method":"GET","url":"https://a.example/{{row.a}}/{{row}}/{{$index}}"},"forEach":{"rows":[{"a":1},{"b":2}]}}]}`,
		"captured rows": `{"steps":[{` + aRequest + `,"captures":[{"name":"l","source":"jsonpath","property":"$"}]},{"request":{"method":"GET","url":"https://a.example/{{it.any}}"},"forEach":{"variable":"l","as":"it"}}]}`,
		"until":         `{"steps":[{"request":{"method":"GET","url":"https://a.example/","retry":{"until":[{"source":"status","operator":"equals","expected":200}],"backoff":"exponential","delay":"10ms","maxDelay":"1s"}}}]}`,
		"skip":          aStep(`"skip":"later"`) + ``,
		"not skipped":   aStep(`"skip":false`),
	} {
		if faults := flowFaults(t, spec); faults != nil {
			t.Errorf("%s: %q", name, faults)
		}
		// What is stored reads back the same.
		s, err := testspec.Read([]byte(spec))
		if err != nil {
			continue
		}
		stored, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back testspec.Spec
		if err := json.Unmarshal(stored, &back); err != nil {
			t.Fatal(err)
		}
		one, _ := s.Hash()
		two, _ := back.Hash()
		if one != two {
			t.Errorf("%s: stored as %s", name, stored)
		}
	}
}

func TestFlow_fragments(t *testing.T) {
	t.Parallel()
	fragments := map[string]testspec.Fragment{}
	for name, text := range map[string]string{
		"login": `{"parameters":{"user":{},"role":{"default":"x"}},"steps":[{"request":{"method":"POST","url":"https://a.example/"},"captures":[{"name":"token","source":"status"}]}]}`,
		"one":   `{"steps":[{"use":"two"}]}`,
		"two":   `{"steps":[{"use":"three"}]}`,
		"three": `{"steps":[{"use":"four"}]}`,
		"four":  `{"steps":[{` + aRequest + `}]}`,
		"self":  `{"steps":[{"use":"other"}]}`,
		"other": `{"steps":[{"use":"self"}]}`,
		"wide":  `{"steps":[` + strings.TrimSuffix(strings.Repeat(`{"use":"broad"},`, 50), ",") + `]}`,
		"broad": `{"steps":[` + strings.TrimSuffix(strings.Repeat(`{`+aRequest+`},`, 50), ",") + `]}`,
	} {
		f, err := testspec.ReadFragment([]byte(text))
		if err != nil {
			t.Fatal(name, err)
		}
		fragments[name] = f
	}
	for steps, want := range map[string]string{
		`{"use":"login","with":{"user":"u"}},{"request":{"method":"GET","url":"https://a.example/{{token}}"}}`: "",
		`{"use":"two"}`:                               "",
		`{"use":"one"}`:                               "/steps/0/use Fragments use each other more than 3 deep: one, two, three, four.",
		`{"use":"self"}`:                              "/steps/0/use Fragments use each other in a circle: self, other, self.",
		`{` + aRequest + `},{"use":"gone"}`:           "/steps/1/use The project has no fragment gone.",
		`{"use":"login"}`:                             "/steps/0/with The fragment login needs the parameter user.",
		`{"use":"login","with":{"usr":"","user":""}}`: "/steps/0/with/usr The fragment login has no parameter of this name; it has role, user.",
		`{"use":"wide"}`:                              "/steps A test has at most 100 steps, setup, teardown and those of fragments included.",
		`{"use":"broad"},{"use":"broad"}`:             "",
		`{"use":"broad","repeat":1000},{"use":"broad","repeat":1000}`: "/steps With all repetitions and rows the test comes to 100000 steps and assertions; there may be 89700.",
	} {
		got := strings.Join(flowFaults(t, `{"steps":[`+steps+`]}`, testspec.WithFragments(fragments)), "\n")
		if got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", steps, got, want)
		}
	}
	for steps, want := range map[string]bool{`{"use":"two"}`: true, `{"use":"login","with":{"user":"u"}}`: false, `{"use":"gone"}`: false} {
		s, err := testspec.Read([]byte(`{"steps":[` + steps + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.SafeToRepeat(fragments); got != want {
			t.Errorf("%s: safe to repeat: %t", steps, got)
		}
	}
	for _, spec := range []string{`{"steps":[{` + aRequest + `}],"teardown":[{"request":{"method":"DELETE","url":"https://a.example/"}}]}`, `{"setup":[{"request":{"method":"POST","url":"https://a.example/"}}],"steps":[{` + aRequest + `}]}`} {
		s, err := testspec.Read([]byte(spec))
		if err != nil || s.SafeToRepeat(nil) {
			t.Errorf("%v: what setup and teardown send counts too: %s", err, spec)
		}
	}
}

// TestFlow_documented: the example of docs/flow.md is a spec.
func TestFlow_documented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/flow.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	var doc any
	if err := yaml.Unmarshal([]byte(example), &doc); err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if faults := flowFaults(t, string(spec)); faults != nil {
		t.Errorf("%q\n%s", faults, spec)
	}
}

func TestRetry_pauses(t *testing.T) {
	t.Parallel()
	ms := func(n int) testspec.Duration { return testspec.Duration(time.Duration(n) * time.Millisecond) }
	r := testspec.Retry{Delay: ms(100), Backoff: testspec.BackoffExponential, MaxDelay: ms(350)}
	for try, want := range map[int]int{2: 100, 3: 200, 4: 350, 100: 350} {
		if got := r.Pause(try); got != time.Duration(ms(want)) {
			t.Errorf("before try %d: %s", try, got)
		}
	}
	if got := (testspec.Retry{}).Pause(9); got != limits.DefaultRetryDelay {
		t.Errorf("fixed: %s", got)
	}
}

// checkPlan holds a plan to what the engine relies on.
func checkPlan(t *testing.T, p testspec.Plan) {
	t.Helper()
	next := 0
	var look func(units []testspec.Unit, fragment string, phase testspec.Phase, always bool)
	look = func(units []testspec.Unit, fragment string, phase testspec.Phase, always bool) {
		for _, u := range units {
			if u.Index != next || u.Fragment != fragment || u.Phase != phase || always && !u.Always || u.Step.Always && !u.Always {
				t.Fatalf("unit %+v where %d %q %s %t is due", u, next, fragment, phase, always)
			}
			before := next
			if u.Inner == nil {
				next++
			} else {
				look(u.Inner, u.Step.Use, phase, u.Always)
			}
			if u.Size != next-before {
				t.Fatalf("unit %d is %d wide, and says %d", u.Index, next-before, u.Size)
			}
		}
	}
	look(p.Setup, "", testspec.PhaseSetup, false)
	look(p.Steps, "", testspec.PhaseSteps, false)
	look(p.Teardown, "", testspec.PhaseTeardown, true)
	if p.Size != next || next > limits.MaxSteps || p.Events > p.MostEvents() || p.Events+2*p.Size > limits.MaxRunEvents {
		t.Fatalf("%d steps in a plan of %d, %d events", next, p.Size, p.Events)
	}
}

// randomFlow makes a spec with fragments that use each other at will.
func randomFlow(r *rand.Rand) (testspec.Spec, map[string]testspec.Fragment) {
	names := []string{"a", "b", "c", "d", "e"}
	steps := func(most int) []testspec.Step {
		list := make([]testspec.Step, r.IntN(most))
		for i := range list {
			s := &list[i]
			s.Always = r.IntN(4) == 0
			switch n := r.IntN(30); r.IntN(4) {
			case 0:
				s.Repeat = &n
			case 1:
				s.ForEach = &testspec.ForEach{Rows: make([]json.RawMessage, n)}
			}
			if r.IntN(3) == 0 {
				s.Use = names[r.IntN(len(names))]
			} else {
				s.Request.Method, s.Assertions = "GET", make([]testspec.Assertion, r.IntN(40))
			}
		}
		return list
	}
	fragments := map[string]testspec.Fragment{}
	for _, name := range names[:r.IntN(len(names)+1)] {
		fragments[name] = testspec.Fragment{Steps: steps(5)}
	}
	return testspec.Spec{Setup: steps(4), Steps: steps(12), Teardown: steps(4)}, fragments
}

func TestPlan_property(t *testing.T) {
	t.Parallel()
	plans := 0
	for seed := range uint64(5000) {
		s, fragments := randomFlow(rand.New(rand.NewPCG(seed, 7)))
		p, faults := s.Plan(fragments)
		if len(faults) > 0 {
			for _, f := range faults {
				if strings.Contains(f.Pointer, "inner") || f.Detail == "" {
					t.Fatalf("seed %d: %+v", seed, f)
				}
			}
			continue
		}
		plans++
		checkPlan(t, p)
	}
	if plans < 500 {
		t.Errorf("only %d of 5000 could be planned", plans)
	}
}

// FuzzFlow reads specs and fragments and lays out what is accepted.
func FuzzFlow(f *testing.F) {
	f.Add(`{"setup":[{"use":"f"}],"steps":[{`+aRequest+`,"repeat":3,"if":"status == 200"}]}`, `{"parameters":{"a":{"default":"1"}},"steps":[{`+aRequest+`}]}`)
	f.Add(`{"steps":[{"use":"f","forEach":{"rows":[{"a":1}]},"with":{"a":"{{row.a}}"}}],"teardown":[{"use":"f","skip":"x"}]}`, `{"parameters":{"a":{}},"steps":[{"use":"f"}]}`)
	f.Add(`{"steps":[{`+aRequest+`,"always":true,"delay":"1s","variables":{"a":"{{$uuid}}"}}]}`, `{"steps":[]}`)
	f.Fuzz(func(t *testing.T, spec, fragment string) {
		fragments := map[string]testspec.Fragment{}
		if fr, err := testspec.ReadFragment([]byte(fragment)); err == nil {
			fragments["f"] = fr
		}
		s, err := testspec.Read([]byte(spec), testspec.WithAnyName(), testspec.WithFragments(fragments))
		if err != nil {
			return
		}
		p, faults := s.Plan(fragments)
		if len(faults) > 0 {
			t.Fatalf("accepted, but: %v", faults)
		}
		checkPlan(t, p)
		stored, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := testspec.Read(stored, testspec.WithAnyName(), testspec.WithFragments(fragments)); err != nil {
			t.Fatalf("stored as %s: %v", stored, err)
		}
		_ = fmt.Sprint(s.SafeToRepeat(fragments))
	})
}
