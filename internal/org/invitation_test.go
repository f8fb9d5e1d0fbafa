package org

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/vault"
)

// invite asks somebody as a member does who has no mail, and returns the invitation with its token.
func (h *house) invite(t *testing.T, who SignedIn, orgID uuid.UUID, name string, role auth.Role) Invitation {
	t.Helper()
	i, err := h.Invite(h.in(t, who, orgID), orgID, name+"@example.com", role)
	require.NoError(t, err)
	require.NotEmpty(t, i.Token.Reveal())
	return i
}

func TestInvite_acceptedByTheAddressItIsFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob, eve := h.signUp(t, "ada"), h.signUp(t, "bob"), h.signUp(t, "eve")
	id := ada.Organization.ID
	i := h.invite(t, ada, id, "BOB", auth.Developer)
	require.Equal(t, "bob@example.com", i.Email)
	require.Equal(t, InvitationOpen, i.Status)
	require.Equal(t, ada.User.Name, i.InviterName)
	require.Positive(t, i.Position)

	offer, err := h.Offer(t.Context(), i.Token)
	require.NoError(t, err)
	require.Equal(t, Offer{OrganizationName: "ada's", InviterName: ada.User.Name, Email: "bob@example.com", Role: auth.Developer, ExpiresAt: i.ExpiresAt}, offer)

	_, err = h.AcceptInvitation(h.as(t, eve), i.Token)
	require.Equal(t, "invitation.other_address", code(err), "who has another address doesn't get in with it")
	_, err = h.AcceptInvitation(t.Context(), i.Token)
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
	o, err := h.AcceptInvitation(h.as(t, bob), i.Token)
	require.NoError(t, err)
	require.Equal(t, id, o.ID)
	require.Equal(t, auth.Developer, o.Role)
	require.Positive(t, o.Position)
	_, err = h.AcceptInvitation(h.as(t, bob), i.Token)
	require.Equal(t, "invitation.not_found", code(err), "a token is good once")

	got, err := h.Get(h.in(t, bob, id), id)
	require.NoError(t, err)
	require.Equal(t, 5, got.Version, "created, added, invited, accepted, added: the read model follows")
	require.Equal(t, []string{TypeCreated, TypeMemberAdded, TypeSignedIn, TypeInvited, TypeInvitationAccepted, TypeMemberAdded}, h.types(t, id))
	_, err = h.Invite(h.as(t, ada), id, "bob@example.com", auth.Viewer)
	require.Equal(t, "org.already_member", code(err))
	_, err = h.Invite(h.as(t, ada), id, "bob", auth.Viewer)
	require.Equal(t, []string{"/email"}, pointers(err))
	_, err = h.Invite(h.as(t, ada), id, "x@example.com", "owner")
	require.Equal(t, []string{"/role"}, pointers(err))
	list, next, err := h.Invitations(h.as(t, ada), id, Filter{})
	require.NoError(t, err)
	require.Empty(t, list)
	require.Nil(t, next)
}

// Nothing of an invitation lies open: the token as a hash alone, the address sealed in the log, and gone from it when it
// is forgotten.
func TestInvite_keepsNoTokenAndSealsTheAddress(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	i := h.invite(t, ada, id, "bob", auth.Viewer)
	events := h.events(t, id)
	last := events[len(events)-1]
	require.Equal(t, TypeInvited, last.Type)
	var d Invited
	require.NoError(t, last.Decode(&d))
	require.NotContains(t, string(last.Data), "bob")
	plain, err := h.persons.Open(t.Context(), i.ID, d.Email)
	require.NoError(t, err)
	require.Equal(t, "bob@example.com", plain)
	require.NotContains(t, h.log.String(), i.Token.Reveal())
	secret := strings.TrimPrefix(i.Token.Reveal(), "tfo_")
	require.Zero(t, h.count(t, `SELECT count(*) FROM org_invitations WHERE position($1 IN org_invitations::text) > 0`, secret))
	require.Zero(t, h.count(t, `SELECT count(*) FROM es.ledger_event WHERE position($1 IN data::text || meta::text) > 0`, secret))

	require.NoError(t, h.forget(t.Context(), "bob@example.com"))
	require.Zero(t, h.count(t, `SELECT count(*) FROM org_invitations`))
	require.Zero(t, h.count(t, `SELECT count(*) FROM person_keys WHERE account_id = $1`, i.ID))
	_, err = h.AcceptInvitation(h.as(t, h.signUp(t, "bob")), i.Token)
	require.Equal(t, "invitation.not_found", code(err))
}

func TestInvite_nobodyGivesMoreThanTheyHave(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	manager, developer := h.join(t, ada, "manager", auth.Manager), h.join(t, ada, "developer", auth.Developer)
	_, err := h.Invite(h.in(t, manager, id), id, "x@example.com", auth.Admin)
	require.Equal(t, "org.role_above_yours", code(err))
	_, err = h.Invite(h.in(t, developer, id), id, "x@example.com", auth.Viewer)
	require.Equal(t, "auth.forbidden", code(err))
	_, err = h.Invite(auth.With(t.Context(), auth.Principal{Kind: auth.APIKey, AccountID: newID(), OrgID: id, Role: auth.Admin, Scopes: auth.ScopesOf(auth.Admin)}), id, "x@example.com", auth.Viewer)
	require.Equal(t, "auth.person_required", code(err), "an invitation stands on a person's word")

	// What is above a manager isn't theirs to replace, revoke or send again.
	admin := h.invite(t, ada, id, "boss", auth.Admin)
	_, err = h.Invite(h.in(t, manager, id), id, "boss@example.com", auth.Viewer)
	require.Equal(t, "org.role_above_yours", code(err))
	_, err = h.RevokeInvitation(h.in(t, manager, id), id, admin.ID)
	require.Equal(t, "org.role_above_yours", code(err))
	_, err = h.ResendInvitation(h.in(t, manager, id), id, admin.ID)
	require.Equal(t, "org.role_above_yours", code(err))
	// Nor is it a stranger's.
	eve := h.signUp(t, "eve")
	_, err = h.RevokeInvitation(h.as(t, eve), id, admin.ID)
	require.Equal(t, "org.not_found", code(err))
	_, err = h.RevokeInvitation(h.as(t, eve), eve.Organization.ID, admin.ID)
	require.Equal(t, "invitation.not_found", code(err))
	_, _, err = h.Invitations(h.as(t, eve), id, Filter{})
	require.Equal(t, "org.not_found", code(err))
	_, _, err = h.Invitations(h.in(t, developer, id), id, Filter{})
	require.Equal(t, "auth.forbidden", code(err))
}

// An invitation stands on the word of who gave it.
func TestAttack_invitationOutlivesTheInvitersRole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	id := ada.Organization.ID
	manager := h.join(t, ada, "manager", auth.Manager)
	i := h.invite(t, manager, id, "bob", auth.Developer)
	accept := func() string {
		_, err := h.AcceptInvitation(h.as(t, bob), i.Token)
		return code(err)
	}
	status := func() InvitationStatus {
		list, _, err := h.Invitations(h.as(t, ada), id, Filter{})
		require.NoError(t, err)
		require.Len(t, list, 1)
		return list[0].Status
	}
	require.Equal(t, InvitationOpen, status())
	_, err := h.SetRole(h.as(t, ada), id, manager.User.ID, auth.Developer)
	require.NoError(t, err)
	require.Equal(t, InvitationWithdrawn, status())
	require.Equal(t, "invitation.withdrawn", accept(), "developers invite nobody, not even as developers")
	_, err = h.RemoveMember(h.as(t, ada), id, manager.User.ID)
	require.NoError(t, err)
	require.Equal(t, InvitationWithdrawn, status())
	require.Equal(t, "invitation.withdrawn", accept())

	again, err := h.ResendInvitation(h.as(t, ada), id, i.ID)
	require.NoError(t, err)
	require.Equal(t, InvitationOpen, status())
	require.Equal(t, "invitation.not_found", accept(), "the older token is worth nothing")
	i = again
	require.Empty(t, accept(), "on another one's word")
}

func TestAttack_invitationTokensThatAreWorthNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	id := ada.Organization.ID
	refused := func(token vault.Secret) string {
		_, err := h.AcceptInvitation(h.as(t, bob), token)
		_, err2 := h.Offer(t.Context(), token)
		require.Equal(t, code(err), code(err2), "to look is refused as to accept is")
		return code(err)
	}
	first := h.invite(t, ada, id, "bob", auth.Viewer)
	second := h.invite(t, ada, id, "bob", auth.Developer)
	require.Equal(t, "invitation.not_found", refused(first.Token), "replaced")
	list, _, err := h.Invitations(h.as(t, ada), id, Filter{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, second.ID, list[0].ID)
	require.Empty(t, list[0].Token.Reveal(), "shown once")

	position, err := h.RevokeInvitation(h.as(t, ada), id, second.ID)
	require.NoError(t, err)
	require.Positive(t, position)
	require.Equal(t, "invitation.not_found", refused(second.Token), "revoked")
	_, err = h.RevokeInvitation(h.as(t, ada), id, second.ID)
	require.Equal(t, "invitation.not_found", code(err))

	third := h.invite(t, ada, id, "bob", auth.Viewer)
	h.exec(t, `UPDATE org_invitations SET expires_at = now() - interval '1 second' WHERE invitation_id = $1`, third.ID)
	require.Equal(t, "invitation.expired", refused(third.Token))
	list, _, err = h.Invitations(h.as(t, ada), id, Filter{})
	require.NoError(t, err)
	require.Equal(t, InvitationExpired, list[0].Status)
	again, err := h.ResendInvitation(h.as(t, ada), id, third.ID)
	require.NoError(t, err)
	for _, junk := range []string{"", "x", again.Token.Reveal() + "A", "tfo_" + strings.Repeat("A", 43), strings.ToLower(again.Token.Reveal())} {
		require.Equal(t, "invitation.not_found", refused(vault.NewSecret(junk)), junk)
	}
	otherPurpose, _ := auth.MintOneTime("password")
	require.Equal(t, "invitation.not_found", refused(vault.NewSecret(otherPurpose)))
	require.Empty(t, func() string { _, err := h.AcceptInvitation(h.as(t, bob), again.Token); return code(err) }())
}

func TestAcceptInvitation_manyAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	i := h.invite(t, ada, ada.Organization.ID, "bob", auth.Viewer)
	ctx := h.as(t, bob)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() { _, errs[n] = h.AcceptInvitation(ctx, i.Token) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.Equal(t, "invitation.not_found", code(err))
	}
	require.Equal(t, 1, won, "a token is good once")
	require.Equal(t, 1, h.count(t, `SELECT count(*) FROM es.ledger_event e JOIN es.event_type t USING (type_id) WHERE t.name = $1`, TypeInvitationAccepted))
}

// Where registration is by invitation, an invitation is the way in, for its address alone.
func TestSignUp_byInvitation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	h.Policy = ByInvitation
	_, err := h.SignUp(t.Context(), input("bob"), browser)
	require.Equal(t, "account.registration_closed", code(err))
	i := h.invite(t, ada, ada.Organization.ID, "bob", auth.Developer)

	other := input("eve")
	other.InvitationToken = i.Token
	_, err = h.SignUp(t.Context(), other, browser)
	require.Equal(t, []string{"/email", "/organizationName"}, pointers(err))
	junk := input("bob")
	junk.InvitationToken, junk.OrganizationName = vault.NewSecret("tfo_x"), ""
	_, err = h.SignUp(t.Context(), junk, browser)
	require.Equal(t, "invitation.not_found", code(err))

	in := input("bob")
	in.InvitationToken, in.OrganizationName = i.Token, ""
	bob, err := h.SignUp(t.Context(), in, browser)
	require.NoError(t, err)
	require.Equal(t, ada.Organization.ID, bob.Organization.ID)
	require.Equal(t, auth.Developer, bob.Organization.Role)
	require.False(t, bob.User.Operator)
	me, err := h.Me(h.as(t, bob))
	require.NoError(t, err)
	require.Len(t, me.Organizations, 1, "and none of their own")
	_, err = h.SignUp(t.Context(), in, browser)
	require.Equal(t, "invitation.not_found", code(err))
}

func TestInvite_boundsHowManyAreOpen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	h.invite(t, ada, id, "first", auth.Viewer)
	h.exec(t, `INSERT INTO org_invitations SELECT gen_random_uuid(), org_id, 'p' || n || '@example.com', role, sha256(n::text::bytea), mailed, invited_by, created_at, sent_at, expires_at
		FROM org_invitations, generate_series(2, 100) n`)
	_, err := h.Invite(h.as(t, ada), id, "one-more@example.com", auth.Viewer)
	require.Equal(t, "org.too_many_invitations", code(err))
	_, err = h.Invite(h.as(t, ada), id, "first@example.com", auth.Developer)
	require.NoError(t, err, "but one can take another's place")

	var seen int
	var after *Cursor
	for page := 1; ; page++ {
		list, next, err := h.Invitations(h.as(t, ada), id, Filter{Limit: 40, After: after})
		require.NoError(t, err)
		seen += len(list)
		if after = next; next == nil {
			require.Equal(t, 3, page)
			break
		}
	}
	require.Equal(t, 100, seen)

	h.exec(t, `UPDATE org_invitations SET expires_at = now() - interval '31 days' WHERE email LIKE 'p%'`)
	n, err := h.PurgeInvitations(t.Context())
	require.NoError(t, err)
	require.Equal(t, 99, n)
}

// forget removes what is known of an address.
func (h *house) forget(ctx context.Context, email string) error {
	return h.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error { return h.ForgetInvitationsTx(ctx, tx, email) })
}
