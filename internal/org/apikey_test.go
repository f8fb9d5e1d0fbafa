package org

import (
	"context"
	"encoding/json"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/vault"
)

func TestParseNetwork(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.0/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "2001:db8::1": "2001:db8::1/128",
		"2001:DB8::/48": "2001:db8::/48", "::ffff:192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.0/120": "192.0.2.0/24", "::/0": "::/0",
	} {
		network, problem := parseNetwork(text)
		require.Empty(t, problem, text)
		require.Equal(t, want, network.String(), text)
	}
	for text, part := range map[string]string{
		"": "must be an IP", "example.com": "must be an IP", "192.0.2.0/33": "must be an IP", "192.0.2.0/-1": "must be an IP", "192.0.2": "must be an IP",
		"010.0.0.1": "must be an IP", "192.0.2.1/24": "192.0.2.0/24", "fe80::1%eth0": "zone", "fe80::%1/64": "zone", "::ffff:0.0.0.0/90": "written as IPv4",
		"192.0.2.0/24 ": "must be an IP", "192.0.2.0/024": "must be an IP",
	} {
		_, problem := parseNetwork(text)
		require.Contains(t, problem, part, text)
	}
}

func TestAddressAllowed(t *testing.T) {
	t.Parallel()
	list := []string{"192.0.2.0/24", "2001:db8::/48"}
	for address, want := range map[string]bool{
		"192.0.2.7": true, "192.0.3.7": false, "::ffff:192.0.2.7": true, "2001:db8::9": true, "2001:db9::9": false, "": false, "nonsense": false,
		"192.0.2.7:80": false, "2001:db8::9%eth0": true, "::192.0.2.7": false, "64:ff9b::192.0.2.7": false,
	} {
		require.Equal(t, want, addressAllowed(list, clientAddress(address)), address)
		require.True(t, addressAllowed(nil, clientAddress(address)), "bound to nothing")
	}
	require.False(t, addressAllowed([]string{"not a network"}, netip.MustParseAddr("192.0.2.7")))
	require.Equal(t, "192.0.2.0/24", networkOf(clientAddress("::ffff:192.0.2.7")))
	require.Equal(t, "2001:db8:0:1::/64", networkOf(clientAddress("2001:db8:0:1:2:3:4:5")))
	require.Empty(t, networkOf(clientAddress("")))
}

func TestReach(t *testing.T) {
	t.Parallel()
	soon, late := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	bound := reach{scopes: auth.NewScopes(auth.KeyManage, auth.RunRead), until: &soon, from: []string{"10.0.0.0/8", "2001:db8::/32"}, rate: 10}
	same := reach{scopes: auth.NewScopes(auth.RunRead), until: &soon, from: []string{"10.1.0.0/16", "2001:db8:1::/48"}, rate: 10}
	require.Empty(t, bound.beyond(same))
	require.Empty(t, bound.beyond(bound))
	for name, change := range map[string]func(*reach){
		"run.execute": func(r *reach) { r.scopes = auth.NewScopes(auth.RunExecute) },
		"lives":       func(r *reach) { r.until = &late },
		"ends at":     func(r *reach) { r.until = nil },
		"addresses":   func(r *reach) { r.from = nil },
		"from which":  func(r *reach) { r.from = []string{"10.1.0.0/16", "0.0.0.0/0"} },
		"works from":  func(r *reach) { r.from = []string{"11.0.0.0/8"} },
		"more often":  func(r *reach) { r.rate = 11 },
		"10 requests": func(r *reach) { r.rate = 0 },
	} {
		more := same
		change(&more)
		require.Contains(t, bound.beyond(more), name)
	}
	person := reach{scopes: auth.ScopesOf(auth.Manager)}
	require.Empty(t, person.beyond(reach{scopes: auth.ScopesOf(auth.Manager)}))
	require.Contains(t, person.beyond(reach{scopes: auth.ScopesOf(auth.Admin)}), "org.manage")
	for _, a := range append(auth.Roles(), "", "owner") {
		for _, b := range append(auth.Roles(), "", "owner") {
			l := lower(a, b)
			for _, g := range auth.Grants() {
				require.Equal(t, a.May(g.Permission) && b.May(g.Permission), l.May(g.Permission), "%q and %q", a, b)
			}
		}
	}
}

func TestKeyPatch_allFaultsAtOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	past, far := now.Add(-time.Second), now.Add(31*24*time.Hour)
	draft := KeyDraft{
		Name: " ", Scopes: []string{"run.execute", "root"}, Expiry: Expiry{Said: true, At: &past},
		AllowedAddresses: []string{"192.0.2.1", "nowhere"}, RateLimit: -1,
	}
	_, err := draft.settings(keyRules{now: now})
	require.Equal(t, []string{"/name", "/scopes/1", "/expiresAt", "/allowedAddresses/1", "/rateLimit"}, pointers(err))
	most := keyRules{now: now, lifetime: 24 * time.Hour, most: 30 * 24 * time.Hour}
	for name, e := range map[string]Expiry{"never": {Said: true}, "too late": {Said: true, At: &far}} {
		_, err := KeyDraft{Name: "a", Scopes: []string{"read"}, Expiry: e}.settings(most)
		require.Equal(t, []string{"/expiresAt"}, pointers(err), name)
		require.Contains(t, err.Error()+faultDetails(err), "30 days", name)
	}
	_, err = KeyDraft{Name: "a", Scopes: nil}.settings(most)
	require.Equal(t, []string{"/scopes"}, pointers(err))
	s, err := KeyDraft{Name: " a ", Scopes: []string{"read", "run.read"}, AllowedAddresses: []string{"192.0.2.7", "::ffff:192.0.2.7"}}.settings(most)
	require.NoError(t, err)
	require.Equal(t, "a", s.Name)
	require.Equal(t, []string{"192.0.2.7/32"}, s.AllowedAddresses, "one network once")
	require.Equal(t, auth.ScopesOf(auth.Viewer).List(), s.Scopes, "shorthands are written out")
	require.WithinDuration(t, now.Add(24*time.Hour), *s.ExpiresAt, time.Second)
}

// key makes a key as who and returns it with its secret.
func (h *house) key(t *testing.T, ctx context.Context, d KeyDraft) (APIKey, string) { //nolint:revive // the test comes first everywhere here
	t.Helper()
	if d.Name == "" {
		d.Name = "key"
	}
	k, secret, err := h.CreateKey(ctx, auth.From(ctx).OrgID, d)
	require.NoError(t, err)
	return k, secret.Reveal()
}

// at returns a context of somebody at an address who has shown nothing yet.
func at(t *testing.T, address string) context.Context {
	t.Helper()
	return auth.With(t.Context(), auth.Principal{Address: address, Agent: "TFCANARY-agent", Request: "req-9"})
}

// with returns a context in which a key asks.
func (h *house) with(t *testing.T, key string) context.Context {
	t.Helper()
	p, err := h.Authenticate(at(t, "192.0.2.9"), key, nil)
	require.NoError(t, err)
	return auth.With(t.Context(), p)
}

func TestKeys_lifeOfOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	k, key := h.key(t, ctx, KeyDraft{Name: "CI", Scopes: []string{"run.execute", "read"}, RateLimit: 7})
	require.Equal(t, auth.Admin, k.Role)
	require.Equal(t, ada.User.ID, k.HolderID)
	require.Equal(t, ada.User.ID, k.CreatedBy)
	require.True(t, strings.HasPrefix(key, k.Label+"_"))
	require.WithinDuration(t, time.Now().Add(keyLifetime), *k.ExpiresAt, time.Minute)

	p, until, err := h.AuthenticateUntil(at(t, "192.0.2.9"), key, nil)
	require.NoError(t, err)
	require.Equal(t, auth.Principal{
		Kind: auth.APIKey, AccountID: k.ID, OrgID: orgID, Role: auth.Admin, Scopes: auth.NewScopes(k.Scopes...), KeyLimit: 7, KeyGeneration: 1,
		Address: "192.0.2.9", Agent: "TFCANARY-agent", Request: "req-9",
	}, p)
	require.Equal(t, *k.ExpiresAt, until.UTC())
	_, err = h.Authenticate(at(t, ""), key, &orgID)
	require.NoError(t, err, "its own organization may be named")
	other := newID()
	_, err = h.Authenticate(at(t, ""), key, &other)
	require.Equal(t, "org.not_found", code(err))

	name, none := "CI of main", 0
	k, err = h.UpdateKey(ctx, orgID, k.ID, KeyPatch{Name: &name, RateLimit: &none, Expiry: Expiry{Said: true}, Scopes: &[]string{"run.read"}}, &k.Version)
	require.NoError(t, err)
	require.Equal(t, 3, k.Version, "a place in the stream, in which its use from a new address stands before")
	require.Nil(t, k.ExpiresAt)
	same, err := h.UpdateKey(ctx, orgID, k.ID, KeyPatch{Name: &name}, nil)
	require.NoError(t, err)
	require.Zero(t, same.Position, "nothing changed, so nothing is written")
	_, err = h.UpdateKey(ctx, orgID, k.ID, KeyPatch{Name: &name}, new(int))
	require.Equal(t, "precondition.failed", code(err))
	now, err := h.Check(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, []auth.Permission{auth.RunRead}, now.Scopes.List(), "what is changed holds at once, for what is open too")

	position, err := h.RevokeKey(ctx, orgID, k.ID, nil)
	require.NoError(t, err)
	require.Positive(t, position)
	_, err = h.Authenticate(at(t, ""), key, nil)
	require.Equal(t, "auth.api_key_revoked", code(err))
	_, err = h.Check(t.Context(), p)
	require.Equal(t, "auth.api_key_revoked", code(err))
	gone, err := h.GetKey(ctx, orgID, k.ID)
	require.NoError(t, err)
	require.NotNil(t, gone.RevokedAt)
	list, _, err := h.ListKeys(ctx, orgID, KeyFilter{})
	require.NoError(t, err)
	require.Empty(t, list, "who looks at what can be used doesn't see it")
	_, err = h.RevokeKey(ctx, orgID, k.ID, nil)
	require.Equal(t, "api_key.not_found", code(err))
	_, _, err = h.RotateKey(ctx, orgID, k.ID, 0, nil)
	require.Equal(t, "api_key.not_found", code(err), "what was revoked stays so")
	require.Equal(t, []string{"org.api_key_created", "org.api_key_used_from_new_address", "org.api_key_changed", "org.api_key_revoked", "org.api_key_refused"},
		h.types(t, orgID)[len(h.types(t, orgID))-5:])
}

// Whoever shows a key that has ended leaves a trace, and can't fill the log with it.
func TestAuthenticateKey_endedLeavesATrace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	revoked, first := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	_, err := h.RevokeKey(ctx, orgID, revoked.ID, nil)
	require.NoError(t, err)
	expired, second := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	h.exec(t, `UPDATE org_api_keys SET expires_at = now() WHERE key_id = $1`, expired.ID)
	rotated, third := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	_, _, err = h.RotateKey(ctx, orgID, rotated.ID, 0, nil)
	require.NoError(t, err)
	told := func() (list []APIKeyRefused) {
		for _, e := range h.events(t, orgID) {
			if e.Type == TypeAPIKeyRefused {
				var d APIKeyRefused
				require.NoError(t, e.Decode(&d))
				list = append(list, d)
			}
		}
		return list
	}
	for range 3 {
		for _, key := range []string{first, second, third} {
			_, err := h.Authenticate(at(t, "192.0.2.7"), key, nil)
			require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
		}
	}
	once := []APIKeyRefused{
		{revoked.ID, RefusedRevoked, "192.0.2.0/24"}, {expired.ID, RefusedExpired, "192.0.2.0/24"}, {rotated.ID, RefusedRotated, "192.0.2.0/24"},
	}
	require.Equal(t, once, told())
	h.exec(t, `UPDATE org_api_key_secrets SET refused_told_at = now() - interval '2 hours' WHERE key_id = $1`, revoked.ID)
	h.exec(t, `DELETE FROM person_keys WHERE account_id = $1`, revoked.ID) // its holder was erased
	for range 2 {
		_, err := h.Authenticate(at(t, "192.0.2.7"), first, nil)
		require.Equal(t, "auth.api_key_revoked", code(err))
	}
	require.Len(t, told(), 4)
}

// A wrong secret is told nothing of the key, whatever its state; the right one is told what is wrong.
func TestAuthenticateKey_refuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	good, key := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	expired, expiredKey := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	h.exec(t, `UPDATE org_api_keys SET expires_at = now() WHERE key_id = $1`, expired.ID)
	revoked, revokedKey := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	_, err := h.RevokeKey(ctx, orgID, revoked.ID, nil)
	require.NoError(t, err)
	bound, boundKey := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}, AllowedAddresses: []string{"192.0.2.0/24"}})

	for name, c := range map[string]struct{ key, address, code string }{
		"good":               {key, "", ""},
		"expired":            {expiredKey, "", "auth.api_key_expired"},
		"revoked":            {revokedKey, "", "auth.api_key_revoked"},
		"elsewhere":          {boundKey, "198.51.100.1", "auth.address_not_allowed"},
		"nowhere":            {boundKey, "", "auth.address_not_allowed"},
		"there":              {boundKey, "::ffff:192.0.2.200", ""},
		"cut":                {key[:70], "", "auth.api_key_malformed"},
		"mistyped":           {key[:30] + "~" + key[31:], "", "auth.api_key_malformed"},
		"no such key":        {minted(newID()), "", "auth.api_key_unknown"},
		"wrong secret":       {minted(good.ID), "", "auth.api_key_unknown"},
		"wrong, and expired": {minted(expired.ID), "", "auth.api_key_unknown"},
		"wrong, and revoked": {minted(revoked.ID), "", "auth.api_key_unknown"},
		"wrong, elsewhere":   {minted(bound.ID), "198.51.100.1", "auth.api_key_unknown"},
	} {
		_, err := h.Authenticate(at(t, c.address), c.key, nil)
		require.Equal(t, c.code, code(err), name)
	}
	// Hashes are bound to their keys: whoever puts that of a key of theirs into another one's row opens nothing with it.
	h.exec(t, `UPDATE org_api_key_secrets SET hash = (SELECT hash FROM org_api_key_secrets WHERE key_id = $1) WHERE key_id = $2`, good.ID, bound.ID)
	body := bound.Label + key[len(good.Label):len(key)-6]
	_, err = h.Authenticate(at(t, "192.0.2.7"), body+checksum(body), nil)
	require.Equal(t, "auth.api_key_unknown", code(err))
}

// checksum is written here once more, so that the form of a key can't change unseen.
func checksum(body string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var out [6]byte
	n := crc32.ChecksumIEEE([]byte(body))
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = digits[n%62]
		n /= 62
	}
	return string(out[:])
}

func minted(id uuid.UUID) string {
	key, _ := auth.MintKey(id)
	return key
}

func TestRotateKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	k, first := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}, Expiry: Expiry{Said: true}})
	works := func(key string) string {
		_, err := h.Authenticate(at(t, ""), key, nil)
		return code(err)
	}
	rotate := func(overlap time.Duration) string {
		_, secret, err := h.RotateKey(ctx, orgID, k.ID, overlap, nil)
		require.NoError(t, err)
		return secret.Reveal()
	}
	second := rotate(time.Hour)
	require.NotEqual(t, first, second)
	require.Empty(t, works(first), "for the overlap")
	require.Empty(t, works(second))
	p, until, err := h.AuthenticateUntil(at(t, ""), first, nil)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), until, time.Minute, "what is open is told when it ends")

	third := rotate(time.Hour)
	require.Equal(t, "auth.api_key_unknown", works(first), "there are two secrets at most")
	require.Empty(t, works(second))
	_, err = h.Check(t.Context(), p)
	require.Equal(t, "auth.api_key_revoked", code(err))

	h.exec(t, `UPDATE org_api_keys SET previous_until = now() WHERE key_id = $1`, k.ID)
	require.Equal(t, "auth.api_key_revoked", works(second), "the overlap is over")
	require.Empty(t, works(third))
	fourth := rotate(0)
	require.Equal(t, "auth.api_key_revoked", works(third), "at once")
	require.Equal(t, "auth.api_key_unknown", works(second))
	require.Empty(t, works(fourth))
	got, err := h.GetKey(ctx, orgID, k.ID)
	require.NoError(t, err)
	require.Nil(t, got.PreviousUntil)
	for _, overlap := range []time.Duration{-1, limits.MaxKeyOverlap + 1} {
		_, _, err := h.RotateKey(ctx, orgID, k.ID, overlap, nil)
		require.Equal(t, []string{"/overlap"}, pointers(err))
	}
}

// A key can never do more than its holder can do now, and nothing once he has left.
func TestKey_sinksWithItsHolder(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	orgID := ada.Organization.ID
	admin := h.as(t, ada)
	mia := h.join(t, ada, "mia", auth.Manager)
	k, key := h.key(t, h.in(t, mia, orgID), KeyDraft{Scopes: []string{"manager"}})
	require.Equal(t, auth.Manager, k.Role)
	p, err := h.Authenticate(at(t, ""), key, nil)
	require.NoError(t, err)
	require.True(t, p.May(auth.ProjectWrite))

	_, err = h.SetRole(admin, orgID, mia.User.ID, auth.Viewer)
	require.NoError(t, err)
	p, err = h.Check(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, auth.Viewer, p.Role)
	require.False(t, p.May(auth.RunExecute))
	require.True(t, p.May(auth.RunRead))

	_, err = h.SetRole(admin, orgID, mia.User.ID, auth.Admin)
	require.NoError(t, err)
	p, err = h.Check(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, auth.Manager, p.Role, "it doesn't rise with him above what it was made with")

	_, err = h.RemoveMember(admin, orgID, mia.User.ID)
	require.NoError(t, err)
	_, err = h.Check(t.Context(), p)
	require.Equal(t, "auth.api_key_suspended", code(err))
	_, err = h.Authenticate(at(t, ""), key, nil)
	require.Equal(t, "auth.api_key_suspended", code(err))
	got, err := h.GetKey(admin, orgID, k.ID)
	require.NoError(t, err)
	require.True(t, got.Suspended)

	// Who rotates it holds it; the secret that the one before knows ends with the overlap.
	got, secret, err := h.RotateKey(admin, orgID, k.ID, 0, nil)
	require.NoError(t, err)
	require.False(t, got.Suspended)
	require.Equal(t, ada.User.ID, got.HolderID)
	p, err = h.Authenticate(at(t, ""), secret.Reveal(), nil)
	require.NoError(t, err)
	require.Equal(t, auth.Manager, p.Role)
}

// Nobody makes, changes or takes over a key that reaches further than themselves.
func TestKeys_noneReachesFurther(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	orgID := ada.Organization.ID
	admin := h.as(t, ada)
	manager := h.in(t, h.join(t, ada, "mia", auth.Manager), orgID)
	developer := h.in(t, h.join(t, ada, "dev", auth.Developer), orgID)
	soon := time.Now().Add(time.Hour)
	create := func(ctx context.Context, d KeyDraft) string {
		d.Name = "key"
		_, _, err := h.CreateKey(ctx, orgID, d)
		return code(err)
	}
	require.Equal(t, "auth.forbidden", create(developer, KeyDraft{Scopes: []string{"read"}}))
	require.Equal(t, "api_key.above_yours", create(manager, KeyDraft{Scopes: []string{"org.manage"}}))
	require.Equal(t, "api_key.above_yours", create(manager, KeyDraft{Scopes: []string{"admin"}}))
	require.Empty(t, create(manager, KeyDraft{Scopes: []string{"manager"}}))

	strong, _ := h.key(t, admin, KeyDraft{Scopes: []string{"admin"}})
	_, _, err := h.RotateKey(manager, orgID, strong.ID, 0, nil)
	require.Equal(t, "api_key.above_yours", code(err), "whoever rotates gets the secret")
	for name, patch := range map[string]KeyPatch{
		"addresses": {AllowedAddresses: &[]string{}}, "name": {Name: new(string)}, "scopes": {Scopes: &[]string{"read"}},
	} {
		if name == "name" {
			*patch.Name = "mine"
		}
		if name == "addresses" {
			patch.AllowedAddresses = &[]string{"192.0.2.0/24"}
		}
		_, err := h.UpdateKey(manager, orgID, strong.ID, patch, nil)
		require.Equal(t, "api_key.above_yours", code(err), name)
	}
	weak, _ := h.key(t, manager, KeyDraft{Scopes: []string{"read"}})
	_, err = h.UpdateKey(manager, orgID, weak.ID, KeyPatch{Scopes: &[]string{"admin"}}, nil)
	require.Equal(t, []string{"/scopes"}, pointers(err), "its role bounds it")

	// A key that makes keys is bound in every way in which it is itself.
	_, minter := h.key(t, admin, KeyDraft{
		Scopes: []string{"key.manage", "read"}, Expiry: Expiry{Said: true, At: &soon}, AllowedAddresses: []string{"192.0.2.0/24"}, RateLimit: 10,
	})
	as := h.with(t, minter)
	base := KeyDraft{Scopes: []string{"read"}, AllowedAddresses: []string{"192.0.2.7"}, RateLimit: 10}
	require.Empty(t, create(as, base), "and its child, of whose end nothing is said, ends with it")
	for name, change := range map[string]func(*KeyDraft){
		"scope": func(d *KeyDraft) { d.Scopes = []string{"run.execute"} }, "role": func(d *KeyDraft) { d.Scopes = []string{"admin"} },
		"for ever": func(d *KeyDraft) { d.Expiry = Expiry{Said: true} }, "longer": func(d *KeyDraft) { at := soon.Add(time.Hour); d.Expiry = Expiry{Said: true, At: &at} },
		"everywhere": func(d *KeyDraft) { d.AllowedAddresses = nil }, "elsewhere": func(d *KeyDraft) { d.AllowedAddresses = []string{"0.0.0.0/0"} },
		"rate": func(d *KeyDraft) { d.RateLimit = 0 }, "higher rate": func(d *KeyDraft) { d.RateLimit = 11 },
	} {
		d := base
		change(&d)
		require.Equal(t, "api_key.above_yours", create(as, d), name)
	}
	_, _, err = h.RotateKey(as, orgID, strong.ID, 0, nil)
	require.Equal(t, "api_key.above_yours", code(err))
	own := auth.From(as).AccountID
	_, err = h.UpdateKey(as, orgID, own, KeyPatch{Expiry: Expiry{Said: true}}, nil)
	require.Equal(t, "api_key.above_yours", code(err), "nor makes itself stronger")
	_, err = h.UpdateKey(as, orgID, own, KeyPatch{Scopes: &[]string{"admin"}}, nil)
	require.Equal(t, "api_key.above_yours", code(err))
	position, err := h.RevokeKey(as, orgID, strong.ID, nil)
	require.NoError(t, err, "but a leak can be stopped by whoever manages keys")
	require.Positive(t, position)
	_, reader := h.key(t, admin, KeyDraft{Scopes: []string{"read"}})
	require.Equal(t, "auth.scope_missing", create(h.with(t, reader), KeyDraft{Scopes: []string{"read"}}))
	require.Equal(t, "auth.person_required", create(auth.With(t.Context(), auth.Principal{Kind: auth.System}), KeyDraft{Scopes: []string{"read"}}))
}

// A secret that was replaced and still holds for a while makes no key that outlives it.
func TestKeys_oldSecretMakesNothingLasting(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	admin, orgID := h.as(t, ada), ada.Organization.ID
	k, old := h.key(t, admin, KeyDraft{Scopes: []string{"key.manage"}, Expiry: Expiry{Said: true}})
	_, _, err := h.RotateKey(admin, orgID, k.ID, time.Hour, nil)
	require.NoError(t, err)
	child, _ := h.key(t, h.with(t, old), KeyDraft{Scopes: []string{"key.manage"}})
	require.False(t, child.ExpiresAt.After(time.Now().Add(time.Hour)))
	_, _, err = h.CreateKey(h.with(t, old), orgID, KeyDraft{Name: "key", Scopes: []string{"key.manage"}, Expiry: Expiry{Said: true}})
	require.Equal(t, "api_key.above_yours", code(err))
}

func TestKeys_ofAnotherOrganization(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.signUp(t, "ada"), h.signUp(t, "bob")
	k, _ := h.key(t, h.as(t, ada), KeyDraft{Scopes: []string{"read"}})
	ctx, orgID := h.as(t, bob), bob.Organization.ID
	_, err := h.GetKey(ctx, orgID, k.ID)
	require.Equal(t, "api_key.not_found", code(err))
	_, err = h.UpdateKey(ctx, orgID, k.ID, KeyPatch{RateLimit: new(int)}, nil)
	require.Equal(t, "api_key.not_found", code(err))
	_, _, err = h.RotateKey(ctx, orgID, k.ID, 0, nil)
	require.Equal(t, "api_key.not_found", code(err))
	_, err = h.RevokeKey(ctx, orgID, k.ID, nil)
	require.Equal(t, "api_key.not_found", code(err))
	_, _, err = h.GetKeyUsage(ctx, orgID, k.ID, KeyUsageFilter{From: time.Now(), To: time.Now()})
	require.Equal(t, "api_key.not_found", code(err))
	_, err = h.GetKey(ctx, ada.Organization.ID, k.ID)
	require.Equal(t, "org.not_found", code(err))
	list, _, err := h.ListKeys(ctx, orgID, KeyFilter{})
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestListKeys_pages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := h.as(t, h.signUp(t, "ada"))
	orgID := auth.From(ctx).OrgID
	var made []uuid.UUID
	for range 5 {
		k, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
		made = append([]uuid.UUID{k.ID}, made...)
	}
	var got []uuid.UUID
	f := KeyFilter{Limit: 2}
	for {
		items, next, err := h.ListKeys(ctx, orgID, f)
		require.NoError(t, err)
		for _, k := range items {
			got = append(got, k.ID)
		}
		if next == nil {
			break
		}
		f.After = next
	}
	require.Equal(t, made, got)
}

func TestListKeys_byStatus(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	bob := h.join(t, ada, "bob", auth.Admin)
	works, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	ended, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	orphan, _ := h.key(t, h.in(t, bob, orgID), KeyDraft{Scopes: []string{"read"}})
	gone, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	both, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}}) // its time is over and it was revoked: that is what counts
	early, _ := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	for _, k := range []APIKey{gone, both, early} {
		_, err := h.RevokeKey(ctx, orgID, k.ID, nil)
		require.NoError(t, err)
	}
	_, err := h.RemoveMember(ctx, orgID, bob.User.ID)
	require.NoError(t, err)
	require.NoError(t, h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE org_api_keys SET expires_at = now() - interval '1 hour' WHERE key_id = ANY($1)`, []uuid.UUID{ended.ID, both.ID}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE org_api_keys SET revoked_kind = NULL, revoked_by = NULL WHERE key_id = $1`, early.ID) // as before it was kept
		return err
	}))
	for status, want := range map[string][]APIKey{
		"": {orphan, ended, works}, "active": {works}, "expired": {ended}, "suspended": {orphan}, "revoked": {early, both, gone},
		"all": {early, both, gone, orphan, ended, works},
	} {
		var got []uuid.UUID
		for f := (KeyFilter{Status: status, Limit: 2}); ; {
			items, next, err := h.ListKeys(ctx, orgID, f)
			require.NoError(t, err)
			for _, k := range items {
				got = append(got, k.ID)
				if k.ID == gone.ID {
					require.Equal(t, []any{auth.User, ada.User.ID}, []any{k.RevokedKind, k.RevokedBy})
				}
				if k.ID == early.ID || k.ID == works.ID {
					require.Equal(t, uuid.Nil, k.RevokedBy)
				}
			}
			if f.After = next; next == nil {
				break
			}
		}
		var ids []uuid.UUID
		for _, k := range want {
			ids = append(ids, k.ID)
		}
		require.Equal(t, ids, got, "status %q", status)
	}
}

// A new network is told once; however many there are, the log isn't filled with them.
func TestKey_newNetworksAreToldAndBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	k, key := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}, AllowedAddresses: []string{"192.0.2.0/24", "198.18.0.0/15", "2001:db8::/32"}})
	told := func() (list []APIKeyUsedFromNewAddress) {
		for _, e := range h.events(t, orgID) {
			if e.Type == TypeAPIKeyFromAddress {
				require.Equal(t, k.ID, e.StreamID, "in the key's own history")
				var d APIKeyUsedFromNewAddress
				require.NoError(t, json.Unmarshal(e.Data, &d))
				require.Equal(t, "apiKey", e.Meta.ActorKind)
				require.Equal(t, k.ID, e.Meta.ActorID)
				list = append(list, d)
			}
		}
		return list
	}
	use := func(address string) {
		_, err := h.Authenticate(at(t, address), key, nil)
		if !addressAllowed(k.AllowedAddresses, clientAddress(address)) {
			require.Equal(t, "auth.address_not_allowed", code(err))
			return
		}
		require.NoError(t, err)
	}
	for _, address := range []string{"192.0.2.7", "192.0.2.8", "::ffff:192.0.2.9", "2001:db8::1", "2001:db8::2", "203.0.113.1", "203.0.113.2"} {
		use(address)
	}
	require.Equal(t, []APIKeyUsedFromNewAddress{
		{k.ID, "192.0.2.0/24", true}, {k.ID, "2001:db8::/64", true}, {k.ID, "203.0.113.0/24", false},
	}, told())
	got, err := h.GetKey(ctx, orgID, k.ID)
	require.NoError(t, err)
	require.Equal(t, 1, got.Version, "a use doesn't change the key")
	for i := range 60 {
		use(netip.AddrFrom4([4]byte{198, 18, byte(i), 1}).String())
		use(netip.AddrFrom4([4]byte{100, 64, byte(i), 1}).String())
	}
	require.Len(t, told(), limits.MaxNewKeyNetworks)
	h.exec(t, `UPDATE org_api_key_networks SET first_seen_at = now() - interval '2 hours' WHERE key_id = $1`, k.ID)
	use("198.19.0.1")
	require.Len(t, told(), limits.MaxNewKeyNetworks+1)
	require.LessOrEqual(t, h.count(t, `SELECT count(*) FROM org_api_key_networks WHERE key_id = $1`, k.ID), limits.MaxKeyNetworks)
}

// Networks beyond those that are remembered push out the ones that were seen longest ago.
func TestKey_remembersTheLastNetworks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	k, key := h.key(t, h.as(t, ada), KeyDraft{Scopes: []string{"read"}})
	h.exec(t, `INSERT INTO org_api_key_networks (key_id, org_id, network, allowed, first_seen_at, last_seen_at)
		SELECT $1, $2, 'old ' || i, true, now() - interval '1 day', now() - i * interval '1 minute' FROM generate_series(1, $3) i`, k.ID, ada.Organization.ID, limits.MaxKeyNetworks)
	_, err := h.Authenticate(at(t, "192.0.2.1"), key, nil)
	require.NoError(t, err)
	require.Equal(t, limits.MaxKeyNetworks, h.count(t, `SELECT count(*) FROM org_api_key_networks WHERE key_id = $1`, k.ID))
	require.Zero(t, h.count(t, `SELECT count(*) FROM org_api_key_networks WHERE key_id = $1 AND network = $2`, k.ID, "old 100"))
	require.Equal(t, 1, h.count(t, `SELECT count(*) FROM org_api_key_networks WHERE key_id = $1 AND network = $2`, k.ID, "192.0.2.0/24"))
}

func TestKeys_tooMany(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := h.as(t, h.signUp(t, "ada"))
	who := auth.From(ctx)
	h.exec(t, `INSERT INTO org_api_keys (key_id, org_id, name, scopes, role, holder_id, created_kind, created_by, allowed_addresses, generation, version, created_at, updated_at)
		SELECT gen_random_uuid(), $1, 'k', '{}', 'viewer', $2, 'user', $2, '{}', 1, 1, now(), now() FROM generate_series(1, $3)`, who.OrgID, who.AccountID, limits.MaxKeys)
	_, _, err := h.CreateKey(ctx, who.OrgID, KeyDraft{Name: "one more", Scopes: []string{"read"}})
	require.Equal(t, "api_key.too_many", code(err))
}

// No secret, nor its hash, is anywhere but in its table: not in events, not in the log, not in what is printed.
func TestKeys_secretsAreNowhere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	ctx, orgID := h.as(t, ada), ada.Organization.ID
	k, first := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	_, second, err := h.RotateKey(ctx, orgID, k.ID, time.Hour, nil)
	require.NoError(t, err)
	for _, key := range []string{first, second.Reveal()} {
		_, err := h.Authenticate(at(t, "192.0.2.1"), key, nil)
		require.NoError(t, err)
	}
	_, err = h.RevokeKey(ctx, orgID, k.ID, nil)
	require.NoError(t, err)
	for _, key := range []string{first, second.Reveal()} {
		_, err := h.Authenticate(at(t, "192.0.2.1"), key, nil)
		require.NotContains(t, err.Error(), key)
		secret := key[len(k.Label)+1:]
		for _, e := range h.events(t, orgID) {
			require.NotContains(t, string(e.Data), secret[:20], e.Type)
		}
		require.NotContains(t, h.log.String(), secret[:20])
	}
	raw, err := json.Marshal(struct{ S vault.Secret }{second})
	require.NoError(t, err)
	require.NotContains(t, string(raw), "tf_")
	assert.Zero(t, h.count(t, `SELECT count(*) FROM es.ledger_event WHERE data::text LIKE '%hash%'`))
}
