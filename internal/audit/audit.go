// Package audit shows an organization what was done in it: pages for people and exports for machines, straight from the
// ledger. It keeps no table of its own, so an export cannot differ from the log. It doesn't decide what is recorded;
// every slice does that by its events.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
)

const (
	// sealedPrefix marks personal data that is encrypted with its person's key.
	sealedPrefix = "sealed:"
)

// Service reads the ledger of one organization.
type Service struct {
	DB    *postgres.DB
	Store *eventstore.Store
	// Open decrypts what was sealed for a person, and returns ok=false when that person's key was destroyed. It is called
	// in the reading transaction. nil = everything stays sealed.
	Open func(ctx context.Context, tx pgx.Tx, person uuid.UUID, sealed string) (plain string, ok bool, err error)
}

// Actor is who did it.
type Actor struct {
	Kind string    `json:"kind"` // user, apiKey, system, worker
	ID   uuid.UUID `json:"id,omitzero"`
}

// Entry is one event as the audit log shows it; its JSON is a line of an export.
type Entry struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Position    int64           `json:"position"`
	RecordedAt  time.Time       `json:"recordedAt"`
	Subject     string          `json:"subject"` // kind/id
	Version     int             `json:"version"`
	Actor       Actor           `json:"actor"`
	Address     string          `json:"address,omitempty"`
	UserAgent   string          `json:"userAgent,omitempty"`
	RequestID   string          `json:"requestId,omitempty"`
	ContentHash string          `json:"contentHash,omitempty"` // hex; of what was stored, so of the sealed form
	Data        json.RawMessage `json:"data"`
}

// Filter selects events. Zero fields select nothing away.
type Filter struct {
	Actors   []uuid.UUID
	Types    []string
	Subjects []uuid.UUID // streams
	From, To time.Time   // recordedAt, half-open
	Limit    int         // 1 … 200, 0 = 50; List only
	Before   *Cursor     // List only
}

// Cursor is where the next page begins.
type Cursor struct {
	Position int64 `json:"p"` // events before it
}

func (f Filter) query() eventstore.OrgQuery {
	return eventstore.OrgQuery{Lanes: []eventstore.Lane{eventstore.Ledger}, Types: f.Types, ActorIDs: f.Actors, StreamIDs: f.Subjects, From: f.From, To: f.To}
}

// List returns a page of an organization's ledger, newest first, and where the next one begins (nil = this is the last).
// It needs auth.AuditRead.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, f Filter) (items []Entry, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return nil, nil, err
	}
	if f.Limit <= 0 {
		f.Limit = limits.DefaultPage
	}
	q := f.query()
	q.Limit, q.Desc = min(f.Limit, limits.MaxPage)+1, true
	if f.Before != nil {
		q.Before = f.Before.Position
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		events, _, err := s.Store.ReadOrg(ctx, tx, orgID, q)
		if err != nil {
			return err
		}
		if len(events) == q.Limit {
			events = events[:q.Limit-1]
			next = &Cursor{Position: events[len(events)-1].Position}
		}
		items, err = s.entries(ctx, tx, events)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list the audit log: %w", err)
	}
	return items, next, nil
}

// Each calls fn with every event that the filter selects and that is settled when it is called, oldest first. It reads
// page by page, each in a short transaction, so memory is constant and nothing waits for a slow reader. An error of fn
// ends it. It needs auth.AuditRead.
func (s *Service) Each(ctx context.Context, orgID uuid.UUID, f Filter, fn func(Entry) error) error {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return err
	}
	q := f.query()
	q.Limit = limits.ExportPage
	for first := true; ; first = false {
		var page []Entry
		err := s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
			if first { // what comes later is another export's
				fence, err := s.Store.Fence(ctx, tx)
				if err != nil {
					return err
				}
				q.Before = fence + 1
			}
			events, _, err := s.Store.ReadOrg(ctx, tx, orgID, q)
			if err != nil {
				return err
			}
			page, err = s.entries(ctx, tx, events)
			return err
		})
		if err != nil {
			return fmt.Errorf("export the audit log: %w", err)
		}
		for _, e := range page {
			if err := fn(e); err != nil {
				return err
			}
		}
		if len(page) < limits.ExportPage {
			return nil
		}
		q.After = page[len(page)-1].Position
	}
}

// Export writes what Each finds to w as NDJSON, one event a line, and returns how many. It needs auth.AuditRead.
func (s *Service) Export(ctx context.Context, orgID uuid.UUID, f Filter, w io.Writer) (n int, err error) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err = s.Each(ctx, orgID, f, func(e Entry) error {
		n++
		return enc.Encode(e)
	})
	return n, err
}

// Feed returns an organization's events after a position, of runs too, oldest first, and how far the answer reaches: the
// position to ask from next. Who may not read the audit log doesn't get its events. It needs auth.EventsRead.
func (s *Service) Feed(ctx context.Context, orgID uuid.UUID, after int64, limit int) (items []Entry, upTo int64, err error) {
	p, err := auth.Require(ctx, orgID, auth.EventsRead)
	if err != nil {
		return nil, 0, err
	}
	if after < 0 {
		return nil, 0, fault.New(fault.Invalid, "cursor.invalid", "This cursor is not one of ours.")
	}
	q := eventstore.OrgQuery{After: after, Limit: min(max(limit, 1), limits.MaxPage), Types: []string{}}
	for _, t := range s.Store.Types() {
		if t.Visibility != eventstore.VisibleNever && (t.Visibility != eventstore.VisibleAudit || p.May(auth.AuditRead)) {
			q.Types = append(q.Types, t.Name)
		}
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		var events []eventstore.Event
		if events, upTo, err = s.Store.ReadOrg(ctx, tx, orgID, q); err != nil {
			return err
		}
		items = make([]Entry, len(events))
		for i, e := range events {
			items[i] = entry(e)
			items[i].Address, items[i].UserAgent = "", "" // the feed is for programs; who from where is the audit log's
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the organization's feed: %w", err)
	}
	return items, upTo, nil
}

// entries turns events into entries and opens what is sealed.
func (s *Service) entries(ctx context.Context, tx pgx.Tx, events []eventstore.Event) ([]Entry, error) {
	items := make([]Entry, len(events))
	for i, e := range events {
		items[i] = entry(e)
		for _, field := range []*string{&items[i].Address, &items[i].UserAgent} {
			if s.Open == nil || !strings.HasPrefix(*field, sealedPrefix) {
				continue
			}
			plain, ok, err := s.Open(ctx, tx, e.Meta.ActorID, *field)
			if err != nil {
				return nil, fmt.Errorf("open personal data at %d: %w", e.Position, err)
			}
			if ok {
				*field = plain
			}
		}
	}
	return items, nil
}

func entry(e eventstore.Event) Entry {
	out := Entry{
		ID: e.ID(), Type: e.Type, Position: e.Position, RecordedAt: e.RecordedAt.UTC(), Subject: e.Kind + "/" + e.StreamID.String(), Version: e.Version,
		Actor: Actor{Kind: e.Meta.ActorKind, ID: e.Meta.ActorID}, Address: e.Meta.Address, UserAgent: e.Meta.Agent, RequestID: e.Meta.RequestID, Data: e.Data,
	}
	if out.Actor.Kind == "" {
		out.Actor.Kind = "system"
	}
	if len(e.ContentHash) > 0 {
		out.ContentHash = fmt.Sprintf("%x", e.ContentHash)
	}
	return out
}
