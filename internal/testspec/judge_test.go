package testspec_test

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// TestOperators_json: every operator over a JSON value. pass, fail, or cannot (compared, which fails with not too).
func TestOperators_json(t *testing.T) {
	const pass, fail, cannot = "pass", "fail", "cannot"
	for _, c := range []struct{ op, actual, expected, want string }{
		{"equals", `1`, `1`, pass},
		{"equals", `1.0`, `1`, pass},
		{"equals", `10`, `1e1`, pass},
		{"equals", `1`, `2`, fail},
		{"equals", `9007199254740993`, `9007199254740992`, fail},
		{"equals", `0.1`, `0.10000000000000001`, fail},
		{"equals", `1e400000`, `1e400000`, pass},
		{"equals", `-0`, `0`, pass},
		{"equals", `"a"`, `"a"`, pass},
		{"equals", `"a"`, `"A"`, fail},
		{"equals", `"1"`, `1`, cannot},
		{"equals", `1`, `"1"`, cannot},
		{"equals", `true`, `1`, cannot},
		{"equals", `[1]`, `1`, cannot},
		{"equals", `null`, `null`, pass},
		{"equals", `1`, `null`, fail},
		{"equals", `null`, `1`, fail},
		{"equals", `{"a":1,"b":[1,2]}`, `{"b":[1,2.0],"a":1}`, pass},
		{"equals", `[1,2]`, `[2,1]`, fail},
		{"equals", `[1]`, `["1"]`, fail},
		{"equals", `{"a":1}`, `{"a":1,"b":2}`, fail},
		{"equals", `"ä"`, `"a\u0308"`, fail},
		{"lessThan", `1`, `2`, pass},
		{"lessThan", `2`, `2`, fail},
		{"lessThan", `-3`, `-2`, pass},
		{"lessThan", `"1"`, `2`, cannot},
		{"lessThan", `null`, `2`, cannot},
		{"lessThan", `0.30000000000000004`, `0.3`, fail},
		{"lessThan", `1e-400000`, `0.1`, pass},
		{"lessThan", `99999999999999999999`, `1e20`, pass},
		{"lessOrEqual", `2`, `2.0`, pass},
		{"lessOrEqual", `3`, `2`, fail},
		{"greaterThan", `3`, `2`, pass},
		{"greaterThan", `2`, `2`, fail},
		{"greaterOrEqual", `2`, `2`, pass},
		{"greaterOrEqual", `1`, `2`, fail},
		{"greaterOrEqual", `[]`, `2`, cannot},
		{"between", `1`, `[1,2]`, pass},
		{"between", `2`, `[1,2]`, pass},
		{"between", `2.1`, `[1,2]`, fail},
		{"between", `"x"`, `[1,2]`, cannot},
		{"in", `1`, `[2,1]`, pass},
		{"in", `3`, `[2,1]`, fail},
		{"in", `"a"`, `[1,"a"]`, pass},
		{"in", `"b"`, `[1,"a"]`, fail},
		{"in", `"b"`, `[1,2]`, cannot},
		{"contains", `"abc"`, `"b"`, pass},
		{"contains", `"abc"`, `"x"`, fail},
		{"contains", `"abc"`, `1`, cannot},
		{"contains", `[1,"b"]`, `"b"`, pass},
		{"contains", `[1.0]`, `1`, pass},
		{"contains", `[[1]]`, `1`, fail},
		{"contains", `{"b":1}`, `"b"`, cannot},
		{"contains", `5`, `"5"`, cannot},
		{"startsWith", `"abc"`, `"ab"`, pass},
		{"startsWith", `"abc"`, `"bc"`, fail},
		{"startsWith", `5`, `"5"`, cannot},
		{"endsWith", `"abc"`, `"bc"`, pass},
		{"endsWith", `"abc"`, `"ab"`, fail},
		{"matches", `"abc"`, `"^a.c$"`, pass},
		{"matches", `"abc"`, `"^b"`, fail},
		{"matches", `1`, `"1"`, cannot},
		{"exists", `null`, ``, pass},
		{"exists", `0`, ``, pass},
		{"isEmpty", `""`, ``, pass},
		{"isEmpty", `[]`, ``, pass},
		{"isEmpty", `{}`, ``, pass},
		{"isEmpty", `[0]`, ``, fail},
		{"isEmpty", `null`, ``, cannot},
		{"isEmpty", `0`, ``, cannot},
		{"isNull", `null`, ``, pass},
		{"isNull", `0`, ``, fail},
		{"isBoolean", `false`, ``, pass},
		{"isBoolean", `"false"`, ``, fail},
		{"isInteger", `1`, ``, pass},
		{"isInteger", `1.0`, ``, pass},
		{"isInteger", `1e2`, ``, pass},
		{"isInteger", `1.5`, ``, fail},
		{"isInteger", `"1"`, ``, fail},
		{"isInteger", `0`, ``, pass},
		{"isInteger", `15e-1`, ``, fail},
		{"isInteger", `150e-1`, ``, pass},
		{"isInteger", `99999999999999999999999`, ``, pass},
		{"isFloat", `1.5`, ``, pass},
		{"isFloat", `1.0`, ``, fail},
		{"isNumber", `1`, ``, pass},
		{"isNumber", `"1"`, ``, fail},
		{"isString", `""`, ``, pass},
		{"isString", `1`, ``, fail},
		{"isList", `[]`, ``, pass},
		{"isList", `{}`, ``, fail},
		{"isObject", `{}`, ``, pass},
		{"isObject", `[]`, ``, fail},
		{"isUuid", `"0192f0c1-7d3a-7a4e-8b55-2f4c1f3f9d11"`, ``, pass},
		{"isUuid", `"0192F0C1-7D3A-7A4E-8B55-2F4C1F3F9D11"`, ``, pass},
		{"isUuid", `"0192f0c17d3a7a4e8b552f4c1f3f9d11"`, ``, fail},
		{"isUuid", `1`, ``, fail},
		{"isUuid", `"g192f0c1-7d3a-7a4e-8b55-2f4c1f3f9d11"`, ``, fail},
		{"isIsoDate", `"2026-11-22"`, ``, pass},
		{"isIsoDate", `"2026-11-22T10:00:00.123456Z"`, ``, pass},
		{"isIsoDate", `"2026-11-22T10:00:00+02:00"`, ``, pass},
		{"isIsoDate", `"2026-02-30"`, ``, fail},
		{"isIsoDate", `"22.11.2026"`, ``, fail},
		{"isIpv4", `"192.0.2.1"`, ``, pass},
		{"isIpv4", `"192.0.2.256"`, ``, fail},
		{"isIpv4", `"::1"`, ``, fail},
		{"isIpv6", `"::1"`, ``, pass},
		{"isIpv6", `"fe80::1%eth0"`, ``, fail},
		{"isIpv6", `"192.0.2.1"`, ``, fail},
		{"hasLength", `"äö"`, `2`, pass},
		{"hasLength", `[1,2]`, `2.0`, pass},
		{"hasLength", `{"a":1}`, `2`, fail},
		{"hasLength", `5`, `1`, cannot},
		{"hasKey", `{"a":null}`, `"a"`, pass},
		{"hasKey", `{"a":1}`, `"b"`, fail},
		{"hasKey", `["a"]`, `"a"`, cannot},
		{"hasValue", `{"a":1.0}`, `1`, pass},
		{"hasValue", `{"a":1}`, `"1"`, fail},
		{"hasValue", `["a"]`, `"a"`, pass},
		{"hasValue", `"a"`, `"a"`, cannot},
	} {
		t.Run(c.op+" "+c.actual+" "+c.expected, func(t *testing.T) {
			judge := func(not bool) testspec.Verdict {
				s := &testspec.Subject{Body: []byte(`{"v":` + c.actual + `}`)}
				a := testspec.Assertion{Source: "jsonpath", Property: "$.v", Operator: c.op, Not: not}
				if c.expected != "" {
					a.Expected = json.RawMessage(c.expected)
				}
				return s.Judge(context.Background(), a)
			}
			plain, negated := judge(false), judge(true)
			if plain.Pass != (c.want == pass) || negated.Pass != (c.want == fail) {
				t.Errorf("pass %v, with not %v, want %s\n%s\n%s", plain.Pass, negated.Pass, c.want, plain.Message, negated.Message)
			}
			for _, v := range []testspec.Verdict{plain, negated} {
				if !strings.HasPrefix(v.Message, "Expected $.v ") || !strings.HasSuffix(v.Message, ".") {
					t.Errorf("not a sentence: %q", v.Message)
				}
				if v.Actual.JSON == nil || !json.Valid(v.Actual.JSON) {
					t.Errorf("actual %q", v.Actual.JSON)
				}
			}
		})
	}
}

func TestEveryOperatorIsTried(t *testing.T) {
	for _, o := range testspec.Operators() {
		s := &testspec.Subject{Body: []byte(`[]`)}
		v := s.Judge(context.Background(), testspec.Assertion{Source: "jsonpath", Property: "$", Operator: o.Name, Expected: json.RawMessage(`"x"`)})
		if v.Message == "" {
			t.Errorf("%s says nothing", o.Name)
		}
	}
}

func subject() *testspec.Subject {
	return &testspec.Subject{
		Status: 200, Header: http.Header{"X-Count": {"42"}, "X-Two": {"a", "b"}, "X-Empty": {""}},
		Body: []byte(`{"a":[{"id":1},{"id":2}],"z":null,"nul":"a\u0000b"}`), ResponseTime: 1234567 * time.Nanosecond,
	}
}

func TestJudge_sources(t *testing.T) {
	for _, c := range []struct {
		a    string
		pass bool
		word string
	}{
		{`{"source":"status","operator":"equals","expected":200.0}`, true, "the status to equal 200.0, and it is 200."},
		{`{"source":"status","operator":"in","expected":[404]}`, false, "to be one of [404], but it is 200."},
		{`{"source":"header","property":"x-COUNT","operator":"equals","expected":42}`, true, "it is \"42\""},
		{`{"source":"header","property":"x-count","operator":"equals","expected":"42"}`, true, ""},
		{`{"source":"header","property":"x-count","operator":"between","expected":[1,42]}`, true, "between 1 and 42"},
		{`{"source":"header","property":"x-two","operator":"equals","expected":5}`, false, "not a number"},
		{`{"source":"header","property":"x-two","operator":"equals","expected":5,"not":true}`, false, "not a number"},
		{`{"source":"header","property":"x-two","operator":"equals","expected":"a, b"}`, true, ""},
		{`{"source":"header","property":"x-empty","operator":"exists"}`, true, ""},
		{`{"source":"header","property":"x-none","operator":"exists"}`, false, "there is no such header"},
		{`{"source":"header","property":"x-none","operator":"exists","not":true}`, true, "there is no such header"},
		{`{"source":"header","property":"x-none","operator":"isEmpty","not":true}`, false, "there is no such header"},
		{`{"source":"body","operator":"contains","expected":"\"id\":2"}`, true, ""},
		{`{"source":"responseTime","operator":"lessThan","expected":1.235}`, true, "1.234"},
		{`{"source":"responseTime","operator":"lessThan","expected":1.2}`, false, "1.234"},
		{`{"source":"jsonpath","property":"$.a[*].id","operator":"equals","expected":[1,2]}`, true, ""},
		{`{"source":"jsonpath","property":"$.a[?@.id>1].id","operator":"equals","expected":[2]}`, true, ""},
		{`{"source":"jsonpath","property":"$.a[?@.id>1].id","operator":"equals","expected":2}`, false, "a list cannot be compared with a number"},
		{`{"source":"jsonpath","property":"$.a[5]","operator":"exists"}`, false, "selects nothing"},
		{`{"source":"jsonpath","property":"$.a[?@.id>9]","operator":"exists"}`, false, "it is []"},
		{`{"source":"jsonpath","property":"$.a[?@.id>9]","operator":"exists","not":true}`, true, ""},
		{`{"source":"jsonpath","property":"$.a[?@.id>9]","operator":"isEmpty"}`, true, ""},
		{`{"source":"jsonpath","property":"$.none","operator":"isNull"}`, false, "selects nothing"},
		{`{"source":"jsonpath","property":"$.z","operator":"exists"}`, true, ""},
	} {
		var a testspec.Assertion
		if err := json.Unmarshal([]byte(c.a), &a); err != nil {
			t.Fatal(err)
		}
		v := subject().Judge(context.Background(), a)
		if v.Pass != c.pass || !strings.Contains(v.Message, c.word) {
			t.Errorf("%s: %v %q", c.a, v.Pass, v.Message)
		}
	}
}

// TestJudge_shownIsStorable: what goes into an event is valid JSON, short, without NUL, and says what was cut.
func TestJudge_shownIsStorable(t *testing.T) {
	long := strings.Repeat("ä", 2000)
	for name, body := range map[string]string{
		"nul": `"a\u0000b\\u0000"`, "long text": `"` + long + `"`, "long list": `["` + long + `"]`, "huge number": `1e400000`,
		"in a list": `[1e400000]`, "surrogate": `"\ud800"`, "raw bytes": "\"\xff\xfe\"", "escapes": `"` + strings.Repeat(`\"`, 800) + `"`,
	} {
		s := &testspec.Subject{Body: []byte(body)}
		for _, source := range []string{"body", "jsonpath"} {
			a := testspec.Assertion{Source: source, Operator: "exists"}
			if source == "jsonpath" {
				a.Property = "$"
			}
			got := s.Judge(context.Background(), a).Actual
			if !json.Valid(got.JSON) || len(got.JSON) > 6*limits.MaxActual+16 {
				t.Errorf("%s %s: %d bytes %q", name, source, len(got.JSON), got.JSON)
			}
			var v any
			if err := json.Unmarshal(got.JSON, &v); err != nil {
				t.Errorf("%s %s: %v", name, source, err)
			}
			if text, ok := v.(string); ok && strings.ContainsRune(text, 0) {
				t.Errorf("%s %s holds NUL", name, source)
			}
			if strings.HasPrefix(name, "long") && (!got.Truncated || got.Size < 4000) {
				t.Errorf("%s %s: size %d, truncated %v", name, source, got.Size, got.Truncated)
			}
		}
	}
}

func TestCapture(t *testing.T) {
	for property, want := range map[string]string{"$.a[0].id": `1`, "$.a": `[{"id":1},{"id":2}]`, "$.z": `null`, "$.a[*].id": `[1,2]`, "$.nul": `"a` + "\ufffd" + `b"`} {
		got, err := subject().Capture(context.Background(), testspec.Capture{Name: "x", Source: "jsonpath", Property: property})
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", property, got, err)
		}
	}
	for property, word := range map[string]string{"$.none": "selects nothing", "$.a[?@.id>5]": "selects nothing"} {
		if got, err := subject().Capture(context.Background(), testspec.Capture{Source: "jsonpath", Property: property}); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %s, %v", property, got, err)
		}
	}
	big := &testspec.Subject{Body: []byte(strings.Repeat("a", limits.MaxVariableValue+1))}
	if _, err := big.Capture(context.Background(), testspec.Capture{Source: "body"}); err == nil {
		t.Error("a capture over the limit was kept")
	}
}

// TestNumbers_exact compares with big.Rat.
func TestNumbers_exact(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		x, ok1 := new(big.Rat).SetString(a)
		y, ok2 := new(big.Rat).SetString(b)
		if !ok1 || !ok2 {
			t.Fatal("not a number")
		}
		judge := func(op string) bool {
			s := &testspec.Subject{Body: []byte(a)}
			return s.Judge(context.Background(), testspec.Assertion{Source: "jsonpath", Property: "$", Operator: op, Expected: json.RawMessage(b)}).Pass
		}
		if got, want := judge("equals"), x.Cmp(y) == 0; got != want {
			t.Fatalf("%s equals %s: %v", a, b, got)
		}
		if got, want := judge("lessThan"), x.Cmp(y) < 0; got != want {
			t.Fatalf("%s lessThan %s: %v", a, b, got)
		}
		s := &testspec.Subject{Body: []byte(a)}
		if got := s.Judge(context.Background(), testspec.Assertion{Source: "jsonpath", Property: "$", Operator: "isInteger"}).Pass; got != x.IsInt() {
			t.Fatalf("%s isInteger: %v", a, got)
		}
	})
}

// FuzzJudge: no response and no valid assertion make a panic, and what is shown can be stored.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5e3,"x",null,true]}`), "$.a[?@>1]", "contains", `2500`)
	f.Add([]byte(`[[[[`), "$..*", "exists", ``)
	f.Add([]byte("\xff\x00"), "$", "matches", `"a*"`)
	f.Fuzz(func(t *testing.T, body []byte, path, operator, expected string) {
		a := testspec.Assertion{Source: "jsonpath", Property: path, Operator: operator}
		if expected != "" {
			a.Expected = json.RawMessage(expected)
		}
		spec := testspec.Spec{Steps: []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/"}, Assertions: []testspec.Assertion{a}}}}
		if testspec.Validate(spec) != nil {
			return
		}
		s := &testspec.Subject{Body: body}
		v := s.Judge(context.Background(), a)
		if v.Message == "" || v.Actual.JSON != nil && !json.Valid(v.Actual.JSON) {
			t.Fatalf("%+v", v)
		}
	})
}
