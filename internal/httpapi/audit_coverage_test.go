package httpapi_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
)

// unrecorded are the commands that leave no event, and why.
var unrecorded = map[string]string{
	"validateTest":        "changes nothing",
	"reevaluateRun":       "changes nothing; it reads what getRun reads",
	"reevaluateTest":      "changes nothing; it reads what getRun reads",
	"lookUpInvitation":    "changes nothing",
	"confirmRegistration": "makes what register makes, where the policy wants a code; org holds that",
	"refresh":             "goes on with a session whose beginning is on record; a token that is used twice is an event",
}

// inRuns are the commands that are recorded in the log of runs, with actor and request: executions are too many for the
// permanent log.
var inRuns = []string{"executeTest", "executeProject", "cancelRun", "rerun"}

// changes are the fields of an event's data that say what was and what is. A command that changes something stands here.
var changes = map[string]struct {
	event  string
	fields []string
}{
	"updateOrganization":       {"org.renamed", []string{"from", "to"}},
	"updateMember":             {"org.member_role_changed", []string{"from", "to"}},
	"removeMember":             {"org.member_removed", []string{"role"}},
	"setOrganizationSecret":    {"secret.set", []string{"name", "version"}}, // values are in no event
	"setProjectSecret":         {"secret.set", []string{"name", "version"}},
	"setEnvironmentSecret":     {"secret.set", []string{"name", "version"}},
	"removeOrganizationSecret": {"secret.removed", []string{"name", "version"}},
	"removeProjectSecret":      {"secret.removed", []string{"name", "version"}},
	"removeEnvironmentSecret":  {"secret.removed", []string{"name", "version"}},
	"updateProject":            {"project.described", []string{"from", "description"}},
	"deleteProject":            {"project.deleted", []string{"name"}},
	"updateEnvironment":        {"environment.variables_changed", []string{"set", "previous"}},
	"deleteEnvironment":        {"environment.deleted", []string{"name"}},
	"deleteFragment":           {"fragment.deleted", []string{"name"}},
	"replaceFragment":          {"fragment.changed", []string{"version", "definition"}},
	"updateFragment":           {"fragment.changed", []string{"version", "definition"}},
	"replaceTest":              {"test.revised", []string{"revision", "contentHash"}}, // the revision before it is in the log as well
	"updateTest":               {"test.revised", []string{"revision", "contentHash"}},
	"endSession":               {"account.sessions_ended", []string{"sessions"}},
	"endSessions":              {"account.sessions_ended", []string{"sessions"}},
	"changePassword":           {"account.password_changed", []string{"by"}}, // passwords themselves are nobody's to read
	"resetPassword":            {"account.password_changed", []string{"by"}},
	"revokeInvitation":         {"org.invitation_revoked", []string{"invitationId", "role"}},
	"deleteOrganization":       {"org.deletion_scheduled", []string{"eraseAt"}},
	"eraseMe":                  {"account.erased", []string{"by"}},
	"updateApiKey":             {"org.api_key_changed", []string{"from", "to"}},
	"revokeApiKey":             {"org.api_key_revoked", []string{"name"}},
	"deleteTest":               {"test.deleted", []string{"name"}},
	"restoreRevision":          {"test.revised", []string{"revision", "restoredFrom"}},
}

// recipes are calls that do something where the document's example alone doesn't. Whoever adds a command that the walk
// cannot do adds how.
var recipes = map[string]func(w *world, th things) call{
	"register": func(*world, things) call {
		return call{body: `{"email": "coverage@example.com", "password": "` + password + `", "name": "Coverage"}`}
	},
	"login": func(*world, things) call {
		return call{body: `{"email": "admin-a@example.com", "password": "` + password + `"}`}
	},
	"createEnvironment": func(*world, things) call { return call{as: "admin-a", body: `{"name": "Coverage"}`} },
	"createTest": func(_ *world, th things) call {
		return call{as: "admin-a", body: `{"projectId": "` + th["projects"] + `", "name": "Coverage", "regions": ["default"],
			"steps": [{"name": "one", "request": {"method": "GET", "url": "https://example.com/"}}]}`}
	},
	"acceptInvitation": func(w *world, _ things) call {
		invited := w.do(call{method: "POST", path: "/api/organizations/" + w.orgB.String() + "/invitations", as: "admin-b", body: `{"email":"admin-a@example.com","role":"viewer"}`})
		require.Equal(w.t, 201, invited.status, invited.text)
		return call{as: "admin-a", body: `{"token": "` + w.mail.Code(w.t, "admin-a@example.com", "org.invited") + `"}`}
	},
	"changePassword": func(*world, things) call {
		return call{as: "manager-b", body: `{"currentPassword": "` + password + `", "newPassword": "seven brave otters swim"}`}
	},
	"forgotPassword":     func(*world, things) call { return call{body: `{"email": "viewer-b@example.com"}`} },
	"resendVerification": func(*world, things) call { return call{as: "manager-a"} },
	"resetPassword": func(w *world, _ things) call {
		w.do(call{method: "POST", path: "/api/auth/password/forgot", body: `{"email": "viewer-b@example.com"}`})
		return call{body: `{"token": "` + w.mail.Code(w.t, "viewer-b@example.com", "account.reset") + `", "newPassword": "nine brave otters swim"}`}
	},
	"resendInvitation": func(w *world, th things) call {
		_, err := w.base.db.System.Exec(w.t.Context(), `UPDATE org_invitations SET sent_at = sent_at - interval '1 hour' WHERE invitation_id = $1`, th["invitations"])
		require.NoError(w.t, err)
		return call{as: "admin-a"}
	},
	"verifyEmail": func(w *world, _ things) call {
		return call{body: `{"token": "` + w.mail.Code(w.t, "developer-a@example.com", "account.verify") + `"}`}
	},
	"deleteOrganization": func(w *world, _ things) call { return call{as: "admin-a", path: w.anotherOrg()} },
	"transferOrganization": func(w *world, _ things) call {
		path := w.anotherOrg()
		id, err := uuid.Parse(strings.TrimPrefix(path, "/api/organizations/"))
		require.NoError(w.t, err)
		_, err = w.base.orgs.AddMember(auth.With(w.t.Context(), auth.Principal{Kind: auth.System}), id, w.users["viewer-b"], auth.Viewer)
		require.NoError(w.t, err)
		return call{as: "admin-a", path: path + "/transfer", body: `{"userId": "` + w.users["viewer-b"].String() + `", "role": "manager"}`}
	},
	"restoreOrganization": func(w *world, _ things) call {
		path := w.anotherOrg()
		got := w.do(call{method: "DELETE", path: path, as: "admin-a"})
		require.Less(w.t, got.status, 300, got.text)
		return call{as: "admin-a", path: path + "/restore"}
	},
	"updateOrganization": func(*world, things) call { return call{as: "admin-a", body: `{"name": "Difference Engines"}`} },
	"eraseMe":            func(*world, things) call { return call{as: "developer-b", body: `{"password": "` + password + `"}`} },
	"updateMember":       func(*world, things) call { return call{as: "admin-a", body: `{"role": "developer"}`} },
	"updateProject": func(w *world, th things) call {
		w.do(call{method: "PATCH", path: "/api/projects/" + th["projects"], as: "admin-a", body: `{"description": "first"}`})
		return call{as: "admin-a", body: `{"description": "second"}`}
	},
	"updateEnvironment": func(w *world, th things) call {
		path := "/api/projects/" + th["projects"] + "/environments/" + th["environments"]
		w.do(call{method: "PATCH", path: path, as: "admin-a", body: `{"variables": {"one": "1"}}`})
		return call{as: "admin-a", body: `{"variables": {"one": "2"}}`}
	},
	"restoreRevision": func(w *world, th things) call {
		got := w.do(call{method: "PATCH", path: "/api/tests/" + th["tests"], as: "admin-a", body: `{"name": "Renamed for a restore"}`})
		require.Equal(w.t, 200, got.status, got.text)
		return call{as: "admin-a"}
	},
	"replaceTest": func(w *world, th things) call {
		got := w.do(call{method: "GET", path: "/api/tests/" + th["tests"], as: "admin-a"})
		for _, owned := range []string{"id", "projectId", "revision", "createdAt", "updatedAt", "version"} {
			delete(got.json, owned)
		}
		got.json["name"] = "Replaced"
		body, err := json.Marshal(got.json)
		require.NoError(w.t, err)
		return call{as: "admin-a", body: string(body)}
	},
}

// last says what is done at the end, since nothing else could be done after it.
func last(op *openapi3.Operation, method string) int {
	permission, _ := op.Extensions["x-permission"].(string)
	switch {
	case op.OperationID == "removeMember":
		return 2
	case op.OperationID == "eraseMe":
		return 5
	case permission == "self" && op.OperationID != "createOrganization":
		return 3
	case method == http.MethodDelete:
		return 1
	}
	return 0
}

// Every command of the document leaves an event that says who, from where, with what program and by which request, and,
// where something changes, what was and what is. A command that is added fails here until it does.
func TestEveryCommand_leavesAnEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type command struct {
		method, template string
		op               *openapi3.Operation
	}
	var commands []command
	for template, item := range contract().Paths.Map() {
		for method, op := range item.Operations() {
			if method != http.MethodGet && unrecorded[op.OperationID] == "" {
				commands = append(commands, command{method, template, op})
			}
		}
	}
	slices.SortFunc(commands, func(a, b command) int {
		if d := last(a.op, a.method) - last(b.op, b.method); d != 0 {
			return d
		}
		return strings.Compare(a.op.OperationID, b.op.OperationID)
	})
	for _, cmd := range commands {
		id := cmd.op.OperationID
		w.signInAgain("admin-a")
		th := w.things("admin-a")
		c := call{as: "admin-a"}
		if cmd.op.RequestBody != nil {
			c.body = exampleOf(t, cmd.op, th)
		}
		if recipe := recipes[id]; recipe != nil {
			c = recipe(w, th)
		}
		request := "coverage-" + id
		c.method = cmd.method
		if c.path == "" {
			c.path = th.fill(t, cmd.template)
		}
		if c.header == nil {
			c.header = map[string]string{}
		}
		maps.Copy(c.header, map[string]string{"X-Request-Id": request, "User-Agent": "coverage of " + id})
		got := w.do(c)
		if !assert.Less(t, got.status, 300, "%s: %s", id, got.text) {
			continue
		}
		if slices.Contains(inRuns, id) {
			assert.Positive(t, w.runsOf(request, w.users["admin-a"]), "%s: no run says who asked for it", id)
			continue
		}
		w.recorded(id, request, c.as)
	}
}

// anotherOrg makes an organization of admin-a's and returns its path.
func (w *world) anotherOrg() string {
	w.t.Helper()
	got := w.do(call{method: "POST", path: "/api/organizations", as: "admin-a", body: `{"name": "Another"}`})
	require.Equal(w.t, 201, got.status, got.text)
	return "/api/organizations/" + got.id()
}

// signInAgain gives a person whose session has ended a new one.
func (w *world) signInAgain(who string) {
	w.t.Helper()
	if w.do(call{method: "GET", path: "/api/auth/me", as: who}).status == 200 {
		return
	}
	in := w.do(call{method: "POST", path: "/api/auth/login", body: `{"email": "` + who + `@example.com", "password": "` + password + `"}`})
	require.Equal(w.t, 200, in.status, in.text)
	w.tokens[who], _ = in.json["accessToken"].(string)
}

func (w *world) runsOf(request string, actor uuid.UUID) (n int) {
	w.t.Helper()
	require.NoError(w.t, w.base.db.System.QueryRow(w.t.Context(), `
		SELECT count(*) FROM es.run_event WHERE data #>> '{requestedBy,requestId}' = $1 AND data #>> '{requestedBy,id}' = $2`, request, actor.String()).Scan(&n))
	return n
}

// recorded looks for the events of a request.
func (w *world) recorded(id, request, as string) {
	w.t.Helper()
	var events []eventstore.Event
	rows, err := w.base.db.System.Query(w.t.Context(), `
		SELECT t.name, e.meta, e.data FROM es.ledger_event e JOIN es.event_type t USING (type_id) WHERE e.request_id = $1 ORDER BY e.position`, request)
	require.NoError(w.t, err)
	var e eventstore.Event
	var meta []byte
	_, err = pgx.ForEachRow(rows, []any{&e.Type, &meta, &e.Data}, func() error {
		events = append(events, e)
		return json.Unmarshal(meta, &events[len(events)-1].Meta)
	})
	require.NoError(w.t, err)
	require.NoError(w.t, rows.Err())
	if !assert.NotEmpty(w.t, events, "%s leaves no event", id) {
		return
	}
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
		assert.Contains(w.t, []string{string(auth.User), string(auth.APIKey)}, e.Meta.ActorKind, "%s: %s", id, e.Type)
		assert.NotEqual(w.t, uuid.Nil, e.Meta.ActorID, "%s: %s", id, e.Type)
		if as != "" {
			assert.Equal(w.t, w.users[as], e.Meta.ActorID, "%s: %s", id, e.Type)
		}
		if e.Meta.Address == "" && id == "eraseMe" {
			continue // nothing is kept of who is erased
		}
		for what, sealed := range map[string]string{"127.0.0.1": e.Meta.Address, "coverage of " + id: e.Meta.Agent} {
			assert.True(w.t, strings.HasPrefix(sealed, "sealed:"), "%s: %s", id, e.Type)
			plain, err := w.base.persons.Open(context.WithoutCancel(w.t.Context()), e.Meta.ActorID, sealed)
			require.NoError(w.t, err, "%s: %s", id, e.Type)
			assert.Equal(w.t, what, plain, "%s: %s", id, e.Type)
		}
	}
	want, ok := changes[id]
	if !ok {
		return
	}
	i := slices.IndexFunc(events, func(e eventstore.Event) bool { return e.Type == want.event })
	if !assert.GreaterOrEqual(w.t, i, 0, "%s leaves %v, not %s", id, types, want.event) {
		return
	}
	var data map[string]any
	require.NoError(w.t, json.Unmarshal(events[i].Data, &data))
	for _, field := range want.fields {
		assert.Contains(w.t, data, field, "%s: %s says what was and what is", id, want.event)
	}
}

// Every command that changes or removes a thing is in the table of what was and what is.
func TestEveryChange_saysWhatWas(t *testing.T) {
	t.Parallel()
	for _, item := range contract().Paths.Map() {
		for method, op := range item.Operations() {
			id := op.OperationID
			if method == http.MethodPatch || method == http.MethodPut || method == http.MethodDelete {
				assert.Contains(t, changes, id, "say by which event and fields one sees what %s changed", id)
			}
		}
	}
}
