package realtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/olahol/melody"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

// retryUnavailable is when a client may come back that could not be signed in for a reason of ours.
const retryUnavailable = 2 * time.Second

// message is a frame of the client.
type message struct {
	Type           string     `json:"type"`
	Token          string     `json:"token"`          // auth
	OrganizationID *uuid.UUID `json:"organizationId"` // auth, optional
	Topics         []string   `json:"topics"`         // subscribe, unsubscribe
	After          *string    `json:"after"`          // subscribe, optional
}

// onMessage handles a text frame; melody calls it from the connection's reading goroutine.
func (s *Server) onMessage(ms *melody.Session, frame []byte) {
	c := socketOf(ms)
	ctx := ms.Request.Context()
	s.mu.Lock()
	st := c.state
	s.mu.Unlock()
	if st == stateClosing {
		return
	}
	if !c.frames.AllowN(s.cfg.Now(), 1) {
		c.close(CloseLimit, "limit", "too many frames")
		return
	}
	m, err := parseMessage(frame)
	if st == stateStranger {
		if err != nil || m.Type != "auth" {
			c.close(CloseSignedOut, "unauthenticated", "the first frame must be an auth frame")
			return
		}
		c.signInWith(ctx, m.Token, m.OrganizationID)
		return
	}
	switch {
	case err != nil:
		c.mistake("malformed", "Not understood: "+err.Error()+".")
	case m.Type == "auth":
		c.extend(ctx, m)
	case m.Type == "ping":
		c.answer(pongFrame{Type: "pong", At: stamp(s.cfg.Now())})
	case m.Type == "subscribe":
		c.subscribe(ctx, m)
	case m.Type == "unsubscribe":
		c.unsubscribe(m)
	default:
		c.mistake("unknown_type", "The type of a frame is auth, subscribe, unsubscribe or ping.")
	}
}

// onBinary handles a binary frame, which never makes sense.
func (s *Server) onBinary(ms *melody.Session, _ []byte) {
	c := socketOf(ms)
	s.mu.Lock()
	st := c.state
	s.mu.Unlock()
	switch {
	case st == stateClosing:
	case st == stateStranger:
		c.close(CloseSignedOut, "unauthenticated", "the first frame must be an auth frame")
	case !c.frames.AllowN(s.cfg.Now(), 1):
		c.close(CloseLimit, "limit", "too many frames")
	default:
		c.mistake("malformed", "Frames are JSON text, not binary.")
	}
}

// parseMessage reads a frame. As in the bodies of the API a name is written as it is documented, and stands once:
// encoding/json would take ROLE for role, and the last of two.
func parseMessage(frame []byte) (m message, err error) {
	if err := checkNames(frame); err != nil {
		return m, err
	}
	d := json.NewDecoder(bytes.NewReader(frame))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, errors.New("the frame is not a JSON object of the known fields")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return m, errors.New("the frame holds more than one JSON value")
	}
	return m, nil
}

// frameNames are the fields of message.
var frameNames = map[string]bool{"type": true, "token": true, "organizationId": true, "topics": true, "after": true}

func checkNames(frame []byte) error {
	unknown := errors.New("the frame is not a JSON object of the known fields")
	d := json.NewDecoder(bytes.NewReader(frame))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return unknown
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		switch {
		case err != nil || !ok || !frameNames[name]:
			return unknown
		case seen[name]:
			return fmt.Errorf("the field %s stands twice in the frame", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return unknown
		}
	}
	return nil
}

func (c *socket) answer(frame any) {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	c.send(mustJSON(frame))
}

func (c *socket) refuse(code, text string, names ...string) {
	c.answer(errorFrame{Type: "error", Code: code, Message: text, Topics: names})
}

// mistake answers a frame that makes no sense; a client that makes many is closed.
func (c *socket) mistake(code, text string) {
	c.mistakes++
	c.refuse(code, text)
	if c.mistakes >= limits.LiveMistakes {
		c.close(CloseLimit, "limit", "too many frames that make no sense")
	}
}

// signInWith makes a stranger somebody, or closes the connection.
func (c *socket) signInWith(ctx context.Context, token string, org *uuid.UUID) {
	s := c.srv
	p, expires, err := s.authenticate(ctx, token, org)
	if err != nil {
		c.closeFor(ctx, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state != stateStranger {
		return
	}
	if s.users[p.AccountID] >= s.cfg.Limits.SocketsPerUser {
		c.closeLocked(CloseLimit, "limit", "too many live connections of this user", 0)
		return
	}
	s.users[p.AccountID]++
	c.principal, c.expires, c.verified, c.state = p, expires, s.cfg.Now(), stateIdle
	c.stopTimer()
	// The reading goroutine is ours here or has not begun, and melody set the stranger's limit before.
	c.ms.WebsocketConnection().SetReadLimit(s.cfg.Limits.Frame)
}

func (s *Server) authenticate(ctx context.Context, token string, org *uuid.UUID) (p auth.Principal, expires time.Time, err error) {
	if token == "" {
		return p, expires, auth.Unauthenticated()
	}
	p, expires, err = s.cfg.Authenticate(ctx, token, org)
	switch {
	case err != nil:
		return p, expires, err
	case p.OrgID == uuid.Nil:
		return p, expires, fault.New(fault.Forbidden, "org.required", "Choose an organization of yours.")
	case !expires.IsZero() && !expires.After(s.cfg.Now()):
		return p, expires, auth.Unauthenticated()
	}
	return p, expires, nil
}

// closeFor closes the connection as a refused sign-in wants it.
func (c *socket) closeFor(ctx context.Context, err error) {
	switch fault.KindOf(err) {
	case fault.Unauthenticated, fault.Malformed, fault.Invalid:
		c.close(CloseSignedOut, "unauthenticated", "the token does not hold")
	case fault.Forbidden, fault.NotFound:
		c.close(CloseRemoved, "removed", "no member of the organization")
	case fault.RateLimited:
		c.close(CloseLimit, "limit", "too many tries")
	default:
		if ctx.Err() == nil {
			c.srv.log.LogAttrs(ctx, slog.LevelError, "sign in to the live stream", slog.Any("err", err))
		}
		c.closeRetry(CloseDraining, "unavailable", "cannot sign in at the moment", retryUnavailable)
	}
}

// extend takes a new token of the same user and organization on an open connection.
func (c *socket) extend(ctx context.Context, m message) {
	s := c.srv
	s.mu.Lock()
	before := c.principal
	s.mu.Unlock()
	org := m.OrganizationID
	if org == nil {
		org = &before.OrgID
	}
	p, expires, err := s.authenticate(ctx, m.Token, org)
	if err != nil {
		c.closeFor(ctx, err)
		return
	}
	if p.AccountID != before.AccountID || p.OrgID != before.OrgID {
		c.close(CloseSignedOut, "unauthenticated", "the token is somebody else's")
		return
	}
	frame := authenticatedFrame{Type: "authenticated"}
	if !expires.IsZero() {
		frame.ExpiresAt = stamp(expires)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state == stateClosing {
		return
	}
	c.expires, c.warned, c.verified = expires, false, s.cfg.Now()
	c.become(p)
	c.send(mustJSON(frame))
}

// become takes a changed principal over; what it may see may change. Server.mu is held.
func (c *socket) become(p auth.Principal) {
	s := c.srv
	before := c.mayAudit()
	c.principal = p
	if !p.Operator {
		c.system = false
	}
	if c.view == nil || before == c.mayAudit() {
		return
	}
	s.flush(c.view)
	if c.view == nil { // it fell behind
		return
	}
	s.leave(c)
	if !c.deliver(s.pieces(p.OrgID, c.told, s.position, nil)) {
		c.fallBehind()
		return
	}
	s.join(c)
}

// parseTopics reads the topics of a frame, or answers with an error frame that names the bad ones.
func (c *socket) parseTopics(names []string) (ts []topic, ok bool) {
	if len(names) == 0 || len(names) > c.srv.cfg.Limits.Topics {
		c.mistake("invalid", "topics holds 1 to "+strconv.Itoa(c.srv.cfg.Limits.Topics)+" topics.")
		return nil, false
	}
	var bad []string
	for _, name := range names {
		t, good := parseTopic(name)
		if !good {
			bad = append(bad, shorten(name))
			continue
		}
		ts = append(ts, t)
	}
	if len(bad) > 0 {
		c.mistakes++
		c.refuse("invalid", "A topic is organization, incidents, system, project:<id>, test:<id> or run:<id>.", bad...)
		return nil, false
	}
	return ts, true
}

func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return strings.ToValidUTF8(s, "")
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// subscribe adds topics, all of them or none, and resumes from a cursor when there is one.
func (c *socket) subscribe(ctx context.Context, m message) {
	ts, ok := c.parseTopics(m.Topics)
	if !ok || !c.mayListen(ctx, ts) {
		return
	}
	if err := c.srv.follow(ctx); err != nil {
		if ctx.Err() == nil {
			c.srv.log.LogAttrs(ctx, slog.LevelError, "subscribe", slog.Any("err", err))
			c.refuse("unavailable", "The live stream has not begun on this node; try again.")
		}
		return
	}
	after, reason, ok := c.resumeFrom(ctx, m.After)
	if !ok {
		return
	}
	if !c.waitGapTold() {
		return
	}
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state == stateClosing {
		return
	}
	if m.After != nil && reason == "" && after < c.told {
		c.send(mustJSON(errorFrame{
			Type: "error", Code: "cursor_behind", Message: "This connection is past that cursor; open another one to go back.",
		}))
		return
	}
	if reason != "" {
		s.stats.gaps.Add(1)
		c.send(mustJSON(gapFrame{Type: "gap", Reason: reason, Cursor: s.cfg.Cursors.Encode(c.principal.OrgID, after)}))
		return
	}
	added := topics{}
	for _, t := range ts {
		if _, has := c.topics[t]; !has && t.kind != topicSystem {
			added[t] = struct{}{}
		}
		c.system = c.system || t.kind == topicSystem
	}
	if len(c.topics)+len(added) > s.cfg.Limits.Topics {
		c.send(mustJSON(errorFrame{Type: "error", Code: "too_many_topics", Message: "A connection has at most " + strconv.Itoa(s.cfg.Limits.Topics) + " topics."}))
		return
	}
	if m.After != nil {
		c.resume(ctx, added, after)
		return
	}
	c.listen(ctx, added)
}

// resume continues behind the cursor with the topics added. Server.mu is held.
func (c *socket) resume(ctx context.Context, added topics, after int64) {
	s := c.srv
	if c.view != nil {
		s.flush(c.view)
		s.leave(c)
	}
	if c.state == stateBehind { // the flush found it too slow: its gap comes first
		return
	}
	catching := c.state == stateCatching
	c.add(added)
	c.told = max(after, c.told, c.at)
	c.at = c.told
	c.confirm("subscribed")
	switch {
	case catching || c.state == stateClosing: // goes on from c.at, or is over
	case len(c.topics) == 0:
		c.state = stateIdle
	default:
		c.startCatchUp(ctx)
	}
}

// listen adds topics from now on. Server.mu is held.
func (c *socket) listen(ctx context.Context, added topics) {
	s := c.srv
	switch {
	case c.state == stateCatching: // from where its reading is
		c.add(added)
		c.told = c.at
		c.confirm("subscribed")
		return
	case c.view != nil:
		s.flush(c.view)
		s.leave(c)
		if c.state == stateBehind {
			return
		}
		c.add(added)
		c.told = max(c.told, s.position)
	default:
		c.add(added)
		from := max(c.told, s.position)
		// Where others with the same view stand: there is nothing that it may see between there and the present.
		if v := s.findView(c); v != nil {
			s.flush(v)
			from = min(from, max(c.told, v.sent))
		}
		c.told = from
	}
	c.at = c.told
	c.confirm("subscribed")
	switch {
	case c.state == stateClosing:
	case c.told > s.position:
		c.startCatchUp(ctx)
	default:
		s.join(c)
	}
}

func (c *socket) add(added topics) {
	for t := range added {
		c.topics[t] = struct{}{}
	}
}

// confirm answers with the topics and the cursor that hold now. Server.mu is held.
func (c *socket) confirm(kind string) {
	names := c.topics.names()
	if c.system {
		names = append(names, topicSystem)
	}
	c.send(mustJSON(subscribedFrame{Type: kind, Topics: names, Cursor: c.srv.cfg.Cursors.Encode(c.principal.OrgID, c.told)}))
}

// unsubscribe takes topics away; those that the connection doesn't have are fine.
func (c *socket) unsubscribe(m message) {
	ts, ok := c.parseTopics(m.Topics)
	if !ok || !c.waitGapTold() {
		return
	}
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.state == stateClosing {
		return
	}
	live := c.view != nil
	if live {
		s.flush(c.view)
		s.leave(c)
		if c.state == stateBehind {
			return
		}
	}
	for _, t := range ts {
		delete(c.topics, t)
		if t.kind == topicSystem {
			c.system = false
		}
	}
	if live {
		c.told = max(c.told, s.position)
		c.at = c.told
	} else if c.state == stateCatching {
		c.told = c.at
	}
	c.confirm("unsubscribed")
	switch {
	case c.state == stateClosing:
	case len(c.topics) == 0:
		c.state = stateIdle
	case live:
		s.join(c)
	}
}

// waitGapTold waits until a client that is behind was told so; false = the connection is over.
func (c *socket) waitGapTold() bool {
	c.srv.mu.Lock()
	behind, told := c.state == stateBehind, c.gapTold
	c.srv.mu.Unlock()
	if !behind {
		return true
	}
	select {
	case <-told:
		return true
	case <-c.gone:
		return false
	}
}

// mayListen checks each topic, and answers with an error frame when one is not for this connection.
func (c *socket) mayListen(ctx context.Context, ts []topic) bool {
	s := c.srv
	s.mu.Lock()
	p := c.principal
	known := make(map[topic]bool, len(c.topics))
	for t := range c.topics {
		known[t] = true
	}
	s.mu.Unlock()
	if !p.May(auth.EventsRead) {
		c.refuse("forbidden", "Your role may not read events.")
		return false
	}
	var missing []string
	for _, t := range ts {
		switch {
		case t.kind == topicSystem && !p.Operator:
			c.refuse("forbidden", "Only the operator of this installation may listen to system.", topicSystem)
			return false
		case t.id == uuid.Nil || known[t]:
			continue
		case !c.lookups.AllowN(s.cfg.Now(), 1):
			c.refuse("rate_limited", "Too many topics in a short time; wait a second.")
			return false
		}
		exists, err := s.cfg.TopicExists(ctx, p.OrgID, t.kind, t.id)
		if err != nil {
			if ctx.Err() == nil {
				s.log.LogAttrs(ctx, slog.LevelError, "look up a topic", slog.String("topic", t.String()), slog.Any("err", err))
			}
			c.refuse("unavailable", "The topic cannot be looked up at the moment; try again.", t.String())
			return false
		}
		if !exists {
			missing = append(missing, t.String())
		}
	}
	if len(missing) > 0 {
		c.refuse("not_found", "There is no such thing in your organization; nothing was subscribed.", missing...)
		return false
	}
	return true
}

// resumeFrom reads the cursor. gap, when it isn't empty, says why the client cannot resume there; it can at position.
func (c *socket) resumeFrom(ctx context.Context, cursor *string) (position int64, gap string, ok bool) {
	if cursor == nil {
		return 0, "", true
	}
	s := c.srv
	s.mu.Lock()
	org := c.principal.OrgID
	s.mu.Unlock()
	position, current, err := s.cfg.Cursors.Decode(org, *cursor)
	if err != nil {
		c.mistakes++
		c.refuse("invalid_cursor", "That is not a cursor of this organization.")
		return 0, "", false
	}
	if !current {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.position, "epoch", true
	}
	if s.cfg.Oldest == nil {
		return position, "", true
	}
	oldest, err := s.cfg.Oldest(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.LogAttrs(ctx, slog.LevelError, "look up the oldest position", slog.Any("err", err))
		}
		c.refuse("unavailable", "The cursor cannot be looked up at the moment; try again.")
		return 0, "", false
	}
	if position < oldest {
		return oldest, "retention", true
	}
	return position, "", true
}
