package testspec_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/testspec"
)

func judged(t testing.TB, s *testspec.Subject, assertion string) testspec.Verdict {
	t.Helper()
	var a testspec.Assertion
	if err := json.Unmarshal([]byte(assertion), &a); err != nil {
		t.Fatalf("%s: %v", assertion, err)
	}
	return s.Judge(context.Background(), a)
}

func TestQuantifiers(t *testing.T) {
	for _, c := range []struct {
		value, quantifier, rest string
		pass                    bool
		word                    string
	}{
		{`[1,2,3]`, "all", `"operator":"lessThan","expected":4`, true, "Expected every member of $.v to be less than 4, and all 3 are."},
		{`[1,9,3]`, "all", `"operator":"lessThan","expected":4`, false, "but member 1 is 9."},
		{`[1,"x",3]`, "all", `"operator":"lessThan","expected":4`, false, `text cannot be compared with a number: member 1 is "x".`},
		{`[]`, "all", `"operator":"lessThan","expected":4`, true, "and there is no member."},
		{`[1,9]`, "any", `"operator":"greaterThan","expected":4`, true, "Expected some member of $.v to be greater than 4, and member 1 is 9."},
		{`[1,2]`, "any", `"operator":"greaterThan","expected":4`, false, "but none of 2 is: they are [1,2]."},
		{`["x",9]`, "any", `"operator":"greaterThan","expected":4`, true, "member 1 is 9"},
		{`["x",1]`, "any", `"operator":"greaterThan","expected":4`, false, "text cannot be compared with a number"},
		{`[]`, "any", `"operator":"greaterThan","expected":4`, false, "there is no member"},
		{`[1,2]`, "none", `"operator":"equals","expected":3`, true, "Expected no member of $.v to equal 3, and none of 2 is."},
		{`[1,3]`, "none", `"operator":"equals","expected":3`, false, "but member 1 is 3."},
		{`[1,"x"]`, "none", `"operator":"equals","expected":3`, false, "cannot be compared"},
		{`[]`, "none", `"operator":"equals","expected":3`, true, ""},
		{`[1,2]`, "all", `"operator":"equals","expected":3,"not":true`, true, "Expected every member of $.v not to equal 3"},
		{`[1,3]`, "all", `"operator":"equals","expected":3,"not":true`, false, ""},
		{`[3,3]`, "none", `"operator":"equals","expected":3,"not":true`, true, ""},
		{`[3,1]`, "any", `"operator":"equals","expected":3,"not":true`, true, ""},
		{`[3,3]`, "any", `"operator":"equals","expected":3,"not":true`, false, ""},
		{`5`, "all", `"operator":"equals","expected":5`, false, "a number has no members: it is 5."},
		{`["1","2"]`, "all", `"filters":[{"toInt":true}],"operator":"lessThan","expected":3`, true, "Expected every member of $.v after toInt to be less than 3"},
		{`[["a"],["b","c"]]`, "any", `"operator":"hasLength","expected":2`, true, ""},
		{`[null,1]`, "any", `"operator":"isNull"`, true, "member 0 is null"},
	} {
		s := &testspec.Subject{Body: []byte(`{"v":` + c.value + `}`)}
		v := judged(t, s, fmt.Sprintf(`{"source":"jsonpath","property":"$.v","quantifier":%q,%s}`, c.quantifier, c.rest))
		if v.Pass != c.pass || !strings.Contains(v.Message, c.word) {
			t.Errorf("%s %s %s: pass %v, %s", c.value, c.quantifier, c.rest, v.Pass, v.Message)
		}
		if string(v.Quantifier) != c.quantifier {
			t.Errorf("the verdict doesn't say %s", c.quantifier)
		}
	}
}

// TestQuantifiers_laws: where every member can be compared, all with not is none, and any is the complement of none.
func TestQuantifiers_laws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 5).Draw(t, "list")
		op := rapid.SampledFrom([]string{"equals", "lessThan", "greaterOrEqual"}).Draw(t, "operator")
		body, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		pass := func(q testspec.Quantifier, not bool) bool {
			s := &testspec.Subject{Body: body}
			return s.Judge(context.Background(), testspec.Assertion{
				Source: "jsonpath", Property: "$", Operator: op, Expected: json.RawMessage("2"), Quantifier: q, Not: not,
			}).Pass
		}
		if pass("all", true) != pass("none", false) || pass("none", true) != pass("all", false) || pass("any", false) == pass("none", false) {
			t.Fatalf("%s over %v", op, list)
		}
	})
}

// TestOperators_more: pass, fail or cannot, which fails with not too.
func TestOperators_more(t *testing.T) {
	for _, c := range []struct{ op, actual, expected, want string }{
		{"containsSubset", `{"a":1,"b":{"c":[1,2],"d":3}}`, `{"b":{"c":[2]}}`, "pass"},
		{"containsSubset", `{"a":1}`, `{"a":1.0}`, "pass"},
		{"containsSubset", `{"a":1}`, `{"b":1}`, "fail"},
		{"containsSubset", `{"a":null}`, `{"a":null}`, "pass"},
		{"containsSubset", `{}`, `{"a":null}`, "fail"},
		{"containsSubset", `[{"id":1,"x":2},{"id":2}]`, `[{"id":2},{"id":1}]`, "pass"},
		{"containsSubset", `[{"id":1,"x":2},{"id":1}]`, `[{"id":1},{"id":1,"x":2}]`, "pass"}, // needs a member to move aside
		{"containsSubset", `[1]`, `[1,1]`, "fail"},
		{"containsSubset", `[1]`, `{"a":1}`, "cannot"},
		{"containsSubset", `[1,2]`, `[]`, "pass"},
		{"equalsUnordered", `[1,2,2]`, `[2,1,2.0]`, "pass"},
		{"equalsUnordered", `[1,2,2]`, `[2,1,1]`, "fail"},
		{"equalsUnordered", `[1,2]`, `[1]`, "fail"},
		{"equalsUnordered", `["1"]`, `[1]`, "fail"},
		{"equalsUnordered", `[{"a":[1]},null]`, `[null,{"a":[1]}]`, "pass"},
		{"equalsUnordered", `[]`, `[]`, "pass"},
		{"equalsUnordered", `{}`, `[]`, "cannot"},
		{"approximately", `3.14159`, `{"value":3.14,"tolerance":0.01}`, "pass"},
		{"approximately", `3.15`, `{"value":3.14,"tolerance":0.01}`, "pass"}, // exactly at the edge, which a float64 misses
		{"approximately", `3.1500000000000000001`, `{"value":3.14,"tolerance":0.01}`, "fail"},
		{"approximately", `-5`, `{"value":-5,"tolerance":0}`, "pass"},
		{"approximately", `1e999999999`, `{"value":1,"tolerance":1}`, "cannot"},
		{"approximately", `"3"`, `{"value":3,"tolerance":1}`, "cannot"},
		{"before", `"2026-11-27"`, `"2026-11-28"`, "pass"},
		{"before", `"2026-11-27T12:00:00+01:00"`, `"2026-11-27T11:30:00Z"`, "pass"},
		{"before", `"2026-11-27"`, `"2026-11-27"`, "fail"},
		{"before", `"2026-11-27T11:59:59Z"`, `"now"`, "pass"},
		{"after", `"2026-11-27T11:59:59Z"`, `"now"`, "fail"},
		{"after", `"Fri, 27 Nov 2026 12:00:01 GMT"`, `"now"`, "pass"},
		{"after", `"soon"`, `"now"`, "cannot"},
		{"after", `5`, `"now"`, "cannot"},
		{"isList", `[]`, ``, "pass"},
	} {
		judge := func(not bool) testspec.Verdict {
			s := &testspec.Subject{Body: []byte(`{"v":` + c.actual + `}`), Now: judgedAt}
			a := testspec.Assertion{Source: "jsonpath", Property: "$.v", Operator: c.op, Not: not}
			if c.expected != "" {
				a.Expected = json.RawMessage(c.expected)
			}
			return s.Judge(context.Background(), a)
		}
		plain, negated := judge(false), judge(true)
		if plain.Pass != (c.want == "pass") || negated.Pass != (c.want == "fail") {
			t.Errorf("%s %s %s: pass %v, with not %v, want %s\n%s", c.op, c.actual, c.expected, plain.Pass, negated.Pass, c.want, plain.Message)
		}
	}
}

// A hostile pair of lists costs no more than its budget.
func TestContainsSubset_isBounded(t *testing.T) {
	zeros := func(n int) string { return "[" + strings.Repeat("0,", n-1) + "0]" }
	judge := func(body, expected string) testspec.Verdict {
		return judged(t, &testspec.Subject{Body: []byte(body)}, `{"source":"jsonpath","property":"$","operator":"containsSubset","expected":`+expected+`}`)
	}
	if v := judge(zeros(2000), zeros(2000)); !v.Pass {
		t.Errorf("equal lists: %.200s", v.Message)
	}
	// One more than there are: each of them would have to move for it.
	v := judge("["+strings.Repeat("1,", 2000)+strings.Repeat("2,", 999)+"2]", "["+strings.Repeat("1,", 2000)+"1]")
	if v.Pass || !strings.Contains(v.Message, "too many ways") {
		t.Errorf("%v %s", v.Pass, v.Message)
	}
}
