package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// things are one of everything in an organization, by the collection that stands before its id in a path: "projects",
// "members".
type things map[string]string

// makers make one of each thing, in this order. Whoever adds a path with an id adds here how to make one of them: the
// walks over all operations fail until it is there.
var makers = []struct {
	collection string
	make       func(w *world, who string, th things) string
}{
	{"organizations", func(w *world, who string, _ things) string { return w.orgOf(who).String() }},
	{"members", func(w *world, who string, _ things) string {
		return w.users["viewer"+strings.TrimPrefix(who, "admin")].String()
	}},
	{"invitations", func(w *world, who string, th things) string {
		invited := w.do(call{method: "POST", path: "/api/organizations/" + th["organizations"] + "/invitations", as: who, body: `{"email": "canary-` + w.orgOf(who).String() + "@" + newID().String() + `.example.com", "role": "viewer"}`})
		require.Equal(w.t, 201, invited.status, invited.text)
		return invited.id()
	}},
	{"tests", func(w *world, who string, th things) string {
		test := w.makeTest(who, "https://canary-"+w.orgOf(who).String()+".example", "/pets")
		th["projects"], _ = test.json["projectId"].(string)
		th["environments"], _ = test.json["environmentId"].(string)
		return test.id()
	}},
	{"fragments", func(w *world, who string, th things) string {
		var made answer
		for _, name := range []string{"first", "canary"} {
			made = w.do(call{method: "POST", path: "/api/projects/" + th["projects"] + "/fragments", as: who, body: `{"name": "` + name + `", "steps": [
				{"request": {"method": "GET", "url": "https://canary-` + w.orgOf(who).String() + `.example/"}}]}`})
			require.Equal(w.t, 201, made.status, made.text)
		}
		return made.id()
	}},
	{"secrets", func(w *world, who string, th things) string { // of the same name in each scope
		project := "/api/projects/" + th["projects"]
		for _, at := range []string{"/api/organizations/" + th["organizations"], project, project + "/environments/" + th["environments"]} {
			for _, name := range []string{"another", "canary"} {
				set := w.do(call{method: "PUT", path: at + "/secrets/" + name, as: who, body: `{"value":"canary-` + w.orgOf(who).String() + `-of-a-secret"}`})
				require.Equal(w.t, 200, set.status, set.text)
			}
		}
		return "canary"
	}},
	{"revisions", func(*world, string, things) string { return "1" }},
	{"runs", func(w *world, who string, th things) string {
		started := w.do(call{method: "POST", path: "/api/tests/" + th["tests"] + "/execute", as: who})
		require.Equal(w.t, 202, started.status, started.text)
		first, _ := started.json["runs"].([]any)[0].(map[string]any)
		id, _ := first["id"].(string)
		return id
	}},
	{"api-keys", func(w *world, who string, _ things) string {
		made := w.do(call{method: "POST", path: "/api/api-keys", as: who, body: `{"name":"a key","scopes":["read"]}`})
		require.Equal(w.t, 201, made.status, made.text)
		return made.id()
	}},
	{"sessions", func(w *world, who string, _ things) string {
		in := w.do(call{method: "POST", path: "/api/auth/login", body: `{"email":"` + who + `@example.com","password":"` + password + `"}`})
		require.Equal(w.t, 200, in.status, in.text)
		items, _ := w.do(call{method: "GET", path: "/api/auth/sessions", as: in.json["accessToken"].(string)}).json["items"].([]any)
		for _, item := range items {
			if one := item.(map[string]any); one["current"] == true {
				return one["id"].(string)
			}
		}
		return ""
	}},
	{"events", func(w *world, who string, _ things) string { // of the audit log, by position, and a seal over them
		require.NoError(w.t, w.base.sealer.Pass(w.t.Context()))
		list := w.do(call{method: "GET", path: "/api/audit/events?limit=1", as: who})
		require.Equal(w.t, 200, list.status, list.text)
		newest, _ := list.json["items"].([]any)[0].(map[string]any)
		return fmt.Sprintf("%.0f", newest["position"])
	}},
	{"steps", func(*world, string, things) string { return "0" }},
}

// things makes one of everything as who, who must be an admin.
func (w *world) things(who string) things {
	w.t.Helper()
	th := things{}
	for _, m := range makers {
		th[m.collection] = m.make(w, who, th)
		require.NotEmpty(w.t, th[m.collection], m.collection)
	}
	return th
}

// nowhere are things of the same organization that aren't there.
func (th things) nowhere() things {
	out := maps.Clone(th)
	out["events"] = "900000000000"
	for collection, id := range out {
		if collection != "organizations" && uuid.Validate(id) == nil {
			out[collection] = newID().String()
		}
	}
	return out
}

// ids are those of the things that have one of their own.
func (th things) ids() (list []string) {
	for collection, id := range th {
		if collection != "members" && uuid.Validate(id) == nil { // people may be in several organizations
			list = append(list, id)
		}
	}
	return list
}

// fill writes a path of the document with the things' ids.
func (th things) fill(t *testing.T, template string) string {
	t.Helper()
	parts := strings.Split(template, "/")
	for i, part := range parts {
		if !strings.HasPrefix(part, "{") {
			continue
		}
		id := th[strings.Split(template, "/")[i-1]]
		require.NotEmpty(t, id, "%s: there is no maker of %s; add one to makers in things_test.go", template, parts[i-1])
		parts[i] = id
	}
	return strings.Join(parts, "/")
}

// exampleOf is a body that the operation takes, the document's example with the things' ids.
func exampleOf(t *testing.T, op *openapi3.Operation, th things) string {
	t.Helper()
	if op.RequestBody == nil {
		return ""
	}
	raw, err := json.Marshal(th.own(documentExample(op)))
	require.NoError(t, err)
	return string(raw)
}

func documentExample(op *openapi3.Operation) any {
	media := op.RequestBody.Value.Content.Get("application/json")
	example := media.Example
	for _, e := range media.Examples {
		example = e.Value.Value
	}
	return example
}

// own puts the things' ids where an example names one: projectId is one of projects.
func (th things) own(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			out[name] = th.own(inner)
			if of, ok := strings.CutSuffix(name, "Id"); ok && th[collectionOf(of)] != "" && inner != nil {
				out[name] = th[collectionOf(of)]
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = th.own(inner)
		}
		return out
	}
	return value
}

// collectionOf is where one thing is found: user → members, others → their plural.
func collectionOf(one string) string {
	if one == "user" {
		return "members"
	}
	return one + "s"
}
