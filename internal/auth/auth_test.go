package auth

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/fault"
)

func TestPermissions_eachStandsOnceAndRolesAreCumulative(t *testing.T) {
	t.Parallel()
	seen := map[Permission]bool{}
	for _, g := range Grants() {
		require.False(t, seen[g.Permission], "%s stands twice", g.Permission)
		seen[g.Permission] = true
		require.NotEmpty(t, g.Allows)
		had := false
		for _, r := range []Role{Viewer, Developer, Manager, Admin} {
			require.False(t, had && !r.May(g.Permission), "%s lacks %s, a lower role has it", r, g.Permission)
			had = r.May(g.Permission)
		}
		require.True(t, Admin.May(g.Permission))
		require.False(t, Role("").May(g.Permission))
		require.False(t, Role("owner").May(g.Permission))
		require.Equal(t, strings.HasSuffix(string(g.Permission), ".read") && g.Permission != AuditRead && g.Permission != KeyRead,
			Viewer.May(g.Permission), "a viewer reads, and that is all: %s", g.Permission)
	}
	require.False(t, Admin.May("no.such"))
	for perm, lowest := range map[Permission]Role{
		OrgManage: Admin, MembersManage: Manager, ProjectWrite: Manager, AuditRead: Manager, KeyManage: Manager,
		TestWrite: Developer, RunExecute: Developer, VariableWrite: Developer, ScheduleWrite: Developer,
	} {
		for _, r := range Roles() {
			require.Equal(t, r.AtLeast(lowest), r.May(perm), "%s %s", r, perm)
		}
	}
	require.Equal(t, len(Grants())+2, strings.Count(Markdown(), "\n"))
	require.Contains(t, Markdown(), "| `org.manage` | rename the organization and hand it over to another admin | ✓ |  |  |  |\n")
}

func TestRequire(t *testing.T) {
	t.Parallel()
	mine, foreign := uuid.New(), uuid.New()
	viewer := Principal{Kind: User, AccountID: uuid.New(), OrgID: mine, Role: Viewer, Address: "192.0.2.1", Agent: "curl", Request: "r1"}
	for name, c := range map[string]struct {
		who  Principal
		org  uuid.UUID
		perm Permission
		kind fault.Kind
	}{
		"nobody":              {Principal{}, mine, OrgRead, fault.Unauthenticated},
		"reader reads":        {viewer, mine, OrgRead, ""},
		"reader writes":       {viewer, mine, TestWrite, fault.Forbidden},
		"another org":         {viewer, foreign, OrgRead, fault.NotFound},
		"no org asked":        {Principal{Kind: User, Role: Admin}, uuid.Nil, OrgRead, fault.Forbidden},
		"no role":             {Principal{Kind: User, OrgID: mine}, mine, OrgRead, fault.Forbidden},
		"operator is no role": {Principal{Kind: User, OrgID: mine, Operator: true}, mine, OrgRead, fault.Forbidden},
		"system":              {Principal{Kind: System}, foreign, OrgManage, ""},
		"frozen, reads":       {Principal{Kind: User, OrgID: mine, Role: Admin, Frozen: true}, mine, AuditRead, ""},
		"frozen, restores":    {Principal{Kind: User, OrgID: mine, Role: Admin, Frozen: true}, mine, OrgDelete, ""},
		"frozen, writes":      {Principal{Kind: User, OrgID: mine, Role: Admin, Frozen: true}, mine, TestWrite, fault.Conflict},
		"frozen, executes":    {Principal{Kind: APIKey, OrgID: mine, Role: Developer, Scopes: NewScopes(RunExecute), Frozen: true}, mine, RunExecute, fault.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Require(With(t.Context(), c.who), c.org, c.perm)
			if c.kind == "" {
				require.NoError(t, err)
				require.Equal(t, c.who, got)
				require.True(t, c.who.May(c.perm))
				return
			}
			require.Equal(t, c.kind, fault.KindOf(err))
			require.Zero(t, got)
		})
	}
	_, err := Require(t.Context(), mine, OrgRead)
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
}

func TestRequireUserAndOperator(t *testing.T) {
	t.Parallel()
	person := Principal{Kind: User, AccountID: uuid.New()}
	operator := Principal{Kind: User, AccountID: uuid.New(), Operator: true}
	key := Principal{Kind: APIKey, AccountID: uuid.New(), Operator: true}
	for name, c := range map[string]struct {
		who            Principal
		user, operator fault.Kind
	}{
		"nobody":   {Principal{}, fault.Unauthenticated, fault.Unauthenticated},
		"person":   {person, "", fault.Forbidden},
		"operator": {operator, "", ""},
		"key":      {key, fault.Forbidden, fault.Forbidden},
		"system":   {Principal{Kind: System}, fault.Forbidden, ""},
	} {
		check := func(want fault.Kind, err error) {
			if want == "" {
				require.NoError(t, err, name)
				return
			}
			require.Equal(t, want, fault.KindOf(err), name)
		}
		ctx := With(t.Context(), c.who)
		_, err := RequireUser(ctx)
		check(c.user, err)
		_, err = RequireOperator(ctx)
		check(c.operator, err)
	}
}

func TestRefreshTokens(t *testing.T) {
	t.Parallel()
	old, err := NewRefreshTokens(secretA)
	require.NoError(t, err)
	both, err := NewRefreshTokens(secretB + "," + secretA)
	require.NoError(t, err)
	token, hash := old.Mint()
	again, _ := old.Mint()
	require.NotEqual(t, token, again)
	require.NotContains(t, string(hash), token)

	hashes, ok := both.Hashes(token)
	require.True(t, ok)
	require.Len(t, hashes, 2)
	require.Equal(t, hash, hashes[1], "a token of the old secret is still found")
	require.NotEqual(t, hash, hashes[0])

	for _, bad := range []string{"", "tfr_", token + "A", token[:len(token)-1], "TFR_" + token[4:], token[4:], token + "=", "tfr_" + strings.Repeat("!", 43), token[:len(token)-1] + "B"} {
		_, ok := both.Hashes(bad)
		require.False(t, ok, "%q", bad)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	p, err := NewPasswords(0)
	require.NoError(t, err)
	hash, err := p.Hash(t.Context(), "marble otter sunset violin")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$"), hash)

	ok, outdated, err := p.Verify(t.Context(), "marble otter sunset violin", hash)
	require.NoError(t, err)
	require.True(t, ok)
	require.False(t, outdated)
	ok, _, err = p.Verify(t.Context(), "wrong", hash)
	require.NoError(t, err)
	require.False(t, ok)
	ok, _, err = p.Verify(t.Context(), "anything", "")
	require.NoError(t, err)
	require.False(t, ok, "an unknown account has no right password")
	p.dummy = hash
	ok, _, err = p.Verify(t.Context(), "marble otter sunset violin", "")
	require.NoError(t, err)
	require.False(t, ok, "not even the dummy's own")
	const weaker = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$"
	_, _, err = p.Verify(t.Context(), "x", weaker+"broken!")
	require.Error(t, err)
}

func TestPasswords_theDummyCostsAsMuch(t *testing.T) {
	t.Parallel()
	p, err := NewPasswords(1)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(p.dummy, "$argon2id$v=19$m=19456,t=2,p=1$"))
}

func TestPasswords_moreThanTheCoresWaitAndAreThenRefused(t *testing.T) {
	t.Parallel()
	p, err := NewPasswords(1)
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		p := &Passwords{slots: make(chan struct{}, 1), wait: p.wait, dummy: p.dummy}
		release, err := p.acquire(t.Context())
		require.NoError(t, err)
		begin := time.Now()
		_, err = p.Hash(t.Context(), "x")
		require.Equal(t, fault.Unavailable, fault.KindOf(err))
		require.Equal(t, p.wait, time.Since(begin))

		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _, err := p.Verify(ctx, "x", "")
			assert.ErrorIs(t, err, context.Canceled)
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		release()
		_, err = p.Hash(t.Context(), "x")
		require.NoError(t, err)
	})
}
