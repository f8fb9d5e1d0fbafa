package httpapi_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// auditEvents are what GET /api/audit/events shows to a manager, newest first.
func (w *world) auditEvents(query string) (list []map[string]any) {
	w.t.Helper()
	got := w.do(call{method: "GET", path: "/api/audit/events?" + query, as: "manager-a"})
	require.Equal(w.t, 200, got.status, got.text)
	items, _ := got.json["items"].([]any)
	for _, i := range items {
		list = append(list, i.(map[string]any))
	}
	return list
}

func TestAudit_filters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"One"}`, header: map[string]string{"X-Request-Id": "req-of-one"}})
	second := w.do(call{method: "POST", path: "/api/projects", as: "manager-a", body: `{"name":"Two"}`})
	one, two := first.header.Get("X-Event-Position"), second.header.Get("X-Event-Position")
	for query, want := range map[string][]string{
		"type=project.*": {two, one},
		"type=project.created&type=org.*&after=" + one:          {two},
		"type=project.*&upTo=" + one:                            {one},
		"type=project.*&actor=" + w.users["manager-a"].String(): {two},
		"subject=" + second.id():                                {two},
		"requestId=req-of-one":                                  {one},
		"requestId=req-of-another":                              {},
		"type=project.*&from=" + url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339)): {},
	} {
		var got []string
		for _, e := range w.auditEvents(query) {
			got = append(got, strconv.FormatInt(int64(e["position"].(float64)), 10))
		}
		assert.ElementsMatch(t, want, got, query)
	}
	// A cursor goes on in the same question, and in no other.
	page := w.do(call{method: "GET", path: "/api/audit/events?limit=1&type=project.*", as: "manager-a"})
	next, _ := page.json["nextCursor"].(string)
	assert.Len(t, w.auditEvents("limit=1&type=project.*&cursor="+url.QueryEscape(next)), 1)
	assert.Equal(t, 422, w.do(call{method: "GET", path: "/api/audit/events?limit=1&type=org.*&cursor=" + url.QueryEscape(next), as: "manager-a"}).status)

	for query, parameter := range map[string]string{
		"from=2026-11-22T20:00:00Z&to=2026-11-21T20:00:00Z": "to",
		"type=*org":         "type",
		"type=o*g":          "type",
		"type=nonsense":     "type",
		"type=nothing.*":    "type",
		"type=org.*&type=o": "type",
		"after=-1":          "after",
		"after=9&upTo=8":    "upTo",
		"actor=somebody":    "actor",
		"requestId=":        "requestId",
		"address=127.0.0.1": "address", // sealed, so nobody can ask for it
	} {
		for _, path := range []string{"/api/audit/events?", "/api/audit/export?"} {
			got := w.do(call{method: "GET", path: path + query, as: "manager-a"})
			assert.Equal(t, 422, got.status, "%s%s: %s", path, query, got.text)
			assert.Contains(t, got.faults(), parameter, query)
		}
	}
	assert.Contains(t, w.do(call{method: "GET", path: "/api/audit/events?type=project.create", as: "manager-a"}).text, "project.created")
	assert.Contains(t, w.do(call{method: "GET", path: "/api/audit/export?type=nonsense", as: "manager-a"}).text, "org.*")
}

// export takes a copy over a real connection.
func (w *world) export(server *httptest.Server, query string, header map[string]string) *http.Response {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, server.URL+"/api/audit/export?"+query, nil)
	require.NoError(w.t, err)
	r.Header.Set("Authorization", "Bearer "+w.tokens["manager-a"])
	r.Header.Set("X-Organization-Id", w.orgA.String())
	for name, value := range header {
		r.Header.Set(name, value)
	}
	res, err := (&http.Transport{DisableCompression: true}).RoundTrip(r)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, res.Body.Close()) })
	return res
}

func TestAudit_exportFormats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := httptest.NewServer(w.server.Handler())
	t.Cleanup(server.Close)
	const batch = "application/cloudevents-batch+json"
	for _, c := range []struct{ query, accept, want, begin string }{
		{"", "", "application/x-ndjson", `{"line":"header","format":"testflow.audit.v1"`},
		{"", "*/*", "application/x-ndjson", `{"line"`},
		{"", "text/csv", "text/csv", "position,recordedAt,type"},
		{"", "text/html, " + batch + ";q=0.9", batch, "[\n{"},
		{"format=csv", batch, "text/csv", "position,"},
		{"format=cloudevents", "", batch, "[\n{"},
		{"format=ndjson", "text/csv", "application/x-ndjson", `{"line"`},
	} {
		res := w.export(server, c.query, map[string]string{"Accept": c.accept}) //nolint:bodyclose // export closes it at the end
		require.Equal(t, 200, res.StatusCode)
		assert.Equal(t, c.want, res.Header.Get("Content-Type"))
		text := readAll(t, res.Body)
		assert.True(t, strings.HasPrefix(text, c.begin), text[:min(len(text), 100)])
		assert.Equal(t, "true", res.Trailer.Get("X-Export-Complete"))
		assert.NotEqual(t, "0", res.Trailer.Get("X-Export-Events"))
		assert.NotEmpty(t, res.Trailer.Get("X-Export-Position"))
	}
	assert.Equal(t, 422, w.export(server, "format=xml", nil).StatusCode)                                   //nolint:bodyclose // export closes it at the end
	assert.Equal(t, 406, w.export(server, "", map[string]string{"Accept": "application/json"}).StatusCode) //nolint:bodyclose // export closes it at the end

	res := w.export(server, "", map[string]string{"Accept-Encoding": "br, gzip;q=0.5"}) //nolint:bodyclose // export closes it at the end
	require.Equal(t, "gzip", res.Header.Get("Content-Encoding"))
	zipped, err := gzip.NewReader(res.Body)
	require.NoError(t, err)
	text, err := io.ReadAll(zipped)
	require.NoError(t, err)
	assert.Contains(t, string(text), `{"line":"end"`)
	assert.Empty(t, w.export(server, "", map[string]string{"Accept-Encoding": "gzip;q=0"}).Header.Get("Content-Encoding")) //nolint:bodyclose // export closes it at the end

	// Each of them is in the log, by whom and how much.
	began, ended := w.auditEvents("type=audit.export_started&limit=200"), w.auditEvents("type=audit.export_ended&limit=200")
	assert.Len(t, began, 9)
	assert.Len(t, ended, 9)
	data, _ := ended[len(ended)-1]["data"].(map[string]any)
	assert.Equal(t, true, data["complete"])
	assert.Positive(t, data["events"])
	assert.Equal(t, "127.0.0.1", began[0]["address"])
}

// Who is refused is on record, once and then by count, where the organization's own people see it.
func TestAudit_refusalsAreOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rename := call{method: "PATCH", path: "/api/organizations/" + w.orgA.String(), as: "viewer-a", body: `{"name":"Mine"}`, header: map[string]string{"X-Request-Id": "req-refused"}}
	for range 50 {
		require.Equal(t, 403, w.do(rename).status)
	}
	refused := w.auditEvents("type=audit.refused")
	require.Len(t, refused, 1, "a flood is one event")
	assert.Equal(t, "req-refused", refused[0]["requestId"])
	assert.Equal(t, w.users["viewer-a"].String(), refused[0]["actor"].(map[string]any)["id"])
	assert.Equal(t, map[string]any{"operation": "updateOrganization", "permission": "shared.write", "code": "auth.forbidden", "role": "viewer", "count": 1.0}, refused[0]["data"])

	// Deeper refusals too: a manager may change members, but not those above.
	require.Equal(t, 403, w.do(call{method: "DELETE", path: "/api/organizations/" + w.orgA.String() + "/members/" + w.users["admin-a"].String(), as: "manager-a"}).status)
	assert.Len(t, w.auditEvents("type=audit.refused&actor="+w.users["manager-a"].String()), 1)

	// Another organization's door: the stranger's own log tells, not the organization's.
	before := len(w.auditEvents("limit=200"))
	require.Equal(t, 404, w.do(call{method: "GET", path: "/api/organizations/" + w.orgA.String(), as: "admin-b"}).status)
	require.Equal(t, 404, w.do(call{method: "GET", path: "/api/projects", as: "admin-b", header: map[string]string{"X-Organization-Id": w.orgA.String()}}).status)
	assert.Len(t, w.auditEvents("limit=200"), before)
	var requested []string
	rows, err := w.base.db.System.Query(t.Context(), `
		SELECT data ->> 'operation' FROM es.ledger_event JOIN es.event_type t USING (type_id)
		 WHERE t.name = 'audit.refused' AND org_id = $1 AND data ->> 'requested' = $2`, w.users["admin-b"], w.orgA.String())
	require.NoError(t, err)
	for rows.Next() {
		var op string
		require.NoError(t, rows.Scan(&op))
		requested = append(requested, op)
	}
	require.NoError(t, rows.Err())
	assert.ElementsMatch(t, []string{"getOrganization", "listProjects"}, requested)

	// What is merely not there is nobody's attempt.
	require.Equal(t, 404, w.do(call{method: "GET", path: "/api/projects/" + uuid.NewString(), as: "viewer-a"}).status)
	assert.Len(t, w.auditEvents("type=audit.refused"), 2)
}

func TestAsOf_overHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := "/api/organizations/" + w.orgA.String()
	before := w.do(call{method: "GET", path: path + "/members", as: "admin-a"})
	renamed := w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"name":"Renamed"}`})
	require.Equal(t, 200, renamed.status, renamed.text)
	position, err := strconv.Atoi(renamed.header.Get("X-Event-Position"))
	require.NoError(t, err)
	was := strconv.Itoa(position - 1)
	require.Equal(t, 204, w.do(call{method: "DELETE", path: path + "/members/" + w.users["viewer-a"].String(), as: "admin-a"}).status)

	got := w.do(call{method: "GET", path: path + "?asOf=" + was, as: "manager-a"})
	require.Equal(t, 200, got.status, got.text)
	assert.Equal(t, "Org admin-a", got.json["name"])
	assert.Equal(t, "Renamed", w.do(call{method: "GET", path: path + "?asOf=" + strconv.Itoa(position), as: "manager-a"}).json["name"])
	members := w.do(call{method: "GET", path: path + "/members?asOf=" + was, as: "manager-a"})
	assert.Len(t, members.json["items"], len(before.json["items"].([]any)), "the viewer was in")
	assert.Len(t, w.do(call{method: "GET", path: path + "/members", as: "manager-a"}).json["items"], 3)
	paged := w.do(call{method: "GET", path: path + "/members?limit=3&asOf=" + was, as: "manager-a"})
	next, _ := paged.json["nextCursor"].(string)
	assert.Len(t, w.do(call{method: "GET", path: path + "/members?limit=3&asOf=" + was + "&cursor=" + url.QueryEscape(next), as: "manager-a"}).json["items"], 1)

	assert.Equal(t, 403, w.do(call{method: "GET", path: path + "?asOf=" + was, as: "developer-a"}).status)
	assert.Equal(t, 404, w.do(call{method: "GET", path: path + "?asOf=" + was, as: "admin-b"}).status)
	for _, bad := range []string{"yesterday", "0", "99999999999", "2999-01-01T00:00:00Z"} {
		got := w.do(call{method: "GET", path: path + "?asOf=" + bad, as: "admin-a"})
		assert.Equal(t, 422, got.status, bad)
		assert.Contains(t, got.faults(), "asOf", bad)
	}
}
