package testspec_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// The targets of this file and of parse_test.go, template_test.go and judge_test.go are run by make fuzz; what they once
// found is kept in testdata/fuzz and runs with the tests.

// soon fails when what began at started took longer than what is fuzzed may, on a machine that is busy.
func soon(t *testing.T, started time.Time, what string) {
	t.Helper()
	if took := time.Since(started); took > 8*time.Second {
		t.Fatalf("%s took %s", what, took)
	}
}

// resolves says whether a pointer leads to a place of doc, or to a member that is missing there.
func resolves(doc any, pointer string) bool {
	if pointer == "" {
		return true
	}
	tokens := strings.Split(pointer[1:], "/")
	for i, token := range tokens {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch v := doc.(type) {
		case map[string]any:
			next, has := v[token]
			if !has {
				return i >= len(tokens)-2 // a field that is needed, or a part of it
			}
			doc = next
		case []any:
			n, err := strconv.Atoi(token)
			if err != nil || n < 0 || n >= len(v) {
				return i == len(tokens)-1
			}
			doc = v[n]
		default:
			return i == len(tokens)-1
		}
	}
	return true
}

// FuzzFaults: whatever is wrong with a definition is told with a sentence and a pointer to a place of it.
func FuzzFaults(f *testing.F) {
	for _, seed := range []string{
		minimal, full, `{}`, `[]`, `{"steps":[{}]}`, `{"steps":[{"request":{"method":"get","url":"x"}}],"nope":1}`,
		`{"schemas":{"a":{"type":"x"}},"seed":-1,"variables":{"a":"{{$uid}}"},"steps":[{"request":{"method":"GET","url":"http://a/{{$now(+1d)}}"},
		"if":"status ==","assertions":[{"source":"jsonSchema","operator":"matchesSchema","expected":{"properties":{"a/b":{"type":"x"}}}},
		{"source":"expression","property":"json.a =","operator":"equals","expected":true},{"source":"jsonpath","property":"$[?!1]","operator":"exists","filters":[{"nope":1},{"count":true}],"quantifier":"some"}],
		"captures":[{"name":"1","source":"body"}],"repeat":0,"forEach":{"rows":[]}}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		started := time.Now()
		_, err := testspec.Read([]byte(in), testspec.WithNames("x"))
		soon(t, started, "reading")
		if err == nil {
			return
		}
		var told *fault.Error
		if !errors.As(err, &told) {
			t.Fatalf("no fault: %v", err)
		}
		if told.Message == "" || told.Code == testspec.CodeInvalid && len(told.Fields) == 0 {
			t.Fatalf("nothing is said: %+v", told)
		}
		var doc any
		if json.Unmarshal([]byte(in), &doc) != nil {
			return
		}
		for _, field := range told.Fields {
			if field.Detail == "" || field.Pointer != "" && field.Pointer[0] != '/' {
				t.Fatalf("%+v", field)
			}
			if !resolves(doc, field.Pointer) {
				t.Fatalf("%q leads nowhere: %s", field.Pointer, field.Detail)
			}
		}
	})
}

// FuzzTemplate: text without {{ is itself; a template is accepted when saved if and only if it can be expanded; in JSON
// the outcome is JSON; one seed gives one outcome.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"plain }}", "{{x}}", "{{{{", "{{ $now(+1d, '%Y') }}", "{{$randomInt(1,10)}}{{$uuid}}", "{{$words(3)}}", "{{$index}}", `{{$now("a,b)%d")}}`, "{{x.y}}", "{{$randomFloat(-1e3,2.5)}}"} {
		f.Add(seed)
	}
	clock := func() time.Time { return time.Unix(1_700_000_000, 0) }
	f.Fuzz(func(t *testing.T, template string) {
		expand := func() (string, error) {
			s := testspec.NewScope(map[string]string{"x": "value"})
			s.SetGenerator(testspec.NewGenerator("fuzz", clock))
			return s.Expand(template, 1<<20)
		}
		out, err := expand()
		again, err2 := expand()
		if out != again || (err == nil) != (err2 == nil) {
			t.Fatalf("%q is %q and then %q (%v, %v)", template, out, again, err, err2)
		}
		if !strings.Contains(template, "{{") && (err != nil || out != template) {
			t.Fatalf("%q became %q, %v", template, out, err)
		}
		raw, jsonErr := json.Marshal(template)
		if jsonErr != nil {
			t.Fatal(jsonErr) // text can always be written
		}
		s := testspec.NewScope(map[string]string{"x": "value"})
		s.SetGenerator(testspec.NewGenerator("fuzz", clock))
		if made, err := s.ExpandJSON(raw, 1<<20); err == nil && !json.Valid(made) {
			t.Fatalf("%s became %s", raw, made)
		}
		if len(template) > limits.MaxRequestBody/8 || strings.ContainsRune(template, 0) {
			return
		}
		text := template
		faults := testspec.Validate(testspec.Spec{Steps: []testspec.Step{{Request: testspec.Request{
			Method: "POST", URL: "http://a.example/", Body: &testspec.Body{Text: &text},
		}}}}, testspec.WithNames("x"))
		if (faults == nil) != (err == nil) {
			t.Fatalf("%q: saved %v, run %v", template, faults, err)
		}
	})
}

// FuzzExpression: an expression that is accepted ends soon, with a JSON value or a clause, and twice with the same.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		`json.total == len(json.items)`, `map(json.items, .id) | filter(# > 1)`, `reduce(json.items, #acc + .id, 0)`, `let x = 1..9; sum(x)`,
		`sortBy(json.items, .id)[0]?.id ?? "none"`, `groupBy(json.items, .id)`, `body matches "a+" && headers["a"] == nil`, `join(split("a,b", ","), "-")`,
		`{"a": [1, -2.5, nil, true]}.a[1:]`, `toJSON(fromJSON("[1]"))`, `if status > 1 { "a" } else { 1 ** 2 % 3 }`, `all(json.items, any(json.items, # == #))`,
	} {
		f.Add(seed, `{"total":2,"items":[{"id":1},{"id":2}]}`)
	}
	f.Fuzz(func(t *testing.T, expression, body string) {
		if len(body) > 1<<16 || testspec.CheckExpression(expression) != nil {
			return
		}
		s := &testspec.Subject{Status: 200, Header: http.Header{"A": {"b"}}, Body: []byte(body)}
		started := time.Now()
		out, err := testspec.EvalExpression(t.Context(), expression, nil, s)
		soon(t, started, expression)
		if err != nil {
			var reason *testspec.ExpressionError
			if !errors.As(err, &reason) || err.Error() == "" || strings.Contains(err.Error(), "runtime error: invalid memory") {
				t.Fatalf("%s: %v", expression, err)
			}
			return
		}
		if !json.Valid(out) && len(out) < limits.MaxShownSize {
			t.Fatalf("%s = %s", expression, out)
		}
	})
}

// FuzzSchema: a schema that is accepted judges any body soon, without a panic, and false is the opposite of true.
func FuzzSchema(f *testing.F) {
	for _, c := range both {
		f.Add(c.schema, lines(c.valid + " | " + c.invalid)[0])
	}
	f.Add(`{"$id":"https://t.example/strict","$dynamicAnchor":"node","$ref":"tree","$defs":{"tree":{"$id":"tree","$dynamicAnchor":"node","properties":{"c":{"items":{"$dynamicRef":"#node"}}}}}}`, `{"c":[{"c":[]}]}`)
	f.Add(`{"$schema":"http://json-schema.org/draft-07/schema#","dependencies":{"a":["b"]},"items":[{}],"additionalItems":false}`, `[1,2]`)
	f.Add(`{"$ref":"schemas/a#/properties/x"}`, `1`)
	named := map[string]json.RawMessage{"a": json.RawMessage(`{"properties":{"x":{"$ref":"schemas/a"},"y":{"type":"integer"}}}`)}
	f.Fuzz(func(t *testing.T, schema, body string) {
		a := testspec.Assertion{Source: "jsonSchema", Operator: "matchesSchema", Expected: json.RawMessage(schema)}
		spec := testspec.Spec{Schemas: named, Steps: []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/"}, Assertions: []testspec.Assertion{a}}}}
		started := time.Now()
		faults := testspec.Validate(spec, testspec.WithAnyName())
		soon(t, started, "compiling "+schema)
		if faults != nil || len(body) > 1<<16 {
			return
		}
		s := &testspec.Subject{Body: []byte(body), Schemas: named}
		started = time.Now()
		v := s.Judge(t.Context(), a)
		a.Not = true
		n := s.Judge(t.Context(), a)
		soon(t, started, schema)
		if v.Message == "" || v.Pass && n.Pass {
			t.Fatalf("%s of %s: %+v %+v", schema, body, v, n)
		}
	})
}

// FuzzPath: a JSONPath that is accepted selects soon, twice the same, and nothing that it cannot.
func FuzzPath(f *testing.F) {
	for _, c := range rfcPaths {
		f.Add(c.path, c.doc)
	}
	for _, path := range rfcInvalid {
		f.Add(path, `[1]`)
	}
	f.Fuzz(func(t *testing.T, path, doc string) {
		if refusesPath(path) || len(doc) > 1<<14 {
			return
		}
		started := time.Now()
		read := func() (json.RawMessage, error) {
			return (&testspec.Subject{Body: []byte(doc)}).Capture(t.Context(), testspec.Capture{Name: "c", Source: "jsonpath", Property: path})
		}
		once, err1 := read()
		twice, err2 := read()
		soon(t, started, path)
		if string(once) != string(twice) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%s of %s: %s, %v and then %s, %v", path, doc, once, err1, twice, err2)
		}
		if err1 == nil && !json.Valid(once) {
			t.Fatalf("%s of %s: %s", path, doc, once)
		}
	})
}

// FuzzFilter: filters that are accepted turn any body into a value or a clause, soon.
func FuzzFilter(f *testing.F) {
	for _, info := range testspec.Filters() {
		f.Add(`[{"`+info.Name+`":true}]`, `["a","b"]`)
	}
	for _, seed := range []string{
		`[{"split":","},{"nth":0},{"upper":true}]`, `[{"replace":["a","b"]}]`, `[{"regex":"(a+)"}]`, `[{"jsonpath":"$..a"},{"count":true}]`, `[{"xpath":"//a"}]`,
		`[{"toDate":true},{"formatDate":"%Y"}]`, `[{"decode":"latin1"}]`, `[{"base64Decode":true},{"toInt":true}]`, `[{"daysAfterNow":true}]`,
	} {
		f.Add(seed, `{"a":"a,b","d":"2024-01-01"}`)
	}
	f.Fuzz(func(t *testing.T, filters, body string) {
		if len(body) > 1<<15 {
			return
		}
		for _, source := range []string{`"jsonpath","property":"$"`, `"body"`} {
			spec, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"GET","url":"http://a.example/"},"assertions":[{"source":`+source+`,"operator":"exists","filters":`+filters+`}]}]}`), testspec.WithAnyName())
			if err != nil || len(spec.Steps) != 1 || len(spec.Steps[0].Assertions) != 1 {
				continue
			}
			s := &testspec.Subject{Body: []byte(body), Header: http.Header{}, Now: time.Unix(1_700_000_000, 0)}
			started := time.Now()
			v := s.Judge(t.Context(), spec.Steps[0].Assertions[0])
			soon(t, started, filters)
			if v.Message == "" || v.Actual.JSON != nil && !json.Valid(v.Actual.JSON) {
				t.Fatalf("%s of %q: %+v", filters, body, v)
			}
		}
	})
}
