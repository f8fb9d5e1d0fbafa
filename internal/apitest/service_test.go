package apitest_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/apitest"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
	"github.com/testflow/testflow/internal/secret"
)

type world struct {
	*apitest.Service
	projects *project.Service
	org      uuid.UUID
	ctx      context.Context // of an admin of org
	project  project.Project
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func as(ctx context.Context, org uuid.UUID, role auth.Role) context.Context {
	return auth.With(ctx, auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role})
}

func newWorld(t *testing.T) world {
	t.Helper()
	db := pgtest.New(t)
	store := eventstore.New(eventstore.Config{
		DB: db.DB, Types: slices.Concat(project.Types(), secret.Types(), apitest.Types()), Inline: []eventstore.ReadModel{project.ReadModel(), secret.ReadModel(), apitest.ReadModel()}, Now: time.Now, NewID: newID,
	})
	require.NoError(t, store.Sync(t.Context()))
	org := newID()
	w := world{
		Service:  &apitest.Service{DB: db.DB, Store: store, NewID: newID, Regions: []string{"default", "eu"}},
		projects: &project.Service{DB: db.DB, Store: store, NewID: newID},
		org:      org, ctx: as(t.Context(), org, auth.Admin),
	}
	var err error
	w.project, err = w.projects.Create(w.ctx, org, project.Draft{Name: "pets"})
	require.NoError(t, err)
	return w
}

func (w world) body(name string, more ...string) json.RawMessage {
	fields := append([]string{
		`"name": "` + name + `"`, `"projectId": "` + w.project.ID.String() + `"`,
		`"steps": [{"request": {"method": "GET", "url": "http://pets.example/"}, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}]`,
	}, more...)
	return json.RawMessage("{" + strings.Join(fields, ", ") + "}")
}

func kind(err error) fault.Kind {
	if err == nil {
		return ""
	}
	return fault.KindOf(err)
}

func pointers(t *testing.T, err error) (list []string) {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	assert.Equal(t, fault.Invalid, f.Kind)
	for _, field := range f.Fields {
		list = append(list, field.Pointer)
	}
	return list
}

func ptr[T any](v T) *T { return &v }

func TestTest_life(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	created, err := w.Create(w.ctx, w.org, w.body("Read a pet", `"tags": ["smoke", "read"]`, `"timeout": "20s"`))
	require.NoError(t, err)
	assert.Equal(t, 1, created.Revision)
	assert.Positive(t, created.Position)
	assert.Equal(t, []string{"default"}, created.Regions)
	assert.JSONEq(t, `{"projectId": "`+w.project.ID.String()+`", "name": "Read a pet", "regions": ["default"], "tags": ["smoke", "read"], "timeout": "20s",
		"steps": [{"request": {"method": "GET", "url": "http://pets.example/"}, "assertions": [{"source": "status", "operator": "equals", "expected": 200}]}]}`, string(created.Definition))

	_, err = w.Create(w.ctx, w.org, w.body("READ a pet"))
	assert.Equal(t, fault.Conflict, kind(err))

	same, err := w.Replace(w.ctx, w.org, created.ID, created.Definition, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, same.Revision, "the same content is no revision")
	assert.Zero(t, same.Position)

	patched, err := w.Patch(w.ctx, w.org, created.ID, json.RawMessage(`{"timeout": null, "tags": ["smoke"], "variables": {"a": "1"}}`), ptr(1))
	require.NoError(t, err)
	assert.Equal(t, 2, patched.Revision)
	assert.Equal(t, []string{"smoke"}, patched.Tags)
	assert.NotContains(t, string(patched.Definition), "timeout")
	patched, err = w.Patch(w.ctx, w.org, created.ID, json.RawMessage(`{"variables": {"b": "2", "a": null}}`), nil)
	require.NoError(t, err)
	assert.Contains(t, string(patched.Definition), `"variables":{"b":"2"}`)
	_, err = w.Patch(w.ctx, w.org, created.ID, json.RawMessage(`{"name": "x"}`), ptr(2))
	assert.Equal(t, fault.Precondition, kind(err))

	restored, err := w.Restore(w.ctx, w.org, created.ID, 1, ptr(3))
	require.NoError(t, err)
	assert.Equal(t, 4, restored.Revision)
	assert.JSONEq(t, string(created.Definition), string(restored.Definition))
	again, err := w.Restore(w.ctx, w.org, created.ID, 1, nil)
	require.NoError(t, err)
	assert.Equal(t, 4, again.Revision)
	_, err = w.Restore(w.ctx, w.org, created.ID, 9, nil)
	assert.Equal(t, fault.NotFound, kind(err))

	revisions, next, err := w.Revisions(w.ctx, w.org, created.ID, apitest.RevisionFilter{Limit: 3})
	require.NoError(t, err)
	require.Len(t, revisions, 3)
	assert.Equal(t, 4, revisions[0].Number)
	assert.Equal(t, 1, revisions[0].RestoredFrom)
	assert.Equal(t, auth.From(w.ctx).AccountID, revisions[0].CreatedBy)
	revisions, next, err = w.Revisions(w.ctx, w.org, created.ID, apitest.RevisionFilter{Limit: 3, After: next})
	require.NoError(t, err)
	require.Len(t, revisions, 1)
	assert.Nil(t, next)
	second, err := w.Revision(w.ctx, w.org, created.ID, 2)
	require.NoError(t, err)
	assert.Contains(t, string(second.Definition), `"a":"1"`)

	_, err = w.Delete(w.ctx, w.org, created.ID, ptr(4))
	require.NoError(t, err)
	_, err = w.Get(w.ctx, w.org, created.ID)
	assert.Equal(t, fault.NotFound, kind(err))
	require.NoError(t, w.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		d, err := apitest.DefinitionTx(ctx, tx, w.org, created.ID, 2)
		assert.Equal(t, "1", d.Variables["a"], "runs in flight still find their revision")
		return err
	}))
}

func TestCreate_namesEveryFaultWithItsPointer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.Create(w.ctx, w.org, json.RawMessage(`{"name": " ", "projectId": "`+newID().String()+`", "environmentId": 5, "regions": ["default", "mars", "default", 7], "tags": ["a", "a", ""],
		"retry": {"attempts": 3}, "schedule": {"every": "60s"}, "surprise": true, "timeout": "ten",
		"steps": [{"request": {"method": "GET", "url": "http://x.example/"}, "assertions": [{"source": "status", "operator": "equals", "expected": 200},
		  {"source": "jsonpath", "property": "$[", "operator": "exists"}]}]}`))
	got := pointers(t, err)
	assert.ElementsMatch(t, []string{
		"/name", "/projectId", "/environmentId", "/regions/1", "/regions/2", "/regions/3", "/tags/1", "/tags/2", "/retry", "/schedule", "/surprise", "/timeout",
		"/steps/0/assertions/1/property",
	}, got)
	_, err = w.Create(w.ctx, w.org, json.RawMessage(`{"name": "x", "name": "y", "steps": []}`))
	assert.ElementsMatch(t, []string{"/name", "/projectId", "/steps"}, pointers(t, err))
	for _, body := range []string{`[]`, `{"name": `, `{} {}`, "{\"name\": \"\xff\"}", ``} {
		_, err = w.Create(w.ctx, w.org, json.RawMessage(body))
		assert.Equal(t, fault.Malformed, kind(err), body)
	}
	require.NoError(t, w.Validate(w.ctx, w.org, w.body("fine", `"retry": {"attempts": 1}`)))
	require.NoError(t, w.Validate(w.ctx, w.org, json.RawMessage(`{"name": "no project", "steps": [{"request": {"method": "GET", "url": "{{base}}/"}}]}`)))
	assert.Equal(t, []string{"/steps/0/request/method"}, pointers(t, w.Validate(w.ctx, w.org, json.RawMessage(`{"name": "x", "steps": [{"request": {"method": "get", "url": "http://a.example"}}]}`))))
}

func TestCreate_refusesURLsThatNoRunMayTalkTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.CheckURL = func(string) error { return fault.New(fault.Invalid, "url.blocked", "This address is not allowed.") }
	_, err := w.Create(w.ctx, w.org, w.body("x"))
	assert.Equal(t, []string{"/steps/0/request/url"}, pointers(t, err))
}

func TestEnvironment_mustBeTheProjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, err := w.projects.Create(w.ctx, w.org, project.Draft{Name: "other"})
	require.NoError(t, err)
	mine, err := w.projects.CreateEnvironment(w.ctx, w.org, w.project.ID, project.EnvironmentDraft{Name: "e"})
	require.NoError(t, err)
	theirs, err := w.projects.CreateEnvironment(w.ctx, w.org, other.ID, project.EnvironmentDraft{Name: "e"})
	require.NoError(t, err)
	_, err = w.Create(w.ctx, w.org, w.body("x", `"environmentId": "`+theirs.ID.String()+`"`))
	assert.Equal(t, []string{"/environmentId"}, pointers(t, err))
	_, err = w.Create(w.ctx, w.org, w.body("x", `"environmentId": "`+uuid.Nil.String()+`"`))
	assert.Equal(t, []string{"/environmentId"}, pointers(t, err))
	got, err := w.Create(w.ctx, w.org, w.body("x", `"environmentId": "`+mine.ID.String()+`"`))
	require.NoError(t, err)
	assert.Equal(t, mine.ID, got.EnvironmentID)
	_, err = w.Patch(w.ctx, w.org, got.ID, json.RawMessage(`{"projectId": "`+other.ID.String()+`"}`), nil)
	assert.Equal(t, []string{"/projectId"}, pointers(t, err))
	got, err = w.Patch(w.ctx, w.org, got.ID, json.RawMessage(`{"environmentId": null}`), nil)
	require.NoError(t, err)
	assert.Equal(t, uuid.Nil, got.EnvironmentID)
}

func TestProjectDelete_hidesItsTests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, err := w.Create(w.ctx, w.org, w.body("x"))
	require.NoError(t, err)
	_, err = w.projects.Delete(w.ctx, w.org, w.project.ID, nil)
	require.NoError(t, err)
	_, err = w.Get(w.ctx, w.org, got.ID)
	assert.Equal(t, fault.NotFound, kind(err))
	_, err = w.Replace(w.ctx, w.org, got.ID, w.body("y"), nil)
	assert.Equal(t, fault.NotFound, kind(err))
	_, err = w.Create(w.ctx, w.org, w.body("z"))
	assert.Equal(t, []string{"/projectId"}, pointers(t, err))
}

func TestTest_otherOrg_is404(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, err := w.Create(w.ctx, w.org, w.body("x"))
	require.NoError(t, err)
	other := newID()
	ctx := as(t.Context(), other, auth.Admin)
	for name, call := range map[string]func() error{
		"get":      func() error { _, err := w.Get(ctx, other, got.ID); return err },
		"replace":  func() error { _, err := w.Replace(ctx, other, got.ID, w.body("y"), nil); return err },
		"patch":    func() error { _, err := w.Patch(ctx, other, got.ID, json.RawMessage(`{}`), nil); return err },
		"delete":   func() error { _, err := w.Delete(ctx, other, got.ID, nil); return err },
		"restore":  func() error { _, err := w.Restore(ctx, other, got.ID, 1, nil); return err },
		"revision": func() error { _, err := w.Revision(ctx, other, got.ID, 1); return err },
		"revisions": func() error {
			_, _, err := w.Revisions(ctx, other, got.ID, apitest.RevisionFilter{Limit: 5})
			return err
		},
	} {
		assert.Equal(t, fault.NotFound, kind(call()), name)
	}
	_, err = w.Create(ctx, other, w.body("y"))
	assert.Equal(t, []string{"/projectId"}, pointers(t, err), "another organization's project doesn't exist")
	items, _, err := w.List(ctx, other, apitest.Filter{Limit: 10})
	require.NoError(t, err)
	assert.Empty(t, items)
	_, err = w.Create(as(t.Context(), w.org, auth.Viewer), w.org, w.body("y"))
	assert.Equal(t, fault.Forbidden, kind(err))
}

func TestList_filtersAndPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tags := range map[string]string{"alpha": `["a", "b"]`, "beta": `["a"]`, "gamma": `[]`} {
		_, err := w.Create(w.ctx, w.org, w.body(name, `"tags": `+tags))
		require.NoError(t, err)
	}
	names := func(f apitest.Filter) (list []string) {
		f.Limit = 2
		for {
			items, next, err := w.List(w.ctx, w.org, f)
			require.NoError(t, err)
			for _, item := range items {
				list = append(list, item.Name)
			}
			if next == nil {
				return list
			}
			f.After = next
		}
	}
	assert.ElementsMatch(t, []string{"alpha", "beta", "gamma"}, names(apitest.Filter{}))
	assert.ElementsMatch(t, []string{"alpha", "beta"}, names(apitest.Filter{Tags: []string{"a"}}))
	assert.ElementsMatch(t, []string{"alpha"}, names(apitest.Filter{Tags: []string{"a", "b"}, ProjectIDs: []uuid.UUID{w.project.ID}}))
	assert.ElementsMatch(t, []string{"gamma"}, names(apitest.Filter{Query: "AMM"}))
	assert.Empty(t, names(apitest.Filter{ProjectIDs: []uuid.UUID{newID()}}))
}

func TestSave_concurrentWritersEachGetARevision(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got, err := w.Create(w.ctx, w.org, w.body("x"))
	require.NoError(t, err)
	const writers = 6
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			_, err := w.Patch(w.ctx, w.org, got.ID, json.RawMessage(`{"variables": {"v`+string(rune('a'+i))+`": "1"}}`), nil)
			errs <- err
		}()
	}
	for range writers {
		require.NoError(t, <-errs)
	}
	got, err = w.Get(w.ctx, w.org, got.ID)
	require.NoError(t, err)
	assert.Equal(t, 1+writers, got.Revision)
	assert.Equal(t, writers, strings.Count(string(got.Definition), `":"1"`), "nobody's change was overwritten")
}
