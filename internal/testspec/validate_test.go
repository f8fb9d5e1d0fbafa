package testspec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

// TestValidate_refuses: each spec has exactly the fault named, at that pointer, with that word in its detail.
func TestValidate_refuses(t *testing.T) {
	step := func(s string) string {
		return `{"steps":[{"request":{"method":"GET","url":"https://a.example/"},` + s + `}]}`
	}
	req := func(s string) string {
		return `{"steps":[{"request":{"method":"POST","url":"https://a.example/",` + s + `}}]}`
	}
	url := func(s string) string { return `{"steps":[{"request":{"method":"GET","url":"` + s + `"}}]}` }
	assert := func(s string) string { return step(`"assertions":[{` + s + `}]`) }
	for _, c := range []struct{ in, pointer, word string }{
		{`{"steps":[]}`, "/steps", "at least one"},
		{`{}`, "/steps", "at least one"},
		{`{"timeout":"301s",` + minimal[1:], "/timeout", "5m"},
		{`{"variables":{"9a":"x"},` + minimal[1:], "/variables/9a", "letter"},
		{`{"variables":{"a":"{{b}}"},` + minimal[1:], "/variables/a", "taken as it is"},
		{`{"variables":{"a/b~c":"x"},` + minimal[1:], "/variables/a~1b~0c", "letter"},
		{url(""), "/steps/0/request/url", "has a URL"},
		{url("a.example"), "/steps/0/request/url", "http://"},
		{url("ftp://a.example"), "/steps/0/request/url", "http://"},
		{url("https://u:p@a.example/"), "/steps/0/request/url", "password"},
		{url("https:///x"), "/steps/0/request/url", "host"},
		{url("https://a.example/{{x}}"), "/steps/0/request/url", "{{x}}"},
		{url("https://a.example/{{x"), "/steps/0/request/url", "without }}"},
		{url("https://a.example/{{x y}}"), "/steps/0/request/url", "name of a variable"},
		{url("https://a.example/{{$uid}}"), "/steps/0/request/url", "generated value $uid; perhaps $uuid is meant"},
		{url("https://a.example/{{secrets.token}}"), "/steps/0/request/url", "no secret token"},
		{url(`https://a.example/\n`), "/steps/0/request/url", "control"},
		{url("https://a.example/" + strings.Repeat("a", limits.MaxURL)), "/steps/0/request/url", "8192"},
		{`{"steps":[{"request":{"url":"https://a.example/"}}]}`, "/steps/0/request/method", "method"},
		{`{"steps":[{"request":{"method":"CONNECT","url":"https://a.example/"}}]}`, "/steps/0/request/method", "CONNECT"},
		{`{"steps":[{"request":{"method":"GE T","url":"https://a.example/"}}]}`, "/steps/0/request/method", "capitals"},
		{req(`"headers":{"Host":"b"}`), "/steps/0/request/headers/Host", "host"},
		{req(`"headers":{"content-length":"5"}`), "/steps/0/request/headers/content-length", "connection"},
		{req(`"headers":{"Transfer-Encoding":"chunked"}`), "/steps/0/request/headers/Transfer-Encoding", "connection"},
		{req(`"headers":{"a b":"c"}`), "/steps/0/request/headers/a b", "name of a header"},
		{req(`"headers":{"X-A":"a\r\nb"}`), "/steps/0/request/headers/X-A", "control"},
		{req(`"headers":{"X-A":["a","b\n"]}`), "/steps/0/request/headers/X-A/1", "control"},
		{req(`"headers":{"X-A":"1","x-a":"2"}`), "/steps/0/request/headers/x-a", "twice"},
		{req(`"headers":{"X-A":"{{y}}"}`), "/steps/0/request/headers/X-A", "{{y}}"},
		{req(`"query":{"":"x"}`), "/steps/0/request/query/", "empty"},
		{req(`"query":{"a":["1","{{q}}"]}`), "/steps/0/request/query/a/1", "{{q}}"},
		{req(`"maxRedirects":21`), "/steps/0/request/maxRedirects", "20"},
		{req(`"maxRedirects":-1`), "/steps/0/request/maxRedirects", "0"},
		{req(`"timeout":"6m"`), "/steps/0/request/timeout", "5m"},
		{req(`"httpVersion":"4"`), "/steps/0/request/httpVersion", "auto"},
		{req(`"body":{}`), "/steps/0/request/body", "exactly one"},
		{req(`"body":{"json":1,"text":"x"}`), "/steps/0/request/body", "exactly one"},
		{req(`"body":{"json":1,"contentType":"text/plain"}`), "/steps/0/request/body/contentType", "Only a text, xml or base64 body"},
		{req(`"body":{"text":"x","contentType":"what"}`), "", ""},
		{req(`"body":{"text":"x","contentType":"a b/c"}`), "/steps/0/request/body/contentType", "media type"},
		{req(`"body":{"json":{"a":[1,"{{v}}"]}}`), "/steps/0/request/body/json/a/1", "{{v}}"},
		{req(`"body":{"form":{"f":"{{v}}"}}`), "/steps/0/request/body/form/f", "{{v}}"},
		{assert(`"source":"status","operator":"equals"`), "/steps/0/assertions/0/expected", "needs an expected"},
		{assert(`"source":"status","operator":"equals","expected":"200"`), "/steps/0/assertions/0/expected", "number"},
		{assert(`"source":"status","operator":"in","expected":[200,"x"]`), "/steps/0/assertions/0/expected", "number"},
		{assert(`"source":"status","operator":"in","expected":[]`), "/steps/0/assertions/0/expected", "at least one"},
		{assert(`"source":"status","operator":"between","expected":[2,1]`), "/steps/0/assertions/0/expected", "lower one first"},
		{assert(`"source":"status","operator":"between","expected":1`), "/steps/0/assertions/0/expected", "two numbers"},
		{assert(`"source":"status","operator":"contains","expected":"2"`), "/steps/0/assertions/0/operator", "there are equals"},
		{assert(`"source":"status","operator":"isUuid"`), "/steps/0/assertions/0/operator", "does not fit"},
		{assert(`"source":"status","operator":"equal","expected":2`), "/steps/0/assertions/0/operator", "lessThan"},
		{assert(`"source":"status"`), "/steps/0/assertions/0/operator", "needed"},
		{assert(`"source":"status","property":"x","operator":"equals","expected":2`), "/steps/0/assertions/0/property", "no property"},
		{assert(`"source":"jsonPath","operator":"equals","expected":2`), "/steps/0/assertions/0/source", "did you mean jsonpath?"},
		{assert(`"operator":"equals","expected":2`), "/steps/0/assertions/0/source", "needed"},
		{assert(`"source":"header","operator":"exists"`), "/steps/0/assertions/0/property", "needs a property"},
		{assert(`"source":"header","property":"a b","operator":"exists"`), "/steps/0/assertions/0/property", "name of a header"},
		{assert(`"source":"header","property":"a","operator":"exists","expected":true`), "/steps/0/assertions/0/expected", "takes no"},
		{assert(`"source":"header","property":"a","operator":"equals","expected":true`), "/steps/0/assertions/0/expected", "text"},
		{assert(`"source":"header","property":"a","operator":"isNull"`), "/steps/0/assertions/0/operator", "does not fit"},
		{assert(`"source":"jsonpath","property":"a.b","operator":"exists"`), "/steps/0/assertions/0/property", "RFC 9535"},
		{assert(`"source":"jsonpath","property":"$[?@.a=1]","operator":"exists"`), "/steps/0/assertions/0/property", "RFC 9535"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"matches","expected":"(a"`), "/steps/0/assertions/0/expected", "RE2"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"matches","expected":"(?=a)"`), "/steps/0/assertions/0/expected", "RE2"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"matches","expected":"` + strings.Repeat("a", 1025) + `"`), "/steps/0/assertions/0/expected", "1024"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"hasLength","expected":-1`), "/steps/0/assertions/0/expected", "whole"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"hasLength","expected":1.5`), "/steps/0/assertions/0/expected", "whole"},
		{assert(`"source":"jsonpath","property":"$.a","operator":"equals","expected":{"x":["{{nope}}"]}`), "/steps/0/assertions/0/expected/x/0", "{{nope}}"},
		{assert(`"source":"status","operator":"equals","expected":1,"severity":"hot"`), "/steps/0/assertions/0/severity", "soft"},
		{step(`"captures":[{"name":"a b","source":"status"}]`), "/steps/0/captures/0/name", "letter"},
		{step(`"captures":[{"name":"a","source":"status"},{"name":"a","source":"body"}]`), "/steps/0/captures/1/name", "already"},
		{step(`"captures":[{"name":"a","source":"sheet"}]`), "/steps/0/captures/0/source", "no such source"},
		{step(`"name":"` + strings.Repeat("ä", 201) + `"`), "/steps/0/name", "200"},
	} {
		t.Run(c.pointer+" "+c.word, func(t *testing.T) {
			_, err := testspec.Read([]byte(c.in))
			got := fieldsOf(t, err)
			if c.pointer == "" && c.word == "" {
				if err != nil {
					t.Errorf("refused: %v", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[c.pointer], c.word) {
				t.Errorf("got %q, want %q with %q", got, c.pointer, c.word)
			}
			if d := got[c.pointer]; d != "" && !strings.HasSuffix(d, ".") {
				t.Errorf("not a sentence: %q", d)
			}
		})
	}
}

func TestValidate_limits(t *testing.T) {
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	step := `{"request":{"method":"GET","url":"https://a.example/"}}`
	named := func(n int, format string) string {
		var b []string
		for i := range n {
			b = append(b, fmt.Sprintf(format, i))
		}
		return strings.Join(b, ",")
	}
	for _, c := range []struct {
		limit   int
		pointer string
		spec    func(n int) string
	}{
		{limits.MaxSteps, "/steps", func(n int) string { return `{"steps":[` + many(n, step) + `]}` }},
		{limits.MaxAssertions, "/steps/0/assertions", func(n int) string {
			return `{"steps":[` + step[:len(step)-1] + `,"assertions":[` + many(n, `{"source":"body","operator":"isEmpty"}`) + `]}]}`
		}},
		{limits.MaxCaptures, "/steps/0/captures", func(n int) string {
			return `{"steps":[` + step[:len(step)-1] + `,"captures":[` + named(n, `{"name":"c%d","source":"body"}`) + `]}]}`
		}},
		{limits.MaxVariables, "/variables", func(n int) string { return `{"variables":{` + named(n, `"v%d":""`) + `},"steps":[` + step + `]}` }},
		{limits.MaxHeaders, "/steps/0/request/headers", func(n int) string {
			return `{"steps":[{"request":{"method":"GET","url":"https://a.example/","headers":{` + named(n, `"h%d":""`) + `}}}]}`
		}},
		{limits.MaxQueryValues, "/steps/0/request/query", func(n int) string {
			return `{"steps":[{"request":{"method":"GET","url":"https://a.example/","query":{"a":[` + many(n, `"x"`) + `]}}}]}`
		}},
	} {
		if _, err := testspec.Read([]byte(c.spec(c.limit))); err != nil {
			t.Errorf("%s: %d are refused: %v", c.pointer, c.limit, err)
		}
		_, err := testspec.Read([]byte(c.spec(c.limit + 1)))
		if got := fieldsOf(t, err); len(got) != 1 || !strings.Contains(got[c.pointer], fmt.Sprint(c.limit)) {
			t.Errorf("%s: %d give %q", c.pointer, c.limit+1, got)
		}
	}
}

func TestValidate_names(t *testing.T) {
	spec := `{"variables":{"own":"1"},"steps":[
		{"request":{"method":"GET","url":"{{base}}/{{own}}"},"captures":[{"name":"id","source":"body"}],
		 "assertions":[{"source":"body","operator":"equals","expected":"{{id}}"}]},
		{"request":{"method":"GET","url":"{{ base }}/{{id}}/{{secrets.key}}"}}]}`
	for name, c := range map[string]struct {
		opts []testspec.Option
		want int
	}{
		"nothing known": {nil, 3},
		"environment":   {[]testspec.Option{testspec.WithNames("base")}, 2},
		"any":           {[]testspec.Option{testspec.WithAnyName()}, 1},
		"scoped":        {[]testspec.Option{testspec.WithAnyName(), testspec.WithNames("secrets.key")}, 0},
	} {
		_, err := testspec.Read([]byte(spec), c.opts...)
		if got := fieldsOf(t, err); len(got) != c.want {
			t.Errorf("%s: %q, want %d", name, got, c.want)
		}
	}
}

func TestValidate_urlCheck(t *testing.T) {
	var seen []string
	check := func(u string) error {
		seen = append(seen, u)
		return errors.New("not this one")
	}
	_, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"GET","url":"https://a.example/x"}},{"request":{"method":"GET","url":"{{b}}/x"}},
		{"request":{"method":"GET","url":"https://a.example/{{b}}"}},{"request":{"method":"GET","url":"https://a.example/{{{{"}}]}`),
		testspec.WithAnyName(), testspec.WithURLCheck(check))
	got := fieldsOf(t, err)
	if len(got) != 2 || got["/steps/0/request/url"] != "Not this one." {
		t.Errorf("%q", got)
	}
	if len(seen) != 2 || seen[1] != "https://a.example/{{" {
		t.Errorf("checked %q", seen)
	}
}

// TestTables: documents, enumerations and validation rest on the tables being whole.
func TestTables(t *testing.T) {
	for _, s := range testspec.Sources() {
		if !strings.HasSuffix(s.Doc, ".") || s.Yields == 0 {
			t.Errorf("source %s: %+v", s.Name, s)
		}
		if len(testspec.OperatorsFor(s.Name)) == 0 {
			t.Errorf("no operator fits the source %s", s.Name)
		}
	}
	for _, o := range testspec.Operators() {
		if !strings.HasSuffix(o.Doc, ".") || o.Takes == 0 || o.Expected == "" {
			t.Errorf("operator %s: %+v", o.Name, o)
		}
		fits := false
		for _, s := range testspec.Sources() {
			fits = fits || s.Yields&o.Takes != 0
		}
		if !fits {
			t.Errorf("the operator %s fits no source", o.Name)
		}
	}
	if testspec.OperatorsFor("nope") != nil {
		t.Error("an unknown source has operators")
	}
}
