package org

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/limits"
)

func (h *house) usage(t *testing.T, ctx context.Context, id uuid.UUID, on time.Time) KeyUsage { //nolint:revive // the test comes first everywhere here
	t.Helper()
	u, next, err := h.GetKeyUsage(ctx, auth.From(ctx).OrgID, id, KeyUsageFilter{From: on.AddDate(0, 0, -3), To: on, Limit: 200})
	require.NoError(t, err)
	require.Nil(t, next)
	return u
}

func TestKeyUsage_isCountedByDayAndRoute(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := h.as(t, h.signUp(t, "ada"))
	k, key := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	p, err := h.Authenticate(at(t, "192.0.2.9"), key, nil)
	require.NoError(t, err)
	today := time.Date(2026, 11, 22, 23, 59, 0, 0, time.UTC)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 25 {
				h.UseKey(p, "GET /api/runs/{id}", today, i%5 == 0)
			}
		})
	}
	wg.Wait()
	h.UseKey(p, "POST /api/tests", today.Add(2*time.Minute), false)
	h.UseKey(auth.From(ctx), "GET /api/runs", today, false) // a person isn't counted
	require.NoError(t, h.FlushKeyUses(t.Context()))
	require.NoError(t, h.FlushKeyUses(t.Context()), "nothing to write is nothing wrong")
	h.UseKey(p, "GET /api/runs/{id}", today, false)
	require.NoError(t, h.FlushKeyUses(t.Context()))

	u := h.usage(t, ctx, k.ID, today.AddDate(0, 0, 1))
	require.Equal(t, []KeyUse{
		{Day: "2026-11-23", Route: "POST /api/tests", Requests: 1},
		{Day: "2026-11-22", Route: "GET /api/runs/{id}", Requests: 101, Refused: 20},
	}, u.Items)
	require.EqualValues(t, 102, u.Requests)
	require.EqualValues(t, 20, u.Refused)

	one, next, err := h.GetKeyUsage(ctx, auth.From(ctx).OrgID, k.ID, KeyUsageFilter{From: today, To: today.AddDate(0, 0, 1), Limit: 1})
	require.NoError(t, err)
	require.Equal(t, u.Items[:1], one.Items)
	two, last, err := h.GetKeyUsage(ctx, auth.From(ctx).OrgID, k.ID, KeyUsageFilter{From: today, To: today.AddDate(0, 0, 1), Limit: 1, After: next})
	require.NoError(t, err)
	require.Equal(t, u.Items[1:], two.Items)
	require.Nil(t, last)

	n, err := h.PruneKeyUsage(t.Context(), today.AddDate(0, 0, limits.KeyUsageDays+1))
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// The last use is written at most once a minute, by this node and by all together; it isn't a write for each request.
func TestKeyLastUse_isCoarse(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := h.as(t, h.signUp(t, "ada"))
	orgID := auth.From(ctx).OrgID
	k, key := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	require.Nil(t, k.LastUsedAt)
	p, err := h.Authenticate(at(t, "192.0.2.9"), key, nil)
	require.NoError(t, err)
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	use := func(after time.Duration, address string) *time.Time {
		p.Address = address
		h.UseKey(p, "GET /api/runs", start.Add(after), false)
		require.NoError(t, h.FlushKeyUses(t.Context()))
		got, err := h.GetKey(ctx, orgID, k.ID)
		require.NoError(t, err)
		return got.LastUsedAt
	}
	require.Equal(t, start, use(0, "192.0.2.9").UTC())
	require.Equal(t, start, use(59*time.Second, "192.0.2.10").UTC(), "not twice a minute")
	require.Equal(t, start.Add(time.Minute), use(time.Minute, "192.0.2.11").UTC())
	other := &Service{DB: h.DB, Store: h.store, Log: h.Log}
	p.Address = "192.0.2.12"
	other.UseKey(p, "GET /api/runs", start.Add(90*time.Second), false)
	require.NoError(t, other.FlushKeyUses(t.Context()))
	got, err := h.GetKey(ctx, orgID, k.ID)
	require.NoError(t, err)
	require.Equal(t, "192.0.2.11", got.LastAddress, "another node neither")
}

// What can't be written is kept; a process that stops writes what it has; memory is bounded.
func TestKeyUses_survive(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := h.as(t, h.signUp(t, "ada"))
	k, key := h.key(t, ctx, KeyDraft{Scopes: []string{"read"}})
	p, err := h.Authenticate(at(t, "192.0.2.9"), key, nil)
	require.NoError(t, err)
	now := time.Now()
	h.UseKey(p, "GET /api/runs", now, false)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, h.FlushKeyUses(gone))
	h.UseKey(p, "GET /api/runs", now, true)
	require.NoError(t, h.RunKeyUses(gone), "its last act is to write")
	u := h.usage(t, ctx, k.ID, now)
	require.EqualValues(t, 2, u.Requests)
	require.EqualValues(t, 1, u.Refused)

	gonePrincipal := p
	gonePrincipal.AccountID = newID() // of an organization that was erased meanwhile
	h.UseKey(gonePrincipal, "GET /api/runs", now, false)
	h.UseKey(p, "GET /api/runs", now, false)
	require.NoError(t, h.FlushKeyUses(t.Context()))
	require.EqualValues(t, 3, h.usage(t, ctx, k.ID, now).Requests)

	for i := range maxUseCounts + 100 {
		h.UseKey(p, fmt.Sprintf("GET /%d", i), now, false)
	}
	require.Len(t, h.uses.counts, maxUseCounts+1)
	require.EqualValues(t, 100, h.uses.counts[useCount{p.AccountID, now.UTC().Format(time.DateOnly), otherRoutes}].requests)
}

// BenchmarkAuthenticateKey says what a key costs each request: one query by primary key.
func BenchmarkAuthenticateKey(b *testing.B) {
	h := newHouse(b)
	in, err := h.SignUp(b.Context(), input("ada"), browser)
	require.NoError(b, err)
	p, err := h.Authenticate(b.Context(), in.AccessToken.Reveal(), nil)
	require.NoError(b, err)
	_, secret, err := h.CreateKey(auth.With(b.Context(), p), p.OrgID, KeyDraft{Name: "key", Scopes: []string{"read"}, AllowedAddresses: []string{"192.0.2.0/24"}})
	require.NoError(b, err)
	ctx := auth.With(b.Context(), auth.Principal{Address: "192.0.2.9"})
	for name, credential := range map[string]string{"key": secret.Reveal(), "token": in.AccessToken.Reveal()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := h.Authenticate(ctx, credential, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
