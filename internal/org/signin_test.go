package org

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

func TestSignUp_makesAccountOrganizationAndSession(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	in, err := h.SignUp(t.Context(), SignUpInput{
		Registration:     account.Registration{Email: "  Ada@Example.COM ", Name: " Ada ", Password: vault.NewSecret(goodPassword)},
		OrganizationName: "Analytical Engines",
	}, browser)
	require.NoError(t, err)
	require.Equal(t, "ada@example.com", in.User.Email)
	require.Equal(t, "Ada", in.User.Name)
	require.True(t, in.User.Operator, "the first one is the operator")
	require.Equal(t, "Analytical Engines", in.Organization.Name)
	require.Equal(t, auth.Admin, in.Organization.Role)
	require.Equal(t, 2, in.Organization.Version)
	require.Positive(t, in.Position)
	require.Equal(t, 15*time.Minute, in.ExpiresIn)

	p, err := h.Authenticate(t.Context(), in.AccessToken.Reveal(), nil)
	require.NoError(t, err)
	require.Equal(t, auth.Principal{
		Kind: auth.User, AccountID: in.User.ID, OrgID: in.Organization.ID, Role: auth.Admin, SessionID: in.SessionID, Operator: true,
	}, p)
	require.Equal(t, []string{account.TypeRegistered, account.TypeSignedIn}, h.types(t, in.User.ID))
	require.Equal(t, []string{TypeCreated, TypeMemberAdded, TypeSignedIn}, h.types(t, in.Organization.ID))

	me, err := h.Me(h.as(t, in))
	require.NoError(t, err)
	require.Equal(t, in.User, me.User)
	require.Equal(t, in.Organization.ID, me.Organization.ID)
	require.Len(t, me.Organizations, 1)
	require.Len(t, me.Permissions, len(auth.Grants()))

	second, err := h.SignUp(t.Context(), SignUpInput{Registration: account.Registration{Email: "bob@example.com", Name: "Bob", Password: vault.NewSecret(goodPassword)}}, browser)
	require.NoError(t, err)
	require.False(t, second.User.Operator)
	require.Equal(t, "My organization", second.Organization.Name)
}

func TestSignUp_allFaultsInOneAnswer(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.SignUp(t.Context(), SignUpInput{
		Registration:     account.Registration{Email: "nobody", Name: "\n", Password: vault.NewSecret("short")},
		OrganizationName: "\x00",
	}, browser)
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.Subset(t, pointers(err), []string{"/email", "/name", "/password", "/organizationName"})
	require.Zero(t, h.count(t, "SELECT count(*) FROM accounts"))
}

func TestSignUp_addressTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.signUp(t, "ada")
	in := input("ada")
	in.Email = "ADA@example.com"
	_, err := h.SignUp(t.Context(), in, browser)
	require.Equal(t, "account.email_taken", code(err))
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.Equal(t, []string{"/email"}, pointers(err))
	require.Equal(t, 1, h.count(t, "SELECT count(*) FROM orgs"), "nothing of it stays")
}

func TestSignUp_fiftyAtOnceMakeOneOperator(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{Open, ByInvitation} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.Policy = policy
			var wg sync.WaitGroup
			results := make([]error, 50)
			for i := range results {
				wg.Go(func() { _, results[i] = h.SignUp(t.Context(), input(fmt.Sprintf("p%d", i)), browser) })
			}
			wg.Wait()
			made := 0
			for _, err := range results {
				if err == nil {
					made++
					continue
				}
				if code(err) != "auth.busy" { // more than the cores can hash in time
					require.Equal(t, "account.registration_closed", code(err))
				}
			}
			if policy == ByInvitation {
				require.Equal(t, 1, made)
			} else {
				require.Greater(t, made, 1)
			}
			require.Equal(t, 1, h.count(t, "SELECT count(*) FROM accounts WHERE operator"))
			require.Equal(t, made, h.count(t, "SELECT count(*) FROM accounts"))
			require.Equal(t, 1, h.count(t, "SELECT count(*) FROM installation i JOIN accounts a ON a.account_id = i.operator_id AND a.operator"))
		})
	}
}

func TestSignUp_setupToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.SetupToken = "TFCANARY-setup"
	for _, wrong := range []string{"", "TFCANARY-setuq", "TFCANARY-setup "} {
		in := input("ada")
		in.SetupToken = vault.NewSecret(wrong)
		_, err := h.SignUp(t.Context(), in, browser)
		require.Equal(t, "account.setup_token_required", code(err), "%q", wrong)
	}
	in := input("ada")
	in.SetupToken = vault.NewSecret("TFCANARY-setup")
	_, err := h.SignUp(t.Context(), in, browser)
	require.NoError(t, err)
	h.signUp(t, "bob") // nobody needs it any more
	h.Policy = ByInvitation
	in = input("eve")
	in.SetupToken = vault.NewSecret("TFCANARY-setup")
	_, err = h.SignUp(t.Context(), in, browser)
	require.Equal(t, "account.registration_closed", code(err), "it is good once")
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	in, err := h.SignIn(t.Context(), SignInInput{Email: " ADA@example.com", Password: vault.NewSecret(goodPassword)}, browser)
	require.NoError(t, err)
	require.Equal(t, ada.User, in.User)
	require.Equal(t, ada.Organization.ID, in.Organization.ID)
	require.NotEqual(t, ada.SessionID, in.SessionID)
	require.Positive(t, in.Position)
	h.as(t, in)
	h.as(t, ada)
	require.Equal(t, []string{account.TypeRegistered, account.TypeSignedIn, account.TypeSignedIn}, h.types(t, ada.User.ID))
}

func TestSignIn_wrongIsTheSameForKnownAndUnknown(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	attempt := func(email, password string) (string, time.Duration) {
		begin := time.Now()
		_, err := h.SignIn(t.Context(), SignInInput{Email: email, Password: vault.NewSecret(password)}, browser)
		took := time.Since(begin)
		require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
		return err.Error(), took
	}
	var answers []string
	var times [3][]time.Duration
	for range 7 {
		for i, email := range []string{"ada@example.com", "nobody@example.com", "not an address"} {
			answer, took := attempt(email, "wrong password")
			answers = append(answers, answer)
			times[i] = append(times[i], took)
		}
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(answers))), 1)
	for i := range times {
		slices.Sort(times[i])
		require.GreaterOrEqual(t, times[i][0], 250*time.Millisecond, "no answer before the floor")
	}

	failures := 0
	for _, e := range h.events(t, ada.Organization.ID) {
		if e.Type == TypeSignInFailed {
			failures++
		}
	}
	require.Equal(t, 5, failures, "of 7, those that say something")
	require.Equal(t, 7, h.count(t, "SELECT failed_count FROM accounts"))
	_, err := h.SignIn(t.Context(), SignInInput{Email: "ada@example.com", Password: vault.NewSecret(goodPassword)}, browser)
	require.NoError(t, err)
	require.Zero(t, h.count(t, "SELECT failed_count FROM accounts"))
}

func TestRefresh_rotates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	token := ada.RefreshToken
	for range 3 {
		next, err := h.Refresh(t.Context(), token, browser)
		require.NoError(t, err)
		require.NotEqual(t, token.Reveal(), next.RefreshToken.Reveal())
		require.Equal(t, ada.SessionID, next.SessionID)
		require.Equal(t, ada.User, next.User)
		require.Equal(t, ada.Organization.ID, next.Organization.ID)
		h.as(t, next)
		token = next.RefreshToken
	}
	require.Equal(t, []string{account.TypeRegistered, account.TypeSignedIn}, h.types(t, ada.User.ID), "a refresh is no news")
	_, err := h.Authenticate(t.Context(), token.Reveal(), nil)
	require.Equal(t, "auth.token_invalid", code(err), "a refresh token is no access token")
	_, err = h.Refresh(t.Context(), ada.AccessToken, browser)
	require.Equal(t, "auth.refresh_invalid", code(err), "nor the other way round")
}

func TestRefresh_twoTabsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	var wg sync.WaitGroup
	results := make([]SignedIn, 8)
	for i := range results {
		wg.Go(func() {
			var err error
			results[i], err = h.Refresh(t.Context(), ada.RefreshToken, browser)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	for _, r := range results {
		_, err := h.Refresh(t.Context(), r.RefreshToken, browser)
		require.NoError(t, err, "each child is good")
	}
}

func TestRefresh_reuseEndsTheFamily(t *testing.T) {
	t.Parallel()
	thief := account.Client{Address: "198.51.100.9", Agent: "curl/8"}
	for name, c := range map[string]struct {
		by   account.Client
		late bool
	}{
		"by another client, at once":       {thief, false},
		"by the same client, after grace":  {browser, true},
		"by another address, at once":      {account.Client{Address: thief.Address, Agent: browser.Agent}, false},
		"by another agent at that address": {account.Client{Address: browser.Address, Agent: thief.Agent}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			ada := h.signUp(t, "ada")
			other, err := h.SignIn(t.Context(), SignInInput{Email: ada.User.Email, Password: vault.NewSecret(goodPassword)}, browser)
			require.NoError(t, err)
			child, err := h.Refresh(t.Context(), ada.RefreshToken, browser)
			require.NoError(t, err)
			if c.late {
				h.exec(t, "UPDATE refresh_tokens SET used_at = used_at - interval '11 s' WHERE used_at IS NOT NULL")
			}
			_, err = h.Refresh(t.Context(), ada.RefreshToken, c.by)
			require.Equal(t, "auth.refresh_reused", code(err))
			require.Equal(t, fault.Unauthenticated, fault.KindOf(err))

			_, err = h.Refresh(t.Context(), child.RefreshToken, browser)
			require.Equal(t, "auth.session_ended", code(err), "the whole family is worth nothing")
			for _, token := range []vault.Secret{ada.AccessToken, child.AccessToken} {
				_, err = h.Authenticate(t.Context(), token.Reveal(), nil)
				require.Equal(t, "auth.session_ended", code(err))
			}
			_, err = h.Refresh(t.Context(), ada.RefreshToken, c.by)
			require.Equal(t, "auth.session_ended", code(err))
			h.as(t, other) // another session lives on

			require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeRefreshReused), "recorded once")
			require.Equal(t, 1, countOf(h.types(t, ada.Organization.ID), TypeRefreshReused))
		})
	}
}

func TestRefresh_manyThievesEndItOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	_, err := h.Refresh(t.Context(), ada.RefreshToken, browser)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			_, err := h.Refresh(t.Context(), ada.RefreshToken, account.Client{Address: "203.0.113.1"})
			assert.Equal(t, fault.Unauthenticated, fault.KindOf(err))
		})
	}
	wg.Wait()
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeRefreshReused))
}

func TestRefresh_ends(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, sql := range map[string]string{
		"idle for too long": "UPDATE refresh_tokens SET expires_at = now() - interval '1 s' WHERE session_id = $1",
		"too old":           "UPDATE sessions SET expires_at = now() - interval '1 s' WHERE session_id = $1",
		"ended":             "UPDATE sessions SET ended_at = now(), end_reason = 'revoked' WHERE session_id = $1",
	} {
		in := h.signUp(t, uuid.NewString())
		h.exec(t, sql, in.SessionID)
		_, err := h.Refresh(t.Context(), in.RefreshToken, browser)
		require.Equal(t, "auth.session_ended", code(err), name)
	}
	for _, token := range []string{"", "tfr_", "tfr_" + strings.Repeat("A", 43), "x"} {
		_, err := h.Refresh(t.Context(), vault.NewSecret(token), browser)
		require.Equal(t, "auth.refresh_invalid", code(err), "%q", token)
	}
	in := h.signUp(t, "last")
	h.exec(t, "UPDATE sessions SET expires_at = now() + interval '1 hour' WHERE session_id = $1", in.SessionID)
	_, err := h.Refresh(t.Context(), in.RefreshToken, browser)
	require.NoError(t, err)
	require.Equal(t, 1, h.count(t, "SELECT count(*) FROM refresh_tokens t JOIN sessions s USING (session_id) WHERE s.session_id = $1 AND t.used_at IS NULL AND t.expires_at = s.expires_at", in.SessionID),
		"a refresh doesn't make a session longer")
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx := h.as(t, ada)
	position, err := h.SignOut(ctx)
	require.NoError(t, err)
	require.Positive(t, position)
	_, err = h.Authenticate(t.Context(), ada.AccessToken.Reveal(), nil)
	require.Equal(t, "auth.session_ended", code(err))
	_, err = h.Refresh(t.Context(), ada.RefreshToken, browser)
	require.Equal(t, "auth.session_ended", code(err))
	_, err = h.Check(t.Context(), auth.From(ctx))
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
	position, err = h.SignOut(ctx)
	require.NoError(t, err)
	require.Zero(t, position)
	require.Equal(t, 1, countOf(h.types(t, ada.User.ID), account.TypeSignedOut))
	require.Equal(t, 1, countOf(h.types(t, ada.Organization.ID), TypeSignedOut))
	_, err = h.SignOut(t.Context())
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
}

func TestAuthenticate_choosesAmongMemberships(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	_, err := h.AddMember(h.as(t, ada), ada.Organization.ID, bob.User.ID, auth.Developer)
	require.NoError(t, err)
	ask := func(org uuid.UUID) (auth.Principal, error) {
		return h.Authenticate(t.Context(), bob.AccessToken.Reveal(), &org)
	}
	p, err := ask(ada.Organization.ID)
	require.NoError(t, err)
	require.Equal(t, ada.Organization.ID, p.OrgID)
	require.Equal(t, auth.Developer, p.Role)
	for name, foreign := range map[string]uuid.UUID{"nobody's": newID(), "zero": uuid.Nil, "an account's": ada.User.ID} {
		_, err = ask(foreign)
		require.Equal(t, fault.NotFound, fault.KindOf(err), name)
	}
	foreign := bob.Organization.ID
	_, err = h.Authenticate(t.Context(), ada.AccessToken.Reveal(), &foreign)
	require.Equal(t, fault.NotFound, fault.KindOf(err))

	socket, err := h.Check(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, p, socket)
	_, err = h.RemoveMember(h.as(t, ada), ada.Organization.ID, bob.User.ID)
	require.NoError(t, err)
	_, err = ask(ada.Organization.ID)
	require.Equal(t, fault.NotFound, fault.KindOf(err), "at the next request")
	_, err = h.Check(t.Context(), p)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
}

func TestAuthenticate_whoLeftTheTokensOrganization(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	bob := h.join(t, ada, "bob", auth.Admin)
	_, err := h.RemoveMember(h.as(t, ada), ada.Organization.ID, ada.User.ID)
	require.NoError(t, err)
	p, err := h.Authenticate(t.Context(), ada.AccessToken.Reveal(), nil)
	require.NoError(t, err)
	require.Equal(t, uuid.Nil, p.OrgID)
	require.Empty(t, p.Role)
	_, err = auth.Require(auth.With(t.Context(), p), p.OrgID, auth.ProjectRead)
	require.Equal(t, fault.Forbidden, fault.KindOf(err))
	_, err = auth.Require(auth.With(t.Context(), p), ada.Organization.ID, auth.ProjectRead)
	require.Equal(t, fault.NotFound, fault.KindOf(err))

	next, err := h.Refresh(t.Context(), ada.RefreshToken, browser)
	require.NoError(t, err)
	require.Nil(t, next.Organization)
	o, err := h.Create(h.as(t, ada), "A new one")
	require.NoError(t, err)
	next, err = h.Refresh(t.Context(), next.RefreshToken, browser)
	require.NoError(t, err)
	require.Equal(t, o.ID, next.Organization.ID, "a refresh finds the next organization")
	_, err = h.AddMember(h.as(t, bob), bob.Organization.ID, ada.User.ID, auth.Viewer)
	require.NoError(t, err)
	next, err = h.Refresh(t.Context(), next.RefreshToken, browser)
	require.NoError(t, err)
	require.Equal(t, o.ID, next.Organization.ID, "and keeps it")
}

func countOf(list []string, want string) (n int) {
	for _, s := range list {
		if s == want {
			n++
		}
	}
	return n
}
