package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

type refusalFixture struct {
	*pgtest.DB
	store    *eventstore.Store
	refusals *Refusals
	now      time.Time
	log      bytes.Buffer
}

func newRefusalFixture(t *testing.T) *refusalFixture {
	t.Helper()
	f := &refusalFixture{DB: pgtest.New(t), now: time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)}
	newID := func() uuid.UUID { return uuid.Must(uuid.NewV7()) }
	f.store = eventstore.New(eventstore.Config{DB: f.DB.DB, Now: time.Now, NewID: newID, Types: Types()})
	require.NoError(t, f.store.Sync(t.Context()))
	f.refusals = NewRefusals(&Service{DB: f.DB.DB, Store: f.store, Now: func() time.Time { return f.now }, NewID: newID, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	return f
}

// recorded are the refusals in somebody's log.
func (f *refusalFixture) recorded(t *testing.T, owner uuid.UUID) (list []Refused, actors []uuid.UUID) {
	t.Helper()
	require.NoError(t, f.InOrg(t.Context(), owner, func(ctx context.Context, tx postgres.OrgTx) error {
		events, _, err := f.store.ReadOrg(ctx, tx, owner, eventstore.OrgQuery{Types: []string{TypeRefused}, Limit: 5000})
		for _, e := range events {
			var d Refused
			require.NoError(t, e.Decode(&d))
			list, actors = append(list, d), append(actors, e.Meta.ActorID)
		}
		return err
	}))
	return list, actors
}

func forbidden() error {
	return errors.Join(fault.New(fault.Forbidden, "auth.forbidden", "Your role falls short."))
}

// The first refusal is there at once; a flood after it is a count a window, and windows grow, so the log does not.
func TestRefused_aFloodIsAHandfulOfEvents(t *testing.T) {
	t.Parallel()
	f := newRefusalFixture(t)
	who := auth.Principal{Kind: auth.User, AccountID: uuid.New(), OrgID: uuid.New(), Role: auth.Viewer, Request: "req-1"}
	attempt := Attempt{Operation: "updateOrganization", Permission: "org.manage"}
	f.refusals.Refused(t.Context(), who, attempt, forbidden())
	list, actors := f.recorded(t, who.OrgID)
	require.Equal(t, []Refused{{Operation: "updateOrganization", Permission: "org.manage", Code: "auth.forbidden", Role: "viewer", Count: 1}}, list)
	require.Equal(t, []uuid.UUID{who.AccountID}, actors)

	total := 1
	for range 24 * 60 { // a day, 20 times a minute
		for range 20 {
			f.refusals.Refused(t.Context(), who, attempt, forbidden())
			total++
		}
		f.now = f.now.Add(time.Minute)
		f.refusals.sweep(t.Context(), false)
	}
	f.refusals.sweep(t.Context(), true)
	list, _ = f.recorded(t, who.OrgID)
	require.LessOrEqual(t, len(list), 9, "28 800 refusals")
	counted := 0
	for _, r := range list {
		counted += r.Count
	}
	require.Equal(t, total, counted, "and none is left out of the count")
	require.Equal(t, time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC), list[1].Since)

	f.now = f.now.Add(longestWindow)
	f.refusals.sweep(t.Context(), false)
	f.refusals.mu.Lock()
	require.Empty(t, f.refusals.seen, "what has stopped costs no memory")
	f.refusals.mu.Unlock()
}

func TestRefused_whoseLogItIs(t *testing.T) {
	t.Parallel()
	f := newRefusalFixture(t)
	org, stranger, foreign := uuid.New(), uuid.New(), uuid.New()
	notFound := fault.New(fault.NotFound, "org.not_found", "There is no such organization.")
	for _, c := range []struct {
		who   auth.Principal
		a     Attempt
		cause error
	}{
		{auth.Principal{}, Attempt{Operation: "listRuns"}, forbidden()},                                                  // nobody
		{auth.Principal{Kind: auth.System}, Attempt{Operation: "listRuns"}, forbidden()},                                 // ourselves
		{auth.Principal{Kind: auth.User, AccountID: stranger, OrgID: org}, Attempt{Operation: "getRun"}, notFound},       // a typing error
		{auth.Principal{Kind: auth.User, AccountID: stranger, OrgID: org}, Attempt{Operation: "getRun"}, errors.New("")}, // a fault of ours
		{auth.Principal{Kind: auth.User, AccountID: stranger}, Attempt{Operation: "getRun", Requested: foreign}, notFound},
		{auth.Principal{Kind: auth.User, AccountID: stranger}, Attempt{Operation: "operate"}, forbidden()},
		{auth.Principal{Kind: auth.APIKey, AccountID: uuid.New(), OrgID: org}, Attempt{Operation: "createProject"}, forbidden()},
	} {
		f.refusals.Refused(t.Context(), c.who, c.a, c.cause)
	}
	inOrg, _ := f.recorded(t, org)
	require.Len(t, inOrg, 1, "the key's")
	none, _ := f.recorded(t, foreign)
	require.Empty(t, none, "no stranger writes into another's log")
	own, _ := f.recorded(t, stranger)
	require.Len(t, own, 2)
	require.Equal(t, foreign, own[0].Requested)
}

func TestRefused_memoryIsBounded(t *testing.T) {
	t.Parallel()
	f := newRefusalFixture(t)
	for range limits.MaxRefusalSorts + 10 {
		f.refusals.first(refusalKey{principal: uuid.New()}, auth.Principal{}, Refused{})
	}
	require.Len(t, f.refusals.seen, limits.MaxRefusalSorts)
	f.refusals.ended(false)
	require.Contains(t, f.log.String(), "left_out=10")
}

func TestRefusals_runEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := NewRefusals(&Service{Now: time.Now})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(2 * sweepEvery)
		cancel()
		require.NoError(t, <-ended)
	})
}
