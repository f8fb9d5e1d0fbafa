package realtime

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

const (
	// aheadWait is how long a connection waits for this node to get to its cursor, which another node gave out.
	aheadWait = 5 * time.Second
	// readTries is how often a page of the log is asked for before the client is sent away to come back.
	readTries = 3
)

// startCatchUp makes the connection read the log from c.at on and then live. ctx ends with the connection. Server.mu is
// held.
func (c *socket) startCatchUp(ctx context.Context) {
	c.state = stateCatching
	c.srv.tasks.Go(func() { c.catchUp(ctx) })
}

// catchUp sends what lies between c.at and the present, page by page and no faster than the client reads, and then joins
// the live stream under the same lock under which batches are routed, so that nothing is lost or doubled between the two.
func (c *socket) catchUp(ctx context.Context) {
	s := c.srv
	for {
		if !c.waitDrained(s.cfg.Limits.WriteTimeout) {
			c.close(CloseResume, "slow", "frames were left unread")
			return
		}
		s.mu.Lock()
		if c.state != stateCatching {
			s.mu.Unlock()
			return
		}
		after, upTo, advanced := c.at, s.position, s.advanced
		switch {
		case after > upTo: // a cursor from a node that is ahead of this one
			s.mu.Unlock()
			if !c.await(ctx, advanced, after) {
				return
			}
			continue
		case after >= s.ringStart:
			events, end := s.recent(after, s.cfg.Limits.Page)
			done := c.sendPage(events, end, end == s.position)
			s.mu.Unlock()
			if done {
				return
			}
		default:
			s.mu.Unlock()
			if !c.readPage(ctx, after, upTo) {
				return
			}
		}
	}
}

// await waits until this node has come to the position; it gives up with a gap, since a cursor so far ahead is of a log
// that this node doesn't follow.
func (c *socket) await(ctx context.Context, advanced <-chan struct{}, position int64) bool {
	timer := time.NewTimer(aheadWait)
	defer timer.Stop()
	s := c.srv
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			if c.state == stateCatching {
				c.told = s.position
				c.at, c.topics, c.state = c.told, topics{}, stateIdle
				c.tellGap("epoch")
			}
			return false
		case <-advanced:
		}
		s.mu.Lock()
		reached := s.position >= position
		advanced = s.advanced
		s.mu.Unlock()
		if reached {
			return true
		}
	}
}

// readPage reads a page from the log and sends it; false = the connection is over.
func (c *socket) readPage(ctx context.Context, after, upTo int64) bool {
	s := c.srv
	select {
	case s.readers <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	events, err := c.read(ctx, after, upTo)
	<-s.readers
	if err != nil {
		if ctx.Err() == nil {
			s.log.LogAttrs(ctx, slog.LevelError, "read the log for a live connection", slog.Any("err", err))
			c.closeRetry(CloseResume, "unavailable", "the log could not be read", time.Second)
		}
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state != stateCatching {
		return false
	}
	if len(events) == s.cfg.Limits.Page {
		upTo = events[len(events)-1].Position
	}
	c.sendPage(events, upTo, false)
	return c.state == stateCatching
}

func (c *socket) read(ctx context.Context, after, upTo int64) ([]*item, error) {
	s := c.srv
	pause := 50 * time.Millisecond
	for try := 1; ; try++ {
		s.stats.pages.Add(1)
		events, err := s.cfg.ReadOrg(ctx, c.principal.OrgID, after, upTo, s.cfg.Limits.Page)
		if err == nil {
			items := make([]*item, len(events))
			for i, e := range events {
				items[i] = newItem(e, s.cfg.Visibility(e.Type))
			}
			return items, nil
		}
		if try == readTries || errors.Is(err, context.Canceled) {
			return nil, err
		}
		timer := time.NewTimer(pause << try)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// sendPage sends those of the events that the connection may see; up to upTo they are all. With last it then joins the
// live stream, and says so. Server.mu is held.
func (c *socket) sendPage(events []*item, upTo int64, last bool) (joined bool) {
	s := c.srv
	var wanted []*item
	for _, it := range events {
		if it.Position > c.at && it.OrgID == c.principal.OrgID && it.wanted(c.topics, c.mayAudit()) {
			wanted = append(wanted, it)
		}
	}
	c.at = max(c.at, upTo)
	if len(wanted) > 0 {
		frames := s.pieces(c.principal.OrgID, c.told, c.at, wanted)
		if !c.deliver(frames) { // a page larger than the queue: the rest comes when this is read
			c.at = c.told
			return c.state != stateCatching
		}
		// Who still has much to read would be too slow for what is live at once.
		last = last && len(frames) <= 1+s.cfg.Limits.QueueFrames/4
	}
	if last {
		s.join(c)
	}
	return last
}

// tellGap tells the client that it cannot be told everything, and from where it can. Server.mu is held.
func (c *socket) tellGap(reason string) {
	c.srv.stats.gaps.Add(1)
	c.send(mustJSON(gapFrame{Type: "gap", Reason: reason, Cursor: c.srv.cfg.Cursors.Encode(c.principal.OrgID, c.told)}))
}

func (c *socket) closeRetry(code int, reason, message string, retryAfter time.Duration) {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.closeLocked(code, reason, message, retryAfter)
}
