package realtime

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
)

const (
	// subprotocol is what the server speaks; bearerPrefix is how a browser, which can set no header, sends its token.
	subprotocol  = "testflow.v1"
	bearerPrefix = "bearer."

	closeMessage = websocket.CloseMessage
	keySocket    = "socket"

	// lingerTime bounds, with limits.LiveLingerBytes, what is read of a frame that is too large.
	lingerTime = time.Second
)

// newMelody returns melody with its defaults changed: it would accept every origin, and drop messages silently.
func (s *Server) newMelody(maxFrame int64) *melody.Melody {
	m := melody.New()
	m.Config.MaxMessageSize = maxFrame
	m.Config.MessageBufferSize = s.cfg.Limits.QueueFrames + 3*controlReserve // more than outbox ever lets in
	m.Config.WriteWait = s.cfg.Limits.WriteTimeout
	m.Config.PongWait = pongWait
	m.Config.PingPeriod = pingPeriod
	m.Upgrader = &websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   1 << 10,
		WriteBufferSize:  4 << 10,
		WriteBufferPool:  &sync.Pool{},
		Subprotocols:     []string{subprotocol},
		CheckOrigin:      s.originAllowed,
		Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
			kind := fault.Malformed
			if status == http.StatusForbidden {
				kind = fault.Forbidden
			}
			s.turnDown(w, r, fault.New(kind, "live.handshake", "This address speaks WebSocket: the handshake is not right.").Because(reason))
		},
	}
	m.HandleConnect(s.onConnect)
	m.HandleMessage(s.onMessage)
	m.HandleMessageBinary(s.onBinary)
	m.HandleSentMessage(func(ms *melody.Session, frame []byte) { socketOf(ms).out.sent(len(frame)) })
	m.HandleError(s.onError)
	m.HandleDisconnect(func(ms *melody.Session) { s.remove(socketOf(ms)) })
	return m
}

func socketOf(ms *melody.Session) *socket {
	c, _ := ms.Keys[keySocket].(*socket) // set before the handshake and never changed
	return c
}

// ServeHTTP takes a connection and returns when it is over.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.admissible(r); err != nil {
		s.turnDown(w, r, err)
		return
	}
	if err := s.reserve(); err != nil {
		s.turnDown(w, r, err)
		return
	}
	defer s.release()

	// The request's context may end with its middleware, a connection lives on; its values (request id) are kept.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	c := s.newSocket(cancel)
	m := s.strangers
	if bearerOf(r) != "" {
		m = s.signed
	}
	// An error is of the handshake, and was answered.
	_ = m.HandleRequestWithKeys(hijacker{w}, r.WithContext(ctx), map[string]any{keySocket: c})
}

// admissible refuses handshakes before anything is spent on them.
func (s *Server) admissible(r *http.Request) error {
	for name := range r.URL.Query() {
		switch strings.ToLower(name) {
		case "token", "access_token", "accesstoken", "bearer", "authorization", "api_key", "apikey", "key", "jwt":
			return fault.New(fault.Malformed, "live.token_in_url", "A token in the address ends up in logs; send it in the first frame or as the subprotocol bearer.<token>.")
		}
	}
	if !s.originAllowed(r) {
		return fault.New(fault.Forbidden, "live.origin", "Pages of this origin may not open the live stream.")
	}
	if protocols := websocket.Subprotocols(r); len(protocols) > 0 && !slices.Contains(protocols, subprotocol) {
		return fault.New(fault.Malformed, "live.subprotocol", "The subprotocol is %s.", subprotocol)
	}
	if org := r.Header.Get(organizationHeader); org != "" {
		if _, err := uuid.Parse(org); err != nil {
			return fault.New(fault.Malformed, "live.organization", "%s is not an id.", organizationHeader)
		}
	}
	return nil
}

const organizationHeader = "X-Organization-Id"

// bearerOf returns the token that a handshake carries as a subprotocol, or as the header of a client that isn't a browser.
func bearerOf(r *http.Request) string {
	for _, p := range websocket.Subprotocols(r) {
		if token, ok := strings.CutPrefix(p, bearerPrefix); ok {
			return token
		}
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return strings.TrimSpace(token)
	}
	return r.Header.Get("X-API-Key")
}

// originAllowed accepts requests without an Origin (no browser), of the allow-list, and of the own host as long as that is an
// address or localhost. A name in Host is whatever the page's owner lets it resolve to, so it proves nothing.
func (s *Server) originAllowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	if slices.ContainsFunc(s.cfg.Origins, func(o string) bool { return strings.EqualFold(o, origins[0]) }) {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, r.Host) && ownName(u.Hostname())
}

// ownName reports whether a host can't be somebody else's name for us.
func ownName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}

func (s *Server) turnDown(w http.ResponseWriter, r *http.Request, err error) {
	if s.cfg.Refuse != nil {
		s.cfg.Refuse(w, r, err)
		return
	}
	status := http.StatusBadRequest
	switch fault.KindOf(err) {
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	default:
	}
	message := http.StatusText(status)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		message = f.Message
	}
	http.Error(w, message, status)
}

func (s *Server) reserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fault.New(fault.Unavailable, "live.unavailable", "This node takes no live connections at the moment.")
	f.RetryAfter = 2 * time.Second
	if s.draining || s.open >= s.cfg.Limits.Sockets {
		return f
	}
	s.open++
	s.tasks.Add(1)
	return nil
}

func (s *Server) release() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.tasks.Done()
}

// onConnect is called when the handshake is done, before anything is read.
func (s *Server) onConnect(ms *melody.Session) {
	c := socketOf(ms)
	c.ms = ms
	s.mu.Lock()
	s.sockets[c] = struct{}{}
	if s.draining {
		c.closeLocked(CloseDraining, "draining", "this node stops", time.Second)
		s.mu.Unlock()
		return
	}
	c.signIn = time.AfterFunc(s.cfg.Limits.AuthTime, func() { s.signInOver(c) })
	s.mu.Unlock()

	token := bearerOf(ms.Request)
	if token == "" {
		return
	}
	var org *uuid.UUID
	if id, err := uuid.Parse(ms.Request.Header.Get(organizationHeader)); err == nil { // checked in admissible
		org = &id
	}
	c.signInWith(ms.Request.Context(), token, org)
}

// signInOver closes a connection that has not signed in in time.
func (s *Server) signInOver(c *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.sockets[c]; there && c.state == stateStranger {
		c.closeLocked(CloseSignedOut, "unauthenticated", "no sign-in in time", 0)
	}
}

// onError is called by the reading goroutine when the connection is over, and by the writing one when a write failed.
func (s *Server) onError(ms *melody.Session, err error) {
	switch {
	case errors.Is(err, websocket.ErrReadLimit): // the close frame is out: see closeCodes
		conn := ms.WebsocketConnection().UnderlyingConn()
		if conn.SetReadDeadline(time.Now().Add(lingerTime)) == nil { //nolint:forbidigo // a deadline of the kernel's clock
			_, _ = io.CopyN(io.Discard, conn, limits.LiveLingerBytes)
		}
	case errors.Is(err, melody.ErrMessageBufferFull): // outbox lets in less than melody's channel holds
		socketOf(ms).cut()
	}
}

// remove forgets a connection that is over.
func (s *Server) remove(c *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(c)
	c.state = stateClosing
	c.system = false
	c.stopTimer()
	c.out.shut()
	delete(s.sockets, c)
	if id := c.principal.AccountID; c.principal.Kind != "" {
		if s.users[id]--; s.users[id] <= 0 {
			delete(s.users, id)
		}
	}
	c.cancel()
	close(c.gone)
}

// hijacker hands the connection out wrapped.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetWriteBuffer(limits.LiveKernelBuffer); err != nil {
			_ = conn.Close() // it is over anyway
			return nil, nil, err
		}
	}
	return closeCodes{conn}, rw, nil
}

// closeCodes makes the close code of a frame that is too large ours: the library writes 1009 by itself.
type closeCodes struct{ net.Conn }

// Write implements net.Conn.
func (c closeCodes) Write(b []byte) (int, error) {
	if string(b) == "\x88\x02\x03\xf1" {
		b = []byte{0x88, 0x02, CloseTooLarge >> 8, CloseTooLarge & 0xff}
	}
	return c.Conn.Write(b)
}
