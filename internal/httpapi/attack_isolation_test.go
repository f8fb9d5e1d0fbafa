package httpapi_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// same is what two answers must share so that nobody learns from them which of two things exists.
func (a answer) same() []any {
	return []any{a.status, a.json["code"], a.json["detail"], a.json["errors"]}
}

// mentions fails when text holds an id of the things or the word that stands in all that they own.
func (w *world) leaksNothing(of things, got answer, name string) {
	w.t.Helper()
	for _, id := range append(of.ids(), "canary-"+of["organizations"]) {
		assert.NotContains(w.t, got.text, id, name)
	}
}

// TestAttack_foreignIds_inEveryPath: whoever they are in their own organization, another organization's ids in a path
// are answered as ids that nobody has.
func TestAttack_foreignIds_inEveryPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	before := w.rowsOf(a)
	gone := b.nowhere()
	gone["organizations"] = newID().String()
	key := w.keyOf("admin-b")
	tried := 0
	walk(func(method, template string, op *openapi3.Operation) {
		if !strings.Contains(template, "{") {
			return
		}
		for _, who := range append(people("b"), key) {
			tried++
			name := who + ": " + method + " " + template
			c := call{method: method, path: a.fill(t, template), as: who, body: exampleOf(t, op, b)}
			got := w.do(c)
			assert.Contains(t, []int{403, 404}, got.status, "%s: %s", name, got.text)
			if who == "admin-b" {
				assert.Equal(t, 404, got.status, "%s: %s", name, got.text)
			}
			w.leaksNothing(a, got, name)
			c.path = gone.fill(t, template)
			assert.Equal(t, got.same(), w.do(c).same(), "%s tells that it is there", name)

			// Their organization is chosen by nothing that a client can send.
			c = call{method: method, path: a.fill(t, template), as: who, body: c.body, header: map[string]string{"X-Organization-Id": a["organizations"]}}
			got = w.do(c)
			assert.Contains(t, []int{403, 404}, got.status, "%s choosing the organization: %s", name, got.text)
			w.leaksNothing(a, got, name)
		}
		// One foreign id among one's own.
		for _, collection := range slices.Sorted(maps.Keys(a)) {
			mixed := maps.Clone(b)
			mixed[collection] = a[collection]
			path := mixed.fill(t, template)
			if path == b.fill(t, template) {
				continue
			}
			got := w.do(call{method: method, path: path, as: "admin-b", body: exampleOf(t, op, b)})
			assert.Equal(t, 404, got.status, "%s %s with a foreign one of %s: %s", method, template, collection, got.text)
			w.leaksNothing(a, got, template)
		}
	})
	require.Greater(t, tried, 50)
	assert.Equal(t, before, w.rowsOf(a), "something of the other organization changed")
}

// people are one of each role of an organization.
func people(org string) (names []string) {
	for _, role := range roles() {
		names = append(names, string(role)+"-"+org)
	}
	return names
}

// keyOf makes an API key that may all that who may, and returns its secret.
func (w *world) keyOf(who string) string {
	w.t.Helper()
	made := w.do(call{method: "POST", path: "/api/api-keys", as: who, body: `{"name":"all","scopes":["admin"]}`})
	require.Equal(w.t, 201, made.status, made.text)
	secret, _ := made.json["key"].(string)
	require.NotEmpty(w.t, secret, made.text)
	return secret
}

// TestAttack_foreignIds_inEveryBodyAndQuery: an id of another organization in a body is as good as none, and in a filter
// it finds nothing.
func TestAttack_foreignIds_inEveryBodyAndQuery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	before := w.rowsOf(a)
	bodies, filters := 0, 0
	walk(func(method, template string, op *openapi3.Operation) {
		name := method + " " + template
		for _, c := range foreignBodies(t, op, a, b) {
			bodies++
			c.method, c.path, c.as = method, b.fill(t, template), "admin-b"
			got := w.do(c)
			if op.OperationID != "validateTest" { // it judges and does nothing
				assert.Contains(t, []int{404, 409, 422}, got.status, "%s %s: %s", name, c.body, got.text)
			}
			w.leaksNothing(a, got, name)
			for _, id := range a.ids() {
				c.body = strings.ReplaceAll(c.body, id, newID().String())
			}
			assert.Equal(t, got.same(), w.do(c).same(), "%s %s tells that it is there", name, c.body)
		}
		for _, p := range op.Parameters {
			if p.Value.In != openapi3.ParameterInQuery || !isUUID(p.Value.Schema.Value) {
				continue
			}
			for _, id := range a.ids() {
				filters++
				got := w.do(call{method: method, path: b.fill(t, template) + "?" + p.Value.Name + "=" + id, as: "admin-b"})
				assert.Less(t, got.status, 500, "%s?%s: %s", name, p.Value.Name, got.text)
				if got.status == 200 && got.json["items"] != nil {
					assert.Empty(t, got.json["items"], "%s?%s=%s", name, p.Value.Name, id)
				}
				// what one asked for isn't told
				got.text = strings.NewReplacer(p.Value.Name+"="+id, "", `"`+p.Value.Name+`":["`+id+`"]`, "").Replace(got.text)
				w.leaksNothing(a, got, name)
			}
		}
	})
	require.Positive(t, bodies)
	require.Greater(t, filters, 20)
	assert.Equal(t, before, w.rowsOf(a), "something of the other organization changed")
}

func isUUID(s *openapi3.Schema) bool {
	if s.Items != nil {
		s = s.Items.Value
	}
	return s.Format == "uuid"
}

// foreignBodies are own's example bodies with one id of other's in each, in each place that takes an id.
func foreignBodies(t *testing.T, op *openapi3.Operation, other, own things) (calls []call) {
	t.Helper()
	if op.RequestBody == nil {
		return nil
	}
	schema := op.RequestBody.Value.Content.Get("application/json").Schema.Value
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		property := schema.Properties[name].Value
		id := other[collectionOf(strings.TrimSuffix(name, "Id"))]
		if !isUUID(property) || id == "" {
			continue
		}
		var body map[string]any
		require.NoError(t, json.Unmarshal([]byte(exampleOf(t, op, own)), &body))
		body[name] = id
		raw, err := json.Marshal(body)
		require.NoError(t, err)
		calls = append(calls, call{body: string(raw)})
	}
	return calls
}

// TestAttack_lists_holdNothingForeign: what needs no id shows nothing of the other organization, and the header that
// chooses among one's organizations chooses no other.
func TestAttack_lists_holdNothingForeign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	walk(func(method, template string, op *openapi3.Operation) {
		if method != "GET" {
			return
		}
		for _, role := range roles() {
			who := string(role) + "-b"
			got := w.do(call{method: method, path: b.fill(t, template), as: who})
			w.leaksNothing(a, got, who+": "+template)
			if strings.Contains(template, "{") || op.Extensions["x-permission"] == "self" && !takes(op, "X-Organization-Id") {
				continue
			}
			got = w.do(call{method: method, path: template, as: who, header: map[string]string{"X-Organization-Id": a["organizations"]}})
			assert.Equal(t, 404, got.status, "%s: %s in another organization: %s", who, template, got.text)
			w.leaksNothing(a, got, template)
		}
	})
}

// TestAttack_cursors_areGoodForTheirListAlone takes the cursor of every list and sends it where it doesn't belong: to
// the same list of another organization and another person, to every other list, behind another filter, and bent.
func TestAttack_cursors_areGoodForTheirListAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	w.things("admin-a") // a second one of each, so that each list has a second page
	type list struct{ template, parameter, cursor string }
	var lists []list
	walk(func(method, template string, op *openapi3.Operation) {
		for _, p := range []string{"cursor", "after"} {
			if method != "GET" || !takesCursor(op, p) {
				continue
			}
			got := w.do(call{method: method, path: a.fill(t, template) + "?limit=1", as: "admin-a"})
			require.Equal(t, 200, got.status, "%s: %s", template, got.text)
			cursor, _ := got.json["nextCursor"].(string)
			if cursor == "" { // one there is at most; a cursor of another list still must not do
				assert.Contains(t, singlePage, op.OperationID, "%s has one page, so its cursors aren't tried: let makers make two", template)
			}
			lists = append(lists, list{template, p, cursor})
		}
	})
	require.Greater(t, len(lists), 8)
	for _, from := range lists {
		if from.cursor == "" {
			continue
		}
		own := a.fill(t, from.template) + "?" + from.parameter + "="
		require.Equal(t, 200, w.do(call{method: "GET", path: own + url.QueryEscape(from.cursor), as: "admin-a"}).status, from.template)
		if from.parameter == "cursor" { // a feed's cursor is a place in the log and has no filter
			for _, bent := range bentCursors(from.cursor) {
				w.cursorRefused(call{method: "GET", path: own + url.QueryEscape(bent), as: "admin-a"}, from.template+" bent")
			}
			for _, filter := range filtersOf(from.template) {
				w.cursorRefused(call{method: "GET", path: own + url.QueryEscape(from.cursor) + "&" + filter, as: "admin-a"}, from.template+" "+filter)
			}
		}
		for _, to := range lists {
			path := b.fill(t, to.template) + "?" + to.parameter + "=" + url.QueryEscape(from.cursor)
			w.cursorRefused(call{method: "GET", path: path, as: "admin-b"}, from.template+" → b: "+to.template)
			if to.template != from.template {
				path := a.fill(t, to.template) + "?" + to.parameter + "=" + url.QueryEscape(from.cursor)
				w.cursorRefused(call{method: "GET", path: path, as: "admin-a"}, from.template+" → "+to.template)
			}
		}
	}
}

// singlePage are lists that have one item in a world of things, or none.
var singlePage = []string{"listEnvironments", "listRevisions", "listRunEvents", "listOrganizations", "getApiKeyUsage"}

func (w *world) cursorRefused(c call, name string) {
	w.t.Helper()
	got := w.do(c)
	assert.Equal(w.t, 422, got.status, "%s: %s", name, got.text)
	assert.Equal(w.t, "cursor.invalid", got.json["code"], name)
}

func bentCursors(cursor string) []string {
	flipped := []byte(cursor)
	flipped[len(flipped)/2] ^= 1
	other := []byte(cursor)
	if other[3]++; other[3] == '{' { // behind z
		other[3] = 'A'
	}
	return []string{
		cursor[:len(cursor)-4], cursor + "AAAA", string(flipped), string(other), cursor + "=", " " + cursor, cursor + "\n", "AQAA", "%00", "' OR 1=1 --",
		"eyJhZnRlciI6MH0", `{"position":0}`, strings.Repeat("A", 1000),
	}
}

// filtersOf are filters that change what a list is about.
func filtersOf(template string) (filters []string) {
	item := contract().Paths.Value(template)
	for _, p := range item.Get.Parameters {
		if p.Value.In != openapi3.ParameterInQuery {
			continue
		}
		switch s := p.Value.Schema.Value; {
		case slices.Contains([]string{"cursor", "limit", "minPosition", "after"}, p.Value.Name):
		case isUUID(s):
			filters = append(filters, p.Value.Name+"="+newID().String())
		case s.Format == "date-time":
			filters = append(filters, p.Value.Name+"=2020-01-01T00:00:00Z")
		case p.Value.Name == "q":
			filters = append(filters, "q=x")
		}
	}
	return filters
}

// takesCursor tells a parameter that is a cursor of a list from a position in the log, which anybody may write.
func takesCursor(op *openapi3.Operation, parameter string) bool {
	return takes(op, "limit") && slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool {
		return p.Value.Name == parameter && p.Value.Schema.Value.Type.Is(openapi3.TypeString)
	})
}

func takes(op *openapi3.Operation, parameter string) bool {
	return slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.Name == parameter })
}

// TestAttack_idempotencyKeys_belongToOnePerson: the answer kept under a key is given again to nobody else: not to
// another organization, not to another person of the same one, not on another route.
func TestAttack_idempotencyKeys_belongToOnePerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	tried := 0
	walk(func(method, template string, op *openapi3.Operation) {
		if !takes(op, "Idempotency-Key") {
			return
		}
		header := map[string]string{"Idempotency-Key": "k-" + op.OperationID}
		mine := call{method: method, path: a.fill(t, template), as: "admin-a", body: exampleOf(t, op, a), header: header}
		first := w.do(mine)
		if first.status >= 300 {
			return // refused, so nothing is kept
		}
		tried++
		if again := w.do(mine); assert.Equal(t, "true", again.header.Get("Idempotency-Replayed"), op.OperationID) {
			assert.Equal(t, first.text, again.text, op.OperationID)
		}
		for _, who := range []string{"manager-a", "developer-a", "viewer-a", "admin-b", "manager-b"} {
			theirs := mine
			theirs.as = who
			if strings.HasSuffix(who, "-b") {
				theirs.path, theirs.body = b.fill(t, template), exampleOf(t, op, b)
			}
			got := w.do(theirs)
			assert.Empty(t, got.header.Get("Idempotency-Replayed"), "%s gets the answer of admin-a: %s", who, op.OperationID)
			if strings.HasSuffix(who, "-b") {
				w.leaksNothing(a, got, op.OperationID)
			}
		}
	})
	require.Greater(t, tried, 4)
}
