package testspec_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/testflow/testflow/internal/testspec"
)

// judgedAt is when the filters of these tests are applied.
var judgedAt = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func capture(t testing.TB, s *testspec.Subject, source, property, filters string) (string, error) {
	t.Helper()
	c := testspec.Capture{Name: "a", Source: source, Property: property}
	if err := json.Unmarshal([]byte(filters), &c.Filters); err != nil {
		t.Fatalf("%s: %v", filters, err)
	}
	raw, err := s.Capture(context.Background(), c)
	return string(raw), err
}

// TestFilters: what each filter makes of a JSON value; an answer that begins with ! is part of why it makes nothing.
func TestFilters(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range []struct{ value, filters, want string }{
		{`[1,2,3]`, `[{"count":true}]`, `3`},
		{`[]`, `[{"count":true}]`, `0`},
		{`"abc"`, `[{"count":true}]`, `!after the filter count text cannot be counted`},
		{`{"a":1}`, `[{"count":true}]`, `!cannot be counted`},
		{`"äöü"`, `[{"length":true}]`, `3`},
		{`[1,2]`, `[{"length":true}]`, `2`},
		{`{"a":1}`, `[{"length":true}]`, `1`},
		{`5`, `[{"length":true}]`, `!a number has no length`},
		{`[7,8]`, `[{"first":true}]`, `7`},
		{`[7,8]`, `[{"last":true}]`, `8`},
		{`[]`, `[{"first":true}]`, `!there is no such member in a list of 0`},
		{`"a"`, `[{"last":true}]`, `!text is not a list`},
		{`[7,8,9]`, `[{"nth":1}]`, `8`},
		{`[7,8,9]`, `[{"nth":-3}]`, `7`},
		{`[7,8,9]`, `[{"nth":3}]`, `!no such member`},
		{`[7,8,9]`, `[{"nth":-4}]`, `!no such member`},
		{`[1,1.0,"1",1e0,{"a":1},{"a":1.0}]`, `[{"unique":true}]`, `[1,"1",{"a":1}]`},
		{`{"b":1,"a":2}`, `[{"keys":true}]`, `["a","b"]`},
		{`{"b":1,"a":2}`, `[{"values":true}]`, `[2,1]`},
		{`[1]`, `[{"keys":true}]`, `!of member 0 a number has no keys`},
		{`["a",1,null]`, `[{"join":", "}]`, `"a, 1, null"`},
		{`"a,b,,c"`, `[{"split":","}]`, `["a","b","","c"]`},
		{`"a"`, `[{"split":","}]`, `["a"]`},
		{`5`, `[{"split":","}]`, `!a number is not text`},
		{`"id=42;"`, `[{"regex":"id=(\\d+)"}]`, `"42"`},
		{`"id=42;"`, `[{"regex":"\\d+"}]`, `"42"`},
		{`"a1b2"`, `[{"regex":"(a)(?P<value>\\d)"}]`, `"1"`},
		{`"abc"`, `[{"regex":"x"}]`, `!the pattern finds nothing`},
		{`"abc"`, `[{"regex":"a(x)?"}]`, `!group finds nothing`},
		{`"a.b.c"`, `[{"replace":{"from":".","to":"-"}}]`, `"a-b-c"`},
		{`"a.b"`, `[{"replaceRegex":{"pattern":"(\\w)\\.(\\w)","to":"$2.$1"}}]`, `"b.a"`},
		{`{"x":[{"id":1},{"id":2}]}`, `[{"jsonpath":"$.x[*].id"}]`, `[1,2]`},
		{`"{\"x\":9}"`, `[{"jsonpath":"$.x"}]`, `9`},
		{`"nope"`, `[{"jsonpath":"$.x"}]`, `!this text is not JSON`},
		{`{"x":1}`, `[{"jsonpath":"$.y"}]`, `!the path selects nothing`},
		{`"<ul><li>a<li>b</ul>"`, `[{"xpath":"//li"},{"count":true}]`, `2`},
		{`"<?xml version='1.0'?><r><i n='1'/></r>"`, `[{"xpath":"string(/r/i/@n)"}]`, `"1"`},
		{`"<p class=x> hi </p>"`, `[{"css":"p.x"}]`, `"hi"`},
		{`"<a href=/b>x</a>"`, `[{"css":"a@href"}]`, `"/b"`},
		{`"a%20b+c"`, `[{"urlDecode":true}]`, `"a b+c"`},
		{`"a%2"`, `[{"urlDecode":true}]`, `!not percent-encoded`},
		{`"a b/ü"`, `[{"urlEncode":true}]`, `"a%20b%2F%C3%BC"`},
		{`"https://a.example/?q=1&q=2&r=x%20y"`, `[{"urlQueryParam":"r"}]`, `"x y"`},
		{`"https://a.example/?q=1"`, `[{"urlQueryParam":"z"}]`, `!there is no such parameter`},
		{`{"status":302,"url":"/a","location":"/b"}`, `[{"location":true}]`, `"/b"`},
		{`[{"location":"/b"},{"location":"/c"}]`, `[{"location":true},{"last":true}]`, `"/c"`},
		{`{}`, `[{"location":true}]`, `!is not a redirect`},
		{`"aMO8"`, `[{"base64Decode":true}]`, `"hü"`},
		{`"aA=="`, `[{"base64Decode":true}]`, `"h"`},
		{`"aA"`, `[{"base64Decode":true}]`, `"h"`},
		{`"//79"`, `[{"base64Decode":true},{"toHex":true}]`, `"fffefd"`},
		{`"__79"`, `[{"base64UrlSafeDecode":true},{"count":true}]`, `3`},
		{`"!"`, `[{"base64Decode":true}]`, `!this text is not base64`},
		{`"h\u00fc"`, `[{"base64Encode":true}]`, `"aMO8"`},
		{`"??>"`, `[{"base64UrlSafeEncode":true}]`, `"Pz8-"`},
		{`"<a href='x'>&"`, `[{"htmlEscape":true}]`, `"&lt;a href=&#39;x&#39;&gt;&amp;"`},
		{`"&lt;&amp;&#228;"`, `[{"htmlUnescape":true}]`, `"<&ä"`},
		{`"AB"`, `[{"toHex":true}]`, `"4142"`},
		{`"4142"`, `[{"hexDecode":true}]`, `"AB"`},
		{`"414"`, `[{"hexDecode":true}]`, `!not hexadecimal`},
		{`"ü"`, `[{"utf8Encode":true},{"count":true}]`, `2`},
		{`"ü"`, `[{"utf8Encode":true},{"utf8Decode":true}]`, `"ü"`},
		{`"//79"`, `[{"base64Decode":true},{"utf8Decode":true}]`, `!these bytes are not UTF-8`},
		{`"aPw"`, `[{"base64Decode":true},{"decode":"iso-8859-1"}]`, `"hü"`},
		{`"42"`, `[{"toInt":true}]`, `42`},
		{`" -007 "`, `[{"toInt":true}]`, `-7`},
		{`"+5"`, `[{"toInt":true}]`, `5`},
		{`"4.5"`, `[{"toInt":true}]`, `!not a whole number`},
		{`4.9`, `[{"toInt":true}]`, `4`},
		{`-4.9`, `[{"toInt":true}]`, `-4`},
		{`1.2e3`, `[{"toInt":true}]`, `1200`},
		{`0.1`, `[{"toInt":true}]`, `0`},
		{`"abc"`, `[{"toInt":true}]`, `!text is not a number`},
		{`true`, `[{"toInt":true}]`, `!not a number`},
		{`"--5"`, `[{"toInt":true}]`, `!not a number`},
		{`"123456789012345678901234567890"`, `[{"toInt":true}]`, `123456789012345678901234567890`},
		{`"0.10000000000000000001"`, `[{"toFloat":true}]`, `0.10000000000000000001`},
		{`"x"`, `[{"toFloat":true}]`, `!not a number`},
		{`1.50`, `[{"toString":true}]`, `"1.50"`},
		{`null`, `[{"toString":true}]`, `"null"`},
		{`{"b":1,"a":2}`, `[{"toString":true}]`, `"{\"a\":2,\"b\":1}"`},
		{`[1,"x"]`, `[{"toString":true}]`, `["1","x"]`},
		{`"2026-11-27"`, `[{"toDate":true}]`, `"2026-11-27T00:00:00Z"`},
		{`"2026-11-27T01:00:00+02:00"`, `[{"toDate":true}]`, `"2026-11-26T23:00:00Z"`},
		{`"Fri, 27 Nov 2026 10:00:00 GMT"`, `[{"toDate":true}]`, `"2026-11-27T10:00:00Z"`},
		{`"27.11.2026"`, `[{"toDate":"%d.%m.%Y"}]`, `"2026-11-27T00:00:00Z"`},
		{`"27.11.2026"`, `[{"toDate":true}]`, `!this text is not a date`},
		{`"x"`, `[{"toDate":"%Y"}]`, `!not a date of the form %Y`},
		{`0`, `[{"toDate":true}]`, `"1970-01-01T00:00:00Z"`},
		{`1e99`, `[{"toDate":true}]`, `!not a date in the years`},
		{`"2026-11-27T01:02:03Z"`, `[{"formatDate":"%d/%m/%y %H:%M"}]`, `"27/11/26 01:02"`},
		{`"2026-12-07"`, `[{"daysAfterNow":true}]`, `9`},
		{`"2026-11-26"`, `[{"daysAfterNow":true}]`, `-2`},
		{`"2026-11-26"`, `[{"daysBeforeNow":true}]`, `1`},
		{`"soon"`, `[{"daysAfterNow":true}]`, `!not a date`},
		{`"ÄB"`, `[{"lower":true}]`, `"äb"`},
		{`"äb"`, `[{"upper":true}]`, `"ÄB"`},
		{`" a \n"`, `[{"trim":true}]`, `"a"`},
		{`["A","B"]`, `[{"lower":true}]`, `["a","b"]`},
		{`["a",5]`, `[{"upper":true}]`, `!of member 1 a number is not text`},
		{`[]`, `[{"lower":true}]`, `[]`},
	} {
		t.Run(c.filters+" "+c.value, func(t *testing.T) {
			s := &testspec.Subject{Body: []byte(`{"v":` + c.value + `}`), Now: judgedAt}
			got, err := capture(t, s, "jsonpath", "$.v", c.filters)
			if why, refused := strings.CutPrefix(c.want, "!"); refused {
				if err == nil || !strings.Contains(err.Error(), why) {
					t.Fatalf("got %s, %v, want %q", got, err, why)
				}
				return
			}
			if err != nil || got != c.want {
				t.Fatalf("got %s, %v, want %s", got, err, c.want)
			}
		})
		var list []testspec.Filter
		if err := json.Unmarshal([]byte(c.filters), &list); err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			tried[f.Name] = true
		}
	}
	for _, name := range testspec.FilterNames() {
		if !tried[name] {
			t.Errorf("the filter %s is never tried", name)
		}
	}
}

// TestFilters_undoEachOther: what is encoded is decoded to the same text, whatever it holds.
func TestFilters_undoEachOther(t *testing.T) {
	for _, pair := range [][2]string{
		{"base64Encode", "base64Decode"},
		{"base64UrlSafeEncode", "base64UrlSafeDecode"},
		{"urlEncode", "urlDecode"},
		{"htmlEscape", "htmlUnescape"},
		{"toHex", "hexDecode"},
		{"utf8Encode", "utf8Decode"},
	} {
		rapid.Check(t, func(t *rapid.T) {
			text := rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, 0) }).Draw(t, "text")
			body, err := json.Marshal(text)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := (&testspec.Subject{Body: body}).Capture(context.Background(), testspec.Capture{
				Source: "jsonpath", Property: "$", Filters: []testspec.Filter{{Name: pair[0]}, {Name: pair[1]}},
			})
			var got string
			if err != nil || json.Unmarshal(raw, &got) != nil || got != text {
				t.Fatalf("%v of %q: %s, %v", pair, text, raw, err)
			}
		})
	}
}

// TestFilters_areBounded: no filter makes much out of little.
func TestFilters_areBounded(t *testing.T) {
	long := strings.Repeat("a", 200<<10)
	for filters, why := range map[string]string{
		`[{"replace":{"from":"a","to":"` + strings.Repeat("b", 3000) + `"}}]`:            "longer than",
		`[{"replaceRegex":{"pattern":"(a)","to":"` + strings.Repeat("$1", 1500) + `"}}]`: "may become longer than",
		`[{"split":"a"}]`:                "more than 10000 parts",
		`[{"jsonpath":"$..*..*"}]`:       "is not JSON",
		`[{"regex":"a"},{"toInt":true}]`: "not a number",
	} {
		_, err := capture(t, &testspec.Subject{Body: []byte(long)}, "body", "", filters)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.60s: %v, want %q", filters, err, why)
		}
	}
	_, err := capture(t, &testspec.Subject{Body: []byte(long + long)}, "body", "", `[{"regex":"a"}]`)
	if err == nil || !strings.Contains(err.Error(), "longer than the") {
		t.Errorf("a pattern over too long a text: %v", err)
	}
	_, err = capture(t, &testspec.Subject{Body: []byte(strings.Repeat(long+",", 60))}, "body", "", `[{"split":","},{"join":", "}]`)
	if err == nil || !strings.Contains(err.Error(), "after the filter join it is longer than") {
		t.Errorf("a text joined beyond its bound: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	v := (&testspec.Subject{Body: []byte("a")}).Judge(ctx, testspec.Assertion{
		Source: "body", Operator: "equals", Expected: json.RawMessage(`"A"`), Filters: []testspec.Filter{{Name: "upper"}},
	})
	if v.Pass || !strings.Contains(v.Message, "stopped") {
		t.Errorf("judged although it was stopped: %s", v.Message)
	}
}

// TestFilter_json: a filter is written as it is read.
func TestFilter_json(t *testing.T) {
	spec, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"GET","url":"http://a.example/"},
		"assertions":[{"source":"body","filters":[{"length":true},{"toString":true}],"operator":"equals","expected":"1"}],
		"captures":[{"name":"x","source":"body","filters":[{"replace":{"to":"b","from":"a"}}]}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	again, err := testspec.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	if a := again.Steps[0].Assertions[0].Filters; len(a) != 2 || a[1].Name != "toString" || string(a[1].Argument) != "true" {
		t.Errorf("read back %v", a)
	}
	if c := again.Steps[0].Captures[0].Filters; len(c) != 1 || string(c[0].Argument) != `{"from":"a","to":"b"}` {
		t.Errorf("read back %v", c)
	}
}
