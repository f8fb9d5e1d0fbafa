package project_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/project"
)

type world struct {
	*project.Service
	org uuid.UUID
	ctx context.Context // of an admin of org
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func as(ctx context.Context, org uuid.UUID, role auth.Role) context.Context {
	return auth.With(ctx, auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role})
}

func newWorld(t *testing.T) world {
	t.Helper()
	db := pgtest.New(t)
	store := eventstore.New(eventstore.Config{
		DB: db.DB, Types: project.Types(), Inline: []eventstore.ReadModel{project.ReadModel()}, Now: time.Now, NewID: newID, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, store.Sync(t.Context()))
	org := newID()
	return world{&project.Service{DB: db.DB, Store: store, NewID: newID}, org, as(t.Context(), org, auth.Admin)}
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
	for _, field := range f.Fields {
		list = append(list, field.Pointer)
	}
	return list
}

func ptr[T any](v T) *T { return &v }

func TestProject_life(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "  Pets ", Description: "all about pets"})
	require.NoError(t, err)
	assert.Equal(t, "Pets", p.Name)
	assert.Equal(t, 1, p.Version)
	assert.Positive(t, p.Position)

	got, err := w.Get(w.ctx, w.org, p.ID)
	require.NoError(t, err)
	assert.Equal(t, p.CreatedAt, got.CreatedAt)
	assert.Zero(t, got.Position)

	_, err = w.Create(w.ctx, w.org, project.Draft{Name: "PETS"})
	assert.Equal(t, fault.Conflict, kind(err))

	renamed, err := w.Update(w.ctx, w.org, p.ID, project.Patch{Name: ptr("Animals"), Description: ptr("")}, ptr(1))
	require.NoError(t, err)
	assert.Equal(t, "Animals", renamed.Name)
	assert.Equal(t, 3, renamed.Version)

	same, err := w.Update(w.ctx, w.org, p.ID, project.Patch{Name: ptr("Animals")}, nil)
	require.NoError(t, err)
	assert.Equal(t, 3, same.Version)
	assert.Zero(t, same.Position)

	_, err = w.Update(w.ctx, w.org, p.ID, project.Patch{Name: ptr("X")}, ptr(1))
	assert.Equal(t, fault.Precondition, kind(err))
	_, err = w.Delete(w.ctx, w.org, p.ID, ptr(1))
	assert.Equal(t, fault.Precondition, kind(err))
	at, err := w.Delete(w.ctx, w.org, p.ID, ptr(3))
	require.NoError(t, err)
	assert.Greater(t, at, renamed.Position)
	_, err = w.Get(w.ctx, w.org, p.ID)
	assert.Equal(t, fault.NotFound, kind(err))
	_, err = w.Delete(w.ctx, w.org, p.ID, nil)
	assert.Equal(t, fault.NotFound, kind(err))
	_, err = w.Create(w.ctx, w.org, project.Draft{Name: "Animals"})
	require.NoError(t, err, "the name of a deleted project is free")
}

func TestProject_otherOrg_is404(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "mine"})
	require.NoError(t, err)
	e, err := w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: "staging"})
	require.NoError(t, err)
	other := newID()
	ctx := as(t.Context(), other, auth.Admin)
	for name, call := range map[string]func() error{
		"get":         func() error { _, err := w.Get(ctx, other, p.ID); return err },
		"get as org":  func() error { _, err := w.Get(ctx, w.org, p.ID); return err },
		"update":      func() error { _, err := w.Update(ctx, other, p.ID, project.Patch{Name: ptr("x")}, nil); return err },
		"delete":      func() error { _, err := w.Delete(ctx, other, p.ID, nil); return err },
		"environment": func() error { _, err := w.GetEnvironment(ctx, other, p.ID, e.ID); return err },
		"environments": func() error {
			_, _, err := w.ListEnvironments(ctx, other, p.ID, project.EnvironmentFilter{Limit: 5})
			return err
		},
		"create environment": func() error {
			_, err := w.CreateEnvironment(ctx, other, p.ID, project.EnvironmentDraft{Name: "e"})
			return err
		},
		"update environment": func() error {
			_, err := w.UpdateEnvironment(ctx, other, p.ID, e.ID, project.EnvironmentPatch{Name: ptr("x")}, nil)
			return err
		},
		"delete environment": func() error { _, err := w.DeleteEnvironment(ctx, other, p.ID, e.ID, nil); return err },
	} {
		assert.Equal(t, fault.NotFound, kind(call()), name)
	}
	items, _, err := w.List(ctx, other, project.Filter{Limit: 10})
	require.NoError(t, err)
	assert.Empty(t, items)
}

func TestProject_permissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "p"})
	require.NoError(t, err)
	e, err := w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: "e"})
	require.NoError(t, err)
	viewer, dev := as(t.Context(), w.org, auth.Viewer), as(t.Context(), w.org, auth.Developer)
	_, err = w.Create(dev, w.org, project.Draft{Name: "x"})
	assert.Equal(t, fault.Forbidden, kind(err))
	_, err = w.UpdateEnvironment(dev, w.org, p.ID, e.ID, project.EnvironmentPatch{Name: ptr("x")}, nil)
	assert.Equal(t, fault.Forbidden, kind(err))
	_, err = w.UpdateEnvironment(viewer, w.org, p.ID, e.ID, project.EnvironmentPatch{Variables: map[string]*string{"a": ptr("1")}}, nil)
	assert.Equal(t, fault.Forbidden, kind(err))
	_, err = w.UpdateEnvironment(dev, w.org, p.ID, e.ID, project.EnvironmentPatch{Variables: map[string]*string{"a": ptr("1")}}, nil)
	require.NoError(t, err, "a developer sets variables")
	_, err = w.Get(t.Context(), w.org, p.ID)
	assert.Equal(t, fault.Unauthenticated, kind(err))
}

func TestProject_allFaultsInOneAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, err := w.Create(w.ctx, w.org, project.Draft{Name: strings.Repeat("x", 101), Description: strings.Repeat("d", 2001)})
	assert.Equal(t, fault.Invalid, kind(err))
	assert.Equal(t, []string{"/name", "/description"}, pointers(t, err))
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "p"})
	require.NoError(t, err)
	_, err = w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: " ", Variables: map[string]string{"1x": "v", "a/b~c": "v", "ok": "nul\x00"}})
	assert.Equal(t, []string{"/name", "/variables/1x", "/variables/a~1b~0c", "/variables/ok"}, pointers(t, err))
}

func TestEnvironment_versionsFoldToWhatTheyWere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "p"})
	require.NoError(t, err)
	e, err := w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: "staging", Variables: map[string]string{"base": "http://a", "keep": "1"}})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"base": "http://a", "keep": "1"}, e.Variables)
	_, err = w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: "Staging"})
	assert.Equal(t, fault.Conflict, kind(err))

	e2, err := w.UpdateEnvironment(w.ctx, w.org, p.ID, e.ID, project.EnvironmentPatch{
		Name: ptr("stage"), Description: ptr("d"), Variables: map[string]*string{"base": nil, "more": ptr("x"), "keep": ptr("1"), "absent": nil},
	}, ptr(1))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"keep": "1", "more": "x"}, e2.Variables)
	assert.Equal(t, 4, e2.Version)
	got, err := w.GetEnvironment(w.ctx, w.org, p.ID, e.ID)
	require.NoError(t, err)
	assert.Equal(t, e2.Variables, got.Variables)

	_, err = w.DeleteEnvironment(w.ctx, w.org, p.ID, e.ID, nil)
	require.NoError(t, err)
	_, err = w.GetEnvironment(w.ctx, w.org, p.ID, e.ID)
	assert.Equal(t, fault.NotFound, kind(err))
	require.NoError(t, w.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		old, err := project.EnvironmentAt(ctx, tx, w.Store, w.org, e.ID, 1)
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"base": "http://a", "keep": "1"}, old.Variables)
		assert.Equal(t, "staging", old.Name)
		last, err := project.EnvironmentAt(ctx, tx, w.Store, w.org, e.ID, 4)
		require.NoError(t, err)
		assert.Equal(t, e2.Variables, last.Variables)
		_, err = project.EnvironmentAt(ctx, tx, w.Store, w.org, e.ID, 6)
		require.Error(t, err)
		return nil
	}))
}

func TestList_pagesWithoutGapOrDouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"a1", "a2", "b3", "a4", "a5"} {
		_, err := w.Create(w.ctx, w.org, project.Draft{Name: name})
		require.NoError(t, err)
	}
	var seen []string
	f := project.Filter{Query: "A", Limit: 2}
	for pages := 0; ; pages++ {
		require.Less(t, pages, 5)
		items, next, err := w.List(w.ctx, w.org, f)
		require.NoError(t, err)
		for _, p := range items {
			seen = append(seen, p.Name)
		}
		if next == nil {
			break
		}
		f.After = next
	}
	assert.Equal(t, []string{"a5", "a4", "a2", "a1"}, seen)
}

func TestUpdate_concurrentWritersAllCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "p"})
	require.NoError(t, err)
	e, err := w.CreateEnvironment(w.ctx, w.org, p.ID, project.EnvironmentDraft{Name: "e"})
	require.NoError(t, err)
	const writers = 8
	errs := make(chan error, writers)
	for i := range writers {
		go func() {
			_, err := w.UpdateEnvironment(w.ctx, w.org, p.ID, e.ID, project.EnvironmentPatch{Variables: map[string]*string{"v" + string(rune('a'+i)): ptr("1")}}, nil)
			errs <- err
		}()
	}
	var all error
	for range writers {
		all = errors.Join(all, <-errs)
	}
	require.NoError(t, all)
	got, err := w.GetEnvironment(w.ctx, w.org, p.ID, e.ID)
	require.NoError(t, err)
	assert.Len(t, got.Variables, writers)
	assert.Equal(t, 1+writers, got.Version)
}

func TestRowLevelSecurity_hidesRowsFromOtherTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Create(w.ctx, w.org, project.Draft{Name: "p"})
	require.NoError(t, err)
	require.NoError(t, w.DB.InOrg(t.Context(), newID(), func(ctx context.Context, tx postgres.OrgTx) error {
		var n int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM projects`).Scan(&n))
		assert.Zero(t, n)
		tag, err := tx.Exec(ctx, `UPDATE projects SET name = 'stolen' WHERE project_id = $1`, p.ID)
		require.NoError(t, err)
		assert.Zero(t, tag.RowsAffected())
		return nil
	}))
}
