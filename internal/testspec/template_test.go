package testspec_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/testspec"
)

func scope() *testspec.Scope {
	s := testspec.NewScope(map[string]string{"a": "run"}, map[string]string{"a": "test", "b": "{{a}}", "q": `"\`, "n": "5"}, map[string]string{"c": "env", "b": "env"})
	s.Capture("id", json.RawMessage(`7`))
	s.Capture("text", json.RawMessage(`"t\"x"`))
	s.Capture("obj", json.RawMessage(`{"k":[1]}`))
	return s
}

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", "{{a}}": "run", "{{ a }}-{{c}}": "run-env", "{{b}}": "{{a}}", "{{{{a}}": "{{a}}", "{{{{{{a}}": "{{run",
		"}}{{a}}}}": "}}run}}", `{"x":{"y":{{n}}}}`: `{"x":{"y":5}}`, "{{id}}": "7", "{{text}}": `t"x`, "{{obj}}": `{"k":[1]}`, "{ {a} }": "{ {a} }", "{{{{": "{{",
	} {
		if got, err := scope().Expand(in, 100); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", in, got, err, want)
		}
	}
	var undefined *testspec.UndefinedError
	if _, err := scope().Expand("{{nope}}", 100); !errors.As(err, &undefined) || undefined.Name != "nope" {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"{{", "{{a", "{{a}", "{{}}", "{{a b}}", "{{{a}}}", "{{$uid}}", "{{a.b.c}}", "{{ä}}", "{{1}}", "{{a\n}}", "{{" + strings.Repeat("a", 65) + "}}"} {
		var template *testspec.TemplateError
		if got, err := scope().Expand(bad, 100); !errors.As(err, &template) {
			t.Errorf("%q is %q, %v", bad, got, err)
		}
	}
	var overflow *testspec.OverflowError
	for _, long := range []string{"{{a}}{{a}}", "123456"} {
		if _, err := scope().Expand(long, 5); !errors.As(err, &overflow) {
			t.Errorf("%q: %v", long, err)
		}
	}
}

func TestExpandJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"{{id}}"}`: `{"a":7}`, `{"a":"x{{id}}"}`: `{"a":"x7"}`, `["{{text}}","{{q}}","{{obj}}","{{a}}"]`: `["t\"x","\"\\",{"k":[1]},"run"]`,
		`"{{n}}"`: `"5"`, `{"{{a}}":1}`: `{"{{a}}":1}`, `[1,"a"]`: `[1,"a"]`, `"\u007b\u007ba}}"`: `"run"`, `"{{{{a}}"`: `"{{a}}"`, `9007199254740993`: `9007199254740993`,
	} {
		if got, err := scope().ExpandJSON(json.RawMessage(in), 100); err != nil || string(got) != want {
			t.Errorf("%s is %s, %v, want %s", in, got, err, want)
		}
	}
	if _, err := scope().ExpandJSON(json.RawMessage(`["{{nope}}"]`), 100); err == nil {
		t.Error("an undefined name was passed over")
	}
	var overflow *testspec.OverflowError
	if _, err := scope().ExpandJSON(json.RawMessage(`["{{obj}}","{{obj}}","{{obj}}"]`), 20); !errors.As(err, &overflow) {
		t.Errorf("%v", err)
	}
}

func TestExpandExpected_numbers(t *testing.T) {
	for _, c := range []struct{ source, operator, expected, want string }{
		{"status", "equals", `"{{n}}"`, `5`},
		{"status", "in", `["{{n}}",6]`, `[5,6]`},
		{"jsonpath", "lessThan", `"{{n}}"`, `5`},
		{"jsonpath", "equals", `"{{n}}"`, `"5"`},
		{"header", "equals", `"{{n}}"`, `"5"`},
		{"jsonpath", "equals", `"{{id}}"`, `7`},
		{"status", "equals", `"{{a}}"`, `"run"`},
		{"jsonpath", "between", `["{{n}}","{{id}}"]`, `[5,7]`},
		{"jsonpath", "hasLength", `"{{n}}"`, `5`},
	} {
		got, err := scope().ExpandExpected(testspec.Assertion{Source: c.source, Operator: c.operator, Expected: json.RawMessage(c.expected)})
		if err != nil || string(got.Expected) != c.want {
			t.Errorf("%+v: %s, %v", c, got.Expected, err)
		}
	}
}

// FuzzExpand: values are never looked at again, whatever they hold, and the outcome keeps to its limit.
func FuzzExpand(f *testing.F) {
	f.Add("a{{x}}b", "{{x}}{{y}}")
	f.Add("{{{{x}}", "}}")
	f.Add("{{x}}{{x}}", "{{")
	f.Fuzz(func(t *testing.T, template, value string) {
		const marker = "\x01\x02"
		plain, err1 := testspec.NewScope(map[string]string{"x": marker}).Expand(template, 1<<16)
		got, err2 := testspec.NewScope(map[string]string{"x": value}).Expand(template, 1<<16)
		var overflow *testspec.OverflowError
		if errors.As(err1, &overflow) || errors.As(err2, &overflow) {
			return
		}
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("a value decides whether %q is a template: %v, %v", template, err1, err2)
		}
		if strings.Contains(template, marker) || err1 != nil {
			return
		}
		if want := strings.ReplaceAll(plain, marker, value); got != want {
			t.Fatalf("%q with %q is %q, want %q", template, value, got, want)
		}
	})
}
