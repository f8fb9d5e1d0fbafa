// Package realtime is the live stream: who may see which event, topics, backpressure and resuming.
//
// It follows the feed of the log, reads an organization's slice of the log for those who resume, and sends both over
// WebSockets (melody) so that every connection gets each event it may see exactly once and in order, or is told that it
// does not (gap). Connections with an equal view share their frames. It appends nothing, keeps nothing, and knows no
// event by name.
package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/olahol/melody"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/limits"
)

// The close codes of the live stream, beside those of RFC 6455.
const (
	CloseSignedOut = 4401 // never signed in, signed out, or the token's time is over
	CloseRemoved   = 4403 // no longer a member
	CloseResume    = 4409 // fell too far behind, or the log could not be read: come back with the cursor
	CloseTooLarge  = 4413 // a frame of the client was too large
	CloseLimit     = 4429 // too many sockets, frames or mistakes
	CloseDraining  = 1012 // this node stops: come back after retryAfterMs
)

// Feed is the part of eventstore.Feed that is needed: every event of all organizations, in order, once it is settled.
type Feed interface {
	// SubscribeData calls fn with each batch, one after the other, until cancel is called. The data of runs' events is in
	// it as long as wants says so.
	SubscribeData(fn func(eventstore.Batch), wants func() bool) (cancel func())
	// Position is the end of the last batch, 0 before the feed runs.
	Position() int64
	// Wait returns when the feed runs and has come to the position, or with ctx's error.
	Wait(ctx context.Context, position int64) error
}

// Config is what the live stream is made of. Everything but Oldest, Metrics and Refuse is needed.
type Config struct {
	Feed Feed
	// Authenticate turns an access token or API key into who it is, in org if that isn't nil (checked membership),
	// and until when the credential is good; a zero time is for ever.
	Authenticate func(ctx context.Context, token string, org *uuid.UUID) (auth.Principal, time.Time, error)
	// Recheck answers with the principal as it is now. fault.Unauthenticated = signed out, fault.Forbidden or
	// fault.NotFound = no longer a member; another error changes nothing for the moment.
	Recheck func(ctx context.Context, p auth.Principal) (auth.Principal, error)
	// TopicExists reports whether the organization has the project, test or run.
	TopicExists func(ctx context.Context, org uuid.UUID, kind string, id uuid.UUID) (bool, error)
	// ReadOrg returns up to limit events of org with after < position ≤ upTo, in order; fewer than limit = all of them.
	ReadOrg func(ctx context.Context, org uuid.UUID, after, upTo int64, limit int) ([]eventstore.Event, error)
	// Oldest is the position after which nothing of the log has been dropped. nil = nothing ever was.
	Oldest func(ctx context.Context) (int64, error)
	// Visibility says how far events of a type travel.
	Visibility func(eventType string) eventstore.Visibility
	// Metrics are the system metrics for the topic system, asked once a second while somebody listens; nil = none.
	Metrics func() any
	// Refuse answers a handshake that is turned down with a *fault.Error. nil = a plain text.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)

	Cursors *Cursors
	Origins []string // origins beside the own host that may connect, such as https://app.example.com
	Limits  Limits
	Now     func() time.Time
	Logger  *slog.Logger
}

// Limits are the numbers of the live stream; package limits documents each. Defaults returns them.
type Limits struct {
	Sockets         int           // of this node
	SocketsPerUser  int           // on this node
	Topics          int           // of one connection
	FirstFrame      int64         // bytes of a frame before sign-in
	Frame           int64         // bytes of a frame after sign-in
	FrameRate       int           // frames a second that a client may send
	FrameEvents     int           // events in one frame to a client
	QueueFrames     int           // frames that wait for a slow client
	QueueBytes      int           // bytes that wait for a slow client
	Coalesce        time.Duration // how long followers are collected
	RecentEvents    int           // events kept in memory for those who resume
	AuthTime        time.Duration // how long a sign-in may take
	Recheck         time.Duration // between two checks that a sign-in still holds
	WriteTimeout    time.Duration // how long a client may leave what it was sent unread
	CatchUpReaders  int           // connections that read the log at the same time
	Page            int           // events that are read from the log at a time
	Idle            time.Duration // between frames that only advance the cursor
	ExpiryWarning   time.Duration // before a token's end the client is told
	UnverifiedGrace time.Duration // how long a sign-in is believed that cannot be checked
}

// Defaults returns the limits that hold when nothing else is said.
func Defaults() Limits {
	d := limits.Defaults()
	return Limits{
		Sockets: d.LiveSockets, SocketsPerUser: d.LiveSocketsUser, Topics: d.LiveTopics, FirstFrame: limits.LiveFirstFrame,
		Frame: int64(d.LiveFrame), FrameRate: d.LiveFrameRate, FrameEvents: d.LiveFrameEvents,
		QueueFrames: d.LiveQueueFrames, QueueBytes: int(d.LiveQueueBytes), Coalesce: d.LiveCoalesce,
		RecentEvents: d.LiveRecentEvents, AuthTime: d.LiveAuthTime, Recheck: d.LiveRecheck, WriteTimeout: d.LiveWriteTimeout,
		CatchUpReaders: d.LiveCatchUpReader, Page: 500, Idle: time.Second,
		ExpiryWarning: 30 * time.Second, UnverifiedGrace: time.Minute,
	}
}

const (
	// frameBytes is the size at which a frame of events is cut: under the 32 KiB that clients such as coder/websocket read
	// by default. One larger event goes alone.
	frameBytes = 30 << 10
	// controlReserve is how many frames may wait beyond QueueFrames, for answers to what the client asked.
	controlReserve = 64
	pongWait       = 45 * time.Second
	pingPeriod     = 20 * time.Second
	// feedWait is how long a client waits for a node whose feed has not begun.
	feedWait = 5 * time.Second
	// drainSpread is the time over which clients of a stopping node are asked to come back.
	drainSpread = 3 * time.Second
)

// Server is the live stream of one node. It follows the feed from New until Drain.
type Server struct {
	cfg       Config
	log       *slog.Logger
	strangers *melody.Melody // sockets that sign in by their first frame: the first frames are small
	signed    *melody.Melody // sockets that signed in during the handshake
	stopFeed  func()
	readers   chan struct{}  // one token a catch-up that reads the log
	tasks     sync.WaitGroup // sockets, and what works for them
	stats     counters

	recheckWake chan struct{}

	mu        sync.Mutex
	following bool  // position is the feed's: it has begun
	position  int64 // everything up to here was routed
	ring      []*item
	ringStart int64 // ring holds every visible event with ringStart < position ≤ position
	orgs      map[uuid.UUID]*orgIndex
	dirty     map[*view]struct{} // pending events, waiting for the flush timer
	flusher   *time.Timer
	advanced  chan struct{} // closed at the next batch
	sockets   map[*socket]struct{}
	users     map[uuid.UUID]int // sockets by account or key
	open      int               // sockets and handshakes
	draining  bool
	recheck   map[uuid.UUID]struct{} // organizations and accounts whose sockets want a check at once
	keyCheck  map[uuid.UUID]struct{} // organizations whose API keys' sockets want one
}

// Stats are figures of this node since its start.
type Stats struct {
	Sockets int   `json:"sockets"`
	Views   int   `json:"views"` // different sets of topics
	Frames  int64 `json:"frames"`
	Events  int64 `json:"events"` // sent, counted for each connection
	Gaps    int64 `json:"gaps"`
	Pages   int64 `json:"pages"` // read from the log to catch up
}

type counters struct{ frames, events, gaps, pages atomic.Int64 }

// New returns a Server that follows the feed. Run must be running while it serves.
func New(cfg Config) (*Server, error) {
	if cfg.Feed == nil || cfg.Authenticate == nil || cfg.Recheck == nil || cfg.TopicExists == nil || cfg.ReadOrg == nil ||
		cfg.Visibility == nil || cfg.Cursors == nil || cfg.Now == nil || cfg.Logger == nil {
		return nil, errors.New("realtime: the configuration lacks a part")
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger.With(slog.String("room", "realtime")),
		readers: make(chan struct{}, cfg.Limits.CatchUpReaders), recheckWake: make(chan struct{}, 1),
		orgs: map[uuid.UUID]*orgIndex{}, dirty: map[*view]struct{}{}, advanced: make(chan struct{}),
		sockets: map[*socket]struct{}{}, users: map[uuid.UUID]int{}, recheck: map[uuid.UUID]struct{}{}, keyCheck: map[uuid.UUID]struct{}{},
	}
	s.strangers, s.signed = s.newMelody(cfg.Limits.FirstFrame), s.newMelody(cfg.Limits.Frame)
	s.flusher = time.AfterFunc(time.Hour, s.flushDirty)
	s.flusher.Stop()
	s.stopFeed = cfg.Feed.SubscribeData(s.onBatch, s.watched)
	return s, nil
}

// follow waits until the feed runs and takes its position over, once: before that, no position means anything.
func (s *Server) follow(ctx context.Context) error {
	s.mu.Lock()
	following := s.following
	s.mu.Unlock()
	if following {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, feedWait)
	defer cancel()
	if err := s.cfg.Feed.Wait(ctx, 0); err != nil {
		return fmt.Errorf("wait for the feed: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.following { // a batch that is on its way ends at this position and brings nobody anything new
		s.following = true
		s.position = max(s.position, s.cfg.Feed.Position())
		s.ringStart = s.position
	}
	return nil
}

// Run sends what time brings (cursors of quiet connections, system metrics, ends of tokens) and checks sign-ins until ctx
// ends.
func (s *Server) Run(ctx context.Context) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	checks.Go(func() { s.recheckLoop(ctx) })
	tick := time.NewTicker(s.cfg.Limits.Idle)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.tick()
		}
	}
}

// tick is what happens once a second.
func (s *Server) tick() {
	var metrics []byte
	if s.cfg.Metrics != nil && s.anySystem() {
		metrics = mustJSON(metricsFrame{Type: "metrics", At: stamp(s.cfg.Now()), Data: s.cfg.Metrics()})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, org := range s.orgs {
		for _, v := range org.views {
			if len(v.pending) == 0 && v.sent < s.position {
				s.advance(v, s.position)
			}
		}
	}
	for c := range s.sockets {
		if c.system && metrics != nil && c.state != stateClosing {
			c.send(metrics)
		}
		c.checkExpiry(now)
	}
}

func (s *Server) anySystem() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sockets {
		if c.system {
			return true
		}
	}
	return false
}

// Drain tells every client to come back elsewhere (bye, then close code 1012) and returns when all are gone; what is left
// when ctx ends is cut. The Server takes no connections afterwards, and no longer follows the feed.
func (s *Server) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	i, n := 0, len(s.sockets)
	for c := range s.sockets {
		i++
		c.closeLocked(CloseDraining, "draining", "this node stops", time.Second+drainSpread*time.Duration(i)/time.Duration(n))
	}
	s.mu.Unlock()
	s.stopFeed()

	gone := make(chan struct{})
	go func() { s.tasks.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.sockets {
			c.cut()
		}
		s.mu.Unlock()
		<-gone
	}
	s.mu.Lock()
	s.flusher.Stop()
	s.mu.Unlock()
}

// Stats returns the figures of this moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Sockets: len(s.sockets), Frames: s.stats.frames.Load(), Events: s.stats.events.Load(),
		Gaps: s.stats.gaps.Load(), Pages: s.stats.pages.Load(),
	}
	for _, o := range s.orgs {
		st.Views += len(o.views)
	}
	return st
}

// mustJSON encodes our own frames, whose types always encode; system metrics that don't are left out of the frame.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"type":"error","code":"internal","message":"The frame could not be encoded."}`)
	}
	return b
}
