package audit_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

type event struct {
	name string
	Text string `json:"text"`
}

func (e event) EventType() string { return e.name }

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

type fixture struct {
	*pgtest.DB
	store   *eventstore.Store
	service *audit.Service
	erased  uuid.UUID // whose key is destroyed
	now     func() time.Time
	log     bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{DB: pgtest.New(t), erased: newID()}
	kind := func(name string, lane eventstore.Lane, v eventstore.Visibility) eventstore.Type {
		return eventstore.Type{Name: name, Lane: lane, Schema: 1, Visibility: v, New: func() eventstore.Data { return event{name: name} }}
	}
	f.store = eventstore.New(eventstore.Config{
		DB: f.DB.DB, Now: time.Now, NewID: newID,
		Types: append(audit.Types(), []eventstore.Type{
			kind("thing.changed", eventstore.Ledger, eventstore.VisibleOrganization), kind("thing.secured", eventstore.Ledger, eventstore.VisibleAudit),
			kind("thing.hidden", eventstore.Ledger, eventstore.VisibleNever), kind("run.done", eventstore.Runs, eventstore.VisibleOrganization),
			kind("other.changed", eventstore.Ledger, eventstore.VisibleOrganization),
		}...),
		Seal: func(_ context.Context, _ pgx.Tx, person uuid.UUID, plain string) (string, error) {
			return "sealed:" + person.String() + ":" + plain, nil
		},
	})
	require.NoError(t, f.store.Sync(t.Context()))
	f.now = time.Now
	f.service = &audit.Service{DB: f.DB.DB, Store: f.store, NewID: newID, Now: func() time.Time { return f.now() }, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Open: func(_ context.Context, _ pgx.Tx, person uuid.UUID, sealed string) (string, bool, error) {
		plain, ok := strings.CutPrefix(sealed, "sealed:"+person.String()+":")
		return plain, ok && person != f.erased, nil
	}}
	return f
}

func principal(org uuid.UUID, role auth.Role) auth.Principal {
	return auth.Principal{Kind: auth.User, AccountID: newID(), OrgID: org, Role: role, Address: "192.0.2.7", Agent: "curl/8", Request: "req-1"}
}

func (f *fixture) append(t *testing.T, org, stream uuid.UUID, who eventstore.Actor, data ...eventstore.Data) {
	t.Helper()
	require.NoError(t, f.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := f.store.Append(ctx, tx, eventstore.Stream{OrgID: org, ID: stream, Kind: "thing"}, eventstore.AnyVersion, who, data...)
		return err
	}))
}

func TestList_pagesAndFilters_withoutAnotherTenant(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, other, a, b := newID(), newID(), newID(), newID()
	who, gone := principal(org, auth.Manager), principal(org, auth.Manager)
	gone.AccountID = f.erased
	f.append(t, org, a, who, event{"thing.changed", "1"}, event{"thing.secured", "2"})
	f.append(t, other, a, who, event{"thing.changed", "TFCANARY-other"})
	f.append(t, org, b, gone, event{"thing.changed", "3"})
	f.append(t, org, b, nil, event{"thing.changed", "4"})

	ctx := auth.With(t.Context(), who)
	var texts []string
	var after *audit.Cursor
	for {
		items, next, err := f.service.List(ctx, org, audit.Filter{Limit: 3, Before: after})
		require.NoError(t, err)
		for _, i := range items {
			texts = append(texts, string(i.Data))
		}
		if after = next; next == nil {
			break
		}
	}
	require.Equal(t, []string{`{"text": "4"}`, `{"text": "3"}`, `{"text": "2"}`, `{"text": "1"}`}, texts)

	items, _, err := f.service.List(ctx, org, audit.Filter{Actors: []uuid.UUID{who.AccountID}, Types: []string{"thing.changed"}, Subjects: []uuid.UUID{a}})
	require.NoError(t, err)
	require.Len(t, items, 1)
	e := items[0]
	require.Equal(t, "thing/"+a.String(), e.Subject)
	require.Equal(t, audit.Actor{Kind: "user", ID: who.AccountID}, e.Actor)
	require.Equal(t, []string{"192.0.2.7", "curl/8", "req-1"}, []string{e.Address, e.UserAgent, e.RequestID})
	require.Len(t, e.ContentHash, 64)
	items, _, err = f.service.List(ctx, org, audit.Filter{Actors: []uuid.UUID{f.erased}})
	require.NoError(t, err)
	require.Equal(t, []string{audit.Erased, audit.Erased}, []string{items[0].Address, items[0].UserAgent}, "who was erased is shown so")
	items, _, err = f.service.List(ctx, org, audit.Filter{To: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	require.Empty(t, items)

	_, _, err = f.service.List(auth.With(t.Context(), principal(org, auth.Viewer)), org, audit.Filter{})
	require.Equal(t, fault.Forbidden, fault.KindOf(err))
	_, _, err = f.service.List(auth.With(t.Context(), principal(other, auth.Admin)), org, audit.Filter{})
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	_, err = f.service.Export(t.Context(), org, audit.Request{Format: audit.NDJSON}, &bytes.Buffer{})
	require.Equal(t, fault.Unauthenticated, fault.KindOf(err))
}

func TestFeed_showsWhatTheReaderMaySee(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	org, run := newID(), newID()
	f.append(t, org, newID(), principal(org, auth.Admin), event{"thing.changed", "1"}, event{"thing.secured", "2"}, event{"thing.hidden", "3"})
	require.NoError(t, f.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		_, err := f.store.AppendRuns(ctx, tx, []eventstore.RunEvent{{OrgID: org, RunID: run, Version: 1, Data: event{"run.done", "4"}}})
		return err
	}))
	for role, want := range map[auth.Role][]string{auth.Viewer: {"thing.changed", "run.done"}, auth.Manager: {"thing.changed", "thing.secured", "run.done"}} {
		ctx := auth.With(t.Context(), principal(org, role))
		var got []string
		for after := int64(0); ; {
			items, upTo, err := f.service.Feed(ctx, org, after, 2)
			require.NoError(t, err)
			if len(items) == 0 {
				require.Equal(t, after, upTo)
				break
			}
			for _, i := range items {
				got = append(got, i.Type)
				require.Empty(t, i.Address)
			}
			after = upTo
		}
		require.Equal(t, want, got)
	}
}
