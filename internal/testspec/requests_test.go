package testspec_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func request(method, rest string) string {
	return `{"variables":{"v":"x"},"steps":[{"request":{"method":"` + method + `","url":"https://a.example/",` + rest + `}}]}`
}

// TestValidate_refusesBodiesAndAuth: each has exactly the fault named, at that pointer below the request; "" means none.
func TestValidate_refusesBodiesAndAuth(t *testing.T) {
	t.Parallel()
	post := func(s string) string { return request("POST", `"body":`+s) }
	auth := func(s string) string { return request("GET", `"auth":`+s) }
	multipart := func(s string) string { return post(`{"multipart":[` + s + `]}`) }
	const jwt = `{"type":"jwt","algorithm":"HS256","key":"k"`
	const client = `{"type":"oauth2ClientCredentials","tokenUrl":"https://l.example/t","clientId":"i","clientSecret":"s"`
	for _, c := range []struct{ in, pointer, word string }{
		{post(`{"xml":"<a>{{v}}</a>"}`), "", ""},
		{post(`{"xml":"<{{v}} b='{{v}}'/>","contentType":"text/xml"}`), "", ""},
		{post(`{"xml":"{{v}}"}`), "", ""},
		{post(`{"xml":"<?xml version='1.0' encoding='ISO-8859-1'?><a/>"}`), "", ""},
		{post(`{"xml":"<a><b></a>"}`), "/body/xml", "well-formed XML near line 1"},
		{post(`{"xml":"just text"}`), "/body/xml", "no element"},
		{post(`{"xml":"<a>{{nope}}</a>"}`), "/body/xml", "{{nope}}"},
		{post(`{"base64":"aGk="}`), "", ""},
		{post(`{"base64":"aG\nk","contentType":"image/png"}`), "", ""},
		{post(`{"base64":"{{v}}"}`), "", ""},
		{post(`{"base64":"a$"}`), "/body/base64", "not base64"},
		{post(`{"base64":"aGk=","contentType":"a b/c"}`), "/body/contentType", "media type"},
		{post(`{"form":{"a":"b"},"contentType":"text/plain"}`), "/body/contentType", "text, xml or base64"},
		{post(`{"json":1,"xml":"<a/>"}`), "/body", "exactly one of json, text, xml, form, multipart, graphql, base64"},
		{multipart(`{"name":"a","value":"{{v}}"},{"name":"f","file":{"name":"n","text":"t"}},{"name":"g","file":{"name":"n","base64":"aGk=","contentType":"image/png"}}`), "", ""},
		{post(`{"multipart":[]}`), "/body/multipart", "at least one part"},
		{multipart(strings.TrimSuffix(strings.Repeat(`{"name":"a","value":""},`, limits.MaxParts+1), ",")), "/body/multipart", "100"},
		{multipart(`{"value":"x"}`), "/body/multipart/0/name", "has a name"},
		{multipart(`{"name":"a"}`), "/body/multipart/0", "exactly one of value and file"},
		{multipart(`{"name":"a","value":"x","file":{"name":"n","text":"t"}}`), "/body/multipart/0", "exactly one of value and file"},
		{multipart(`{"name":"a","file":{"name":"n"}}`), "/body/multipart/0/file", "exactly one of text and base64"},
		{multipart(`{"name":"a","file":{"name":"n","text":"a","base64":""}}`), "/body/multipart/0/file", "exactly one of text and base64"},
		{multipart(`{"name":"a","file":{"name":"n","base64":"$"}}`), "/body/multipart/0/file/base64", "not base64"},
		{multipart(`{"name":"a","file":{"name":"n\r\nX: y","text":"a"}}`), "/body/multipart/0/file/name", "control characters"},
		{multipart(`{"name":"a","contentType":"text/plain","file":{"name":"n","text":"a"}}`), "/body/multipart/0/contentType", "stands in file"},
		{multipart(`{"name":"a","value":"{{nope}}"}`), "/body/multipart/0/value", "{{nope}}"},
		{multipart(`{"name":"a","value":"x","more":1}`), "/body/multipart/0/more", "no such field"},
		{post(`{"graphql":{"query":"query Q { a }","variables":{"a":["{{v}}"]},"operationName":"Q"}}`), "", ""},
		{post(`{"graphql":{"query":" "}}`), "/body/graphql/query", "has a query"},
		{post(`{"graphql":{"query":"{a}","variables":[1]}}`), "/body/graphql/variables", "object"},
		{post(`{"graphql":{"query":"{a}","variables":{"a":"{{nope}}"}}}`), "/body/graphql/variables/a", "{{nope}}"},
		{request("PUT", `"body":{"graphql":{"query":"{a}"}}`), "/body/graphql", "POST or GET"},
		{request("GET", `"body":{"graphql":{"query":"mutation { a }"}}`), "/body/graphql/query", "by POST"},

		{auth(`{"type":"none"}`), "", ""},
		{auth(`{"type":"basic","username":"a","password":""}`), "", ""},
		{auth(`{"type":"bearer","token":"{{v}}"}`), "", ""},
		{auth(`{"type":"apiKey","in":"query","name":"k","value":"{{v}}"}`), "", ""},
		{auth(`{"type":"digest","username":"a:b","password":"p"}`), "", ""},
		{auth(`{"type":"awsSigV4","accessKeyId":"a","secretAccessKey":"s","region":"r","service":"s3","sessionToken":"{{v}}"}`), "", ""},
		{auth(client + `,"scope":"a","audience":"b","params":{"c":["d"]},"credentialsIn":"body"}`), "", ""},
		{auth(`{"type":"oauth2Password","tokenUrl":"{{v}}","username":"a","password":"b"}`), "", ""},
		{auth(jwt + `,"keyId":"1","claims":{"iss":"{{v}}","exp":"now+1h","nbf":"{{v}}","iat":null},"headers":{"typ":"x"},"in":"query","name":"t"}`), "", ""},
		{auth(`{}`), "/auth/type", "one of none, basic"},
		{auth(`{"type":"ntlm","username":"a"}`), "/auth/type", "one of none, basic"},
		{auth(`{"type":"none","token":"x"}`), "/auth/token", "it has no fields"},
		{auth(`{"type":"basic","username":"a","password":"p","token":"x"}`), "/auth/token", "type basic does not have this; it has username, password"},
		{auth(`{"type":"basic","username":"a"}`), "/auth/password", "type basic needs this"},
		{auth(`{"type":"basic","username":"a:{{v}}","password":"p"}`), "/auth/username", "colon"},
		{auth(`{"type":"bearer","token":""}`), "/auth/token", "not empty"},
		{auth(`{"type":"bearer","token":"{{nope}}"}`), "/auth/token", "{{nope}}"},
		{auth(`{"type":"bearer","token":` + quoted(strings.Repeat("a", limits.MaxCredential+1)) + `}`), "/auth/token", "16384"},
		{auth(`{"type":"bearer","token":"x","realm":"y"}`), "/auth/realm", "no such field"},
		{auth(`{"type":"apiKey","name":"k","value":"v"}`), "/auth/in", "needs this"},
		{auth(`{"type":"apiKey","in":"body","name":"k","value":"v"}`), "/auth/in", "header, query, cookie"},
		{auth(`{"type":"apiKey","in":"header","name":"Content-Length","value":"v"}`), "/auth/name", "connection"},
		{auth(`{"type":"apiKey","in":"cookie","name":"a b","value":"v"}`), "/auth/name", "cookie"},
		{auth(`{"type":"awsSigV4","accessKeyId":"a","secretAccessKey":"s","region":"r"}`), "/auth/service", "needs this"},
		{auth(client + `,"credentialsIn":"query"}`), "/auth/credentialsIn", "header, body"},
		{auth(client + `,"params":{"grant_type":"x"}}`), "/auth/params/grant_type", "other fields"},
		{auth(strings.Replace(client, "https://l", "ftp://l", 1) + `}`), "/auth/tokenUrl", "http://"},
		{auth(strings.Replace(client, "https://l.example/t", "{{nope}}", 1) + `}`), "/auth/tokenUrl", "{{nope}}"},
		{auth(`{"type":"oauth2Password","tokenUrl":"https://l.example/t","username":"a","password":"b","clientSecret":"s"}`), "/auth/clientId", "needs its id"},
		{auth(`{"type":"jwt","algorithm":"none","key":"k"}`), "/auth/algorithm", "HS256"},
		{auth(`{"type":"jwt","algorithm":"RS256","key":"k"}`), "/auth/key", "private key in PEM"},
		{auth(jwt + `,"in":"cookie"}`), "/auth/in", "header, query"},
		{auth(jwt + `,"in":"query"}`), "/auth/name", "parameter's name"},
		{auth(jwt + `,"in":"query","name":"t","prefix":"x"}`), "/auth/prefix", "Only a header"},
		{auth(jwt + `,"claims":[]}`), "/auth/claims", "object"},
		{auth(jwt + `,"claims":{"exp":"tomorrow"}}`), "/auth/claims/exp", "now+5m"},
		{auth(jwt + `,"claims":{"exp":"now+1h"},"expiresIn":"5m"}`), "/auth/expiresIn", "exp already"},
		{auth(jwt + `,"claims":{"a":{"b":"{{nope}}"}}}`), "/auth/claims/a/b", "{{nope}}"},
		{auth(jwt + `,"headers":{"alg":"none"}}`), "/auth/headers/alg", "algorithm"},
		{auth(jwt + `,"keyId":"1","headers":{"kid":"2"}}`), "/auth/headers/kid", "keyId"},
		{auth(jwt + `,"expiresIn":"25h"}`), "/auth/expiresIn", "24h"},
		{request("GET", `"headers":{"authorization":"x"},"auth":{"type":"bearer","token":"t"}`), "/headers/authorization", "auth of type bearer already"},
		{request("GET", `"headers":{"X-Key":"x"},"auth":{"type":"apiKey","in":"header","name":"x-key","value":"t"}`), "/headers/X-Key", "already"},
		{request("GET", `"query":{"k":"x"},"auth":{"type":"apiKey","in":"query","name":"k","value":"t"}`), "/query/k", "already"},
		{request("GET", `"headers":{"Authorization":"x"},"auth":{"type":"none"}`), "", ""},
	} {
		_, err := testspec.Read([]byte(c.in))
		if c.word == "" {
			if err != nil {
				t.Errorf("%s: refused: %v", c.in, fieldsOf(t, err))
			}
			continue
		}
		got := fieldsOf(t, err)
		detail := got["/steps/0/request"+c.pointer]
		if len(got) != 1 || !strings.Contains(detail, c.word) || !strings.HasSuffix(detail, ".") {
			t.Errorf("%s:\n got %q, want %q with %q", shortened(c.in), got, c.pointer, c.word)
		}
	}
}

func shortened(s string) string { return s[:min(len(s), 300)] }

// TestAuthTypes_eachFieldIsOfAType: the table names fields that there are, and every field belongs to a type.
func TestAuthTypes_eachFieldIsOfAType(t *testing.T) {
	t.Parallel()
	used := map[string]bool{"type": true}
	for _, a := range testspec.AuthTypes() {
		for _, f := range append(append([]string{}, a.Required...), a.Optional...) {
			used[f] = true
			_, err := testspec.Parse([]byte(request("GET", `"auth":{"type":"`+string(a.Type)+`","`+f+`":[]}`)))
			if got := fieldsOf(t, err)["/steps/0/request/auth/"+f]; strings.Contains(got, "no such field") {
				t.Errorf("%s: there is no field %s", a.Type, f)
			}
		}
	}
	_, err := testspec.Parse([]byte(request("GET", `"auth":{"nothing":1}`)))
	_, list, _ := strings.Cut(strings.TrimSuffix(fieldsOf(t, err)["/steps/0/request/auth/nothing"], "."), "here belong ")
	for _, f := range strings.Split(list, ", ") {
		if !used[f] {
			t.Errorf("the field %s belongs to no type", f)
		}
	}
}

func TestParseNumericDate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	for in, want := range map[string]int64{"now": 0, "now+5m": 300, "now-30s": -30, "now+1h30m": 5400} {
		if at, ok := testspec.ParseNumericDate(in, now); !ok || at.Unix()-now.Unix() != want {
			t.Errorf("%s: %v %v", in, at, ok)
		}
	}
	for _, in := range []string{"", "now+", "now 5m", "now+-5m", "then", "now+5", "5m"} {
		if _, ok := testspec.ParseNumericDate(in, now); ok {
			t.Errorf("%s is taken", in)
		}
	}
}

// TestAuthTypes_documents: docs/requests.md and the contract list each type with the fields of the table, in its order.
func TestAuthTypes_documents(t *testing.T) {
	t.Parallel()
	for path, row := range map[string]*regexp.Regexp{
		"../../docs/requests.md":     regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*?) \\| "),
		"../../openapi/openapi.yaml": regexp.MustCompile(`(?m)^        \| (\w+) \| (.*?) ?\|$`),
	} {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]string{}
		for _, m := range row.FindAllStringSubmatch(string(page), -1) {
			said := regexp.MustCompile(`\s*\([^)]*\)`).ReplaceAllString(m[2], "") // what stands in brackets explains
			rows[m[1]] = strings.ReplaceAll(strings.TrimSpace(said), "`", "")
		}
		for _, a := range testspec.AuthTypes() {
			fields := append([]string{}, a.Required...)
			for _, f := range a.Optional {
				fields = append(fields, f+"?")
			}
			if got, want := rows[string(a.Type)], strings.Join(fields, ", "); got != want {
				t.Errorf("%s says of %s: %q, want %q", path, a.Type, got, want)
			}
		}
	}
}
