// Package mailtest gives tests the mail that was sent: a box that everything is delivered into, and an SMTP server that
// does what a test tells it to.
package mailtest

import (
	"context"
	"log/slog"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/mail"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/vault"
)

// Box is a mail.Service whose messages land in memory. Nothing is delivered until a test asks for it.
type Box struct {
	*mail.Service
	mu      sync.Mutex
	letters []mail.Letter
}

// New returns a Box on a database.
func New(tb testing.TB, db *postgres.DB, master *vault.Master, log *slog.Logger) *Box {
	tb.Helper()
	jobs, err := river.NewClient(riverpgxv5.New(db.System), &river.Config{Schema: postgres.RiverSchema, Logger: log})
	require.NoError(tb, err)
	b := &Box{}
	b.Service = &mail.Service{
		DB: db, Master: master, Jobs: jobs, Out: b, Log: log, URL: "https://testflow.example",
		Now: time.Now, NewID: func() uuid.UUID { return uuid.Must(uuid.NewV7()) },
	}
	return b
}

// Deliver keeps a letter.
func (b *Box) Deliver(_ context.Context, l mail.Letter) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letters = append(b.letters, l)
	return nil
}

// To delivers what waits and returns everything that came for an address, the oldest first.
func (b *Box) To(tb testing.TB, address string) []mail.Letter {
	tb.Helper()
	require.NoError(tb, b.Flush(tb.Context()))
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []mail.Letter
	for _, l := range b.letters {
		if l.To == address {
			found = append(found, l)
		}
	}
	return found
}

// Kinds are the kinds of the letters to an address.
func (b *Box) Kinds(tb testing.TB, address string) []string {
	tb.Helper()
	kinds := []string{}
	for _, l := range b.To(tb, address) {
		kinds = append(kinds, l.Kind)
	}
	return kinds
}

var code = regexp.MustCompile(`tfo_[A-Za-z0-9_-]{43}`)

// Code returns the code in the last letter of a kind to an address; there must be one.
func (b *Box) Code(tb testing.TB, address, kind string) string {
	tb.Helper()
	found := ""
	for _, l := range b.To(tb, address) {
		if l.Kind == kind {
			found = code.FindString(l.Text)
		}
	}
	require.NotEmpty(tb, found, "no code in a mail %s to %s", kind, address)
	return found
}
