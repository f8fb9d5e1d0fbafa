package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
)

// Defaults of SinkConfig. Group commit at these carried 4 200 runs a second against 720 one by one.
const (
	sinkDelay    = 5 * time.Millisecond
	sinkRuns     = 200
	sinkBytes    = 8 << 20
	sinkPatience = 75 * time.Second // a worker cut off from its database for a minute still gets its results in
	sinkAttempt  = 20 * time.Second // one transaction
	sinkBackoff  = time.Second
)

// SinkConfig is what a Sink stands on.
type SinkConfig struct {
	Store    *Store
	DB       *postgres.DB
	MaxDelay time.Duration // how long a busy sink collects; 0 = 5 ms. An idle one writes at once
	MaxRuns  int           // calls of Append in one transaction; 0 = 200
	MaxBytes int           // of payloads in one statement, and of payloads and attachments that are collected; 0 = 8 MiB
	Patience time.Duration // how long a batch is tried again while the database can't be reached; 0 = 75 s
	// OnBatch writes what came with the events, in the transaction that stores them; nil = attachments are refused. The
	// same attachments can come again, after a failure, and in smaller batches. An attachment with a method Size() int
	// counts towards MaxBytes.
	OnBatch func(ctx context.Context, tx pgx.Tx, attachments []any) error
	Now     func() time.Time
	Logger  *slog.Logger
}

// Sink gathers the run events of one process into few transactions. Safe for concurrent use.
type Sink struct {
	cfg    SinkConfig
	wake   chan struct{} // something was queued or the sink was closed
	done   chan struct{} // the loop has ended
	mu     sync.Mutex
	queue  []*sinkRequest
	closed bool
}

// sinkRequest is one call of Append.
type sinkRequest struct {
	ctx        context.Context // a batch runs without its cancellation, under a deadline of its own
	rows       *runRows
	attachment any
	size       int
	out        []Inserted
	err        error
	done       chan struct{}
}

// ErrSinkClosed says that Close was called before Append.
var ErrSinkClosed = errors.New("the sink is closed")

// NewSink returns a running Sink; Close ends it.
func NewSink(cfg SinkConfig) *Sink {
	cfg.MaxDelay = orDefault(cfg.MaxDelay, sinkDelay)
	cfg.MaxRuns = orDefault(cfg.MaxRuns, sinkRuns)
	cfg.MaxBytes = orDefault(cfg.MaxBytes, sinkBytes)
	cfg.Patience = orDefault(cfg.Patience, sinkPatience)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sink{cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.loop()
	return s
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Append stores events and, with them, the attachment (nil = none), and returns after the commit what was stored: see
// Store.AppendRuns. A batch that fails is halved until the events that cannot be stored stand alone, so they fail their
// own call only. When ctx ends first the outcome is unknown: the batch goes on. After a commit whose answer was lost the
// batch is repeated, and what the lost commit had stored is then missing from the answer; so a caller may be told that
// he lost where he won, never the other way round.
func (s *Sink) Append(ctx context.Context, events []RunEvent, attachment any) ([]Inserted, error) {
	if attachment != nil && s.cfg.OnBatch == nil {
		return nil, errors.New("sink: an attachment, but nothing that writes it")
	}
	rows, err := s.cfg.Store.encodeRuns(ctx, s.cfg.DB.System, events)
	if err != nil {
		return nil, err
	}
	if rows.len() == 0 && attachment == nil {
		return nil, nil
	}
	r := &sinkRequest{ctx: ctx, rows: rows, attachment: attachment, size: rows.bytes, done: make(chan struct{})}
	if a, ok := attachment.(interface{ Size() int }); ok {
		r.size += a.Size()
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrSinkClosed
	}
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.signal()
	select {
	case <-r.done:
		return r.out, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the sink: %w", ctx.Err())
	}
}

// Close stores what is queued, waits for it until ctx ends, and refuses what comes later. A second call waits too.
func (s *Sink) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain the sink: %w", ctx.Err())
	}
}

func (s *Sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// loop writes one batch after the other. The first call after a quiet moment is written at once; those that come while
// a batch is being written, or within MaxDelay of its start, share the next one.
func (s *Sink) loop() {
	defer close(s.done)
	var last time.Time // when the last batch began
	for {
		n, full, closed := s.pending()
		if n == 0 {
			if closed {
				return
			}
			<-s.wake
			continue
		}
		if rest := s.cfg.MaxDelay - s.cfg.Now().Sub(last); rest > 0 && !full && !closed {
			timer := time.NewTimer(min(rest, s.cfg.MaxDelay))
			for full, closed = false, false; !full && !closed; {
				select {
				case <-s.wake:
					_, full, closed = s.pending()
					continue
				case <-timer.C:
				}
				break
			}
			timer.Stop()
		}
		last = s.cfg.Now()
		batch := s.take()
		s.write(bareContext{context.WithoutCancel(batch[0].ctx)}, batch)
		for _, r := range batch {
			close(r.done)
		}
	}
}

// pending returns how many calls wait, and whether they fill a batch.
func (s *Sink) pending() (n int, full, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for _, r := range s.queue {
		size += r.size
	}
	return len(s.queue), len(s.queue) >= s.cfg.MaxRuns || size >= s.cfg.MaxBytes, s.closed
}

// take removes the next batch from the queue.
func (s *Sink) take() []*sinkRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for n < len(s.queue) && n < s.cfg.MaxRuns && (n == 0 || size+s.queue[n].size <= s.cfg.MaxBytes) {
		size += s.queue[n].size
		n++
	}
	batch := s.queue[:n:n]
	s.queue = append([]*sinkRequest(nil), s.queue[n:]...)
	return batch
}

// write stores a batch and fills in each call's outcome.
func (s *Sink) write(ctx context.Context, batch []*sinkRequest) {
	stored, err := s.persist(ctx, batch)
	switch {
	case err == nil:
		s.hand(batch, stored)
	case len(batch) == 1:
		batch[0].err = err
	case postgres.IsUnavailable(err) || postgres.IsRetryable(err):
		for _, r := range batch { // patience is over: halving would only ask the same dead server again
			r.err = err
		}
	default:
		s.cfg.Logger.WarnContext(ctx, "a batch of run events is halved", slog.Int("calls", len(batch)), slog.Any("err", err))
		half := len(batch) / 2
		s.write(ctx, batch[:half])
		s.write(ctx, batch[half:])
	}
}

// persist stores a batch in one transaction, and tries again while the database can't be reached.
func (s *Sink) persist(ctx context.Context, batch []*sinkRequest) ([]Inserted, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, sinkBackoff) {
		stored, err := s.once(ctx, batch)
		if err == nil || !(postgres.IsRetryable(err) || postgres.IsUnavailable(err)) {
			return stored, err
		}
		s.cfg.Logger.WarnContext(ctx, "run events wait for the database", slog.Int("calls", len(batch)), slog.Any("err", err))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fault.New(fault.Unavailable, "server.database_unavailable", "The database could not be reached.").Because(err)
		}
	}
}

// once is one try: one transaction, its statements of at most MaxBytes each.
func (s *Sink) once(ctx context.Context, batch []*sinkRequest) (stored []Inserted, err error) {
	ctx, cancel := context.WithTimeout(ctx, sinkAttempt)
	defer cancel()
	all := &runRows{}
	var attachments []any
	for _, r := range batch {
		all.append(r.rows)
		if r.attachment != nil {
			attachments = append(attachments, r.attachment)
		}
	}
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		stored = stored[:0]
		for _, part := range all.split(s.cfg.MaxBytes) {
			in, err := s.cfg.Store.appendRunRows(ctx, tx, part)
			if err != nil {
				return err
			}
			stored = append(stored, in...)
		}
		if len(attachments) == 0 {
			return nil
		}
		return s.cfg.OnBatch(ctx, tx, attachments)
	})
	return stored, err
}

// hand tells each call what was stored of its own. Where two calls of a batch brought the same event, the first did it.
func (s *Sink) hand(batch []*sinkRequest, stored []Inserted) {
	owner := make(map[runKey]*sinkRequest, len(stored))
	for _, r := range batch {
		for i, run := range r.rows.runs {
			key := runKey{run, int(r.rows.versions[i])}
			if _, taken := owner[key]; !taken {
				owner[key] = r
			}
		}
	}
	for _, in := range stored {
		r := owner[runKey{in.RunID, in.Version}]
		r.out = append(r.out, in)
	}
}

// split cuts rows into parts of at most maxBytes of payload, and of one row at least.
func (r *runRows) split(maxBytes int) []*runRows {
	if r.len() == 0 {
		return nil
	}
	if r.bytes <= maxBytes {
		return []*runRows{r}
	}
	var parts []*runRows
	from, size := 0, 0
	for i, d := range r.data {
		if i > from && size+len(d) > maxBytes {
			parts = append(parts, r.slice(from, i))
			from, size = i, 0
		}
		size += len(d)
	}
	return append(parts, r.slice(from, r.len()))
}

func (r *runRows) slice(i, j int) *runRows {
	return &runRows{
		orgs: r.orgs[i:j], runs: r.runs[i:j], projects: r.projects[i:j], tests: r.tests[i:j], environments: r.environments[i:j],
		versions: r.versions[i:j], durations: r.durations[i:j], types: r.types[i:j], schemas: r.schemas[i:j],
		regions: r.regions[i:j], statuses: r.statuses[i:j], oks: r.oks[i:j], data: r.data[i:j], names: r.names[i:j], payloads: r.payloads[i:j],
	}
}

// bareContext has no values: a batch belongs to no caller, and must not join the transaction that one of them has open.
type bareContext struct{ context.Context }

// Value returns nothing.
func (bareContext) Value(any) any { return nil }

// Waiting returns how many calls wait for their turn, for metrics.
func (s *Sink) Waiting() int {
	n, _, _ := s.pending()
	return n
}
