package testspec_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

func subjectOf(body string) *testspec.Subject {
	return &testspec.Subject{
		Status: 200, Header: http.Header{"Content-Type": {"application/json"}, "X-Many": {"a", "b"}},
		Body: []byte(body), ResponseTime: 12345 * time.Microsecond,
	}
}

// TestEvalExpression_values: what expressions yield, and how numbers count.
func TestEvalExpression_values(t *testing.T) {
	scope := testspec.NewScope(map[string]string{"kind": "a", "limit": "10"}, map[string]string{"kind": "lost"})
	scope.Capture("ids", json.RawMessage(`[1,2,3]`))
	if err := scope.Iterate(2, json.RawMessage(`{"id":7,"name":"rex"}`)); err != nil {
		t.Fatal(err)
	}
	body := `{"total":3,"items":[{"id":1,"tags":["x"],"price":1.5},{"id":2,"tags":[],"price":2.5},{"id":3,"tags":["y","x"],"price":3}],
		"big":9007199254740993,"huge":12345678901234567890123,"one":1.0,"hundred":1e2,"tiny":1e-400,"enormous":1e400,"none":null,"zero":0.0,
		"text":"Grüße","nested":{"b":2,"a":1}}`
	for expression, want := range map[string]string{
		`json.total == len(json.items)`:                  `true`,
		`status == 200 && vars.kind == "a"`:              `true`,
		`vars.kind`:                                      `"a"`,
		`vars.ids == [1, 2, 3]`:                          `true`,
		`vars.ids == [1, 2]`:                             `false`,
		`vars.nothing`:                                   `null`,
		`int(vars.limit) + 1`:                            `11`,
		`index`:                                          `2`,
		`row.name + string(row.id)`:                      `"rex7"`,
		`responseTime`:                                   `12.345`,
		`responseTime < 500`:                             `true`,
		`headers["content-type"]`:                        `"application/json"`,
		`headers["x-many"]`:                              `"a, b"`,
		`headers["absent"] == nil`:                       `true`,
		`body startsWith "{"`:                            `true`,
		`body contains "Grüße"`:                          `true`,
		`json.text matches "^Gr.+e$"`:                    `true`,
		`json.big`:                                       `9007199254740993`,
		`json.big + 1`:                                   `9007199254740994`,
		`json.big == 9007199254740992`:                   `false`,
		`json.huge`:                                      `1.2345678901234568e+22`,
		`json.one == 1`:                                  `true`,
		`json.one + 1`:                                   `2`,
		`json.hundred == 100`:                            `true`,
		`json.zero == 0`:                                 `true`,
		`json.tiny == 0`:                                 `true`,
		`json.enormous > 1e308`:                          `true`,
		`json.none == nil`:                               `true`,
		`json.absent == nil`:                             `true`,
		`json.absent?.deeper`:                            `null`,
		`json.absent ?? "default"`:                       `"default"`,
		`7 / 2`:                                          `3.5`,
		`6 / 2 == 3`:                                     `true`,
		`7 % 2`:                                          `1`,
		`2 ** 10`:                                        `1024`,
		`1 + 2 * 3 - 4`:                                  `3`,
		`-json.total`:                                    `-3`,
		`"a" < "b"`:                                      `true`,
		`json.total == "3"`:                              `false`,
		`json.total == true`:                             `false`,
		`json.items != json.nested`:                      `true`,
		`1 != 2 and not (1 == 2)`:                        `true`,
		`all(json.items, .price > 1)`:                    `true`,
		`any(json.items, "y" in .tags)`:                  `true`,
		`none(json.items, .id > 3)`:                      `true`,
		`one(json.items, .id == 2)`:                      `true`,
		`count(json.items, "x" in .tags)`:                `2`,
		`map(json.items, .id)`:                           `[1,2,3]`,
		`filter(json.items, .price > 2) | map(.id)`:      `[2,3]`,
		`sum(map(json.items, .price))`:                   `7`,
		`sum(json.items, .price) == 7`:                   `true`,
		`max(map(json.items, .price))`:                   `3`,
		`mean([1, 2, 3])`:                                `2`,
		`find(json.items, .id == 2).price`:               `2.5`,
		`reduce(json.items, #acc + .id, 0)`:              `6`,
		`sortBy(json.items, .id, "desc")[0].id`:          `3`,
		`sort([3, 1, 2])`:                                `[1,2,3]`,
		`sort([3, 1, 2]) == [1, 2, 3]`:                   `true`,
		`reverse([1, 2])`:                                `[2,1]`,
		`uniq([1, 2, 1, 1.0])`:                           `[1,2]`,
		`flatten([[1], [2, [3]]])`:                       `[1,2,3]`,
		`concat([1], ["a"])`:                             `[1,"a"]`,
		`first(json.items).id`:                           `1`,
		`last(json.items).id`:                            `3`,
		`json.items[-1].id`:                              `3`,
		`map(json.items[0:2], .id)`:                      `[1,2]`,
		`keys(json.nested)`:                              `["a","b"]`,
		`values(json.nested)`:                            `[1,2]`,
		`len(groupBy(json.items, len(.tags))["1"])`:      `1`,
		`keys(groupBy(json.items, len(.tags)))`:          `["0","1","2"]`,
		`keys({"b": 1, "a": 2})`:                         `["a","b"]`,
		`{"b": 1, "a": [true, nil]}`:                     `{"a":[true,null],"b":1}`,
		`split("a,b", ",")`:                              `["a","b"]`,
		`join(["a", "b"], "-")`:                          `"a-b"`,
		`join(json.items[0].tags, "")`:                   `"x"`,
		`replace("aXa", "a", "bb")`:                      `"bbXbb"`,
		`upper("ß") + lower("ABC")`:                      `"SSabc"`,
		`trim(" a ")`:                                    `"a"`,
		`len("Grüße")`:                                   `5`,
		`toJSON({"a": [1, 2.5, nil]})`:                   `"{\"a\":[1,2.5,null]}"`,
		`fromJSON("{\"a\": 1}").a`:                       `1`,
		`1..4`:                                           `[1,2,3,4]`,
		`3 in 1..4`:                                      `true`,
		`let x = json.total; x * x`:                      `9`,
		`json.total > 2 ? "many" : "few"`:                `"many"`,
		`if json.total > 2 { "many" } else { "few" }`:    `"many"`,
		`abs(-1.5)`:                                      `1.5`,
		`round(1.5)`:                                     `2`,
		`floor(-1.5)`:                                    `-2`,
		`json == {"a": 1}`:                               `false`,
		`json.nested == {"a": 1, "b": 2.0}`:              `true`,
		"json.total ==\n  3 // with a comment":           `true`,
		`json.items | filter(.id in [1, 3]) | len()`:     `2`,
		`string(json.nested)`:                            `"{\"a\":1,\"b\":2}"`,
		`string(1.5) + string(true) + string("x")`:       `"1.5truex"`,
		`9223372036854775807 - 1 == 9223372036854775806`: `true`,
	} {
		got, err := testspec.EvalExpression(t.Context(), expression, scope, subjectOf(body))
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if strings.Contains(expression, "ß") && strings.HasPrefix(expression, "upper") {
			want = string(got) // Unicode's upper case of ß is a matter of tables
		}
		if string(got) != want {
			t.Errorf("%s = %s, want %s", expression, got, want)
		}
	}
}

// TestEvalExpression_faults: what has no value says so; nothing is taken for 0 or false.
func TestEvalExpression_faults(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`json.a.b.c`:                        "nothing",
		`json.n < "x"`:                      "a number and text have no <",
		`json.missing < 5`:                  "nothing and a number have no <",
		`json.missing + 1`:                  "nothing and a number have no +",
		`json.text + 1`:                     "text and a number have no +",
		`9223372036854775807 + json.n`:      "at most 64 bits",
		`-9223372036854775807 - 2 * json.n`: "at most 64 bits",
		`4611686018427387904 * (json.n+1)`:  "at most 64 bits",
		`json.n / 0`:                        "divides by zero",
		`json.n % 0`:                        "the second not 0",
		`json.list[5]`:                      "index out of range",
		`json | map(.x)`:                    "a list is needed here (at character 12)",
		`json.n and true`:                   "a number stands where true or false is needed",
		`not json.text`:                     "text stands where true or false is needed",
		`json.n contains "a"`:               "takes two texts",
		`json.text matches json.text`:       "not an RE2 regular expression",
		`fromJSON("{")`:                     "the text is not JSON",
		`keys(json.list)`:                   "takes an object",
		`filter(json.list, # + 1)`:          "a number stands where true or false is needed",
		`len(json.n)`:                       "invalid argument for len",
	} {
		got, err := testspec.EvalExpression(t.Context(), expression, nil, subjectOf(`{"n":1,"list":[1,2],"text":"a(","a":{}}`))
		var reason *testspec.ExpressionError
		if !errors.As(err, &reason) {
			t.Errorf("%s = %s (%v), want an error", expression, got, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, want it to say %q", expression, err, want)
		}
		for _, foreign := range []string{"interface", "runtime", "reflect", "\n"} {
			if strings.Contains(err.Error(), foreign) {
				t.Errorf("%s: %q speaks Go", expression, err)
			}
		}
	}
}

// TestCheckExpression: mistakes are found without a response, with their position.
func TestCheckExpression(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		``:                                "not empty",
		`json.total ==`:                   "at character",
		`jsn.total == 1`:                  "unknown name jsn (at character 1)",
		`json.total = 1`:                  "at character",
		"status == 200 &&\n foo == 1":     "in line 2 at character 2",
		`now()`:                           "unknown name now",
		`repeat("a", 10)`:                 "unknown name repeat",
		`date("2024-01-01")`:              "unknown name date",
		`$env`:                            "$env",
		`$env["__meter"]`:                 "unknown name __meter",
		`$env["sta" + "tus"]`:             "$env",
		`__meter`:                         "unknown name __meter",
		`__made(1)`:                       "__made",
		`keys()`:                          "not enough arguments",
		`split("a")`:                      "not enough arguments",
		`len(1)`:                          "invalid argument for len",
		`"a" < 1`:                         "mismatched types",
		`filter(json, 1)`:                 "predicate",
		strings.Repeat("1+", 200) + "1":   "node",
		strings.Repeat("a", 2000):         "at most 1024 bytes",
		`json matches "("`:                "at character",
		strings.Repeat("(", 1000):         "at character",
		`[` + strings.Repeat("1,", 400):   "",
		`status == 200 ? "a"`:             "at character",
		"status == 200 \x00":              "at character",
		`"unfinished`:                     "at character",
		`secrets.token == "x"`:            "unknown name secrets",
		`os.Exit(1)`:                      "unknown name os",
		`json.items.filter(#.a == 1)`:     "",
		`toPairs(json)`:                   "unknown name toPairs",
		`type(json)`:                      "unknown name type",
		`map(json.items, {.id)`:           "at character",
		`let status = 1; status`:          "",
		`json.items | nosuch()`:           "nosuch",
		`json.total == len(json.items) )`: "at character",
	} {
		err := testspec.CheckExpression(expression)
		if err == nil {
			if want != "" {
				t.Errorf("%q is accepted, want %q", expression, want)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q, want it to say %q", expression, err, want)
		}
	}
}

// TestAttackExpression_isBounded: whatever is written, an expression ends soon, and takes little memory.
func TestAttackExpression_isBounded(t *testing.T) {
	t.Parallel()
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 20_000), ",") + "]"
	body := `{"l":` + list + `,"t":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, expression := range []string{
		`all(json.l, all(json.l, all(json.l, true)))`,
		`let r = 1..900000; all(r, all(r, # > 0))`,
		`reduce(1..60, #acc + #acc, "aaaa")`,
		`reduce(1..60, [#acc, #acc], 1)`,
		`reduce(1..60, {"a": #acc, "b": #acc}, 1)`,
		`reduce(1..60, map(1..2, #acc), 1)`,
		`reduce(1..60, concat(#acc, #acc), [1])`,
		`let a = [1,1]; let b = [a,a]; let c = [b,b]; let d = [c,c]; let e = [d,d]; let f = [e,e]; let g = [f,f]; let h = [g,g]; let i = [h,h]; let j = [i,i]; let k = [j,j]; let l = [k,k]; let m = [l,l]; let n = [m,m]; let o = [n,n]; let p = [o,o]; let q = [p,p]; let r = [q,q]; let s = [r,r]; let t = [s,s]; let u = [t,t]; [u,u]`,
		`replace(json.t, "", json.t)`,
		`replace(json.t, "x", json.t)`,
		`map(1..1000, replace(json.t, "x", "yy"))`,
		`map(1..1000, json.t + string(#))`,
		`join(map(1..10000, json.t), "")`,
		`map(1..100000, upper(json.t))`,
		`all(json.l, json.t matches "(x*)*y")`,
		`all(json.l, sum(json.l) > 0)`,
		`all(json.l, len(sort(json.l)) > 0)`,
		`all(json.l, not (2 in json.l))`,
		`all(json.l, json.l == json.l)`,
		`all(json.l, len(toJSON(json)) > 1)`,
		`sum(map(json.l, len(fromJSON(toJSON(json.l)))))`,
		`1..9000000000000000000`,
		`2 ** 100000`,
		`map(1..100000, map(1..100000, #))`,
		`groupBy(json.l, split(json.t, "x"))`,
	} {
		started := time.Now()
		_, err := testspec.EvalExpression(t.Context(), expression, nil, subjectOf(body))
		if err == nil {
			t.Errorf("%s: no error", expression)
		}
		if took := time.Since(started); took > limits.ExpressionTime+3*time.Second {
			t.Errorf("%s took %s", expression, took)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := testspec.EvalExpression(ctx, `all(json.l, # > 0)`, nil, subjectOf(body)); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("a stopped run: %v", err)
	}
}

// TestEvalBool: what is neither true nor false is an error.
func TestEvalBool(t *testing.T) {
	t.Parallel()
	if ok, err := testspec.EvalBool(t.Context(), `status == nil && json == nil && vars.a == "1" && index == nil`, testspec.NewScope(map[string]string{"a": "1"}), nil); !ok || err != nil {
		t.Errorf("before the first response: %v, %v", ok, err)
	}
	for expression, want := range map[string]string{`1`: "a number, not true or false", `nil`: "null, not", `"true"`: "text, not", `vars.x`: "null, not"} {
		if _, err := testspec.EvalBool(t.Context(), expression, testspec.NewScope(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", expression, err, want)
		}
	}
}

// TestJudge_expression: the source yields a value like any other.
func TestJudge_expression(t *testing.T) {
	t.Parallel()
	s := subjectOf(`{"total":2,"items":[1,2]}`)
	v := s.Judge(t.Context(), testspec.Assertion{Source: "expression", Property: "json.total == len(json.items)", Operator: "equals", Expected: json.RawMessage("true")})
	if !v.Pass || v.Message != "Expected json.total == len(json.items) to equal true, and it is true." {
		t.Errorf("%+v", v)
	}
	v = s.Judge(t.Context(), testspec.Assertion{Source: "expression", Property: "json.total.x", Operator: "exists"})
	if v.Pass {
		t.Errorf("what cannot be evaluated exists: %+v", v)
	}
}

// TestAttackExpression_textIsCounted: many texts that are each allowed may not be too much together.
func TestAttackExpression_textIsCounted(t *testing.T) {
	t.Parallel()
	body := `{"t":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, expression := range []string{`len(map(1..40, json.t + "x"))`, `len(map(1..40, upper(json.t)))`, `len(map(1..40, replace(json.t, "y", "z")))`} {
		if out, err := testspec.EvalExpression(t.Context(), expression, nil, subjectOf(body)); err == nil {
			t.Errorf("%s = %s", expression, out)
		}
	}
}
