package realtime

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
)

const (
	// recheckers is how many sign-ins are checked at the same time.
	recheckers = 4
	// recheckTimeout is how long one check may take.
	recheckTimeout = 3 * time.Second
)

// wantRecheck asks for a check at once when something happened to an organization's members or keys, or to an account:
// of the account's or key's connections if the event names one, else of the organization's. Server.mu is held.
func (s *Server) wantRecheck(it *item) {
	if it.Lane != eventstore.Ledger {
		return
	}
	switch it.Kind {
	case topicProject, topicTest, "environment":
		return
	}
	who := it.OrgID // in an account's stream, the account
	switch {
	case it.Kind == kindKey:
		who = it.StreamID
	case it.account != uuid.Nil:
		who = it.account
		s.keyCheck[it.OrgID] = struct{}{} // the keys that this person holds may do what they may, and which those are isn't said
	}
	s.recheck[who] = struct{}{}
	select {
	case s.recheckWake <- struct{}{}:
	default: // it is awake
	}
}

// kindKey is the kind of an API key's stream, whose id is the key's, as which its connections act.
const kindKey = "apiKey"

// identity is what a check is about; connections that share one are checked once.
type identity struct {
	account, org, session uuid.UUID
	// Of an API key: which of its secrets was shown, and whence, since it may be bound to addresses.
	generation int
	address    string
}

func identityOf(p auth.Principal) identity {
	id := identity{account: p.AccountID, org: p.OrgID, session: p.SessionID}
	if p.Kind == auth.APIKey {
		id.generation, id.address = p.KeyGeneration, p.Address
	}
	return id
}

// recheckLoop checks every sign-in once a period, and at once those that an event may concern.
func (s *Server) recheckLoop(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Limits.Recheck)
	defer tick.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			all = true
		case <-s.recheckWake:
		}
		s.recheckSome(ctx, all)
	}
}

func (s *Server) recheckSome(ctx context.Context, all bool) {
	s.mu.Lock()
	wanted := s.recheck
	keys := s.keyCheck
	s.recheck, s.keyCheck = map[uuid.UUID]struct{}{}, map[uuid.UUID]struct{}{}
	who := map[identity]auth.Principal{}
	for c := range s.sockets {
		if c.state == stateStranger || c.state == stateClosing {
			continue
		}
		_, org := wanted[c.principal.OrgID]
		_, account := wanted[c.principal.AccountID]
		_, key := keys[c.principal.OrgID]
		if all || org || account || key && c.principal.Kind == auth.APIKey {
			who[identityOf(c.principal)] = c.principal
		}
	}
	s.mu.Unlock()

	var checks sync.WaitGroup
	tokens := make(chan struct{}, recheckers)
	for id, p := range who {
		tokens <- struct{}{}
		checks.Go(func() {
			defer func() { <-tokens }()
			s.recheckOne(ctx, id, p)
		})
	}
	checks.Wait()
}

func (s *Server) recheckOne(ctx context.Context, id identity, before auth.Principal) {
	ctx, cancel := context.WithTimeout(ctx, recheckTimeout)
	defer cancel()
	now, err := s.cfg.Recheck(ctx, before)
	kind := fault.KindOf(err)

	s.mu.Lock()
	defer s.mu.Unlock()
	logged := false
	for c := range s.sockets {
		if c.state == stateStranger || c.state == stateClosing || identityOf(c.principal) != id {
			continue
		}
		switch {
		case err == nil && now.OrgID != id.org:
			c.closeLocked(CloseRemoved, "removed", "no longer a member", 0)
		case err == nil && !now.May(auth.EventsRead): // an API key may lose the scope that brought it here
			c.closeLocked(CloseRemoved, "removed", "no longer allowed to follow events", 0)
		case err == nil:
			c.verified = s.cfg.Now()
			c.become(now)
		case kind == fault.Unauthenticated:
			c.closeLocked(CloseSignedOut, "signed_out", "signed out", 0)
		case kind == fault.Forbidden || kind == fault.NotFound:
			c.closeLocked(CloseRemoved, "removed", "no longer a member", 0)
		default:
			if !logged && ctx.Err() == nil {
				logged = true
				s.log.LogAttrs(ctx, slog.LevelWarn, "check a live sign-in", slog.Any("err", err))
			}
			if s.cfg.Now().Sub(c.verified) > s.cfg.Limits.UnverifiedGrace {
				c.closeLocked(CloseDraining, "unavailable", "the sign-in cannot be checked", retryUnavailable)
			}
		}
	}
}
