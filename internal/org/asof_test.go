package org

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

type snapshot struct {
	org      Org
	members  []Member
	position int64
	at       time.Time // recorded
}

// What the log alone says of any moment is what the tables said then.
func TestAsOf_isWhatWasReadThen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	people := []SignedIn{h.signUp(t, "p0"), h.signUp(t, "p1"), h.signUp(t, "p2"), h.signUp(t, "p3")}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range 5 {
		o, err := h.Create(h.as(t, people[0]), "Start")
		require.NoError(t, err)
		ctx := h.in(t, people[0], o.ID)
		history := []snapshot{h.look(ctx, t, o.ID)}
		for i := range 25 {
			someone := people[1+r.IntN(3)].User.ID
			role := auth.Roles()[r.IntN(4)]
			switch r.IntN(6) {
			case 0:
				_, err = h.Rename(ctx, o.ID, fmt.Sprint("Name ", i), nil)
			case 1:
				_, err = h.AddMember(ctx, o.ID, someone, role)
			case 2:
				_, err = h.SetRole(ctx, o.ID, someone, role)
			case 3:
				_, err = h.RemoveMember(ctx, o.ID, someone)
			case 4:
				_, err = h.Invite(ctx, o.ID, fmt.Sprintf("guest%d@example.com", r.IntN(5)), role)
			case 5:
				if _, err = h.Delete(ctx, o.ID, nil); err == nil {
					history = append(history, h.look(ctx, t, o.ID))
					_, err = h.Restore(ctx, o.ID)
				}
			}
			if err != nil {
				require.Contains(t, []fault.Kind{fault.Conflict, fault.NotFound}, fault.KindOf(err), "%v", err)
				continue
			}
			history = append(history, h.look(ctx, t, o.ID))
		}
		last := history[len(history)-1]
		for _, was := range history {
			for _, point := range []AsOf{{Position: was.position}, {At: was.at}} {
				got, err := h.GetAsOf(ctx, o.ID, point)
				require.NoError(t, err)
				if was.org.EraseAt != nil {
					require.NotNil(t, got.EraseAt)
					require.True(t, was.org.EraseAt.Equal(*got.EraseAt))
					got.EraseAt = was.org.EraseAt
				}
				require.Equal(t, was.org, got, "at %+v", point)
				members, next, err := h.MembersAsOf(ctx, o.ID, point, Filter{})
				require.NoError(t, err)
				require.Nil(t, next)
				require.Len(t, members, len(was.members), "at %+v", point)
				for i, m := range members {
					if !is(last.members, m.AccountID) {
						require.Empty(t, m.Email, "whoever left took their address along")
						m.Email = was.members[i].Email
					}
					require.Equal(t, was.members[i], m, "at %+v", point)
				}
			}
		}
		paged := []Member{}
		for after := (*Cursor)(nil); ; {
			list, next, err := h.MembersAsOf(ctx, o.ID, AsOf{Position: last.position}, Filter{Limit: 1, After: after})
			require.NoError(t, err)
			paged = append(paged, list...)
			if after = next; next == nil {
				break
			}
		}
		require.Equal(t, last.members, paged)
	}
}

func is(list []Member, id uuid.UUID) bool {
	for _, m := range list {
		if m.AccountID == id {
			return true
		}
	}
	return false
}

// look reads the tables.
func (h *house) look(ctx context.Context, t *testing.T, id uuid.UUID) (s snapshot) {
	t.Helper()
	var err error
	s.org, err = h.Get(ctx, id)
	require.NoError(t, err)
	s.members, _, err = h.Members(ctx, id, Filter{})
	require.NoError(t, err)
	require.NoError(t, h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		events, err := h.store.Read(ctx, tx, id, id)
		s.position, s.at = events[len(events)-1].Position, events[len(events)-1].RecordedAt
		return err
	}))
	return s
}

func TestAsOf_whoAndWhen(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada := h.signUp(t, "ada")
	id := ada.Organization.ID
	viewer, eve := h.join(t, ada, "viewer", auth.Viewer), h.signUp(t, "eve")
	ctx := h.as(t, ada)
	var made eventstore.Event
	for _, e := range h.events(t, id) {
		if e.Type == TypeCreated {
			made = e
		}
	}
	for _, c := range []struct {
		ctx   context.Context
		point AsOf
		want  fault.Kind
	}{
		{h.in(t, viewer, id), AsOf{Position: made.Position}, fault.Forbidden},
		{h.as(t, eve), AsOf{Position: made.Position}, fault.NotFound},
		{ctx, AsOf{Position: made.Position - 1}, fault.NotFound},
		{ctx, AsOf{At: made.RecordedAt.Add(-time.Microsecond)}, fault.NotFound},
		{ctx, AsOf{At: time.Now().Add(time.Minute)}, fault.Invalid},
		{ctx, AsOf{Position: 1 << 40}, fault.Invalid},
	} {
		_, err := h.GetAsOf(c.ctx, id, c.point)
		require.Equal(t, c.want, fault.KindOf(err), "%+v: %v", c.point, err)
		_, _, err = h.MembersAsOf(c.ctx, id, c.point, Filter{})
		require.Equal(t, c.want, fault.KindOf(err), "%+v: %v", c.point, err)
	}
	before := AsOf{At: made.RecordedAt.Add(-time.Microsecond)}
	_, err := h.GetAsOf(ctx, id, before)
	require.ErrorContains(t, err, made.RecordedAt.UTC().Format(time.RFC3339Nano), "when it began")
	require.ErrorContains(t, err, fmt.Sprintf("position %d ", made.Position))
	_, err = h.GetAsOf(h.as(t, eve), id, before)
	require.Equal(t, notFound().Error(), err.Error(), "who isn't in it learns nothing of it")
	_, err = h.GetAsOf(h.in(t, viewer, id), id, before)
	require.NotContains(t, err.Error(), "it was made")
	o, err := h.GetAsOf(ctx, id, AsOf{Position: made.Position})
	require.NoError(t, err)
	require.Empty(t, o.Role, "nobody was a member yet")
	for text, ok := range map[string]bool{"17": true, "2026-11-22T20:00:00Z": true, "2026-11-22T20:00:00.123+01:00": true, "": false, "0": false, "-3": false, "yesterday": false, "2026-11-22": false} {
		_, err := ParseAsOf(text)
		require.Equal(t, ok, err == nil, text)
	}
}
