package testspec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/testspec"
)

func judgeSchema(t *testing.T, schema, instance string, named map[string]json.RawMessage) testspec.Verdict {
	t.Helper()
	s := subjectOf(instance)
	s.Schemas = named
	return s.Judge(t.Context(), testspec.Assertion{Source: "jsonSchema", Operator: "matchesSchema", Expected: json.RawMessage(schema)})
}

// schemaCase is a schema with what follows it and what doesn't, each JSON, separated by a line.
type schemaCase struct{ schema, valid, invalid string }

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, " | ")
}

func runSchemaCases(t *testing.T, head string, cases []schemaCase) {
	t.Helper()
	for _, c := range cases {
		schema := c.schema
		if head != "" && strings.HasPrefix(schema, "{") {
			schema = strings.TrimSuffix(`{"$schema":"`+head+`",`+strings.TrimPrefix(schema, "{"), ",}")
			if !strings.HasSuffix(schema, "}") {
				schema += "}"
			}
		}
		spec := testspec.Spec{Steps: []testspec.Step{{
			Request:    testspec.Request{Method: "GET", URL: "http://a.example/"},
			Assertions: []testspec.Assertion{{Source: "jsonSchema", Operator: "matchesSchema", Expected: json.RawMessage(schema)}},
		}}}
		if faults := testspec.Validate(spec); faults != nil {
			t.Errorf("%s is refused: %v", schema, faults)
			continue
		}
		for _, instance := range lines(c.valid) {
			if v := judgeSchema(t, schema, instance, nil); !v.Pass {
				t.Errorf("%s: %s is valid, but: %s", schema, instance, v.Message)
			}
		}
		for _, instance := range lines(c.invalid) {
			v := judgeSchema(t, schema, instance, nil)
			if v.Pass {
				t.Errorf("%s: %s is not valid, but: %s", schema, instance, v.Message)
			}
			if !strings.Contains(v.Message, ", but ") || strings.Contains(v.Message, "could not be") {
				t.Errorf("%s: %s: %s", schema, instance, v.Message)
			}
		}
	}
}

// both are the keywords that 2020-12 and draft-07 have alike.
var both = []schemaCase{
	{`{}`, `1 | null | {"a":[1]} | "x"`, ``},
	{`{"type":"integer"}`, `1 | 1.0 | 1e3 | -0 | 98249283749234923498293171823948729348710298301928331`, `1.5 | "1" | null | [1] | true | {}`},
	{`{"type":"number"}`, `1 | 1.5 | 1e-3`, `"1" | null | false`},
	{`{"type":"string"}`, `"" | "1" | "é"`, `1 | null | ["a"]`},
	{`{"type":"object"}`, `{} | {"a":1}`, `[] | null | "a"`},
	{`{"type":"array"}`, `[] | [{}]`, `{} | null`},
	{`{"type":"boolean"}`, `true | false`, `0 | "true" | null`},
	{`{"type":"null"}`, `null`, `0 | false | "" | [] | {}`},
	{`{"type":["integer","string"]}`, `1 | "a"`, `1.5 | null | []`},
	{`{"type":["array","object","null"]}`, `[] | {} | null`, `1 | "a" | true`},
	{`{"enum":[1,"a",null,[1,{"b":2}],{"foo":false}]}`, `1 | 1.0 | "a" | null | [1,{"b":2.0}] | {"foo":false}`, `2 | "b" | true | [1,{"b":3}] | [] | {"foo":0} | {"foo":false,"x":1}`},
	{`{"enum":[0]}`, `0 | 0.0 | -0`, `false | null | "" | []`},
	{`{"enum":[false]}`, `false`, `0 | 0.0 | null`},
	{`{"enum":[[false]]}`, `[false]`, `[0] | [0.0] | [[false]]`},
	{`{"const":2}`, `2 | 2.0 | 20e-1`, `5 | "2" | [2]`},
	{`{"const":{"a":false}}`, `{"a":false}`, `{"a":0} | {"a":0.0} | {}`},
	{`{"const":{"a":1,"b":[2]}}`, `{"b":[2.0],"a":1.0}`, `{"a":1} | {"a":1,"b":[2],"c":3} | [1]`},
	{`{"const":null}`, `null`, `0 | false | {}`},
	{`{"const":-2.0}`, `-2 | -2.0`, `2 | -2.00001`},
	{`{"const":9007199254740992}`, `9007199254740992 | 9007199254740992.0`, `9007199254740991 | 9007199254740993`},
	{`{"multipleOf":2}`, `10 | 0 | "x" | -4`, `7`},
	{`{"multipleOf":1.5}`, `0 | 4.5`, `35`},
	{`{"multipleOf":0.01}`, `0.07 | 4.02 | 1.11 | 0.29 | 19.99 | 0 | 1e2`, `0.075 | 4.021`},
	{`{"multipleOf":0.0001}`, `0.0075`, `0.00751`},
	{`{"multipleOf":1e-8}`, `12391239123 | 1e-7`, `1e-9`},
	{`{"maximum":3}`, `2.6 | 3 | 3.0 | "x"`, `3.5 | 4 | 1e10`},
	{`{"maximum":300}`, `299.97 | 300`, `300.5`},
	{`{"exclusiveMaximum":3}`, `2.2`, `3 | 3.0 | 3.5`},
	{`{"minimum":1.1}`, `2.6 | 1.1 | "x" | null`, `0.6`},
	{`{"minimum":-2}`, `-1 | 0 | -2 | -2.0`, `-2.0001 | -3`},
	{`{"exclusiveMinimum":1.1}`, `1.2`, `1.1 | 0.6`},
	{`{"minimum":18446744073709551615}`, `18446744073709551615 | 18446744073709551616`, `18446744073709551614`},
	{`{"exclusiveMaximum":972783798187987123879878123.18878137}`, `972783798187987123879878123.188781369`, `972783798187987123879878123.18878137 | 972783798187987123879878123.188781371`},
	{`{"maxLength":2}`, `"f" | "fo" | 100 | "💩💩" | "éé"`, `"foo" | "💩💩💩"`},
	{`{"minLength":2}`, `"foo" | "fo" | 1 | "💩💩"`, `"f" | "💩" | ""`},
	{`{"maxLength":2.0,"minLength":1.0}`, `"f"`, `"foo" | ""`},
	{`{"pattern":"^a*$"}`, `"aaa" | "" | true | 123 | null | {} | []`, `"abc"`},
	{`{"pattern":"a+"}`, `"xxaayy"`, `"xyz"`},
	{`{"pattern":"^\\S+\\d{2}$"}`, `"ab12"`, `"a b1" | "ab1"`},
	{`{"pattern":"^\\u00e9\\x41\\cA\\.$"}`, `"éA\u0001."`, `"eA\u0001."`},
	{`{"pattern":"^.$"}`, `"a" | "💩"`, `"\n" | "\r" | "\u2028" | "ab"`},
	{`{"pattern":"^[\\s]$"}`, `" " | "\u00a0" | "\ufeff" | "\t" | "\u000b"`, `"a"`},
	{`{"pattern":"^\\p{Letter}+$"}`, `"Grüße"`, `"a1"`},
	{`{"pattern":"^[[:a]+$"}`, `"[:a["`, `"b"`},
	{`{"pattern":"^(?:\\/[^\\/]+)+$"}`, `"/a/b"`, `"a/"`},
	{`{"maxItems":2}`, `[1] | [1,2] | "foobar"`, `[1,2,3]`},
	{`{"minItems":1}`, `[1] | ""`, `[]`},
	{`{"maxItems":2.0,"minItems":1.0}`, `[1]`, `[1,2,3] | []`},
	{
		`{"uniqueItems":true}`, `[1,2] | [] | [1,true] | [0,false] | [{"a":1},{"a":2}] | [[1],[2]] | [{"a":1,"b":2},{"a":2,"b":1}] | ["1",1] | [[1],[true]] | {"a":1,"b":1}`,
		`[1,1] | [1.0,1.00,1] | ["a","b","a"] | [{"a":1,"b":2},{"b":2,"a":1}] | [[1],[1]] | [[{"a":[1]}],2,[{"a":[1.0]}]] | [null,null]`,
	},
	{`{"uniqueItems":false}`, `[1,1]`, ``},
	{`{"maxProperties":2}`, `{"a":1} | {"a":1,"b":2} | [1,2,3]`, `{"a":1,"b":2,"c":3}`},
	{`{"maxProperties":0}`, `{}`, `{"a":1}`},
	{`{"minProperties":1.0}`, `{"a":1} | []`, `{}`},
	{`{"required":["foo","bar"]}`, `{"foo":1,"bar":null} | [] | "" | 12 | null`, `{"foo":1} | {}`},
	{`{"required":["__proto__","constructor","a\nb","a\"b","a/b","~"]}`, `{"__proto__":1,"constructor":1,"a\nb":1,"a\"b":1,"a/b":1,"~":1}`, `{"constructor":1}`},
	{`{"required":[]}`, `{}`, ``},
	{`{"properties":{"foo":{"type":"integer"},"bar":{"type":"string"}}}`, `{"foo":1,"bar":"x"} | {} | {"quux":[]} | [] | 12`, `{"foo":"1","bar":"x"} | {"foo":[],"bar":{}}`},
	{`{"properties":{"foo":true,"bar":false}}`, `{} | {"foo":1}`, `{"bar":2} | {"foo":1,"bar":2}`},
	{
		`{"properties":{"foo":{"type":"array","maxItems":3},"bar":{"type":"array"}},"patternProperties":{"f.o":{"minItems":2}},"additionalProperties":{"type":"integer"}}`,
		`{"foo":[1,2]} | {"fxo":[1,2]} | {"bar":[]} | {"quux":3}`, `{"foo":[1,2,3,4]} | {"foo":[]} | {"fxo":[]} | {"quux":"foo"}`,
	},
	{`{"properties":{"foo":{"type":"null"}}}`, `{"foo":null} | {}`, `{"foo":1}`},
	{`{"patternProperties":{"f.*o":{"type":"integer"}}}`, `{"foo":1} | {"foo":1,"foooooo":2} | {} | "foo" | []`, `{"foo":"bar","fooooo":2} | {"foo":"bar","foooooo":"baz"}`},
	{`{"patternProperties":{"a*":{"type":"integer"},"aaa*":{"maximum":20}}}`, `{"a":21} | {"aaaa":18} | {"a":21,"aaaa":18}`, `{"a":"bar"} | {"aaaa":31} | {"aaa":"foo","aaaa":31}`},
	{`{"patternProperties":{"[0-9]{2,}":{"type":"boolean"},"X_":{"type":"string"}}}`, `{"a31b":true} | {"a_x_3":3} | {"answer 1":"42"}`, `{"a31b":null} | {"a_X_3":3}`},
	{`{"patternProperties":{"f.*":true,"b.*":false}}`, `{"foo":1} | {}`, `{"bar":2} | {"foo":1,"bar":2} | {"foobar":1}`},
	{`{"properties":{"foo":{},"bar":{}},"patternProperties":{"^v":{}},"additionalProperties":false}`, `{"foo":1} | {"foo":1,"vroom":2} | [1,2,3] | "foobarbaz"`, `{"foo":1,"bar":2,"quux":"boom"}`},
	{`{"patternProperties":{"^á":{}},"additionalProperties":false}`, `{"ármányos":2}`, `{"élmény":2}`},
	{`{"additionalProperties":{"type":"boolean"}}`, `{"foo":true}`, `{"foo":1}`},
	{`{"allOf":[{"properties":{"foo":{}}}],"additionalProperties":{"type":"boolean"}}`, `{"bar":true}`, `{"foo":1,"bar":true}`},
	{`{"propertyNames":{"maxLength":3}}`, `{"f":{},"foo":{}} | {} | [1] | "foobar"`, `{"foo":{},"foobar":{}}`},
	{`{"propertyNames":{"pattern":"^a+$"}}`, `{"a":{},"aa":{}} | {}`, `{"aaA":{}}`},
	{`{"propertyNames":false}`, `{}`, `{"foo":1}`},
	{`{"propertyNames":{"const":"foo"}}`, `{"foo":1}`, `{"bar":1}`},
	{`{"contains":{"minimum":5}}`, `[3,4,5] | [5] | {} | 42`, `[2,3,4] | []`},
	{`{"contains":{"const":5}}`, `[3,5] | [5,5.0]`, `[1,2]`},
	{`{"contains":true}`, `["foo"]`, `[]`},
	{`{"contains":false}`, `"contains does not apply"`, `["foo"] | []`},
	{`{"contains":{"type":"null"}}`, `[null]`, `[1]`},
	{`{"allOf":[{"properties":{"bar":{"type":"integer"}},"required":["bar"]},{"properties":{"foo":{"type":"string"}},"required":["foo"]}]}`, `{"foo":"baz","bar":2}`, `{"foo":"baz"} | {"bar":2} | {"foo":"baz","bar":"quux"}`},
	{`{"allOf":[true,false]}`, ``, `"foo"`},
	{`{"allOf":[{}]}`, `1`, ``},
	{`{"anyOf":[{"type":"integer"},{"minimum":2}]}`, `1 | 2.5 | 3`, `1.5`},
	{`{"anyOf":[true,false]}`, `"foo"`, ``},
	{`{"anyOf":[false,false]}`, ``, `"foo"`},
	{`{"oneOf":[{"type":"integer"},{"minimum":2}]}`, `1 | 2.5`, `3 | 1.5`},
	{`{"oneOf":[true,true,false]}`, ``, `1`},
	{`{"oneOf":[{"required":["foo","bar"]},{"required":["foo","baz"]}]}`, `{"foo":1,"bar":2} | {"foo":1,"baz":3}`, `{"bar":2} | {"foo":1,"bar":2,"baz":3}`},
	{`{"not":{"type":"integer"}}`, `"foo" | 1.5`, `1`},
	{`{"not":{"type":["integer","boolean"]}}`, `"foo"`, `1 | true`},
	{`{"properties":{"foo":{"not":{}}}}`, `{"bar":1}`, `{"foo":1}`},
	{`{"not":{"not":{}}}`, `1`, ``},
	{`{"if":{"exclusiveMaximum":0},"then":{"minimum":-10},"else":{"multipleOf":2}}`, `-1 | 4`, `-100 | 3`},
	{`{"if":{"const":0}}`, `0 | "hello"`, ``},
	{`{"then":{"const":0}}`, `0 | "hello"`, ``},
	{`{"else":{"const":0}}`, `"hello"`, ``},
	{`{"if":true,"then":{"const":"then"},"else":{"const":"else"}}`, `"then"`, `"else"`},
	{`{"if":false,"then":{"const":"then"},"else":{"const":"else"}}`, `"else"`, `"then"`},
	{`{"allOf":[{"if":{"exclusiveMaximum":0}},{"then":{"minimum":-10}},{"else":{"multipleOf":2}}]}`, `-100 | 3`, ``},
	{`{"properties":{"foo":{"$ref":"#"}},"additionalProperties":false}`, `{"foo":false} | {"foo":{"foo":false}}`, `{"bar":false} | {"foo":{"bar":false}}`},
	{`{"properties":{"foo":{"type":"integer"},"bar":{"$ref":"#/properties/foo"}}}`, `{"bar":3}`, `{"bar":true}`},
	{
		`{"definitions":{"til~d":{"type":"integer"},"sla/sh":{"type":"integer"},"perc%ent":{"type":"integer"}},"properties":{"t":{"$ref":"#/definitions/til~0d"},"s":{"$ref":"#/definitions/sla~1sh"},"p":{"$ref":"#/definitions/perc%25ent"}}}`,
		`{"s":123} | {"t":1,"p":1}`, `{"s":"aoeu"} | {"t":"aoeu"} | {"p":"aoeu"}`,
	},
	{`{"properties":{"$ref":{"type":"string"}}}`, `{"$ref":"a"}`, `{"$ref":2}`},
	{`{"format":"email"}`, `"not an address" | 1 | "a@b.example"`, ``},
	{`{"format":"regex"}`, `"(" | "^a$"`, ``},
	{`{"format":"ipv4"}`, `"no" | null`, ``},
	{`{"format":"whatever"}`, `"x"`, ``},
	{`{"contentMediaType":"application/json","contentEncoding":"base64"}`, `"{:}" | "eyJmb28iOi%iYmFyIn0K" | 100`, ``},
	{`{"default":[],"properties":{"a":{"type":"integer","default":"x"}},"title":"t","description":"d","$comment":"c","examples":[1],"readOnly":true}`, `{"a":1} | {}`, `{"a":"x"}`},
	{`{"unknown":{"type":"string"},"x-y":1}`, `1`, ``},
}

func TestMatchesSchema_2020(t *testing.T) {
	runSchemaCases(t, "", both)
	runSchemaCases(t, "https://json-schema.org/draft/2020-12/schema", both)
	runSchemaCases(t, "", []schemaCase{
		{`true`, `1 | {} | null`, ``},
		{`false`, ``, `1 | {} | null`},
		{`{"prefixItems":[{"type":"integer"},{"type":"string"}]}`, `[1,"foo"] | [1] | [1,"foo",true] | [] | {"0":"x"}`, `["foo",1]`},
		{`{"prefixItems":[true,false]}`, `[1] | []`, `[1,"foo"]`},
		{`{"items":{"type":"integer"}}`, `[1,2,3] | {"foo":"bar"} | []`, `[1,"x"]`},
		{`{"items":true}`, `[1,"foo",true] | []`, ``},
		{`{"items":false}`, `[]`, `[1]`},
		{`{"prefixItems":[{},{},{}],"items":false}`, `[] | [1] | [1,2,3]`, `[1,2,3,4]`},
		{`{"prefixItems":[{"type":"string"}],"items":{"type":"integer"}}`, `["x",2,3]`, `["x","y"]`},
		{`{"allOf":[{"prefixItems":[{"minimum":3}]}],"items":{"minimum":5}}`, `[5,5]`, `[3,5]`},
		{`{"contains":{"const":1},"minContains":2}`, `[1,1] | [1,2,1]`, `[] | [1] | [2]`},
		{`{"contains":{"const":1},"maxContains":1}`, `[1] | [1,2]`, `[] | [1,1] | [1,2,1]`},
		{`{"contains":{"const":1},"minContains":1,"maxContains":3}`, `[1,1]`, `[] | [1,1,1,1]`},
		{`{"contains":{"const":1},"minContains":0}`, `[] | [2]`, ``},
		{`{"contains":{"const":1},"minContains":0,"maxContains":1}`, `[] | [1]`, `[1,1]`},
		{`{"contains":{"const":1},"minContains":2.0}`, `[1,1]`, `[1]`},
		{`{"minContains":1,"maxContains":1}`, `[] | [1,2]`, ``},
		{`{"dependentRequired":{"quux":["foo","bar"]}}`, `{} | {"foo":1} | {"foo":1,"bar":2,"quux":3} | ["quux"]`, `{"foo":1,"quux":2} | {"quux":1}`},
		{`{"dependentRequired":{"bar":[]}}`, `{"bar":2} | {}`, ``},
		{`{"dependentSchemas":{"bar":{"properties":{"foo":{"type":"integer"},"bar":{"type":"integer"}}}}}`, `{"foo":1,"bar":2} | {"foo":"quux"} | ["bar"]`, `{"foo":"quux","bar":2} | {"foo":2,"bar":"quux"}`},
		{`{"dependentSchemas":{"foo":true,"bar":false}}`, `{"foo":1} | {}`, `{"bar":2} | {"foo":1,"bar":2}`},
		{`{"properties":{"foo":{"type":"string"}},"unevaluatedProperties":false}`, `{"foo":"x"} | {}`, `{"foo":"x","bar":1}`},
		{`{"unevaluatedProperties":{"type":"string","minLength":3}}`, `{} | {"foo":"foo"}`, `{"foo":"fo"} | {"foo":1}`},
		{`{"properties":{"foo":true},"allOf":[{"properties":{"bar":true}}],"unevaluatedProperties":false}`, `{"foo":1,"bar":2}`, `{"foo":1,"baz":2}`},
		{
			`{"properties":{"foo":true},"anyOf":[{"properties":{"bar":{"const":"bar"}},"required":["bar"]},{"properties":{"baz":{"const":"baz"}},"required":["baz"]}],"unevaluatedProperties":false}`,
			`{"foo":1,"bar":"bar"} | {"bar":"bar","baz":"baz"}`, `{"foo":1,"bar":"bar","baz":"not-baz"}`,
		},
		{`{"oneOf":[{"properties":{"bar":{"const":"bar"}},"required":["bar"]},{"properties":{"baz":{"const":"baz"}},"required":["baz"]}],"unevaluatedProperties":false}`, `{"bar":"bar"}`, `{"bar":"bar","quux":1}`},
		{`{"not":{"not":{"properties":{"bar":{"const":"bar"}},"required":["bar"]}},"unevaluatedProperties":false}`, ``, `{} | {"bar":"bar"}`},
		{
			`{"if":{"properties":{"foo":{"const":"then"}},"required":["foo"]},"then":{"properties":{"bar":true},"required":["bar"]},"else":{"properties":{"baz":true},"required":["baz"]},"unevaluatedProperties":false}`,
			`{"foo":"then","bar":1} | {"baz":1}`, `{"foo":"then","bar":1,"baz":2} | {"foo":"else","baz":1}`,
		},
		{`{"dependentSchemas":{"foo":{"properties":{"bar":true}}},"properties":{"foo":true},"unevaluatedProperties":false}`, `{"foo":1,"bar":2}`, `{"bar":2}`},
		{`{"patternProperties":{"^f":true},"additionalProperties":true,"unevaluatedProperties":false}`, `{"x":1}`, ``},
		{`{"$ref":"#/$defs/b","properties":{"foo":true},"unevaluatedProperties":false,"$defs":{"b":{"properties":{"bar":true}}}}`, `{"foo":1,"bar":2}`, `{"foo":1,"baz":2}`},
		{`{"allOf":[{"properties":{"foo":true},"unevaluatedProperties":true}],"unevaluatedProperties":false}`, `{"foo":1,"bar":2}`, ``},
		{`{"allOf":[{"properties":{"foo":true}},{"unevaluatedProperties":false}]}`, `{}`, `{"foo":1}`},
		{`{"prefixItems":[{"type":"string"}],"unevaluatedItems":false}`, `["foo"] | []`, `["foo","bar"]`},
		{`{"unevaluatedItems":{"type":"string"}}`, `[] | ["foo"]`, `[42]`},
		{`{"items":{"type":"string"},"unevaluatedItems":false}`, `["foo","bar"]`, `[1]`},
		{`{"allOf":[{"prefixItems":[true,true]}],"unevaluatedItems":false}`, `[1,2]`, `[1,2,3]`},
		{`{"prefixItems":[true],"contains":{"type":"string"},"unevaluatedItems":false}`, `[1,"foo"]`, `[1,2] | [1,2,"foo"]`},
		{`{"allOf":[{"contains":{"multipleOf":2}},{"contains":{"multipleOf":3}}],"unevaluatedItems":{"multipleOf":5}}`, `[2,3,4,5,6]`, `[2,3,4,7,8]`},
		{`{"if":{"prefixItems":[{"const":"foo"}]},"then":{"prefixItems":[true,{"const":"bar"}]},"unevaluatedItems":false}`, `["foo","bar"] | []`, `["foo","bar",1] | ["x"]`},
		{
			`{"$defs":{"node":{"type":"object","properties":{"value":{"type":"number"},"next":{"$ref":"#/$defs/node"}},"required":["value"]}},"$ref":"#/$defs/node"}`,
			`{"value":1,"next":{"value":2,"next":{"value":3}}}`, `{"value":1,"next":{"value":"x"}} | {"value":1,"next":{"next":{"value":1}}}`,
		},
		{`{"$ref":"#foo","$defs":{"A":{"$anchor":"foo","type":"integer"}}}`, `1`, `"a"`},
		{`{"$id":"http://x.example/root","$ref":"http://x.example/nested.json#foo","$defs":{"A":{"$id":"nested.json","$defs":{"B":{"$anchor":"foo","type":"integer"}}}}}`, `1`, `"a"`},
		{`{"$id":"http://x.example/base","properties":{"a":{"$ref":"item"}},"$defs":{"i":{"$id":"http://x.example/item","type":"integer"}}}`, `{"a":1}`, `{"a":"x"}`},
		{`{"$ref":"#/$defs/a","maxItems":2,"$defs":{"a":{"type":"array"}}}`, `[1,2]`, `[1,2,3] | "string"`},
		{`{"$id":"https://t.example/root","type":"array","items":{"$dynamicRef":"#items"},"$defs":{"foo":{"$dynamicAnchor":"items","type":"string"}}}`, `["foo","bar"]`, `["foo",42]`},
		{`{"$id":"https://t.example/typical","$ref":"list","$defs":{"foo":{"$dynamicAnchor":"items","type":"string"},"list":{"$id":"list","type":"array","items":{"$dynamicRef":"#items"},"$defs":{"items":{"$dynamicAnchor":"items"}}}}}`, `["foo"]`, `["foo",42]`},
		{
			`{"$id":"https://t.example/strict","$dynamicAnchor":"node","$ref":"tree","unevaluatedProperties":false,"$defs":{"tree":{"$id":"tree","$dynamicAnchor":"node","type":"object","properties":{"data":true,"children":{"type":"array","items":{"$dynamicRef":"#node"}}}}}}`,
			`{"children":[{"data":1}]}`, `{"children":[{"daat":1}]}`,
		},
		{`{"contentMediaType":"application/json","contentEncoding":"base64","contentSchema":{"type":"object"}}`, `"IA==" | "x"`, ``},
		{`{"$defs":{"a":{"type":"integer"}},"properties":{"definitions":{"$ref":"#/$defs/a"}}}`, `{"definitions":1}`, `{"definitions":"x"}`},
		{`{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, `{"minLength":1} | true | {"$defs":{"foo":{"type":"integer"}}}`, `{"minLength":-1} | 1 | {"$defs":{"foo":{"type":1}}}`},
	})
}

func TestMatchesSchema_draft07(t *testing.T) {
	const draft = "http://json-schema.org/draft-07/schema#"
	runSchemaCases(t, draft, both)
	runSchemaCases(t, draft, []schemaCase{
		{`{"items":{"type":"integer"}}`, `[1,2,3] | {"foo":"bar"} | []`, `[1,"x"]`},
		{`{"items":[{"type":"integer"},{"type":"string"}]}`, `[1,"foo"] | [1] | [1,"foo",true] | []`, `["foo",1]`},
		{`{"items":[true,false]}`, `[1] | []`, `[1,"foo"]`},
		{`{"items":[{}],"additionalItems":{"type":"integer"}}`, `[null,2,3,4]`, `[null,2,3,"foo"]`},
		{`{"items":[{},{},{}],"additionalItems":false}`, `[] | [1,2,3]`, `[1,2,3,4]`},
		{`{"items":{},"additionalItems":false}`, `[1,2,3,4,5]`, ``},
		{`{"additionalItems":false}`, `[1,2]`, ``},
		{`{"dependencies":{"bar":["foo"],"quux":["foo","bar"]}}`, `{} | {"foo":1} | {"foo":1,"bar":2}`, `{"bar":2} | {"foo":1,"quux":2}`},
		{`{"dependencies":{"bar":{"properties":{"foo":{"type":"integer"}}}}}`, `{"foo":1,"bar":2} | {"foo":"quux"}`, `{"foo":"quux","bar":2}`},
		{`{"dependencies":{"foo":true,"bar":false}}`, `{"foo":1} | {}`, `{"bar":2}`},
		{`{"definitions":{"r":{"type":"array"}},"properties":{"foo":{"$ref":"#/definitions/r","maxItems":2}}}`, `{"foo":[]} | {"foo":[1,2,3]}`, `{"foo":"string"}`},
		{`{"$ref":"#foo","definitions":{"A":{"$id":"#foo","type":"integer"}}}`, `1`, `"a"`},
		{`{"$id":"http://x.example/root.json","definitions":{"A":{"$id":"nested.json","definitions":{"B":{"$id":"#foo","type":"integer"}}}},"allOf":[{"$ref":"http://x.example/nested.json#foo"}]}`, `1`, `"a"`},
		{`{"minContains":2,"contains":{"const":1},"dependentRequired":{"a":["b"]},"unevaluatedProperties":false}`, `[1] | {"a":1}`, `[2]`},
		{`{"$ref":"http://json-schema.org/draft-07/schema#"}`, `{"minLength":1}`, `{"minLength":-1}`},
	})
}

// TestMatchesSchema_carried: a reference reaches what the test carries, and nothing else.
func TestMatchesSchema_carried(t *testing.T) {
	t.Parallel()
	named := map[string]json.RawMessage{
		"pet":                            json.RawMessage(`{"type":"object","properties":{"owner":{"$ref":"person"},"friend":{"$ref":"schemas/pet"},"at":{"$ref":"/schemas/place#/$defs/point"}},"required":["owner"]}`),
		"person":                         json.RawMessage(`{"$id":"https://people.example/person","type":"string","minLength":1}`),
		"place":                          json.RawMessage(`{"$defs":{"point":{"type":"array","minItems":2,"maxItems":2}}}`),
		"http://remote.example/int.json": json.RawMessage(`{"type":"integer"}`),
		"http://remote.example/meta":     json.RawMessage(`{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"http://remote.example/meta","$vocabulary":{"https://json-schema.org/draft/2020-12/vocab/core":true,"https://json-schema.org/draft/2020-12/vocab/applicator":true},"$dynamicAnchor":"meta","allOf":[{"$ref":"https://json-schema.org/draft/2020-12/meta/core"},{"$ref":"https://json-schema.org/draft/2020-12/meta/applicator"}]}`),
	}
	spec := testspec.Spec{Schemas: named, Steps: []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/"}}}}
	if faults := testspec.Validate(spec); faults != nil {
		t.Fatal(faults)
	}
	for schema, c := range map[string][2]string{
		`{"$ref":"schemas/pet"}`:                                        {`{"owner":"a","friend":{"owner":"b"},"at":[1,2]}`, `{"owner":"a","friend":{"owner":""}}`},
		`{"$ref":"/schemas/pet"}`:                                       {`{"owner":"a"}`, `{}`},
		`{"items":{"$ref":"schemas/place#/$defs/point"}}`:               {`[[1,2]]`, `[[1]]`},
		`{"$ref":"https://people.example/person"}`:                      {`"x"`, `""`},
		`{"$ref":"http://remote.example/int.json"}`:                     {`1`, `"x"`},
		`{"$id":"http://remote.example/","$ref":"int.json"}`:            {`1`, `"x"`},
		`{"$schema":"http://remote.example/meta","minimum":5,"not":{}}`: {``, `1`},
		`{"$schema":"http://remote.example/meta","minimum":5}`:          {`1`, ``},
		`"{\"type\": \"integer\", \"const\": 1}"`:                       {`1`, `2`},
	} {
		if c[0] != "" {
			if v := judgeSchema(t, schema, c[0], named); !v.Pass {
				t.Errorf("%s: %s", schema, v.Message)
			}
		}
		if c[1] != "" {
			if v := judgeSchema(t, schema, c[1], named); v.Pass || strings.Contains(v.Message, "is wrong") {
				t.Errorf("%s: %s", schema, v.Message)
			}
		}
	}
}

// TestAttackSchema_readsNothing: no reference makes the server open a file or an address.
func TestAttackSchema_readsNothing(t *testing.T) {
	t.Parallel()
	named := map[string]json.RawMessage{"a": json.RawMessage(`{"$id":"https://people.example/person"}`)}
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(`{"type":"integer"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"file:///etc/passwd", "file://" + file, file, "http://127.0.0.1:1/x", "schemas/nope", "https://people.example/other", "/etc/passwd", "../../x", "http://json-schema.org/draft-99/schema"} {
		v := judgeSchema(t, fmt.Sprintf(`{"$ref":%q}`, foreign), `1`, named)
		if v.Pass || !strings.Contains(v.Message, "carries no schema") {
			t.Errorf("%s: %s", foreign, v.Message)
		}
	}
}

// TestMatchesSchema_refused: what is no schema is refused when the test is saved, with the place in it.
func TestMatchesSchema_refused(t *testing.T) {
	t.Parallel()
	const at = "/steps/0/assertions/0/expected"
	nested := `{"type":"integer"}`
	for range 24 {
		nested = `{"allOf":[` + nested + `,` + `{"$ref":"#/$defs/x"}` + `]}`
	}
	double := `"s0":{"type":"integer"}`
	for i := range 24 {
		double += fmt.Sprintf(`,"s%d":{"allOf":[{"$ref":"#/$defs/s%d"},{"$ref":"#/$defs/s%d"}]}`, i+1, i, i)
	}
	for schema, want := range map[string][2]string{
		`1`:                {at, "an object, true or false, not a number"},
		`[]`:               {at, "not a list"},
		`"x"`:              {at, "not the JSON of a schema"},
		`{"type":"strin"}`: {at + "/type", "a type is one of array"},
		`{"properties":{"a/b":{"minLength":-1}}}`: {at + "/properties/a~1b/minLength", "minimum"},
		`{"items":[{}]}`:                                                         {at + "/items", ""},
		`{"required":"a"}`:                                                       {at + "/required", "array"},
		`{"pattern":"(?=a)b"}`:                                                   {at + "/pattern", "RE2"},
		`{"pattern":"(a)\\1"}`:                                                   {at + "/pattern", "RE2"},
		`{"patternProperties":{"(":{}}}`:                                         {at + "/patternProperties", "RE2"},
		`{"properties":{"a":{"$ref":"#/$defs/x"}}}`:                              {at, "there is nothing at #/$defs/x"},
		`{"$ref":"#x"}`:                                                          {at, "no anchor"},
		`{"$ref":"http://elsewhere.example/"}`:                                   {at, "carries no schema http://elsewhere.example/"},
		`{"$schema":"http://elsewhere.example/"}`:                                {at, "carries no schema"},
		`{"$schema":"http://json-schema.org/draft-03/schema#"}`:                  {at, "carries no schema"},
		`{"$defs":{` + double + `},"$ref":"#/$defs/s24"}`:                        {at, "more than 5000 subschemas apply"},
		`{"enum":[` + strings.TrimSuffix(strings.Repeat("1,", 6000), ",") + `]}`: {at, "5000 JSON values"},
		`{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"minimum":1},`, 600), ",") + `]}`: {at, "500 subschemas"},
		`{"const":"` + strings.Repeat("x", limits.MaxSchemaBytes) + `"}`:                     {at, "bytes"},
		`{"$defs":{"a":{"$id":"http://x.example/a"},"b":{"$id":"http://x.example/a"}}}`:      {at + "/$defs/", "two schemas have the $id"},
		`{"type":1}`:                   {at + "/type", "a type is one of"},
		`{"minimum":"5"}`:              {at + "/minimum", "it is a string, not a number"},
		`{"$id":"#/x"}`:                {at + "/$id", ""},
		`{"$anchor":"a b"}`:            {at + "/$anchor", ""},
		`{"$defs":{"a":{"type":"x"}}}`: {at + "/$defs/a/type", ""},
	} {
		spec := testspec.Spec{Steps: []testspec.Step{{
			Request:    testspec.Request{Method: "GET", URL: "http://a.example/"},
			Assertions: []testspec.Assertion{{Source: "jsonSchema", Operator: "matchesSchema", Expected: json.RawMessage(schema)}},
		}}}
		started := time.Now()
		faults := testspec.Validate(spec)
		if took := time.Since(started); took > 3*time.Second {
			t.Errorf("%.60s took %s", schema, took)
		}
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Pointer, want[0]) || !strings.Contains(strings.ToLower(faults[0].Detail), strings.ToLower(want[1])) {
			t.Errorf("%.100s: %+v, want %v", schema, faults, want)
		}
	}
	faults := testspec.Validate(testspec.Spec{
		Schemas: map[string]json.RawMessage{
			"ok": json.RawMessage(`{"$ref":"bad"}`), "bad": json.RawMessage(`{"properties":{"a":{"type":"x"}}}`), "a b": json.RawMessage(`{}`),
		},
		Steps: []testspec.Step{{Request: testspec.Request{Method: "GET", URL: "http://a.example/"}}},
	})
	if len(faults) != 1 || faults[0].Pointer != "/schemas/a b" {
		t.Errorf("%+v", faults)
	}
	faults = testspec.Validate(testspec.Spec{
		Schemas: map[string]json.RawMessage{"ok": json.RawMessage(`{"$ref":"bad"}`), "bad": json.RawMessage(`{"properties":{"a":{"type":"x"}}}`)},
		Steps: []testspec.Step{{
			Request:    testspec.Request{Method: "GET", URL: "http://a.example/"},
			Assertions: []testspec.Assertion{{Source: "jsonSchema", Operator: "matchesSchema", Expected: json.RawMessage(`{"$ref":"schemas/ok"}`)}},
		}},
	})
	if len(faults) != 2 || faults[0].Pointer != "/schemas/bad/properties/a/type" || faults[1].Pointer != at || !strings.Contains(faults[1].Detail, "The schema bad at /properties/a/type is wrong") {
		t.Errorf("%+v", faults)
	}
}

// TestAttackSchema_isBounded: no schema over no body takes long or much.
func TestAttackSchema_isBounded(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
	wide := "[" + strings.TrimSuffix(strings.Repeat(`"x",`, 200_000), ",") + "]"
	many := strings.TrimSuffix(strings.Repeat(`{"items":{"type":"integer"}},`, 100), ",")
	for name, c := range map[string][2]string{
		"two ways down":        {`{"$defs":{"x":{"allOf":[{"properties":{"a":{"$ref":"#/$defs/x"}}},{"properties":{"a":{"$ref":"#/$defs/x"}}}]}},"$ref":"#/$defs/x"}`, deep},
		"two patterns down":    {`{"not":{"$ref":"#/$defs/x"},"$defs":{"x":{"type":"object","patternProperties":{"a":{"$ref":"#/$defs/x"},"^a":{"$ref":"#/$defs/x"}}}}}`, deep},
		"two ways, draft-07":   {`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"x":{"oneOf":[{"properties":{"a":{"$ref":"#/definitions/x"}}},{"additionalProperties":{"$ref":"#/definitions/x"}}]}},"allOf":[{"$ref":"#/definitions/x"}]}`, deep},
		"many over a long one": {`{"anyOf":[` + many + `]}`, wide},
		"many that fail":       {`{"allOf":[` + many + `]}`, wide},
		"unique many times":    {`{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"uniqueItems":true},`, 100), ",") + `]}`, wide},
		"names":                {`{"propertyNames":{"$ref":"#"}}`, deep},
		"a long number":        {`{"multipleOf":0.1}`, `1e1000000000`},
		"a longer number":      {`{"maximum":1}`, strings.Repeat("9", 1<<20)},
		"long text":            {`{"pattern":"(x*)*y"}`, `"` + strings.Repeat("x", 1<<20) + `"`},
	} {
		started := time.Now()
		v := judgeSchema(t, c[0], c[1], nil)
		if took := time.Since(started); took > limits.SchemaTime+3*time.Second {
			t.Errorf("%s took %s", name, took)
		}
		if v.Pass && name != "names" {
			t.Errorf("%s passes: %s", name, v.Message)
		}
	}
	// What people have is judged: 15 000 rows by a schema of some depth.
	rows := "[" + strings.TrimSuffix(strings.Repeat(`{"id":1,"n":"a"},`, 15_000), ",") + "]"
	if v := judgeSchema(t, `{"items":{"type":"object","properties":{"id":{"type":"integer"},"n":{"type":"string","minLength":1}},"required":["id","n"],"additionalProperties":false}}`, rows, nil); !v.Pass {
		t.Error(v.Message)
	}
}

// TestAttackSchema_stepsAreCounted: two ways down at each of 20 levels are a million, whatever the time.
func TestAttackSchema_stepsAreCounted(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20)
	schema := `{"$defs":{"x":{"allOf":[{"properties":{"a":{"$ref":"#/$defs/x"}}},{"properties":{"a":{"$ref":"#/$defs/x"}}}]}},"$ref":"#/$defs/x"}`
	if v := judgeSchema(t, schema, deep, nil); v.Pass || !strings.Contains(v.Message, "takes too") {
		t.Error(v.Message)
	}
}

// TestMatchesSchema_message: the sentence names the place and the keyword.
func TestMatchesSchema_message(t *testing.T) {
	t.Parallel()
	schema := `{"type":"object","properties":{"items":{"items":{"properties":{"id":{"type":"integer"},"tag":{"enum":["a","b"]}},"required":["id"]}},"n":{"minimum":5}},"additionalProperties":false}`
	v := judgeSchema(t, schema, `{"items":[{"id":1},{"id":"x","tag":"c"},{}],"n":1,"extra":1}`, nil)
	const want = `, but it: it may not have extra (additionalProperties); /items/1/id: it is a string, not an integer (type); /items/1/tag: it is none of the allowed values (enum); and 2 more.`
	if v.Pass || !strings.HasSuffix(v.Message, want) {
		t.Errorf("%s", v.Message)
	}
	v = judgeSchema(t, `{"type":"integer"}`, `1`, nil)
	if v.Message != `Expected the body to match the schema {"type":"integer"}, and it is 1.` {
		t.Errorf("%s", v.Message)
	}
	for schema, want := range map[string]string{
		`{"multipleOf":0.01}`: "it is 0.075, which is not a multiple of 0.01 (multipleOf).",
		`{"minimum":1}`:       "it is 0.075, which is less than 1 (minimum).", `{"exclusiveMaximum":0.075}`: "it is 0.075, which is not less than 0.075 (exclusiveMaximum).",
	} {
		if v := judgeSchema(t, schema, `0.075`, nil); v.Pass || !strings.HasSuffix(v.Message, want) {
			t.Errorf("%s: %s", schema, v.Message)
		}
	}
	if v := judgeSchema(t, `{"maxItems":1}`, `[1,2]`, nil); !strings.HasSuffix(v.Message, "the number of its members is 2, and at most 1 is allowed (maxItems).") {
		t.Errorf("%s", v.Message)
	}
	s := subjectOf(`{"a":"x"}`)
	not := testspec.Assertion{Source: "jsonpath", Property: "$.a", Operator: "matchesSchema", Not: true, Expected: json.RawMessage(`{"type":"string"}`)}
	if v := s.Judge(t.Context(), not); v.Pass {
		t.Errorf("%s", v.Message)
	}
	not.Expected = json.RawMessage(`{"type":"integer"}`)
	if v := s.Judge(t.Context(), not); !v.Pass {
		t.Errorf("%s", v.Message)
	}
	if v := judgeSchema(t, `{"type":"integer"}`, `not json`, nil); v.Pass || !strings.Contains(v.Message, "the body is not JSON") {
		t.Errorf("%s", v.Message)
	}
}

// TestMatchesSchema_together: one schema judges in many goroutines at once.
func TestMatchesSchema_together(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for range 50 {
				if v := judgeSchema(t, `{"type":"array","items":{"type":"integer"},"uniqueItems":true}`, `[1,2,3]`, nil); !v.Pass {
					t.Error(v.Message)
				}
			}
		})
	}
}
