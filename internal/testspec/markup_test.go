package testspec_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/testspec"
)

// faultsOf writes what is wrong, for messages.
func faultsOf(t testing.TB, err error) string {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) {
		return err.Error()
	}
	var b strings.Builder
	for _, field := range f.Fields {
		b.WriteString(field.Pointer + ": " + field.Detail + "\n")
	}
	return b.String()
}

const page = `<!doctype html><html><head><title>Pets</title></head><body><h1 class="t big"> The <b>pets</b> </h1>
<ul id=list><li data-id="1">Ada</li><li data-id="2" class=x>Bo</li><li>5</li></ul><a class="next" href="/p?2">more</a><p></p></body></html>`

const feed = `<?xml version="1.0"?><!DOCTYPE feed><feed xmlns="urn:f" xmlns:m="urn:m"><entry id="1"><m:price cur="EUR">9.50</m:price></entry>
<entry id="2"><m:price>12</m:price><![CDATA[<raw>]]></entry></feed>`

func typedBody(contentType, body string) *testspec.Subject {
	return &testspec.Subject{Header: http.Header{"Content-Type": {contentType}}, Body: []byte(body), Now: judgedAt}
}

func TestXPath_instructionsAreNoElements(t *testing.T) {
	t.Parallel()
	s := typedBody("application/xml", `<?xml version="1.0"?><?xml-stylesheet href="a.xsl"?><feed><?php 1?><a/><?php 2?></feed><?end?>`)
	for path, want := range map[string]string{"count(/*)": "1", "count(//*)": "2", "count(/feed/*)": "1", "count(/feed/node())": "1"} {
		v := s.Judge(t.Context(), testspec.Assertion{Source: "xpath", Property: path, Operator: "equals", Expected: json.RawMessage(want)})
		if !v.Pass {
			t.Error(v.Message)
		}
	}
}

func TestMarkup(t *testing.T) {
	for _, c := range []struct {
		contentType, body, source, property, rest string
		pass                                      bool
		word                                      string
	}{
		{"text/html", page, "xpath", "//title", `"operator":"equals","expected":"Pets"`, true, "Expected //title to equal"},
		{"text/html", page, "xpath", "//li", `"filters":[{"count":true}],"operator":"equals","expected":3`, true, ""},
		{"text/html", page, "xpath", "count(//li)", `"operator":"equals","expected":3`, true, ""},
		{"text/html", page, "xpath", "count(//li) > 2", `"operator":"equals","expected":true`, true, ""},
		{"text/html", page, "xpath", "string(//li[2])", `"operator":"equals","expected":"Bo"`, true, ""},
		{"text/html", page, "xpath", "//li/@data-id", `"operator":"equals","expected":["1","2"]`, true, ""},
		{"text/html", page, "xpath", "//li", `"operator":"equals","expected":"Ada"`, false, "a list cannot be compared with text"},
		{"text/html", page, "xpath", "//li", `"quantifier":"any","operator":"equals","expected":5`, true, `member 2 is "5"`},
		{"text/html", page, "xpath", "//li[last()]", `"operator":"lessThan","expected":6`, true, ""},
		{"text/html", page, "xpath", "//none", `"operator":"exists"`, false, ""},
		{"text/html", page, "xpath", "//none", `"operator":"exists","not":true`, true, ""},
		{"text/html", page, "xpath", "//none", `"operator":"equals","expected":"","not":true`, false, "nothing is selected"},
		{"text/html", page, "xpath", "//none", `"filters":[{"count":true}],"operator":"equals","expected":0`, true, ""},
		{"text/html", page, "xpath", "//p", `"operator":"isEmpty"`, true, ""},
		{"application/xml", feed, "xpath", "//entry", `"filters":[{"count":true}],"operator":"equals","expected":2`, true, ""},
		{"application/xml", feed, "xpath", "sum(//m:price)", `"operator":"equals","expected":21.5`, true, ""},
		{"application/atom+xml", feed, "xpath", "//m:price[@cur='EUR']", `"operator":"equals","expected":9.5`, true, ""},
		{"application/xml", feed, "xpath", "//*[local-name()='entry'][namespace-uri()='urn:f']/@id", `"operator":"equals","expected":["1","2"]`, true, ""},
		{"", feed, "xpath", "/feed/entry[2]/@id", `"operator":"equals","expected":2`, true, ""},
		{"application/xml", feed, "xpath", "string(/feed/entry[2])", `"operator":"contains","expected":"<raw>"`, true, ""},
		{"application/xml", "<a>", "xpath", "/a", `"operator":"exists","not":true`, false, "the body is not XML (line 1)"},
		{"application/xml", "", "xpath", "/a", `"operator":"exists","not":true`, false, "the body is empty"},
		{"application/xml", `<?xml version="1.0" encoding="ISO-8859-1"?><a>` + "\xfc</a>", "xpath", "/a", `"operator":"equals","expected":"ü"`, true, ""},
		{"application/xml; charset=iso-8859-1", `<?xml version="1.0" encoding="UTF-8"?><a>` + "\xfc</a>", "xpath", "/a", `"operator":"equals","expected":"ü"`, true, ""},
		{"text/html", `<meta charset=iso-8859-1><p>` + "\xfc", "css", "p", `"operator":"equals","expected":"ü"`, true, ""},
		{"text/html", "<p>\xc3\xbc", "css", "p", `"operator":"equals","expected":"ü"`, true, ""},
		{"text/html", page, "css", "h1.big", `"operator":"equals","expected":"The pets"`, true, ""},
		{"text/html", page, "css", "a.next@href", `"operator":"equals","expected":"/p?2"`, true, ""},
		{"text/html", page, "css", "li@data-id", `"operator":"equals","expected":["1","2"]`, true, ""},
		{"text/html", page, "css", "#list > li:not(.x)", `"filters":[{"first":true}],"operator":"equals","expected":"Ada"`, true, ""},
		{"text/html", page, "css", `a[href*="?2"]`, `"operator":"exists"`, true, ""},
		{"text/html", page, "css", `a[href="@x"]`, `"operator":"exists"`, false, ""},
		{"text/html", page, "css", "li:nth-child(3)", `"operator":"equals","expected":5`, true, ""},
		{"text/html", page, "css", "table", `"operator":"exists","not":true`, true, ""},
		{"application/xml", feed, "css", "entry@id", `"operator":"equals","expected":["1","2"]`, true, ""},
	} {
		assertion := `{"source":"` + c.source + `","property":` + asJSON(c.property) + `,` + c.rest + `}`
		if _, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"GET","url":"http://a.example/"},"assertions":[` + assertion + `]}]}`)); err != nil {
			t.Errorf("%s is refused: %s", assertion, faultsOf(t, err))
		}
		v := judged(t, typedBody(c.contentType, c.body), assertion)
		if v.Pass != c.pass || !strings.Contains(v.Message, c.word) {
			t.Errorf("%s: pass %v, %s", assertion, v.Pass, v.Message)
		}
	}
}

func asJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestAttackMarkup_isBounded: what a target sends and what an author writes end soon, whatever they are.
func TestAttackMarkup_isBounded(t *testing.T) {
	laughs := `<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><l>&b;</l>`
	external := `<?xml version="1.0"?><!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>`
	deep := strings.Repeat("<a>", 300) + strings.Repeat("</a>", 300)
	wide := "<r>" + strings.Repeat("<a x='1'>b</a>", 20_000) + "</r>"
	nested := "<r>" + strings.Repeat(strings.Repeat("<div>", 100)+strings.Repeat("</div>", 100), 50) + "</r>"
	for _, c := range []struct{ contentType, body, source, property, word string }{
		{"application/xml", laughs, "xpath", "string(/l)", "an entity of its own"},
		{"application/xml", external, "xpath", "string(/l)", "an entity of its own"},
		{"application/xml", deep, "xpath", "//a", "deeper than 256"},
		{"text/html", strings.Repeat("<div>", 600), "css", "div", "too deep"},
		{"text/html", strings.Repeat("<div>", 300), "css", "div", "deeper than 256"},
		{"application/xml", strings.Repeat("<a/>", 200_000), "xpath", "//a", "more than 100000"},
		{"text/html", strings.Repeat("<a b=c d=e f=g>", 40_000), "css", "a", "more than 100000"},
		{"text/html", strings.Repeat("x", 5<<20), "css", "a", "longer than"},
		{"application/xml", wide, "xpath", "//a[count(//a[count(//a)>1])>1]", "takes too long"},
		{"application/xml", wide, "xpath", "//a", "more than 10000 nodes"},
		{"application/xml", wide, "xpath", "count(//a/preceding::a/following::a)", "takes too long"},
		{"text/html", wide, "css", "a", "more than 10000 elements"},
		{"text/html", nested, "css", strings.Repeat("div ", 60) + "span div", "too costly"},
		{"text/html", wide, "css", "r:has(a:has(b)) ~ a:has(c)", "too costly"},
	} {
		started := time.Now()
		v := judged(t, typedBody(c.contentType, c.body), `{"source":"`+c.source+`","property":`+asJSON(c.property)+`,"operator":"exists"}`)
		if v.Pass || !strings.Contains(v.Message, c.word) {
			t.Errorf("%s %.50s: pass %v, %.300s; want %q", c.source, c.property, v.Pass, v.Message, c.word)
		}
		if took := time.Since(started); took > 10*time.Second {
			t.Errorf("%s %.50s took %s", c.source, c.property, took)
		}
		if strings.Contains(v.Message, "root:") || strings.Contains(v.Message, "haha") {
			t.Errorf("an entity was expanded: %s", v.Message)
		}
	}
	// Whoever stops the run isn't kept waiting.
	ctx, stop := context.WithCancel(context.Background())
	stop()
	v := typedBody("application/xml", wide).Judge(ctx, testspec.Assertion{Source: "xpath", Property: "//a[count(//a)>1]", Operator: "exists"})
	if v.Pass {
		t.Error("judged although it was stopped")
	}
}

// TestCharsets: text is decoded by its mark, then by its content type.
func TestCharsets(t *testing.T) {
	for _, c := range []struct{ contentType, body, want string }{
		{"text/plain", "ü", "ü"},
		{"text/plain; charset=utf-8", "\xef\xbb\xbfü", "ü"},
		{"text/plain; charset=ISO-8859-1", "\xfc", "ü"},
		{`text/plain; charset="windows-1252"`, "\x80", "€"},
		{"text/plain; charset=shift_jis", "\x82\xa0", "あ"},
		{"text/plain", "\xff\xfea\x00\xfc\x00", "aü"},
		{"text/plain", "\xfe\xff\x00a\x00\xfc", "aü"},
		{"text/plain; charset=utf-16", "\x00a\x00\xfc", "aü"},
		{"text/plain; charset=iso-8859-1", "\xef\xbb\xbfü", "ü"},
		{"text/plain; charset=klingon", "ü", "ü"},
	} {
		v := judged(t, typedBody(c.contentType, c.body), `{"source":"body","operator":"equals","expected":`+asJSON(c.want)+`}`)
		if !v.Pass {
			t.Errorf("%s %q: %s", c.contentType, c.body, v.Message)
		}
	}
	if v := judged(t, typedBody("application/json", "\xef\xbb\xbf[1]"), `{"source":"jsonpath","property":"$[0]","operator":"equals","expected":1}`); !v.Pass {
		t.Error(v.Message)
	}
}

// TestValidate_judging: what can never hold is refused at save, at its place, with what was meant.
func TestValidate_judging(t *testing.T) {
	for _, c := range []struct{ assertion, pointer, word string }{
		{`"source":"status","operator":"lesThan","expected":1`, "/operator", "did you mean lessThan? There are equals, lessThan"},
		{`"source":"status","operator":"gt","expected":1`, "/operator", "did you mean greaterThan?"},
		{`"source":"headers","property":"a","operator":"exists"`, "/source", "did you mean header?"},
		{`"source":"body","filters":[{"lowercase":true}],"operator":"exists"`, "/filters/0/lowercase", "did you mean lower?"},
		{`"source":"body","filters":[{"count":true}],"operator":"equals","expected":1`, "/filters/0/count", "The filter count takes a JSON value or a list or bytes, and here comes text."},
		{`"source":"status","filters":[{"split":","}],"operator":"exists"`, "/filters/0/split", "here comes a number"},
		{`"source":"body","filters":[{"length":true},{"lower":true}],"operator":"exists"`, "/filters/1/lower", "here comes a number"},
		{`"source":"body","filters":[{"length":true}],"operator":"startsWith","expected":"a"`, "/operator", "The filter length yields a number, and startsWith does not fit"},
		{`"source":"body","filters":[{"length":true}],"operator":"equals","expected":"a"`, "/expected", "The filter length yields a number"},
		{`"source":"body","filters":[{"split":","}],"operator":"lessThan","expected":1`, "/operator", "does not fit"},
		{`"source":"body","filters":[{"count":false}],"operator":"exists"`, "/filters/0/count", "takes no argument"},
		{`"source":"body","filters":[{"nth":"1"}],"operator":"exists"`, "/filters/0/nth", "a whole number"},
		{`"source":"body","filters":[{"regex":"("}],"operator":"exists"`, "/filters/0/regex", "not an RE2"},
		{`"source":"body","filters":[{"replace":{"from":"","to":"a"}}],"operator":"exists"`, "/filters/0/replace", "from"},
		{`"source":"body","filters":[{"replace":{"from":"a","to":"b","all":"c"}}],"operator":"exists"`, "/filters/0/replace", "from"},
		{`"source":"body","filters":[{"replaceRegex":{"pattern":"[","to":"a"}}],"operator":"exists"`, "/filters/0/replaceRegex", "not an RE2"},
		{`"source":"body","filters":[{"jsonpath":"a"}],"operator":"exists"`, "/filters/0/jsonpath", "JSONPath"},
		{`"source":"body","filters":[{"xpath":"//["}],"operator":"exists"`, "/filters/0/xpath", "XPath"},
		{`"source":"body","filters":[{"css":"a["}],"operator":"exists"`, "/filters/0/css", "CSS"},
		{`"source":"body","filters":[{"decode":"klingon"}],"operator":"exists"`, "/filters/0/decode", "charset"},
		{`"source":"body","filters":[{"formatDate":"%"}],"operator":"exists"`, "/filters/0/formatDate", "% in a format"},
		{`"source":"body","filters":[{"formatDate":"%09999Y"}],"operator":"exists"`, "/filters/0/formatDate", "% in a format"},
		{`"source":"body","filters":[{"toDate":5}],"operator":"exists"`, "/filters/0/toDate", "true, or the format"},
		{`"source":"body","filters":[{}],"operator":"exists"`, "/filters/0", "one field"},
		{`"source":"body","filters":["count"],"operator":"exists"`, "/filters/0", "one field"},
		{`"source":"status","quantifier":"all","operator":"equals","expected":1`, "/quantifier", "members of a list"},
		{`"source":"jsonpath","property":"$.a","quantifier":"some","operator":"exists"`, "/quantifier", "one of any, all, none"},
		{`"source":"timing","property":"dnss","operator":"lessThan","expected":1`, "/property", "did you mean dns?"},
		{`"source":"timing","operator":"lessThan","expected":1`, "/property", "one of dns, connect"},
		{`"source":"certificate","property":"expires","operator":"exists"`, "/property", "There are subject"},
		{`"source":"certificate","property":"daysUntilExpiry","operator":"after","expected":"now"`, "/operator", "yields a number"},
		{`"source":"certificate","property":"notAfter","operator":"lessThan","expected":5`, "/operator", "yields a date"},
		{`"source":"cookie","property":"a[HtpOnly]","operator":"exists"`, "/property", "did you mean HttpOnly?"},
		{`"source":"cookie","property":"a b","operator":"exists"`, "/property", "name of a cookie"},
		{`"source":"variable","property":"secrets.a","operator":"exists"`, "/property", "name of a variable"},
		{`"source":"xpath","property":"//a[","operator":"exists"`, "/property", "This is not an XPath 1.0"},
		{`"source":"xpath","property":"//processing-instruction()","operator":"exists"`, "/property", "Processing instructions cannot be selected"},
		{`"source":"xpath","property":"nope(//a)","operator":"exists"`, "/property", "This is not an XPath 1.0"},
		{`"source":"css","property":"a[","operator":"exists"`, "/property", "This is not a CSS selector"},
		{`"source":"css","property":"a@","operator":"exists"`, "/property", "name of an attribute is missing"},
		{`"source":"css","property":"a::before","operator":"exists"`, "/property", "pseudo-element"},
		{`"source":"regex","property":"(","operator":"exists"`, "/property", "not an RE2"},
		{`"source":"jsonpath","property":"$","operator":"approximately","expected":5`, "/expected", "tolerance"},
		{`"source":"jsonpath","property":"$","operator":"approximately","expected":{"value":5,"tolerance":-1}`, "/expected", "tolerance"},
		{`"source":"jsonpath","property":"$","operator":"before","expected":"soon"`, "/expected", "a date"},
		{`"source":"jsonpath","property":"$","operator":"equalsUnordered","expected":5`, "/expected", "a list"},
	} {
		_, err := testspec.Read([]byte(`{"steps":[{"request":{"method":"GET","url":"http://a.example/"},"assertions":[{` + c.assertion + `}]}]}`))
		if err == nil {
			t.Errorf("%s is accepted", c.assertion)
			continue
		}
		told := faultsOf(t, err)
		if !strings.Contains(told, "/steps/0/assertions/0"+c.pointer+": ") || !strings.Contains(told, c.word) {
			t.Errorf("%s: %swant %s with %q", c.assertion, told, c.pointer, c.word)
		}
	}
}

// A node set holds each node once, in the order of the document.
func TestXPath_nodeSets(t *testing.T) {
	t.Parallel()
	xml := typedBody("application/xml", `<r><b><a x="1" y="2">one</a><a x="1">two</a></b><b><a>three</a></b><c>four</c></r>`)
	html := typedBody("text/html", `<ul><li class="x">one</li><li class="x">two</li></ul>`)
	for _, c := range []struct {
		subject    *testspec.Subject
		path, want string
	}{
		{xml, "//b/a/..//a", `["one","two","three"]`},
		{xml, "//a/../a/@x", `["1","1"]`},
		{xml, "//a/@*", `["1","2","1"]`},
		{xml, "//a/ancestor::b/a", `["one","two","three"]`},
		{xml, "//c | //a", `["one","two","three","four"]`},
		{xml, "//a/following::a | //a", `["one","two","three"]`},
		{xml, "//a[last()]/preceding-sibling::a", `["one"]`},
		{html, "//li/../li", `["one","two"]`},
		{html, "//li/../li/@class", `["x","x"]`},
	} {
		v := c.subject.Judge(t.Context(), testspec.Assertion{Source: "xpath", Property: c.path, Operator: "equals", Expected: json.RawMessage(c.want)})
		if !v.Pass {
			t.Errorf("%s: %s", c.path, v.Message)
		}
	}
}
