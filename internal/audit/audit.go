// Package audit shows an organization what was done in it: pages for people and exports for machines, straight from the
// ledger. It keeps no table of its own, so an export cannot differ from the log. What slices do they record themselves, by
// their events; audit records what no slice sees: refusals, exports, and settings of the installation.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

const (
	// sealedPrefix marks personal data that is encrypted with its person's key.
	sealedPrefix = "sealed:"
	// Erased stands for personal data whose key was destroyed with its person's.
	Erased = "erased"
)

// Service reads the ledger of one organization.
type Service struct {
	DB    *postgres.DB
	Store *eventstore.Store
	// Open decrypts what was sealed for a person, and returns ok=false when that person's key was destroyed. It is called
	// in the reading transaction. nil = everything stays sealed.
	Open func(ctx context.Context, tx pgx.Tx, person uuid.UUID, sealed string) (plain string, ok bool, err error)
	// Evidence begins what proves an NDJSON export; nil = exports carry no proof.
	Evidence func(ctx context.Context, tx postgres.OrgTx, orgID uuid.UUID, f Filter, after, upTo int64) (e Evidence, opening []any, err error)
	// Signer returns the key that signs the lines of an NDJSON export, with its chain; nil = they aren't signed.
	Signer func(ctx context.Context) (*seal.Signer, *seal.Chain, error)
	// Settle seals what is settled when it is called, and returns the position up to which everything is sealed then; an
	// NDJSON export calls it before it begins, and ends there. nil = an export takes what isn't sealed yet too.
	Settle func(ctx context.Context) (upTo int64, err error)
	// Check returns the principal as it is now, or why it may nothing any more: an export outlives a request. nil = nobody
	// asks again.
	Check func(ctx context.Context, p auth.Principal) (auth.Principal, error)
	Now   func() time.Time
	NewID func() uuid.UUID
	Log   *slog.Logger
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
	Actors     []uuid.UUID
	Types      []string    // "org.renamed", or "org.*"
	Subjects   []uuid.UUID // streams
	RequestIDs []string
	From, To   time.Time // recordedAt, half-open
	After      int64     // position; only later events; 0 = from the beginning
	UpTo       int64     // position; this one and earlier ones; 0 = to the end
	Limit      int       // 1 … 200, 0 = 50; List only
	Before     *Cursor   // List only
}

// Cursor is where the next page begins.
type Cursor struct {
	Position int64 `json:"p"` // events before it
}

func (f Filter) query() eventstore.OrgQuery {
	q := eventstore.OrgQuery{
		Lanes: []eventstore.Lane{eventstore.Ledger}, Types: f.Types, ActorIDs: f.Actors, StreamIDs: f.Subjects, RequestIDs: f.RequestIDs,
		From: f.From, To: f.To, After: f.After,
	}
	if f.UpTo > 0 {
		q.Before = f.UpTo + 1
	}
	return q
}

// selects reports whether the filter leaves events out between its positions.
func (f Filter) selects() bool {
	return len(f.Actors)+len(f.Types)+len(f.Subjects)+len(f.RequestIDs) > 0 || !f.From.IsZero() || !f.To.IsZero()
}

// check returns fault.Invalid with everything that is wrong with the filter, with the names of the API's parameters.
// known are the names of the types that there are.
func (f Filter) check(known []string) error {
	var faults []fault.Field
	at := func(parameter, detail string) {
		faults = append(faults, fault.Field{Parameter: parameter, Detail: detail})
	}
	for name, n := range map[string]int{"actor": len(f.Actors), "type": len(f.Types), "subject": len(f.Subjects), "requestId": len(f.RequestIDs)} {
		if n > limits.MaxFilterValues {
			at(name, fmt.Sprintf("may be given at most %d times", limits.MaxFilterValues))
		}
	}
	for _, t := range f.Types {
		if i := strings.IndexByte(t, '*'); t == "" || i >= 0 && i != len(t)-1 {
			at("type", "must be the name of an event type, or its beginning followed by *")
		} else if prefix, all := strings.CutSuffix(t, "*"); !slices.ContainsFunc(known, func(name string) bool { return name == t || all && strings.HasPrefix(name, prefix) }) {
			at("type", "is no type of event; there are "+strings.Join(near(known, t), ", "))
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && f.From.After(f.To) {
		at("to", "must not be before from")
	}
	if f.After < 0 {
		at("after", "must be a position: 0 or more")
	}
	if f.UpTo < 0 || f.UpTo > 0 && f.UpTo < f.After {
		at("upTo", "must be a position that is not before after")
	}
	if len(faults) == 0 {
		return nil
	}
	slices.SortFunc(faults, func(a, b fault.Field) int { return strings.Compare(a.Parameter, b.Parameter) })
	e := fault.New(fault.Invalid, "request.invalid", "The filter has a fault.")
	e.Fields = faults
	return e
}

// near are the types of the same subject as name, or all subjects when there is none such.
func near(known []string, name string) []string {
	subject, _, _ := strings.Cut(name, ".")
	var same, subjects []string
	for _, k := range known {
		of, _, _ := strings.Cut(k, ".")
		if of == subject {
			same = append(same, k)
		}
		subjects = append(subjects, of+".*")
	}
	if len(same) > 0 {
		return same
	}
	return slices.Compact(subjects)
}

// types are the names of the ledger's types, in order.
func (s *Service) types() (names []string) {
	for _, t := range s.Store.Types() {
		if t.Lane == eventstore.Ledger {
			names = append(names, t.Name)
		}
	}
	return names
}

// List returns a page of an organization's ledger, newest first, and where the next one begins (nil = this is the last).
// It needs auth.AuditRead.
func (s *Service) List(ctx context.Context, orgID uuid.UUID, f Filter) (items []Entry, next *Cursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return nil, nil, err
	}
	if err := f.check(s.types()); err != nil {
		return nil, nil, err
	}
	if f.Limit <= 0 {
		f.Limit = limits.DefaultPage
	}
	q := f.query()
	q.Limit, q.Desc = min(f.Limit, limits.MaxPage)+1, true
	if f.Before != nil && (q.Before == 0 || f.Before.Position < q.Before) {
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
			*field = Erased
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
