package org

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
)

func TestTransfer(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	bob, eve := h.join(t, ada, "bob", auth.Viewer), h.signUp(t, "eve")
	ctx := h.as(t, ada)
	_, err := h.Transfer(ctx, id, ada.User.ID, auth.Manager)
	require.Equal(t, []string{"/userId"}, pointers(err))
	_, err = h.Transfer(ctx, id, bob.User.ID, auth.Admin)
	require.Equal(t, []string{"/role"}, pointers(err))
	_, err = h.Transfer(ctx, id, eve.User.ID, auth.Manager)
	require.Equal(t, "org.member_not_found", code(err))
	_, err = h.Transfer(h.in(t, bob, id), id, ada.User.ID, auth.Viewer)
	require.Equal(t, "auth.forbidden", code(err))
	_, err = h.Transfer(h.as(t, eve), id, bob.User.ID, auth.Viewer)
	require.Equal(t, "org.not_found", code(err))

	o, err := h.Transfer(ctx, id, bob.User.ID, auth.Developer)
	require.NoError(t, err)
	require.Equal(t, auth.Developer, o.Role)
	require.Positive(t, o.Position)
	types := h.types(t, id)
	require.Equal(t, []string{TypeTransferred, TypeMemberRoleChanged, TypeMemberRoleChanged}, types[len(types)-3:])
	require.Equal(t, 1, h.count(t, `SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'admin' AND account_id = $2`, id, bob.User.ID))
	_, err = h.Transfer(ctx, id, bob.User.ID, auth.Viewer)
	require.Equal(t, "auth.forbidden", code(err), "it is no longer theirs")
	require.Equal(t, 6, o.Version, "the read model follows")
}

// Two admins who demote, remove or hand over at the same time: whoever is second is no admin any more.
func TestAttack_adminsTurnOnEachOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, turn := range map[string]func(ctx context.Context, o, other SignedIn) error{
		"demote": func(ctx context.Context, o, other SignedIn) error {
			_, err := h.SetRole(ctx, o.Organization.ID, other.User.ID, auth.Viewer)
			return err
		},
		"remove": func(ctx context.Context, o, other SignedIn) error {
			_, err := h.RemoveMember(ctx, o.Organization.ID, other.User.ID)
			return err
		},
	} {
		for round := range 5 {
			ada := h.signUp(t, name+"-a"+string(rune('0'+round)))
			bob := h.join(t, ada, name+"-b"+string(rune('0'+round)), auth.Admin)
			errs := make([]error, 2)
			var wg sync.WaitGroup
			actx, bctx := h.as(t, ada), h.in(t, bob, ada.Organization.ID)
			wg.Go(func() { errs[0] = turn(actx, ada, bob) })
			wg.Go(func() { errs[1] = turn(bctx, ada, ada) })
			wg.Wait()
			require.NotEqualf(t, errs[0] == nil, errs[1] == nil, "%s: exactly one wins: %v, %v", name, errs[0], errs[1])
			require.Equal(t, 1, h.count(t, `SELECT count(*) FROM org_members WHERE org_id = $1 AND role = 'admin'`, ada.Organization.ID))
			for _, err := range errs {
				if err != nil {
					require.Contains(t, []fault.Kind{fault.Forbidden, fault.NotFound}, fault.KindOf(err), "%v", err)
				}
			}
		}
	}
}

// A right is asked for again where the decision is made: who lost it since the door let them in decides nothing.
func TestAttack_commandInFlightOutlivesTheRole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	manager, viewer := h.join(t, ada, "manager", auth.Manager), h.join(t, ada, "viewer", auth.Viewer)
	admin := h.join(t, ada, "admin", auth.Admin)
	mctx, actx := h.in(t, manager, id), h.in(t, admin, id) // as the door found them
	i := h.invite(t, ada, id, "bob", auth.Viewer)
	for _, p := range []SignedIn{manager, admin} {
		_, err := h.SetRole(h.as(t, ada), id, p.User.ID, auth.Developer)
		require.NoError(t, err)
	}
	for name, try := range map[string]func() error{
		"role":     func() error { _, err := h.SetRole(mctx, id, viewer.User.ID, auth.Developer); return err },
		"remove":   func() error { _, err := h.RemoveMember(mctx, id, viewer.User.ID); return err },
		"invite":   func() error { _, err := h.Invite(mctx, id, "x@example.com", auth.Viewer); return err },
		"revoke":   func() error { _, err := h.RevokeInvitation(mctx, id, i.ID); return err },
		"resend":   func() error { _, err := h.ResendInvitation(mctx, id, i.ID); return err },
		"rename":   func() error { _, err := h.Rename(actx, id, "Mine", nil); return err },
		"transfer": func() error { _, err := h.Transfer(actx, id, viewer.User.ID, auth.Viewer); return err },
		"delete":   func() error { _, err := h.Delete(actx, id, nil); return err },
	} {
		require.Equal(t, "auth.forbidden", code(try()), name)
	}
}

func TestDelete_freezesUntilRestored(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.DeletionGrace = 30 * 24 * time.Hour
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	manager, viewer := h.join(t, ada, "manager", auth.Manager), h.join(t, ada, "viewer", auth.Viewer)
	i := h.invite(t, ada, id, "bob", auth.Viewer)
	bob := h.signUp(t, "bob")
	_, err := h.Delete(h.in(t, manager, id), id, nil)
	require.Equal(t, "auth.forbidden", code(err))
	stale := 1
	_, err = h.Delete(h.as(t, ada), id, &stale)
	require.Equal(t, fault.Precondition, fault.KindOf(err))

	gone, err := h.Delete(h.as(t, ada), id, nil)
	require.NoError(t, err)
	require.NotNil(t, gone.EraseAt)
	require.WithinDuration(t, time.Now().Add(h.DeletionGrace), *gone.EraseAt, time.Minute)
	require.Positive(t, gone.Position)
	again, err := h.Delete(h.as(t, ada), id, nil)
	require.NoError(t, err)
	require.Zero(t, again.Position, "a second time changes nothing, not even the time")
	require.Equal(t, *gone.EraseAt, *again.EraseAt)

	before := h.types(t, id)
	for name, try := range map[string]func() error{
		"rename":   func() error { _, err := h.Rename(h.as(t, ada), id, "x", nil); return err },
		"role":     func() error { _, err := h.SetRole(h.as(t, ada), id, viewer.User.ID, auth.Admin); return err },
		"invite":   func() error { _, err := h.Invite(h.as(t, ada), id, "x@example.com", auth.Viewer); return err },
		"resend":   func() error { _, err := h.ResendInvitation(h.as(t, ada), id, i.ID); return err },
		"accept":   func() error { _, err := h.AcceptInvitation(h.as(t, bob), i.Token); return err },
		"transfer": func() error { _, err := h.Transfer(h.as(t, ada), id, viewer.User.ID, auth.Viewer); return err },
		"the system": func() error {
			return h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return RequireActiveTx(ctx, tx, id) })
		},
	} {
		require.Equal(t, "org.frozen", code(try()), name)
	}
	require.Equal(t, before, h.types(t, id))
	for _, p := range []SignedIn{ada, manager, viewer} { // and everybody sees it as before
		o, err := h.Get(h.in(t, p, id), id)
		require.NoError(t, err)
		require.Equal(t, gone.EraseAt, o.EraseAt)
		_, err = auth.Require(h.in(t, p, id), id, auth.TestWrite)
		require.Contains(t, []string{"org.frozen", "auth.forbidden"}, code(err))
	}
	_, err = h.Restore(h.in(t, manager, id), id)
	require.Equal(t, "auth.forbidden", code(err))
	back, err := h.Restore(h.as(t, ada), id)
	require.NoError(t, err)
	require.Nil(t, back.EraseAt)
	back, err = h.Restore(h.as(t, ada), id)
	require.NoError(t, err)
	require.Zero(t, back.Position)
	_, err = h.AcceptInvitation(h.as(t, bob), i.Token)
	require.NoError(t, err)
	types := h.types(t, id)
	require.Equal(t, []string{TypeDeletionScheduled, TypeRestored, TypeInvitationAccepted, TypeMemberAdded}, types[len(types)-4:])
}

func TestGoneWith_namesWhatNobodyElseIsIn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	alone, err := h.GoneWith(t.Context(), ada.User.ID)
	require.NoError(t, err)
	require.Equal(t, []string{ada.Organization.Name}, alone)
	h.join(t, ada, "bob", auth.Viewer)
	shared, err := h.GoneWith(t.Context(), ada.User.ID)
	require.NoError(t, err)
	require.Empty(t, shared)
}

// A key that leaks, or a member who must go, can't wait until the organization is erased.
func TestDelete_accessCanStillBeTakenAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.DeletionGrace = 30 * 24 * time.Hour
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	viewer, other := h.join(t, ada, "viewer", auth.Viewer), h.join(t, ada, "other", auth.Viewer)
	i := h.invite(t, ada, id, "bob", auth.Viewer)
	k, secret := h.key(t, h.as(t, ada), KeyDraft{Scopes: []string{"read"}})
	_, err := h.Delete(h.as(t, ada), id, nil)
	require.NoError(t, err)

	_, err = h.Rename(h.as(t, ada), id, "x", nil)
	require.Equal(t, "org.frozen", code(err))
	_, _, err = h.RotateKey(h.as(t, ada), id, k.ID, 0, nil)
	require.Equal(t, "org.frozen", code(err))
	for perm, withdraws := range map[auth.Permission]bool{auth.KeyManage: true, auth.KeyRead: false} {
		e, err := h.Explain(h.as(t, ada), id, Subject{}, perm, withdraws)
		require.NoError(t, err)
		require.True(t, e.Allowed, perm)
	}
	e, err := h.Explain(h.as(t, ada), id, Subject{}, auth.KeyManage, false)
	require.NoError(t, err)
	require.False(t, e.Allowed, "to make one is refused")

	_, err = h.RevokeKey(h.in(t, viewer, id), id, k.ID, nil)
	require.Equal(t, "auth.forbidden", code(err), "it takes the permission all the same")
	_, err = h.RevokeKey(h.as(t, ada), id, k.ID, nil)
	require.NoError(t, err)
	_, err = h.Authenticate(at(t, "192.0.2.1"), secret, nil)
	require.Equal(t, "auth.api_key_revoked", code(err))
	list, _, err := h.Invitations(h.as(t, ada), id, Filter{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	_, err = h.RevokeInvitation(h.as(t, ada), id, i.ID)
	require.NoError(t, err)
	_, err = h.RemoveMember(h.in(t, viewer, id), id, other.User.ID)
	require.Equal(t, "auth.forbidden", code(err))
	_, err = h.RemoveMember(h.as(t, ada), id, other.User.ID)
	require.NoError(t, err)
	_, err = h.RemoveMember(h.in(t, viewer, id), id, viewer.User.ID)
	require.NoError(t, err)
}

// Nothing of a membership is cached: the access token of who was removed is of no organization with the next request,
// and what stays open longer hears that they are out.
func TestAttack_removedMembersToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	bob := h.join(t, ada, "bob", auth.Manager)
	before := auth.From(h.in(t, bob, id))
	_, err := h.RemoveMember(h.as(t, ada), id, bob.User.ID)
	require.NoError(t, err)
	_, err = h.Authenticate(t.Context(), bob.AccessToken.Reveal(), &id)
	require.Equal(t, "org.not_found", code(err))
	_, err = h.Check(t.Context(), before)
	require.Equal(t, "org.not_found", code(err))
	renewed, err := h.Refresh(t.Context(), bob.RefreshToken, browser)
	require.NoError(t, err)
	require.Equal(t, bob.Organization.ID, renewed.Organization.ID, "their session goes on where they still are")
}
