package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
)

const (
	feedPoll  = 250 * time.Millisecond
	feedLimit = 2000
)

// FeedConfig is what a Feed stands on.
type FeedConfig struct {
	Store  *Store
	DB     *postgres.DB
	Conn   *pgx.ConnConfig  // of the connection that listens; nil = DB.ConnConfig()
	Poll   time.Duration    // how often to look without being told; 0 = 250 ms
	Limit  int              // events in a batch; 0 = 2 000
	Now    func() time.Time // nil = the Store's
	Logger *slog.Logger
}

// Feed reads each stretch of the log once for the whole process and hands it to its subscribers, in order and without
// gap. A NOTIFY only says "look": what is read is decided by the Feed's own position and the fence, so one that is lost,
// doubled or forged does no harm.
type Feed struct {
	cfg     FeedConfig
	wake    chan struct{} // somebody waits for the end of the log
	heard   chan struct{} // the pulse has published
	mu      sync.Mutex
	started bool
	read    time.Time // of the last success
	pos     int64
	next    int
	subs    []subscription // in the order of subscribing
	waiters []waiter
}

type subscription struct {
	id    int
	fn    func(Batch)
	wants func() bool // whether fn has a use for the data of runs now
}

type waiter struct {
	pos int64
	ch  chan struct{}
}

// NewFeed returns a Feed that Run starts.
func NewFeed(cfg FeedConfig) *Feed {
	cfg.Poll = orDefault(cfg.Poll, feedPoll)
	cfg.Limit = orDefault(cfg.Limit, feedLimit)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = cfg.Store.cfg.Now
	}
	if cfg.Conn == nil {
		cfg.Conn = cfg.DB.ConnConfig()
	}
	return &Feed{cfg: cfg, wake: make(chan struct{}, 1), heard: make(chan struct{}, 1)}
}

// Subscribe has fn called with every batch from now on, one after the other and in order, never two at once. fn must be
// quick: all wait for it. A Position read after Subscribe returned is where fn's batches begin, or earlier than that
// only by what fn gets. cancel ends it; one last call may still be under way. The events of runs come without their data
// unless a subscriber of SubscribeData wants it.
func (f *Feed) Subscribe(fn func(Batch)) (cancel func()) {
	return f.SubscribeData(fn, func() bool { return false })
}

// SubscribeData is Subscribe for who needs the data of runs' events, most of what a batch weighs, as long as wants says so.
// wants is asked before each read, so batches that were read before it changed its mind are Bare. It must be quick.
func (f *Feed) SubscribeData(fn func(Batch), wants func() bool) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	id := f.next
	f.subs = append(f.subs, subscription{id, fn, wants})
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		kept := make([]subscription, 0, len(f.subs))
		for _, s := range f.subs {
			if s.id != id {
				kept = append(kept, s)
			}
		}
		f.subs = kept
	}
}

// Position returns how far the log has been read; 0 before Run has found its start.
func (f *Feed) Position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos
}

// Wait returns when the Feed runs and has read the log up to pos, or with ctx's error.
func (f *Feed) Wait(ctx context.Context, pos int64) error {
	f.mu.Lock()
	if f.started && f.pos >= pos {
		f.mu.Unlock()
		return nil
	}
	w := waiter{pos, make(chan struct{})}
	f.waiters = append(f.waiters, w)
	f.mu.Unlock()
	f.Look()
	select {
	case <-w.ch:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.waiters {
			if f.waiters[i].ch == w.ch {
				f.waiters = append(f.waiters[:i], f.waiters[i+1:]...)
				break
			}
		}
		return fmt.Errorf("wait for position %d: %w", pos, ctx.Err())
	}
}

// Look has the Feed read on without being told by the database.
func (f *Feed) Look() { signal(f.wake) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Run reads the log from the watermark on until ctx ends. It returns nil: an error is logged and the database tried again.
func (f *Feed) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for !f.begin(ctx) {
		if !sleep(ctx, f.cfg.Poll) {
			return nil
		}
	}
	wg.Go(func() {
		// Once it listens, at first and after each reconnect, the Feed reads on from its own position.
		err := postgres.Listen(ctx, postgres.ListenConfig{
			Conn: f.cfg.Conn, Channel: Channel, OnUp: func(context.Context) { f.Look() }, OnNotify: func(string) { signal(f.heard) }, Logger: f.cfg.Logger,
		})
		if ctx.Err() == nil {
			f.cfg.Logger.ErrorContext(ctx, "the feed stopped listening and only polls", slog.Any("err", err))
		}
	})
	ticker := time.NewTicker(f.cfg.Poll)
	defer ticker.Stop()
	for look := true; ; {
		if err := f.catchUp(ctx, look); err != nil && ctx.Err() == nil {
			f.cfg.Logger.WarnContext(ctx, "the feed could not read the log", slog.Any("err", err))
			if !sleep(ctx, f.cfg.Poll) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
			look = true
		case <-f.heard:
			look = false
		case <-ticker.C:
			look = true
		}
	}
}

// begin finds where the Feed starts.
func (f *Feed) begin(ctx context.Context) bool {
	var pos int64
	if err := f.cfg.DB.System.QueryRow(ctx, `SELECT position FROM es.watermark`).Scan(&pos); err != nil {
		if ctx.Err() == nil {
			f.cfg.Logger.WarnContext(ctx, "the feed could not read the watermark", slog.Any("err", err))
		}
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started, f.pos, f.read = true, pos, f.cfg.Now()
	f.release()
	return true
}

// catchUp reads from the Feed's own position to the end, or to what the pulse has published.
func (f *Feed) catchUp(ctx context.Context, look bool) error {
	for {
		b, err := f.cfg.Store.readFeed(ctx, f.Position(), feedQuery{limit: f.cfg.Limit, look: look, bare: !f.wanted()})
		if err != nil {
			return err
		}
		f.hand(b)
		if len(b.Events) < f.cfg.Limit {
			return nil
		}
	}
}

// wanted says whether somebody has a use for the data of runs.
func (f *Feed) wanted() bool {
	f.mu.Lock()
	subs := f.subs[:len(f.subs):len(f.subs)]
	f.mu.Unlock()
	for _, s := range subs {
		if s.wants() {
			return true
		}
	}
	return false
}

// hand gives a batch to those who had subscribed when the position moved: who subscribes later finds the new position.
func (f *Feed) hand(b Batch) {
	f.mu.Lock()
	subs := f.subs[:len(f.subs):len(f.subs)]
	f.pos, f.read = b.To, f.cfg.Now()
	f.mu.Unlock()
	if len(b.Events) > 0 {
		for _, s := range subs {
			s.fn(b)
		}
	}
	f.mu.Lock()
	f.release()
	f.mu.Unlock()
}

// release wakes those whose position has come. f.mu is held.
func (f *Feed) release() {
	kept := f.waiters[:0]
	for _, w := range f.waiters {
		if w.pos <= f.pos {
			close(w.ch)
		} else {
			kept = append(kept, w)
		}
	}
	clear(f.waiters[len(kept):])
	f.waiters = kept
}
