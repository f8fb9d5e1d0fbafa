package httpapi_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/openapi"
)

// contract is the document as the tests read it, apart from the code under test.
var contract = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData(openapi.YAML)
	if err != nil {
		panic(err)
	}
	return doc
})

// operationOf finds what the document says of a request; fixed segments win over parameters.
func operationOf(method, path string) (op *openapi3.Operation, template string) {
	path, _, _ = strings.Cut(path, "?")
	want := strings.Split(path, "/")
	for _, candidate := range contract().Paths.InMatchingOrder() {
		have := strings.Split(candidate, "/")
		if len(have) == len(want) && !slices.ContainsFunc(slices.Collect(indexes(have)), func(i int) bool {
			return have[i] != want[i] && !strings.HasPrefix(have[i], "{")
		}) {
			return contract().Paths.Value(candidate).GetOperation(method), candidate
		}
	}
	return nil, ""
}

func indexes(list []string) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range list {
			if !yield(i) {
				return
			}
		}
	}
}

// conforms holds an answer against the document: its status, its headers, its body, field by field.
func (w *world) conforms(c call, a answer) {
	w.t.Helper()
	assert.Empty(w.t, a.header.Values("Set-Cookie"), "%s %s: there are no cookies", c.method, c.path)
	op, template := operationOf(c.method, c.path)
	if op == nil {
		return
	}
	name := c.method + " " + template + " " + strconv.Itoa(a.status)
	ref := op.Responses.Status(a.status)
	if a.status >= 400 {
		ref = contract().Components.Responses["Problem"]
		assert.Contains(w.t, codes(), a.json["code"], name)
	}
	if !assert.NotNil(w.t, ref, "%s: the document doesn't have this answer: %s", name, a.text) {
		return
	}
	for header, h := range ref.Value.Headers {
		if h.Value.Required {
			assert.NotEmpty(w.t, a.header.Get(header), "%s: %s", name, header)
		}
	}
	for _, header := range []string{"Location", "ETag", "Link"} {
		if a.header.Get(header) != "" && a.status < 400 {
			assert.Contains(w.t, ref.Value.Headers, header, name)
		}
	}
	if a.json == nil {
		return
	}
	media, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	content := ref.Value.Content.Get(media)
	require.NotNil(w.t, content, "%s: the document doesn't have %s", name, media)
	var value any
	dec := json.NewDecoder(strings.NewReader(a.text))
	dec.UseNumber()
	require.NoError(w.t, dec.Decode(&value))
	err := content.Schema.Value.VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsResponse())
	require.NoError(w.t, err, "%s: %s", name, a.text)
	w.undocumented(name, content.Schema.Value, value)
}

// undocumented finds fields that the document doesn't have, where it has fields at all.
func (w *world) undocumented(name string, schema *openapi3.Schema, value any) {
	w.t.Helper()
	switch v := value.(type) {
	case map[string]any:
		for field, inner := range v {
			property := schema.Properties[field]
			if property == nil {
				open := len(schema.Properties) == 0 || schema.AdditionalProperties.Schema != nil || schema.AdditionalProperties.Has != nil && *schema.AdditionalProperties.Has
				assert.True(w.t, open, "%s: the document doesn't have the field %s", name, field)
				continue
			}
			w.undocumented(name+"."+field, property.Value, inner)
		}
	case []any:
		if schema.Items != nil {
			for _, inner := range v {
				w.undocumented(name+"[]", schema.Items.Value, inner)
			}
		}
	}
}

var codes = sync.OnceValue(func() (list []string) {
	raw, _ := contract().Components.Schemas["Code"].Value.Extensions["x-extensible-enum"].([]any)
	for _, v := range raw {
		list = append(list, v.(string))
	}
	return list
})

// walk calls fn with every operation of the document that isn't public.
func walk(fn func(method, template string, op *openapi3.Operation)) {
	for template, item := range contract().Paths.Map() {
		for method, op := range item.Operations() {
			if op.Security == nil {
				fn(method, template, op)
			}
		}
	}
}

func TestRoles_mayWhatTheTableSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	nowhere := th.nowhere()
	walk(func(method, template string, op *openapi3.Operation) {
		permission, _ := op.Extensions["x-permission"].(string)
		if permission == "self" || op.OperationID == "removeMember" { // who may remove whom is the slice's alone
			return
		}
		for _, who := range roles() {
			// On what isn't there, so that who may does no harm to the next; the refusal comes before the looking.
			target := nowhere
			if method == http.MethodGet {
				target = th
			}
			c := call{method: method, path: target.fill(t, template), as: string(who) + "-a", body: exampleOf(t, op, target)}
			got := w.do(c)
			name := string(who) + ": " + method + " " + template
			if who.May(permissionOf(permission)) {
				assert.NotContains(t, []int{401, 403}, got.status, "%s: %s", name, got.text)
			} else {
				assert.Equal(t, 403, got.status, "%s: %s", name, got.text)
				assert.Equal(t, "auth.forbidden", got.json["code"], name)
				// The refusal comes before anything of the request is looked at.
				c.body = "{"
				assert.Equal(t, 403, w.do(c).status, name)
			}
		}
	})
}
