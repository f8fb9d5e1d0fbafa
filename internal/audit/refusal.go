package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

const (
	// firstWindow is how long refusals of one sort are counted after the first was recorded. While they go on, each next
	// window is twice as long, up to longestWindow: a flood of a day writes eight events.
	firstWindow   = 15 * time.Minute
	longestWindow = 24 * time.Hour
	// sweepEvery is how often ended windows are looked for.
	sweepEvery = 30 * time.Second
	// flushTime is what writing all counts may take when the process ends.
	flushTime = 5 * time.Second
)

// Refusals records who was refused what. The log is permanent, so it must not grow with the patience of somebody who
// tries: the first refusal of a sort is an event at once, the others of the window are one event with their count. A
// process that is killed loses the count of a window, never the first. It is safe for concurrent use.
type Refusals struct {
	audit *Service
	mu    sync.Mutex
	seen  map[refusalKey]*refusalWindow
	lost  int // refusals of sorts that there was no room for, since the last sweep
}

// refusalKey is what makes two refusals the same.
type refusalKey struct {
	owner     uuid.UUID // whose log: the organization's, or the person's own
	kind      auth.Kind
	principal uuid.UUID
	operation string
	code      string
}

type refusalWindow struct {
	since, until time.Time
	length       time.Duration
	count        int // after the first
	last         auth.Principal
	event        Refused
}

// NewRefusals returns Refusals that record through the service.
func NewRefusals(s *Service) *Refusals {
	return &Refusals{audit: s, seen: map[refusalKey]*refusalWindow{}}
}

// Attempt is what somebody was refused.
type Attempt struct {
	Operation  string // operationId of the API
	Permission string // that it needs; may be empty
	Requested  uuid.UUID
}

// Refused records that a principal was refused an operation for cause. What is no fault.Forbidden is left alone, unless the
// attempt names an organization that the principal isn't in. It stands in the log of the organization that the principal
// acts in; of who acts in none, in the person's own: no stranger writes into an organization's permanent log. Nobody's
// refusals are not recorded.
func (r *Refusals) Refused(ctx context.Context, who auth.Principal, a Attempt, cause error) {
	var f *fault.Error
	if !errors.As(cause, &f) || f.Kind != fault.Forbidden && (a.Requested == uuid.Nil || f.Kind != fault.NotFound) {
		return
	}
	if who.AccountID == uuid.Nil || who.Kind != auth.User && who.Kind != auth.APIKey {
		return
	}
	owner := who.OrgID
	if owner == uuid.Nil || a.Requested != uuid.Nil {
		owner = who.AccountID
		if who.Kind != auth.User {
			return // a key is an organization's
		}
	}
	key := refusalKey{owner, who.Kind, who.AccountID, a.Operation, f.Code}
	event := Refused{Operation: a.Operation, Permission: a.Permission, Code: f.Code, Role: string(who.Role), Requested: a.Requested, Count: 1}
	if !r.first(key, who, event) {
		return
	}
	if err := r.audit.record(context.WithoutCancel(ctx), owner, who, event); err != nil {
		r.audit.Log.ErrorContext(ctx, "a refusal was not recorded", slog.String("operation", a.Operation), slog.String("code", f.Code), slog.Any("err", err))
		r.mu.Lock()
		delete(r.seen, key) // the next one is the first again
		r.mu.Unlock()
	}
}

// first counts a refusal and reports whether it is the first of its sort.
func (r *Refusals) first(key refusalKey, who auth.Principal, event Refused) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w, ok := r.seen[key]; ok {
		w.count++
		w.last = who
		return false
	}
	if len(r.seen) >= limits.MaxRefusalSorts {
		r.lost++
		return false
	}
	now := r.audit.Now()
	r.seen[key] = &refusalWindow{since: now, until: now.Add(firstWindow), length: firstWindow, last: who, event: event}
	return true
}

// Run records the counts of windows that have ended, until ctx ends; then it records all others.
func (r *Refusals) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
			defer cancel()
			r.sweep(end, true)
			return nil
		case <-tick.C:
			r.sweep(ctx, false)
		}
	}
}

type countedRefusal struct {
	key   refusalKey
	who   auth.Principal
	event Refused
}

// sweep records the counts of windows that have ended, or of all.
func (r *Refusals) sweep(ctx context.Context, all bool) {
	for _, c := range r.ended(all) {
		if err := r.audit.record(ctx, c.key.owner, c.who, c.event); err != nil {
			r.audit.Log.ErrorContext(ctx, "a count of refusals was not recorded", slog.String("operation", c.event.Operation),
				slog.Int("count", c.event.Count), slog.Any("err", err))
		}
	}
}

// ended takes the windows that are over out of memory, or begins their next one.
func (r *Refusals) ended(all bool) (counted []countedRefusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.audit.Now()
	for key, w := range r.seen {
		if !all && now.Before(w.until) {
			continue
		}
		if w.count == 0 {
			delete(r.seen, key)
			continue
		}
		event := w.event
		event.Count, event.Since, event.Requested = w.count, w.since.UTC().Truncate(time.Microsecond), uuid.Nil
		counted = append(counted, countedRefusal{key, w.last, event})
		w.length = min(2*w.length, longestWindow)
		w.since, w.until, w.count = now, now.Add(w.length), 0
	}
	if r.lost > 0 {
		r.audit.Log.Warn("more sorts of refusals than are counted one by one", slog.Int("left_out", r.lost))
		r.lost = 0
	}
	return counted
}
