package org

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
)

func TestState_decisions(t *testing.T) {
	t.Parallel()
	admin, admin2, manager, developer, stranger := newID(), newID(), newID(), newID(), newID()
	o := state{name: "A", version: 1, members: map[uuid.UUID]auth.Role{admin: auth.Admin, manager: auth.Manager, developer: auth.Developer}}
	two := state{name: "A", version: 1, members: map[uuid.UUID]auth.Role{admin: auth.Admin, admin2: auth.Admin}}
	role := func(o state, actor auth.Role, person uuid.UUID, r auth.Role) string {
		_, err := o.setRole(actor, person, r)
		return code(err)
	}
	require.Empty(t, role(o, auth.Admin, developer, auth.Admin))
	require.Empty(t, role(o, auth.Manager, developer, auth.Manager))
	require.Empty(t, role(o, auth.Admin, admin, auth.Admin), "nothing changes")
	require.Equal(t, "org.last_admin", role(o, auth.Admin, admin, auth.Viewer))
	require.Empty(t, role(two, auth.Admin, admin, auth.Viewer))
	require.Equal(t, "org.role_above_yours", role(o, auth.Manager, developer, auth.Admin), "nobody gives more than they have")
	require.Equal(t, "org.role_above_yours", role(two, auth.Manager, admin, auth.Viewer), "nor touches those above")
	require.Equal(t, "org.role_above_yours", role(o, "", developer, auth.Viewer), "who is no member any more")
	require.Equal(t, "org.member_not_found", role(o, auth.Admin, stranger, auth.Viewer))
	require.Equal(t, "request.invalid", role(o, auth.Admin, developer, "owner"))

	remove := func(o state, actor auth.Role, self, person uuid.UUID) string {
		_, err := o.remove(actor, self, person)
		return code(err)
	}
	require.Empty(t, remove(o, auth.Developer, developer, developer), "everybody may leave")
	require.Equal(t, "org.last_admin", remove(o, auth.Admin, admin, admin), "but for the last admin")
	require.Empty(t, remove(two, auth.Admin, admin, admin))
	require.Empty(t, remove(o, auth.Manager, manager, developer))
	require.Equal(t, "org.role_above_yours", remove(two, auth.Manager, manager, admin))
	require.Equal(t, "org.member_not_found", remove(o, auth.Admin, admin, stranger))

	_, err := o.add(auth.Manager, stranger, auth.Admin)
	require.Equal(t, "org.role_above_yours", code(err))
	_, err = o.add(auth.Admin, developer, auth.Viewer)
	require.Equal(t, "org.already_member", code(err))
}

func TestCreateRenameGet(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, eve := h.signUp(t, "ada"), h.signUp(t, "eve")
	ctx := h.as(t, ada)
	o, err := h.Create(ctx, " Second ")
	require.NoError(t, err)
	require.Equal(t, "Second", o.Name)
	require.Positive(t, o.Position)
	require.Equal(t, 2, o.Version)

	same, err := h.Rename(ctx, o.ID, "Second", nil)
	require.NoError(t, err)
	require.Zero(t, same.Position, "nothing changed")
	require.Equal(t, 2, same.Version)
	stale := 1
	_, err = h.Rename(ctx, o.ID, "Third", &stale)
	require.Equal(t, fault.Precondition, fault.KindOf(err))
	current := 2
	renamed, err := h.Rename(ctx, o.ID, "Third", &current)
	require.NoError(t, err)
	require.Equal(t, 3, renamed.Version)
	require.Greater(t, renamed.Position, o.Position)
	got, err := h.Get(ctx, o.ID)
	require.NoError(t, err)
	renamed.Position = 0
	require.Equal(t, renamed, got, "read at once")
	require.Equal(t, auth.Admin, got.Role)

	_, err = h.Rename(ctx, o.ID, "", nil)
	require.Equal(t, []string{"/name"}, pointers(err))
	_, err = h.Create(ctx, strings.Repeat("x", 101))
	require.Equal(t, []string{"/name"}, pointers(err))
	_, err = h.Create(t.Context(), "x")
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))

	// To a stranger it isn't there, whatever is tried.
	for name, call := range map[string]func(context.Context) error{
		"get":     func(ctx context.Context) error { _, err := h.Get(ctx, o.ID); return err },
		"rename":  func(ctx context.Context) error { _, err := h.Rename(ctx, o.ID, "Mine", nil); return err },
		"members": func(ctx context.Context) error { _, _, err := h.Members(ctx, o.ID, Filter{}); return err },
		"add":     func(ctx context.Context) error { _, err := h.AddMember(ctx, o.ID, eve.User.ID, auth.Admin); return err },
		"role":    func(ctx context.Context) error { _, err := h.SetRole(ctx, o.ID, ada.User.ID, auth.Viewer); return err },
		"remove":  func(ctx context.Context) error { _, err := h.RemoveMember(ctx, o.ID, ada.User.ID); return err },
		"leave":   func(ctx context.Context) error { _, err := h.RemoveMember(ctx, o.ID, eve.User.ID); return err },
	} {
		require.Equal(t, fault.NotFound, fault.KindOf(call(h.as(t, eve))), name)
		require.Equal(t, fault.Unauthenticated, fault.KindOf(call(t.Context())), name)
	}
	require.Equal(t, []string{TypeCreated, TypeMemberAdded, TypeRenamed}, h.types(t, o.ID))
}

func TestRename_manyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, version := h.as(t, ada), ada.Organization.Version
	var wg sync.WaitGroup
	won := make([]error, 6)
	for i := range won {
		wg.Go(func() { _, won[i] = h.Rename(ctx, ada.Organization.ID, fmt.Sprint("Name ", i), &version) })
	}
	wg.Wait()
	ok := 0
	for _, err := range won {
		if err == nil {
			ok++
			continue
		}
		require.Equal(t, fault.Precondition, fault.KindOf(err), "%v", err)
	}
	require.Equal(t, 1, ok, "one If-Match wins")
}

func TestMembers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	people := []SignedIn{ada}
	for i, role := range []auth.Role{auth.Admin, auth.Manager, auth.Developer, auth.Viewer} {
		people = append(people, h.join(t, ada, fmt.Sprint("m", i), role))
	}
	var seen []uuid.UUID
	var after *Cursor
	for page := 0; ; page++ {
		list, next, err := h.Members(h.in(t, people[4], id), id, Filter{Limit: 2, After: after})
		require.NoError(t, err)
		for _, m := range list {
			seen = append(seen, m.AccountID)
		}
		if after = next; after == nil {
			require.Equal(t, 2, page)
			break
		}
		require.Len(t, list, 2)
	}
	for i, p := range people {
		require.Equal(t, p.User.ID, seen[i], "first come first")
	}
	manager := h.in(t, people[2], id)
	m, err := h.SetRole(manager, id, people[4].User.ID, auth.Developer)
	require.NoError(t, err)
	require.Equal(t, auth.Developer, m.Role)
	require.Equal(t, "m3@example.com", m.Email)
	require.Positive(t, m.Position)
	m, err = h.SetRole(manager, id, people[4].User.ID, auth.Developer)
	require.NoError(t, err)
	require.Zero(t, m.Position)
	_, err = h.SetRole(h.in(t, people[3], id), id, people[4].User.ID, auth.Viewer)
	require.Equal(t, "auth.forbidden", code(err))

	position, err := h.RemoveMember(h.in(t, people[4], id), id, people[4].User.ID)
	require.NoError(t, err, "a viewer may leave")
	require.Positive(t, position)
	_, err = h.RemoveMember(manager, id, people[4].User.ID)
	require.Equal(t, "org.member_not_found", code(err))
	_, err = h.Get(h.as(t, people[4]), id)
	require.Equal(t, fault.NotFound, fault.KindOf(err))

	o, err := h.Get(h.as(t, ada), id)
	require.NoError(t, err)
	require.Equal(t, 8, o.Version, "created, added, 4 joined, 1 role, 1 left: the read model follows")
	_, err = h.AddMember(h.as(t, ada), id, newID(), auth.Viewer)
	require.Equal(t, "account.not_found", code(err))
}

func TestMembers_theLastAdminStays(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	admins := []SignedIn{ada}
	for i := range 5 {
		admins = append(admins, h.join(t, ada, fmt.Sprint("a", i), auth.Admin))
	}
	// All leave or step down at once: whoever would be the last one can't.
	var wg sync.WaitGroup
	results := make([]error, len(admins))
	for i, a := range admins {
		ctx := h.in(t, a, id)
		wg.Go(func() {
			if i%2 == 0 {
				_, results[i] = h.RemoveMember(ctx, id, a.User.ID)
			} else {
				_, results[i] = h.SetRole(ctx, id, a.User.ID, auth.Viewer)
			}
		})
	}
	wg.Wait()
	for _, err := range results {
		if err != nil {
			require.Contains(t, []string{"org.last_admin", "request.version_conflict"}, code(err))
		}
	}
	require.GreaterOrEqual(t, h.count(t, "SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'admin'", id), 1)
}

func TestList(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	h.signUp(t, "eve")
	ctx := h.as(t, ada)
	want := []uuid.UUID{ada.Organization.ID}
	for i := range 4 {
		o, err := h.Create(ctx, fmt.Sprint("Organization ", i))
		require.NoError(t, err)
		want = append(want, o.ID)
	}
	var got []uuid.UUID
	var after *Cursor
	for {
		list, next, err := h.List(ctx, Filter{Limit: 2, After: after})
		require.NoError(t, err)
		for _, o := range list {
			got = append(got, o.ID)
			require.Equal(t, auth.Admin, o.Role)
		}
		if after = next; next == nil {
			break
		}
	}
	require.Equal(t, want, got)
	for range limits.MaxOrganizations - len(want) {
		_, err := h.Create(ctx, "One more")
		require.NoError(t, err)
	}
	_, err := h.Create(ctx, "Too many")
	require.Equal(t, "org.too_many", code(err))
}

func TestReadModel_equalsARebuild(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	bob := h.join(t, ada, "bob", auth.Viewer)
	id := ada.Organization.ID
	ctx := h.as(t, ada)
	_, err := h.Rename(ctx, id, "Other", nil)
	require.NoError(t, err)
	_, err = h.SetRole(ctx, id, bob.User.ID, auth.Manager)
	require.NoError(t, err)
	_, err = h.RemoveMember(ctx, id, bob.User.ID)
	require.NoError(t, err)
	_, err = h.AddMember(ctx, id, bob.User.ID, auth.Developer)
	require.NoError(t, err)
	const sum = `SELECT md5(string_agg(x::text, '' ORDER BY x::text)) FROM (SELECT o::text FROM orgs o UNION ALL SELECT m::text FROM org_members m) AS t (x)`
	var before, after string
	require.NoError(t, h.db.System.QueryRow(t.Context(), sum).Scan(&before))
	batch, err := h.store.ReadAll(t.Context(), 0, 1000)
	require.NoError(t, err)
	require.NoError(t, h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM orgs"); err != nil { // and, with them, members
			return err
		}
		if err := ReadModel().Apply(ctx, tx, batch.Events); err != nil {
			return err
		}
		return tx.QueryRow(ctx, sum).Scan(&after)
	}))
	require.Equal(t, before, after)
}

func TestTables_rowsOfOthersAreNotThere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, eve := h.signUp(t, "ada"), h.signUp(t, "eve")
	for _, o := range []uuid.UUID{ada.Organization.ID, eve.Organization.ID} {
		_, err := h.keys.Key(t.Context(), o)
		require.NoError(t, err)
	}
	for _, table := range []string{"orgs", "org_members", "org_keys"} {
		var outside int
		require.NoError(t, h.db.API.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&outside))
		require.Zero(t, outside, "%s without a tenant", table)
		err := h.DB.InOrg(t.Context(), eve.Organization.ID, func(ctx context.Context, tx postgres.OrgTx) error {
			var all, foreign int
			if err := tx.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE org_id <> $1) FROM "+table, eve.Organization.ID).Scan(&all, &foreign); err != nil {
				return err
			}
			require.Equal(t, 1, all, table)
			require.Zero(t, foreign, table)
			tag, err := tx.Exec(ctx, "DELETE FROM "+table+" WHERE org_id = $1", ada.Organization.ID)
			require.Zero(t, tag.RowsAffected())
			return err
		})
		require.NoError(t, err)
	}
	err := h.DB.InOrg(t.Context(), eve.Organization.ID, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, "INSERT INTO org_members VALUES ($1, $2, 'admin', now())", ada.Organization.ID, eve.User.ID)
		return err
	})
	require.Equal(t, "42501", postgres.SQLState(err), "nobody makes themselves a member elsewhere")
}

func TestKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, eve := h.signUp(t, "ada"), h.signUp(t, "eve")
	sealed, err := h.keys.Seal(t.Context(), ada.Organization.ID, []byte("TFCANARY answer"))
	require.NoError(t, err)
	fresh, err := NewKeys(h.db.DB, h.keys.master, h.keys.now)
	require.NoError(t, err)
	plain, err := fresh.Open(t.Context(), ada.Organization.ID, sealed)
	require.NoError(t, err)
	require.Equal(t, "TFCANARY answer", string(plain))
	_, err = fresh.Open(t.Context(), eve.Organization.ID, sealed)
	require.Error(t, err)
	_, err = fresh.Key(t.Context(), newID())
	require.Error(t, err, "no such organization")

	// Made in a transaction that is rolled back, a key is not remembered.
	o, err := h.Create(h.as(t, ada), "Third")
	require.NoError(t, err)
	undone := fmt.Errorf("undone")
	require.ErrorIs(t, h.DB.InOrg(t.Context(), o.ID, func(ctx context.Context, _ postgres.OrgTx) error {
		if _, err := h.keys.Key(ctx, o.ID); err != nil {
			return err
		}
		return undone
	}), undone)
	sealed, err = h.keys.Seal(t.Context(), o.ID, []byte("x"))
	require.NoError(t, err)
	_, err = fresh.Open(t.Context(), o.ID, sealed)
	require.NoError(t, err)

	var wg sync.WaitGroup
	o, err = h.Create(h.as(t, ada), "Fourth")
	require.NoError(t, err)
	results := make([][]byte, 6)
	for i := range results {
		wg.Go(func() {
			var err error
			results[i], err = h.keys.Seal(t.Context(), o.ID, []byte("x"))
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	for _, sealed := range results {
		_, err = fresh.Open(t.Context(), o.ID, sealed)
		require.NoError(t, err, "all sealed with the one key that stayed")
	}
}

// TestCanary looks for what was said in confidence in everything that is stored or logged.
func TestCanary(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	_, err := h.SignIn(t.Context(), SignInInput{Email: ada.User.Email, Password: ada.AccessToken}, browser)
	require.Error(t, err)
	next, err := h.Refresh(t.Context(), ada.RefreshToken, browser)
	require.NoError(t, err)
	_, err = h.SignOut(h.as(t, next))
	require.NoError(t, err)

	conn, err := pgx.Connect(t.Context(), h.db.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	// text of every table; the log holds nothing personal, the tables of people no secret
	dump := func(tables string) string {
		rows, err := conn.Query(t.Context(), `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind = 'r' AND n.nspname IN ('public', 'es') AND `+tables)
		require.NoError(t, err)
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.NotEmpty(t, names)
		var all strings.Builder
		for _, name := range names {
			var text string
			require.NoError(t, conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(x::text, E'\n'), '') FROM "+name+" x").Scan(&text))
			all.WriteString(text)
		}
		return all.String()
	}
	secrets := []string{goodPassword, jwtSecret, refreshSecret}
	for _, in := range []SignedIn{ada, next} {
		secrets = append(secrets, in.AccessToken.Reveal(), in.RefreshToken.Reveal(), strings.TrimPrefix(in.RefreshToken.Reveal(), "tfr_"))
	}
	everything, events := dump("true")+h.log.String()+fmt.Sprintf("%v %+v", ada, next), dump("n.nspname = 'es'")
	for _, secret := range secrets {
		require.NotContains(t, everything, secret)
	}
	for _, personal := range []string{ada.User.Email, ada.User.Name, browser.Address, browser.Agent} {
		require.NotContains(t, events, personal, "what is personal is sealed in events")
		require.NotContains(t, h.log.String(), personal)
	}
	require.Contains(t, events, "sealed:")

	// and who has the person's key can read it
	i := slices.IndexFunc(h.events(t, ada.Organization.ID), func(e eventstore.Event) bool { return e.Type == TypeSignInFailed })
	failed := h.events(t, ada.Organization.ID)[i]
	require.Equal(t, ada.User.ID, failed.Meta.ActorID)
	for sealed, want := range map[string]string{failed.Meta.Address: browser.Address, failed.Meta.Agent: browser.Agent} {
		plain, err := h.persons.Open(t.Context(), failed.Meta.ActorID, sealed)
		require.NoError(t, err)
		require.Equal(t, want, plain)
	}
}
