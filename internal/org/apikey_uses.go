package org

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
	"github.com/testflow/testflow/internal/postgres"
)

const (
	// flushKeyUses is how often what was counted is written, so that a crash loses no more than this.
	flushKeyUses = 3 * time.Second
	// flushTimeout bounds one writing, the last one of a process too.
	flushTimeout = 10 * time.Second
	// noteUse is how often the last use of one key is written at most.
	noteUse = time.Minute
	// maxUseCounts bounds the memory of what was counted and not yet written: keys × days × routes. What doesn't fit is
	// counted under otherRoutes, of which there is one a key and day.
	maxUseCounts = 20_000
	otherRoutes  = "(other)"
)

// keyUses counts in memory how keys are used, until it is written. The zero value is empty.
type keyUses struct {
	mu     sync.Mutex
	counts map[useCount]*useSum
	last   map[uuid.UUID]lastUse
}

type useCount struct {
	key   uuid.UUID
	day   string // UTC, as 2026-11-22
	route string // a template, never a URL
}

type useSum struct{ requests, refused int64 }

type lastUse struct {
	at      time.Time
	address string
	written time.Time // the use that was written last, of this process; zero = none
	dirty   bool      // there is one after it
}

// UseKey counts a request of an API key; other principals are not counted. route is the route's template. It only writes
// into memory: RunKeyUses brings it to the database.
func (s *Service) UseKey(p auth.Principal, route string, at time.Time, refused bool) {
	if p.Kind != auth.APIKey {
		return
	}
	u := &s.uses
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts == nil {
		u.counts = map[useCount]*useSum{}
	}
	if u.last == nil {
		u.last = map[uuid.UUID]lastUse{}
	}
	c := useCount{key: p.AccountID, day: at.UTC().Format(time.DateOnly), route: route}
	if u.counts[c] == nil && len(u.counts) >= maxUseCounts {
		c.route = otherRoutes
	}
	sum := u.counts[c]
	if sum == nil {
		sum = &useSum{}
		u.counts[c] = sum
	}
	sum.requests++
	if refused {
		sum.refused++
	}
	l := u.last[p.AccountID]
	l.at, l.address, l.dirty = at, p.Address, true
	u.last[p.AccountID] = l
}

// RunKeyUses writes what was counted every few seconds, and once more when ctx ends. What can't be written is kept and
// tried again.
func (s *Service) RunKeyUses(ctx context.Context) error {
	tick := time.NewTicker(flushKeyUses)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.FlushKeyUses(context.WithoutCancel(ctx))
		case <-tick.C:
			if err := s.FlushKeyUses(ctx); err != nil && ctx.Err() == nil {
				s.Log.WarnContext(ctx, "usage of API keys could not be written; it is tried again", slog.Any("err", err))
			}
		}
	}
}

// FlushKeyUses writes what was counted since the last time.
func (s *Service) FlushKeyUses(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	counts, last := s.uses.take()
	if len(counts) == 0 {
		return nil
	}
	err := s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := orgdb.New(tx)
		if err := q.AddAPIKeyUsage(ctx, usageRows(counts)); err != nil {
			return fmt.Errorf("add usage: %w", err)
		}
		if len(last) == 0 {
			return nil
		}
		notes, networks := lastRows(last)
		if err := q.NoteAPIKeyUses(ctx, notes); err != nil {
			return fmt.Errorf("note last uses: %w", err)
		}
		if err := q.SeeAPIKeyNetworks(ctx, networks); err != nil {
			return fmt.Errorf("note networks: %w", err)
		}
		return nil
	})
	if err != nil {
		s.uses.giveBack(counts, last)
		return fmt.Errorf("write the usage of API keys: %w", err)
	}
	return nil
}

// take hands out what was counted, and of the last uses those that are due.
func (u *keyUses) take() (counts map[useCount]*useSum, last map[uuid.UUID]lastUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	counts, last = u.counts, map[uuid.UUID]lastUse{}
	u.counts = map[useCount]*useSum{}
	var newest time.Time
	for _, l := range u.last {
		if l.at.After(newest) {
			newest = l.at
		}
	}
	kept := map[uuid.UUID]lastUse{}
	for key, l := range u.last {
		if l.dirty && l.at.Sub(l.written) >= noteUse {
			last[key] = l
			l.written, l.dirty = l.at, false
		}
		if l.dirty || newest.Sub(l.written) < noteUse { // who rests is forgotten
			kept[key] = l
		}
	}
	u.last = kept
	return counts, last
}

// giveBack adds again what could not be written.
func (u *keyUses) giveBack(counts map[useCount]*useSum, last map[uuid.UUID]lastUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c, sum := range counts {
		if u.counts[c] == nil && len(u.counts) >= maxUseCounts {
			c.route = otherRoutes
		}
		if there := u.counts[c]; there != nil {
			there.requests += sum.requests
			there.refused += sum.refused
			continue
		}
		u.counts[c] = sum
	}
	for key, l := range last {
		now := u.last[key]
		if now.at.Before(l.at) {
			now.at, now.address = l.at, l.address
		}
		now.dirty, now.written = true, time.Time{}
		u.last[key] = now
	}
}

func usageRows(counts map[useCount]*useSum) (rows orgdb.AddAPIKeyUsageParams) {
	for c, sum := range counts {
		rows.KeyIds = append(rows.KeyIds, c.key)
		rows.Days = append(rows.Days, c.day)
		rows.Routes = append(rows.Routes, c.route)
		rows.Requests = append(rows.Requests, sum.requests)
		rows.Refused = append(rows.Refused, sum.refused)
	}
	return rows
}

func lastRows(last map[uuid.UUID]lastUse) (notes orgdb.NoteAPIKeyUsesParams, networks orgdb.SeeAPIKeyNetworksParams) {
	for key, l := range last {
		notes.KeyIds = append(notes.KeyIds, key)
		notes.UsedAt = append(notes.UsedAt, l.at.UTC().Truncate(time.Microsecond))
		notes.Addresses = append(notes.Addresses, l.address)
		if network := networkOf(clientAddress(l.address)); network != "" {
			networks.KeyIds = append(networks.KeyIds, key)
			networks.Networks = append(networks.Networks, network)
		}
	}
	return notes, networks
}

// KeyUse is how often a key asked for a route on a day.
type KeyUse struct {
	Day      string // UTC, as 2026-11-22
	Route    string // method and template, as GET /api/runs/{id}
	Requests int64
	Refused  int64 // of them, those that were answered 4xx or 5xx
}

// KeyUsage is how a key was used over some days.
type KeyUsage struct {
	From, To string // days, both included
	Requests int64
	Refused  int64
	Items    []KeyUse // newest day first
}

// KeyUsageCursor is the place in a key's usage after which the next page begins.
type KeyUsageCursor struct {
	Day   string `json:"day"`
	Route string `json:"route"`
}

// KeyUsageFilter says which days and which page; both days are included.
type KeyUsageFilter struct {
	From, To time.Time
	Limit    int // 1 to 200; 0 = 50
	After    *KeyUsageCursor
}

// GetKeyUsage returns how a key was used. What was counted in the last few seconds may not be there yet.
func (s *Service) GetKeyUsage(ctx context.Context, orgID, id uuid.UUID, f KeyUsageFilter) (u KeyUsage, next *KeyUsageCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.KeyRead); err != nil {
		return KeyUsage{}, nil, err
	}
	limit := Filter{Limit: f.Limit}.limit()
	u.From, u.To = f.From.UTC().Format(time.DateOnly), f.To.UTC().Format(time.DateOnly)
	page := orgdb.ListAPIKeyUsageParams{OrgID: orgID, KeyID: id, FromDay: u.From, ToDay: u.To, RowLimit: int32(limit + 1)} //nolint:gosec // a page's limit is bounded
	if f.After != nil {
		page.AfterDay, page.AfterRoute = f.After.Day, f.After.Route
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if _, err := getKey(ctx, tx, id, 0); err != nil {
			return err
		}
		q := orgdb.New(tx)
		sum, err := q.SumAPIKeyUsage(ctx, orgdb.SumAPIKeyUsageParams{OrgID: orgID, KeyID: id, FromDay: u.From, ToDay: u.To})
		if err != nil {
			return fmt.Errorf("sum usage: %w", err)
		}
		rows, err := q.ListAPIKeyUsage(ctx, page)
		if err != nil {
			return fmt.Errorf("list usage: %w", err)
		}
		u.Requests, u.Refused = sum.Requests, sum.Refused
		for _, row := range rows {
			u.Items = append(u.Items, KeyUse(row))
		}
		return nil
	})
	if err == nil && len(u.Items) > limit {
		u.Items = u.Items[:limit]
		next = &KeyUsageCursor{Day: u.Items[limit-1].Day, Route: u.Items[limit-1].Route}
	}
	return u, next, err
}

// PruneKeyUsage forgets usage that is older than is kept and returns how many rows.
func (s *Service) PruneKeyUsage(ctx context.Context, now time.Time) (n int64, err error) {
	before := now.UTC().AddDate(0, 0, -limits.KeyUsageDays).Format(time.DateOnly)
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		n, err = orgdb.New(tx).PruneAPIKeyUsage(ctx, before)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune the usage of API keys: %w", err)
	}
	return n, nil
}
