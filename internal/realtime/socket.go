package realtime

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/olahol/melody"
	"golang.org/x/time/rate"

	"github.com/testflow/testflow/internal/auth"
)

type state int

const (
	stateStranger state = iota // has not signed in
	stateIdle                  // no topics that carry events
	stateCatching              // reads what it missed
	stateLive                  // in a view
	stateBehind                // too slow; will be told of a gap when it has read what waits
	stateClosing               // gets nothing more
)

// closeGrace is how long a client may take to read what waits before a close frame, and again to answer it.
const closeGrace = 2 * time.Second

// socket is one connection. Its fields are guarded by Server.mu, but for out, and for what only the reading goroutine uses.
type socket struct {
	srv    *Server
	ms     *melody.Session // set once, before anything is sent or received
	cancel context.CancelFunc
	gone   chan struct{} // closed when the connection is no more
	out    outbox

	state     state
	principal auth.Principal
	expires   time.Time // zero = never
	warned    bool      // that the token ends soon
	verified  time.Time // when the sign-in was last known to hold
	system    bool      // listens to system
	topics    topics    // those that carry events
	view      *view     // when live
	at        int64     // catching up: everything it may see up to here was sent
	told      int64     // cursor that it knows; nothing it may see lies between told and at
	signIn    *time.Timer
	gapTold   chan struct{} // when behind: closed when the gap was told

	frames   *rate.Limiter // the reading goroutine's
	lookups  *rate.Limiter // the reading goroutine's
	mistakes int           // the reading goroutine's
}

// outbox counts what melody has not written yet. melody drops silently when its channel is full, so it never gets that far.
type outbox struct {
	mu     sync.Mutex
	frames int
	bytes  int
	closed bool
	idle   chan struct{} // closed while nothing waits
}

// put reports whether the frame may be handed to melody, and counts it.
func (o *outbox) put(size, maxFrames, maxBytes int) (accepted, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false, true
	}
	if o.frames >= maxFrames || (o.frames > 0 && size > maxBytes-o.bytes) {
		return false, false
	}
	if o.frames == 0 {
		o.idle = make(chan struct{})
	}
	o.frames++
	o.bytes += size
	return true, false
}

func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.frames == 0
}

func (o *outbox) sent(size int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames--
	o.bytes -= size
	if o.frames == 0 {
		close(o.idle)
	}
}

// shut lets nothing more in and reports whether it was open.
func (o *outbox) shut() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := !o.closed
	o.closed = true
	return was
}

// drained is closed when nothing waits.
func (o *outbox) drained() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idle
}

func (s *Server) newSocket(cancel context.CancelFunc) *socket {
	c := &socket{
		srv: s, cancel: cancel, gone: make(chan struct{}), topics: topics{},
		frames:  rate.NewLimiter(rate.Limit(s.cfg.Limits.FrameRate), s.cfg.Limits.FrameRate),
		lookups: rate.NewLimiter(rate.Limit(s.cfg.Limits.Topics), 2*s.cfg.Limits.Topics),
	}
	c.out.idle = make(chan struct{})
	close(c.out.idle)
	return c
}

// send queues a frame that answers the client or speaks of the connection; a client that leaves too many unread is cut.
// Server.mu is held.
func (c *socket) send(frame []byte) {
	l := c.srv.cfg.Limits
	accepted, closed := c.out.put(len(frame), l.QueueFrames+controlReserve, 2*l.QueueBytes)
	switch {
	case closed:
	case !accepted:
		c.closeLocked(CloseResume, "slow", "frames were left unread", 0)
	default:
		c.write(frame)
	}
}

// deliver queues frames of events and moves told; false = the client is too slow, and told says how far it got. A client
// that has read everything gets them all, however large: only who leaves something unread can be slow. Server.mu is held.
func (c *socket) deliver(frames []piece) bool {
	l := c.srv.cfg.Limits
	maxBytes := l.QueueBytes
	if c.out.empty() {
		maxBytes = math.MaxInt
	}
	for _, p := range frames {
		accepted, closed := c.out.put(len(p.frame), l.QueueFrames, maxBytes)
		if closed {
			return true
		}
		if !accepted {
			return false
		}
		c.write(p.frame)
		c.told = p.to
		c.at = max(c.at, p.to)
		c.srv.stats.events.Add(int64(p.events))
	}
	return true
}

func (c *socket) write(frame []byte) {
	c.srv.stats.frames.Add(1)
	_ = c.ms.Write(frame) // it fails when the socket is closed, and then the reading goroutine cleans up
}

// fallBehind stops the events of a client that is too slow. It is told of the gap, with the cursor up to which nothing is
// missing, as soon as it has read what waits; if it doesn't, it is cut. It is in no view. Server.mu is held.
func (c *socket) fallBehind() {
	c.srv.stats.gaps.Add(1)
	c.state, c.at, c.topics = stateBehind, c.told, topics{}
	told := make(chan struct{})
	c.gapTold = told
	c.srv.tasks.Go(func() {
		defer close(told)
		if !c.waitDrained(c.srv.cfg.Limits.WriteTimeout) {
			c.close(CloseResume, "slow", "frames were left unread")
			return
		}
		c.srv.mu.Lock()
		defer c.srv.mu.Unlock()
		if c.state == stateBehind {
			c.state = stateIdle
			c.send(mustJSON(gapFrame{Type: "gap", Reason: "slow", Cursor: c.srv.cfg.Cursors.Encode(c.principal.OrgID, c.told)}))
		}
	})
}

// waitDrained waits until the client has been written everything; false = it took too long or is gone.
func (c *socket) waitDrained(most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-c.out.drained():
		return true
	case <-c.gone:
	case <-timer.C:
	}
	return false
}

func (c *socket) close(code int, reason, message string) {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.closeLocked(code, reason, message, 0)
}

// closeLocked says bye and closes, in the order of what was queued before. A second call does nothing. Server.mu is held.
func (c *socket) closeLocked(code int, reason, message string, retryAfter time.Duration) {
	if c.state == stateClosing {
		return
	}
	c.srv.leave(c)
	c.state, c.system = stateClosing, false
	c.stopTimer()
	l := c.srv.cfg.Limits
	bye := mustJSON(byeFrame{Type: "bye", Code: code, Reason: reason, RetryAfterMs: retryAfter.Milliseconds()})
	if accepted, closed := c.out.put(len(bye), l.QueueFrames+2*controlReserve, 4*l.QueueBytes); accepted && !closed {
		c.write(bye)
	}
	if !c.out.shut() {
		return
	}
	c.srv.tasks.Go(func() {
		conn := c.ms.WebsocketConnection()
		c.waitDrained(closeGrace)
		// Not through melody, which would close the socket at once and so might lose the frame; the client's answer does.
		if err := conn.WriteControl(closeMessage, melody.FormatCloseMessage(code, message), time.Now().Add(closeGrace)); err == nil { //nolint:forbidigo // a deadline of the kernel's clock
			timer := time.NewTimer(closeGrace)
			defer timer.Stop()
			select {
			case <-c.gone:
				return
			case <-timer.C:
			}
		}
		c.cut()
	})
}

// cut ends the connection without a word. The reading goroutine then cleans up.
func (c *socket) cut() {
	_ = c.ms.WebsocketConnection().Close() // a second time it fails, and that is as good
}

func (c *socket) stopTimer() {
	if c.signIn != nil {
		c.signIn.Stop()
	}
}

// checkExpiry closes a connection whose token is over, and tells one whose token soon will be. Server.mu is held.
func (c *socket) checkExpiry(now time.Time) {
	if c.expires.IsZero() || c.state == stateStranger || c.state == stateClosing {
		return
	}
	left := c.expires.Sub(now)
	switch {
	case left <= 0:
		c.closeLocked(CloseSignedOut, "expired", "the token's time is over", 0)
	case left <= c.srv.cfg.Limits.ExpiryWarning && !c.warned:
		c.warned = true
		c.send(mustJSON(errorFrame{
			Type: "error", Code: "token_expiring", Message: "The access token ends soon; send an auth frame with a new one.",
		}))
	}
}

func (c *socket) mayAudit() bool { return c.principal.May(auth.AuditRead) }
