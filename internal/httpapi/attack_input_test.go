package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// payload is a text that has hurt somebody. raw is how it stands in JSON where json.Marshal would mend it.
type payload struct{ text, raw string }

func (p payload) literal() string {
	if p.raw != "" {
		return p.raw
	}
	b, err := json.Marshal(p.text)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// payloads by what they are meant for. Each goes into every text that a client can send.
var payloads = []payload{
	// SQL, in all quotes, and what a driver makes of placeholders
	{text: `'; DROP TABLE orgs CASCADE; --`},
	{text: `" OR ""="`},
	{text: `1) UNION SELECT wrapped_key FROM org_keys --`},
	{text: `$1 ? :name %s %d %n %x %!v(MISSING)`},
	{text: `\'; SELECT pg_sleep(10); --`},
	{text: `%' OR name ILIKE '%`},
	{text: `$q$; SET ROLE postgres; $q$`},
	// texts that Postgres, JSON or UTF-8 cannot hold
	{text: "nul\x00byte"},
	{raw: `"\u0000"`},
	{raw: `"\ud800"`},
	{raw: `"\udc00\ud800"`},
	{raw: "\"over\xc0\xaflong\""},
	{raw: "\"half\xe2\x82\""},
	{raw: "\"\xed\xa0\x80\""},
	// lines and terminals
	{text: "a\r\nSet-Cookie: admin=1"},
	{text: "a\nlevel=ERROR msg=\"forged line\""},
	{text: "\x1b[2J\x1b]0;owned\x07"},
	{text: "a\u2028b\u2029c\u0085d"},
	// templates and expressions
	{text: `{{7*7}}${7*7}#{7*7}<%= 7*7 %>`},
	{text: `{{secrets.token}}`},
	{text: `{{{{name}}}}`},
	{text: `${jndi:ldap://127.0.0.1/a}`},
	{text: `__proto__`},
	// JSONPath, regular expressions, JSON Schema
	{text: `$..*..*..*..*..*`},
	{text: `$[?(@.a=='` + strings.Repeat("(", 2000) + `')]`},
	{text: `(a+)+$((((((((((a{1,1000}){1,1000}){1,1000}`},
	{text: `{"$ref":"file:///etc/passwd"}`},
	// files and addresses
	{text: `../../../../etc/passwd`},
	{text: `file:///etc/passwd`},
	{text: `http://169.254.169.254/latest/meta-data/`},
	{text: `gopher://127.0.0.1:5432/_x`},
	// pages and spreadsheets
	{text: `<script>alert(1)</script><img src=x onerror=alert(1)>`},
	{text: `javascript:alert(1)`},
	{text: `=HYPERLINK("http://evil.example","x")`},
	// looks
	{text: "\u202Efdp.exe"},
	{text: "adm\u0456n"}, // Cyrillic
	{text: "a\u200bd\u200dm\ufeffin"},
	{text: "e" + strings.Repeat("\u0301", 500)},
	{text: "\U0001F469\u200D\U0001F469\u200D\U0001F467"},
	{text: "\uFDFA\uFFFF\uFFFE"},
	// emptiness and size
	{text: ""},
	{text: "   "},
	{text: "\t"},
	{text: strings.Repeat("A", 1<<20)},
}

// TestAttack_injection_inEveryTextOfEveryBody puts each payload into each text of each body. What is taken is given back
// exactly as it was; what isn't is a 4xx that says where; nothing is executed, and nothing breaks.
func TestAttack_injection_inEveryTextOfEveryBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	before := w.rowsOf(b)
	sent := 0
	everyBody(func(method, template string, op *openapi3.Operation) {
		w.each(op.OperationID, func() {
			leaves := textsOf(op, documentExample(op))
			require.NotEmpty(w.t, leaves, op.OperationID)
			for i, leaf := range leaves {
				for j, p := range payloads {
					// The four that take a whole definition share the payloads among their many texts.
					if definesATest(op) && (i+j)%4 != 0 {
						continue
					}
					sent++
					w.inject(method, a.fill(w.t, template), op, a, leaf, p)
				}
			}
		})
	})
	require.Positive(t, sent)
	assert.Equal(t, before, w.rowsOf(b), "something of the other organization changed")
	w.logIsWhole()
	w.exportIsWhole()
}

// each runs fn as a subtest of the world's test, one after the other, so that one operation can be tried alone.
func (w *world) each(name string, fn func()) {
	whole := w.t
	whole.Run(name, func(t *testing.T) { //nolint:paralleltest // they share a world
		w.t = t
		defer func() { w.t = whole }()
		fn()
	})
}

func definesATest(op *openapi3.Operation) bool {
	return slices.Contains([]string{"createTest", "replaceTest", "updateTest", "validateTest", "reevaluateRun", "reevaluateTest"}, op.OperationID)
}

// everyBody calls fn with every operation that takes a body, public ones too.
func everyBody(fn func(method, template string, op *openapi3.Operation)) {
	for _, template := range slices.Sorted(maps.Keys(contract().Paths.Map())) {
		for method, op := range contract().Paths.Value(template).Operations() {
			if op.RequestBody != nil {
				fn(method, template, op)
			}
		}
	}
}

// textsOf are the pointers of all texts of an example, and of those at the top that its schema has besides.
func textsOf(op *openapi3.Operation, example any) []string {
	found := map[string]bool{}
	var visit func(pointer string, value any)
	visit = func(pointer string, value any) {
		switch v := value.(type) {
		case string:
			found[pointer] = true
		case map[string]any:
			for name, inner := range v {
				visit(pointer+"/"+name, inner)
			}
		case []any:
			for i, inner := range v {
				visit(pointer+"/"+strconv.Itoa(i), inner)
			}
		}
	}
	visit("", example)
	for name, property := range op.RequestBody.Value.Content.Get("application/json").Schema.Value.Properties {
		if property.Value.Type.Is(openapi3.TypeString) {
			found["/"+name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

const mark = "@@here@@"

// put returns the body with the JSON literal at pointer.
func put(t *testing.T, body any, pointer, literal string) string {
	t.Helper()
	raw, err := json.Marshal(with(body, strings.Split(strings.TrimPrefix(pointer, "/"), "/"), mark))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(raw), mark), pointer)
	return strings.Replace(string(raw), `"`+mark+`"`, literal, 1)
}

// with is body with value at path, made anew on the way to it.
func with(body any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	switch v := body.(type) {
	case map[string]any:
		out := maps.Clone(v)
		out[path[0]] = with(v[path[0]], path[1:], value)
		return out
	case []any:
		out := slices.Clone(v)
		i, _ := strconv.Atoi(path[0])
		out[i] = with(out[i], path[1:], value)
		return out
	}
	return map[string]any{path[0]: value}
}

// at is what stands at pointer.
func at(value any, pointer string) any {
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		switch v := value.(type) {
		case map[string]any:
			value = v[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

func (w *world) inject(method, path string, op *openapi3.Operation, th things, leaf string, p payload) {
	t := w.t
	t.Helper()
	body := put(t, th.own(documentExample(op)), leaf, p.literal())
	c := call{method: method, path: path, as: "admin-a", body: body}
	if op.Security != nil {
		c.as = ""
	}
	got := w.do(c)
	name := fmt.Sprintf("%s %s = %.60q", op.OperationID, leaf, p.literal())
	switch {
	case got.status < 300:
		if back, ok := at(map[string]any(got.json), leaf).(string); ok {
			assert.Contains(t, []string{p.text, strings.TrimSpace(p.text)}, back, "%s came back otherwise", name)
		}
	case got.status == 400 || got.status == 422:
		assert.NotEmpty(t, got.faults(), "%s: %s", name, got.text)
		if got.status == 422 && got.json["code"] == "request.invalid" {
			assert.True(t, names(got, leaf), "%s isn't named: %s", name, got.text)
		}
	default:
		assert.Contains(t, []int{401, 403, 404, 409, 413, 429}, got.status, "%s: %s", name, got.text)
	}
	assert.NotContains(t, got.text, "root:", name)
	assert.NotContains(t, got.text, "SQLSTATE", name)
}

// names tells whether a fault is at the pointer, above it or below it.
func names(got answer, pointer string) bool {
	for place := range got.faults() {
		if strings.HasPrefix(pointer, place) || strings.HasPrefix(place, pointer) {
			return true
		}
	}
	return false
}

// logIsWhole fails when somebody made a log line begin.
func (w *world) logIsWhole() {
	w.t.Helper()
	lines := bufio.NewScanner(strings.NewReader(w.log.String()))
	lines.Buffer(nil, 16<<20)
	n := 0
	for lines.Scan() {
		n++
		assert.True(w.t, strings.HasPrefix(lines.Text(), "time="), "a forged line: %.200q", lines.Text())
		assert.NotContains(w.t, lines.Text(), "\x1b")
	}
	require.NoError(w.t, lines.Err())
}

// exportIsWhole reads the organization's history line by line.
func (w *world) exportIsWhole() {
	w.t.Helper()
	export := w.do(call{method: "GET", path: "/api/audit/export?format=ndjson", as: "admin-a"})
	require.Equal(w.t, 200, export.status)
	n := 0
	for line := range strings.Lines(export.text) {
		n++
		assert.True(w.t, json.Valid([]byte(line)), "%.200q", line)
	}
	require.Greater(w.t, n, 10)
}

// TestAttack_injection_inEveryParameter puts each payload into each query parameter, each id of a path and each header
// that an operation reads.
func TestAttack_injection_inEveryParameter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.things("admin-a")
	sent := 0
	try := func(name string, c call) {
		sent++
		c.as = "admin-a"
		got := w.do(c)
		assert.Less(w.t, got.status, 500, "%s: %s", name, got.text)
		assert.NotContains(w.t, got.text, "SQLSTATE", name)
		assert.NotContains(w.t, got.text, "root:", name)
		for header, values := range got.header {
			for _, v := range values {
				assert.NotContains(w.t, v, "\n", "%s: %s", name, header)
			}
		}
	}
	walk(func(method, template string, op *openapi3.Operation) {
		if method != "GET" {
			return
		}
		w.each(op.OperationID, func() {
			parts := strings.Split(template, "/")
			for _, p := range payloads {
				if p.raw != "" { // as bytes
					p.text = strings.Trim(p.raw, `"`)
				}
				if len(p.text) > 4096 {
					p.text = strings.Repeat("A", 4096)
				}
				for _, parameter := range op.Parameters {
					if parameter.Value.In == openapi3.ParameterInQuery {
						name := parameter.Value.Name
						try(fmt.Sprintf("%s?%s=%.40q", template, name, p.text), call{method: method, path: a.fill(w.t, template) + "?" + name + "=" + url.QueryEscape(p.text)})
					}
				}
				for i, part := range parts {
					if strings.HasPrefix(part, "{") {
						filled := strings.Split(a.fill(w.t, template), "/")
						filled[i] = url.PathEscape(p.text)
						try(fmt.Sprintf("%s at %s: %.40q", template, part, p.text), call{method: method, path: strings.Join(filled, "/")})
					}
				}
			}
		})
	})
	// Headers are the door's own and the same for all; control characters don't get through net/http.
	for _, p := range payloads {
		if p.raw != "" || strings.ContainsAny(p.text, "\x00\r\n\x1b\x07") || len(p.text) > 4096 {
			continue
		}
		for _, header := range []string{"X-Request-Id", "User-Agent", "If-Match", "If-None-Match", "Prefer", "Idempotency-Key", "X-Min-Position", "X-Organization-Id", "Accept", "Content-Type", "Origin", "Referer", "Cookie"} {
			try(header+": "+p.text, call{method: "GET", path: "/api/projects/" + a["projects"], header: map[string]string{header: p.text}})
			try(header+": "+p.text, call{method: "POST", path: "/api/projects", body: `{"name":"` + newID().String() + `"}`, header: map[string]string{header: p.text}})
		}
	}
	try("bytes that are no text", call{method: "POST", path: "/api/projects", body: `{"name":"` + newID().String() + `"}`, header: map[string]string{"User-Agent": "a\xff\xfeb", "X-Request-Id": "\xff"}})
	require.Positive(t, sent)
	w.logIsWhole()
	w.exportIsWhole()
}

// TestAttack_names_ofParametersThatAreNone: sort orders, columns, tenants and operators are no parameters.
func TestAttack_names_ofParametersThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.things("admin-a")
	walk(func(method, template string, op *openapi3.Operation) {
		for _, query := range []string{
			"sort=name%3Bdrop", "orderBy=name", "order=desc", "fields=*", "select=wrapped_key", "include=secrets", "expand=keys", "orgId=" + w.orgB.String(), "organizationId=" + w.orgB.String(),
			"org_id=" + w.orgB.String(), "X-Organization-Id=" + w.orgB.String(), "filter[orgId]=" + w.orgB.String(), "$where=1", "where=1%3D1", "offset=1", "page=2", "debug=1", "admin=true", "role=admin",
			"_method=DELETE", "access_token=x", "token=x", "api_key=tf_x", "LIMIT=1", "limit[]=1", "callback=alert",
		} {
			name, _, _ := strings.Cut(query, "=")
			if takes(op, name) {
				continue
			}
			got := w.do(call{method: method, path: a.nowhere().fill(t, template) + "?" + query, as: "admin-a", body: exampleOf(t, op, a)})
			assert.Contains(t, []int{400, 422}, got.status, "%s %s?%s: %s", method, template, query, got.text)
		}
	})
}

// TestAttack_massAssignment: no object of any body takes a field that it doesn't have, a field of its own in another
// case, or one twice; and what such a request would have changed stays as it was.
func TestAttack_massAssignment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.things("admin-a")
	intruders := []string{
		"id", "orgId", "organizationId", "org_id", "tenantId", "version", "revision", "role", "roles", "permissions", "scopes", "operator", "isAdmin", "admin", "createdBy", "createdAt",
		"updatedAt", "ownerId", "accountId", "userId", "password", "passwordHash", "emailVerified", "status", "__proto__", "constructor", "$set", "",
	}
	tried := 0
	everyBody(func(method, template string, op *openapi3.Operation) {
		w.each(op.OperationID, func() {
			before := w.rowsOf(a)
			example := a.own(documentExample(op))
			schema := op.RequestBody.Value.Content.Get("application/json").Schema.Value
			objectsOf(schema, example, "", func(pointer string, object *openapi3.Schema, value map[string]any) {
				var bodies []string
				for _, field := range intruders {
					if object.Properties[field] != nil || object.AdditionalProperties.Schema != nil {
						continue // it is meant to be set; whether it may be is another matter
					}
					for _, intruding := range []string{`"x"`, "null", "true", `{"id":"` + w.orgB.String() + `"}`} {
						bodies = append(bodies, insert(w.t, example, pointer, field, intruding))
					}
				}
				for field := range value {
					for _, other := range []string{strings.ToUpper(field), strings.ToUpper(field[:1]) + field[1:], strings.ReplaceAll(field, "s", "\u017f"), strings.ReplaceAll(field, "k", "\u212a")} {
						if other != field && object.AdditionalProperties.Schema == nil {
							bodies = append(bodies, insert(w.t, example, pointer, other, `"admin"`))
						}
					}
					bodies = append(bodies, insert(w.t, example, pointer, field, `"admin"`)) // twice
				}
				for _, body := range bodies {
					tried++
					c := call{method: method, path: a.fill(w.t, template), as: "admin-a", body: body}
					if op.Security != nil {
						c.as = ""
					}
					got := w.do(c)
					if op.OperationID == "validateTest" {
						assert.Equal(w.t, false, got.json["valid"], "%s: %s", body, got.text)
					} else {
						assert.Contains(w.t, []int{400, 422}, got.status, "%s %s with %s: %s", method, template, body, got.text)
					}
				}
			})
			assert.Equal(w.t, before, w.rowsOf(a), "%s did something", op.OperationID)
		})
	})
	require.Positive(t, tried)
}

// objectsOf calls fn with each object of a body and its schema, outermost first.
func objectsOf(schema *openapi3.Schema, value any, pointer string, fn func(pointer string, object *openapi3.Schema, value map[string]any)) {
	switch v := value.(type) {
	case map[string]any:
		if len(schema.Properties) == 0 && schema.AdditionalProperties.Schema == nil {
			return // anything at all: a JSON body to send, say
		}
		fn(pointer, schema, v)
		for name, inner := range v {
			if property := schema.Properties[name]; property != nil {
				objectsOf(property.Value, inner, pointer+"/"+name, fn)
			}
		}
	case []any:
		if schema.Items != nil {
			for i, inner := range v {
				objectsOf(schema.Items.Value, inner, pointer+"/"+strconv.Itoa(i), fn)
			}
		}
	}
}

// insert writes one more field into the object at pointer, even one that is there already, before all others and behind.
func insert(t *testing.T, body any, pointer, field, literal string) string {
	t.Helper()
	object := body
	var path []string
	if pointer != "" {
		object, path = at(body, pointer), strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	}
	raw, err := json.Marshal(object)
	require.NoError(t, err)
	name, err := json.Marshal(field)
	require.NoError(t, err)
	more := strings.TrimSuffix(string(raw), "}") + "," + string(name) + ":" + literal + "}"
	if string(raw) == "{}" {
		more = "{" + string(name) + ":" + literal + "}"
	}
	if len(path) == 0 {
		return more
	}
	whole, err := json.Marshal(with(body, path, mark))
	require.NoError(t, err)
	return strings.Replace(string(whole), `"`+mark+`"`, more, 1)
}
