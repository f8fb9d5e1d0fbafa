package httpapi_test

import (
	"encoding/json"
	"maps"
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

func TestTenants_nothingOfAnotherOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	canaries := []string{w.orgA.String(), a["projects"], a["environments"], a["tests"], a["runs"]}
	walk(func(method, template string, op *openapi3.Operation) {
		if op.OperationID == "logout" {
			return
		}
		name := method + " " + template
		named := strings.Contains(template, "{")
		c := call{method: method, path: a.fill(t, template), as: "admin-b", body: exampleOf(t, op, a)}
		got := w.do(c)
		switch {
		case named:
			assert.Equal(t, 404, got.status, "%s: %s", name, got.text)
		case op.OperationID == "createTest":
			assert.Equal(t, 422, got.status, "%s names a project of another organization: %s", name, got.text)
		default:
			assert.Less(t, got.status, 400, "%s: %s", name, got.text)
		}
		// With the header the other organization isn't there at all.
		c.header = map[string]string{"X-Organization-Id": w.orgA.String()}
		if op.Extensions["x-permission"] != "self" && !strings.HasPrefix(template, "/api/organizations") {
			assert.Equal(t, 404, w.do(c).status, name)
		}
		// A foreign environment under one's own project is no way in either.
		if strings.Contains(template, "{environmentId}") {
			mixed := maps.Clone(b)
			mixed["environments"] = a["environments"]
			assert.Equal(t, 404, w.do(call{method: method, path: mixed.fill(t, template), as: "admin-b", body: c.body}).status, name)
		}
		for _, canary := range canaries {
			assert.NotContains(t, got.text, canary, name)
		}
	})
	for _, query := range []string{"projectId=" + a["projects"], "testId=" + a["tests"]} {
		got := w.do(call{method: "GET", path: "/api/runs?" + query, as: "admin-b"})
		assert.Empty(t, got.json["items"], query)
	}
	for _, body := range []string{`{"environmentId":"` + a["environments"] + `"}`} {
		got := w.do(call{method: "POST", path: "/api/tests/" + b["tests"] + "/execute", as: "admin-b", body: body})
		assert.Equal(t, 422, got.status, got.text)
	}
	// And everything of a is as it was.
	for _, template := range []string{"/api/projects/{id}", "/api/tests/{id}", "/api/runs/{id}", "/api/projects/{id}/environments/{environmentId}"} {
		assert.Equal(t, 200, w.do(call{method: "GET", path: a.fill(t, template), as: "viewer-a"}).status, template)
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

func TestMassAssignment_isRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	th := w.things("admin-a")
	walk(func(method, template string, op *openapi3.Operation) {
		if op.RequestBody == nil || op.OperationID == "refresh" {
			return
		}
		var body map[string]any
		require.NoError(t, json.Unmarshal([]byte(exampleOf(t, op, th)), &body))
		for _, field := range []string{"id", "orgId", "organizationId", "version", "role", "operator", "createdAt", "__proto__"} {
			body[field] = "x"
		}
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		got := w.do(call{method: method, path: th.fill(t, template), as: "admin-a", body: string(raw)})
		if op.OperationID == "validateTest" {
			assert.Equal(t, false, got.json["valid"], got.text)
		} else {
			assert.Equal(t, 422, got.status, "%s %s: %s", method, template, got.text)
		}
		if op.OperationID == "updateTest" {
			return // its pointers are into what the patch makes
		}
		for _, field := range []string{"/id", "/orgId", "/version", "/__proto__"} {
			assert.Contains(t, got.faults(), field, "%s %s", method, template)
		}
	})
}
