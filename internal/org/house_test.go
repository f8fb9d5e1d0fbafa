package org

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/account"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/vault"
)

const (
	jwtSecret     = "TFCANARY-jwt-secret-of-more-than-32-bytes"
	refreshSecret = "TFCANARY-refresh-secret-of-more-than-32-bytes"
	goodPassword  = "TFCANARY marble otter"
)

// house is a private database with accounts and organizations wired as app does it.
type house struct {
	*Service
	db      *pgtest.DB
	store   *eventstore.Store
	persons *account.Persons
	keys    *Keys
	log     *syncBuilder
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	db := pgtest.New(tb)
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(tb, err)
	persons, err := account.NewPersons(db.DB, master, time.Now)
	require.NoError(tb, err)
	keys, err := NewKeys(db.DB, master, time.Now)
	require.NoError(tb, err)
	tokens, err := auth.NewTokens(jwtSecret, time.Now, newID)
	require.NoError(tb, err)
	refresh, err := auth.NewRefreshTokens(refreshSecret)
	require.NoError(tb, err)
	passwords, err := auth.NewPasswords(0)
	require.NoError(tb, err)
	var out syncBuilder
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	store := eventstore.New(eventstore.Config{
		DB: db.DB, Types: append(account.Types(), Types()...), Inline: []eventstore.ReadModel{ReadModel()},
		Seal: persons.Seal, Now: time.Now, NewID: newID, Logger: logger,
	})
	require.NoError(tb, store.Sync(tb.Context()))
	accounts := &account.Service{
		DB: db.DB, Store: store, Persons: persons, Passwords: passwords, Tokens: tokens, Refresh: refresh, NewID: newID, Log: logger,
	}
	return &house{
		Service: &Service{DB: db.DB, Store: store, Accounts: accounts, Policy: Open, NewID: newID, Log: logger},
		db:      db, store: store, persons: persons, keys: keys, log: &out,
	}
}

// syncBuilder is a strings.Builder for several goroutines.
type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuilder) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuilder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// browser is where the tests' people come from.
var browser = account.Client{Address: "192.0.2.7", Agent: "TFCANARY-agent/1.0", Request: "req-1"}

func input(name string) SignUpInput {
	return SignUpInput{Registration: account.Registration{
		Email: name + "@example.com", Name: "TFCANARY " + name, Password: vault.NewSecret(goodPassword),
	}, OrganizationName: name + "'s"}
}

// signUp registers a person and returns what they hold.
func (h *house) signUp(t *testing.T, name string) SignedIn {
	t.Helper()
	in, err := h.SignUp(t.Context(), input(name), browser)
	require.NoError(t, err)
	return in
}

// as returns a context in which the person asks, authenticated by their access token.
func (h *house) as(t *testing.T, in SignedIn) context.Context {
	t.Helper()
	p, err := h.Authenticate(t.Context(), in.AccessToken.Reveal(), nil)
	require.NoError(t, err)
	p.Address, p.Agent, p.Request = browser.Address, browser.Agent, browser.Request
	return auth.With(t.Context(), p)
}

// join makes a new person a member of the admin's organization.
func (h *house) join(t *testing.T, admin SignedIn, name string, role auth.Role) SignedIn {
	t.Helper()
	in := h.signUp(t, name)
	_, err := h.AddMember(h.as(t, admin), admin.Organization.ID, in.User.ID, role)
	require.NoError(t, err)
	return in
}

// in returns a context in which the person asks as a member of an organization.
func (h *house) in(t *testing.T, who SignedIn, orgID uuid.UUID) context.Context {
	t.Helper()
	p, err := h.Authenticate(t.Context(), who.AccessToken.Reveal(), &orgID)
	require.NoError(t, err)
	return auth.With(t.Context(), p)
}

// types returns the types of an organization's or account's events, in order.
func (h *house) types(t *testing.T, orgID uuid.UUID) []string {
	t.Helper()
	var types []string
	for _, e := range h.events(t, orgID) {
		types = append(types, e.Type)
	}
	return types
}

func (h *house) events(t *testing.T, orgID uuid.UUID) (events []eventstore.Event) {
	t.Helper()
	err := h.DB.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) (err error) {
		events, _, err = h.store.ReadOrg(ctx, tx, orgID, eventstore.OrgQuery{})
		return err
	})
	require.NoError(t, err)
	return events
}

// exec runs SQL as the superuser, to move time for instance.
func (h *house) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.db.URL)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

func (h *house) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, h.db.System.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func code(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func pointers(err error) (list []string) {
	var f *fault.Error
	if errors.As(err, &f) {
		for _, field := range f.Fields {
			list = append(list, field.Pointer)
		}
	}
	return list
}

// faultDetails are the details of all places that a fault names.
func faultDetails(err error) (text string) {
	var f *fault.Error
	if errors.As(err, &f) {
		for _, field := range f.Fields {
			text += field.Detail + "\n"
		}
	}
	return text
}
