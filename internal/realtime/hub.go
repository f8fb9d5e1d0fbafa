package realtime

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/eventstore"
)

// orgIndex finds the views of an organization that an event goes to.
type orgIndex struct {
	views map[string]*view
	index map[topic]map[*view]struct{}
}

// view is what connections of one organization with the same topics and rights see. They share their frames, so they all
// stand at the same position.
type view struct {
	org     uuid.UUID
	key     string
	topics  topics
	audit   bool
	members map[*socket]struct{}
	sent    int64   // position that every member was told
	pending []*item // routed and not sent
	last    *item   // the last one routed here, so that several topics route it once
	flushed time.Time
}

// watched says whether somebody may want to see what happens.
func (s *Server) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open > 0
}

// onBatch routes a batch of the feed. The feed calls it with one batch after the other.
func (s *Server) onBatch(b eventstore.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.To <= s.position {
		return
	}
	if b.From > s.position || !s.following {
		s.skip(b.From)
	}
	s.following = true
	if b.Bare && slices.ContainsFunc(b.Events, func(e eventstore.Event) bool { return e.Lane == eventstore.Runs }) {
		s.onBare(b)
		return
	}
	var touched []*view
	for _, e := range b.Events {
		if e.Position <= s.position {
			continue
		}
		it := newItem(e, s.cfg.Visibility(e.Type))
		s.wantRecheck(it)
		if it.visibility == eventstore.VisibleNever || it.visibility == "" {
			continue
		}
		s.ring = append(s.ring, it)
		touched = s.route(it, touched)
	}
	s.position = b.To
	s.trimRing()

	now := s.cfg.Now()
	for _, v := range touched {
		if now.Sub(v.flushed) >= s.cfg.Limits.Coalesce {
			s.flush(v)
			continue
		}
		if len(s.dirty) == 0 {
			s.flusher.Reset(s.cfg.Limits.Coalesce - now.Sub(v.flushed))
		}
		s.dirty[v] = struct{}{}
	}
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// onBare is onBatch for a stretch that was read while nobody watched. Who has come meanwhile reads it from the log.
func (s *Server) onBare(b eventstore.Batch) {
	for _, e := range b.Events {
		if e.Position > s.position {
			s.wantRecheck(newItem(e, s.cfg.Visibility(e.Type)))
		}
	}
	s.skip(b.To)
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// skip is for a feed that left a stretch of the log out (it was started anew): whoever listens reads it from the log.
func (s *Server) skip(to int64) {
	for _, org := range s.orgs {
		for _, v := range org.views {
			s.flush(v)
			for c := range v.members {
				s.leave(c)
				c.startCatchUp(c.ms.Request.Context())
			}
		}
	}
	s.ring, s.ringStart, s.position = nil, to, to
}

// trimRing forgets the older half when the ring is full.
func (s *Server) trimRing() {
	n := s.cfg.Limits.RecentEvents
	if len(s.ring) <= n {
		return
	}
	cut := len(s.ring) - n/2
	s.ringStart = s.ring[cut-1].Position
	s.ring = append(make([]*item, 0, n+64), s.ring[cut:]...)
}

// recent returns up to limit visible events with a position after the given one, which must not lie before ringStart, and
// the position up to which they are all.
func (s *Server) recent(after int64, limit int) (events []*item, upTo int64) {
	i := sort.Search(len(s.ring), func(i int) bool { return s.ring[i].Position > after })
	events = s.ring[i:]
	if len(events) > limit {
		return events[:limit], events[limit-1].Position
	}
	return events, s.position
}

// route puts the event into the views that see it and returns touched with those that were empty before.
func (s *Server) route(it *item, touched []*view) []*view {
	org := s.orgs[it.OrgID]
	if org == nil {
		return touched
	}
	it.each(func(t topic) {
		for v := range org.index[t] {
			if v.last == it || (it.visibility == eventstore.VisibleAudit && !v.audit) {
				continue
			}
			v.last = it
			if len(v.pending) == 0 {
				touched = append(touched, v)
			}
			v.pending = append(v.pending, it)
		}
	})
	return touched
}

// flushDirty is the flush timer.
func (s *Server) flushDirty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.dirty {
		s.flush(v)
	}
}

// flush sends what waits in the view and brings its members to the present position.
func (s *Server) flush(v *view) {
	delete(s.dirty, v)
	if len(v.pending) == 0 {
		return
	}
	s.sendView(v, s.pieces(v.org, v.sent, s.position, v.pending))
	clear(v.pending)
	v.pending, v.last, v.flushed = v.pending[:0], nil, s.cfg.Now()
}

// advance tells the members of a view in which nothing waits that they are at the position.
func (s *Server) advance(v *view, to int64) { s.sendView(v, s.pieces(v.org, v.sent, to, nil)) }

func (s *Server) sendView(v *view, frames []piece) {
	for c := range v.members {
		if !c.deliver(frames) {
			delete(v.members, c) // a view without members goes when its last one was told
			c.view = nil
			c.fallBehind()
		}
	}
	v.sent = frames[len(frames)-1].to
	if len(v.members) == 0 {
		s.dropView(v)
	}
}

// viewKey is the same for connections of an organization that see the same.
func (c *socket) viewKey() string {
	key := strings.Join(c.topics.names(), " ")
	if c.mayAudit() {
		return "audit " + key
	}
	return key
}

// findView returns the view of others that see the same as the connection, or nil.
func (s *Server) findView(c *socket) *view {
	if org := s.orgs[c.principal.OrgID]; org != nil {
		return org.views[c.viewKey()]
	}
	return nil
}

// viewOf returns the view that the connection belongs to, which is new and empty if nobody else has the same.
func (s *Server) viewOf(c *socket) *view {
	org := s.orgs[c.principal.OrgID]
	if org == nil {
		org = &orgIndex{views: map[string]*view{}, index: map[topic]map[*view]struct{}{}}
		s.orgs[c.principal.OrgID] = org
	}
	key := c.viewKey()
	v := org.views[key]
	if v == nil {
		v = &view{org: c.principal.OrgID, key: key, audit: c.mayAudit(), topics: topics{}, members: map[*socket]struct{}{}, sent: c.told}
		for t := range c.topics {
			v.topics[t] = struct{}{}
			if org.index[t] == nil {
				org.index[t] = map[*view]struct{}{}
			}
			org.index[t][v] = struct{}{}
		}
		org.views[key] = v
	}
	return v
}

func (s *Server) dropView(v *view) {
	delete(s.dirty, v)
	org := s.orgs[v.org]
	if org == nil || org.views[v.key] != v {
		return
	}
	delete(org.views, v.key)
	for t := range v.topics {
		delete(org.index[t], v)
		if len(org.index[t]) == 0 {
			delete(org.index, t)
		}
	}
	if len(org.views) == 0 {
		delete(s.orgs, v.org)
	}
}

// join makes the connection live. It has been sent everything that it may see up to the present position; what it was
// told may lie before that, when there was nothing to see.
func (s *Server) join(c *socket) {
	if len(c.topics) == 0 {
		c.state = stateIdle
		return
	}
	v := s.viewOf(c)
	s.flush(v) // may drop the view, when all its members fell behind
	if len(v.members) == 0 {
		v = s.viewOf(c)
		v.sent = c.told
	}
	// The members of a view stand at one position. Between the two there is nothing that either may see.
	if v.sent < c.told {
		s.advance(v, c.told)
		v = s.viewOf(c)
	}
	if v.sent > c.told && !c.deliver(s.pieces(v.org, c.told, v.sent, nil)) {
		c.fallBehind()
		if len(v.members) == 0 {
			s.dropView(v)
		}
		return
	}
	v.members[c] = struct{}{}
	c.view, c.state, c.at = v, stateLive, c.told
}

// leave takes a connection out of its view. Everything up to the present position has been sent to it after flush.
func (s *Server) leave(c *socket) {
	v := c.view
	if v == nil {
		return
	}
	c.view = nil
	delete(v.members, c)
	if len(v.members) == 0 {
		s.dropView(v)
	}
}
