package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

const (
	// DefaultSealEvery is how often what is new is sealed. Until then an event can be changed unseen.
	DefaultSealEvery = 10 * time.Second
	// sealWindow is how many events of all organizations one transaction seals, about; a crash loses no more than that work.
	sealWindow = 5000
	// sealRounds is how often all organizations are looked at, for those that were left behind and those that rest.
	sealRounds = time.Hour
	// damagedRounds is the same while an organization's tree is damaged, so that it goes on soon after it was mended.
	damagedRounds = time.Minute
	// sealAtLeast is how old an organization's last head may get, whether anything happened or not.
	sealAtLeast = 24 * time.Hour
	// sealBehind is how long something may wait for its seal before that counts as unhealthy.
	sealBehind = 5 * time.Minute
	// cachedTrees bounds the memory of the sealer: under 3 KiB an organization.
	cachedTrees = 1000
)

// SealerConfig is what a Sealer stands on.
type SealerConfig struct {
	DB    *postgres.DB
	Keys  *SealingKeys
	Now   func() time.Time
	Every time.Duration // 0 = DefaultSealEvery
	Log   *slog.Logger
	// Published is told of every head once it is stored; what it keeps elsewhere is what finds a rewritten history. nil =
	// nobody. An error is logged and changes nothing.
	Published func(ctx context.Context, head seal.Head, note string) error
}

// Sealer adds what is settled to each organization's tree and signs its head. Appends don't wait for it. Any number of
// processes may run one: one works at a time, and whoever comes next goes on exactly where the last one stopped.
type Sealer struct {
	cfg   SealerConfig
	trees *lru.Cache[uuid.UUID, knownTree]
	turn  sync.Mutex // held by a pass

	mu       sync.Mutex
	stats    SealStats
	damaged  map[uuid.UUID]string // organizations that aren't sealed any more, and why
	lookedAt time.Time            // when all organizations were looked at
}

// knownTree is the right edge of an organization's tree at a head that this process signed or has checked.
type knownTree struct {
	head     seal.Hash
	frontier *seal.Frontier
}

// SealStats says how the sealer of this process does.
type SealStats struct {
	Events, Heads int64     // sealed and signed by this process
	Oldest        time.Time // when the oldest event was recorded that waits for its seal; zero = none waits
	Damaged       int       // organizations whose stored tree or last head isn't what was signed
	LastError     string    // of the last pass; "" = it went well
}

// NewSealer returns a Sealer; Run starts it.
func NewSealer(cfg SealerConfig) *Sealer {
	if cfg.Every <= 0 {
		cfg.Every = DefaultSealEvery
	}
	trees, err := lru.New[uuid.UUID, knownTree](cachedTrees)
	if err != nil {
		panic("audit: " + err.Error()) // only for a size below 1
	}
	return &Sealer{cfg: cfg, trees: trees, damaged: map[uuid.UUID]string{}}
}

// Run seals until ctx ends. What fails is tried again at the next turn.
func (s *Sealer) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		if err := s.Pass(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.WarnContext(ctx, "sealing the audit log failed; it is tried again", slog.Duration("in", s.cfg.Every), slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Pass seals all that is settled when it is called, unless another process is at it. A stop calls it once more, so that
// little is left unsealed.
func (s *Sealer) Pass(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	err := s.pass(ctx)
	oldest, statErr := s.oldest(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastError = ""
	if err = errors.Join(err, statErr); err != nil {
		s.stats.LastError = err.Error()
		return err
	}
	s.stats.Oldest, s.stats.Damaged = oldest, len(s.damaged)
	return nil
}

func (s *Sealer) pass(ctx context.Context) error {
	for {
		_, more, err := s.window(ctx, false)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	every := sealRounds
	if len(s.damaged) > 0 {
		every = damagedRounds
	}
	if now := s.cfg.Now(); now.Sub(s.lookedAt) >= every {
		if err := s.round(ctx); err != nil {
			return err
		}
		s.lookedAt = now
	}
	return nil
}

// Settle seals all that is settled when it is called, and waits for another process that is at it. Every event up to the
// position that it returns is sealed then, but for those of organizations whose tree was changed in the database.
func (s *Sealer) Settle(ctx context.Context) (upTo int64, err error) {
	for {
		upTo, more, err := s.window(ctx, true)
		if err != nil || !more {
			return upTo, err
		}
	}
}

// window seals the next stretch of the log, of all organizations, in one transaction; everything up to to is sealed then.
// more is false at the end, and, unless it waits, when another process seals.
func (s *Sealer) window(ctx context.Context, wait bool) (to int64, more bool, err error) {
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		from, mine, err := s.take(ctx, tx, wait)
		if err != nil || !mine {
			return err
		}
		fault.Hit(fault.PointSealTaken)
		var fence int64
		if err := tx.QueryRow(ctx, `SELECT es.fence()`).Scan(&fence); err != nil {
			return fmt.Errorf("read the fence: %w", err)
		}
		// A statement of its own: its snapshot has all that is at or below the fence.
		rows, err := tx.Query(ctx, `SELECT org_id, position FROM es.ledger_event WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3`, from, fence, sealWindow) //nolint:rowserrcheck // ForEachRow does
		if err != nil {
			return fmt.Errorf("look for news: %w", err)
		}
		var orgs []uuid.UUID
		var org uuid.UUID
		n := 0
		to = fence
		if _, err := pgx.ForEachRow(rows, []any{&org, &to}, func() error {
			n++
			orgs = append(orgs, org)
			return nil
		}); err != nil {
			return fmt.Errorf("look for news: %w", err)
		}
		if more = n == sealWindow; !more {
			to = fence
		}
		if n == 0 {
			return nil
		}
		slices.SortFunc(orgs, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
		if err := s.sealAll(ctx, tx, slices.Compact(orgs), to); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE es.sealer SET position = $1`, to); err != nil {
			return fmt.Errorf("note how far is sealed: %w", err)
		}
		fault.Hit(fault.PointSealInTx)
		return nil
	})
	if err != nil {
		return 0, false, fmt.Errorf("seal: %w", err)
	}
	return to, more, nil
}

// take claims the right to seal for the transaction, and returns how far is sealed.
func (s *Sealer) take(ctx context.Context, tx pgx.Tx, wait bool) (from int64, mine bool, err error) {
	claim := `SELECT position FROM es.sealer FOR UPDATE SKIP LOCKED`
	if wait {
		claim = `SELECT position FROM es.sealer FOR UPDATE`
	}
	err = tx.QueryRow(ctx, claim).Scan(&from)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("take the sealer's turn: %w", err)
	}
	return from, true, nil
}

// lateOrResting finds organizations with events up to $1 that have no seal, and those whose last seal is from before $2.
const lateOrResting = `
	SELECT s.org_id, s.last_pos > coalesce(h.position, 0)
	  FROM (SELECT org_id, max(last_pos) FILTER (WHERE last_pos <= $1) AS last_pos, bool_or(kind = 'org') AS is_org
	          FROM es.ledger_stream GROUP BY org_id) s
	  LEFT JOIN LATERAL (SELECT position, sealed_at FROM es.sealed_head WHERE org_id = s.org_id ORDER BY number DESC LIMIT 1) h ON true
	 WHERE s.last_pos > coalesce(h.position, 0) OR s.is_org AND h.sealed_at < $2
	 ORDER BY s.org_id`

// round looks at all organizations: what was left behind, because its tree was damaged and is mended now, is sealed, and
// an organization in which nothing happens gets its head a day.
func (s *Sealer) round(ctx context.Context) error {
	err := s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		to, mine, err := s.take(ctx, tx, false)
		if err != nil || !mine {
			return err
		}
		rows, err := tx.Query(ctx, lateOrResting, to, s.cfg.Now().Add(-sealAtLeast)) //nolint:rowserrcheck // ForEachRow does
		if err != nil {
			return err
		}
		var behind, resting []uuid.UUID
		var org uuid.UUID
		var late *bool
		if _, err := pgx.ForEachRow(rows, []any{&org, &late}, func() error {
			if late != nil && *late {
				behind = append(behind, org)
			} else {
				resting = append(resting, org)
			}
			return nil
		}); err != nil {
			return err
		}
		if err := s.sealAll(ctx, tx, behind, to); err != nil {
			return err
		}
		return s.headAll(ctx, tx, resting)
	})
	if err != nil {
		return fmt.Errorf("look at all organizations: %w", err)
	}
	return nil
}

// sealAll seals the events of these organizations up to a position.
func (s *Sealer) sealAll(ctx context.Context, tx pgx.Tx, orgs []uuid.UUID, to int64) error {
	return s.each(ctx, tx, orgs, func(o *sealing) error {
		for {
			more, err := o.extend(ctx, to)
			if err != nil || !more {
				return err
			}
		}
	})
}

// headAll signs a head for each of these organizations without anything new.
func (s *Sealer) headAll(ctx context.Context, tx pgx.Tx, orgs []uuid.UUID) error {
	return s.each(ctx, tx, orgs, func(o *sealing) error { return o.sign(ctx, o.last.Position) })
}

// each calls fn with the state of each organization. One whose tree isn't what was signed is left out and remembered: the
// sealer doesn't vouch for what somebody changed.
func (s *Sealer) each(ctx context.Context, tx pgx.Tx, orgs []uuid.UUID, fn func(*sealing) error) error {
	if len(orgs) == 0 {
		return nil
	}
	signer, chain, err := s.cfg.Keys.signer(ctx, tx)
	if err != nil {
		return err
	}
	for _, org := range orgs {
		o := &sealing{s: s, tx: tx, org: org, signer: signer}
		err := o.load(ctx, chain)
		var damage *damageError
		switch {
		case errors.As(err, &damage):
			s.mark(ctx, org, damage.what)
			continue
		case err != nil:
			return err
		}
		if err := fn(o); err != nil {
			return err
		}
		postgres.AfterCommit(ctx, func() { o.committed(ctx) })
	}
	return nil
}

// damageError says that an organization's stored tree isn't what was signed.
type damageError struct{ what string }

func (e *damageError) Error() string { return e.what }

// mark remembers a damaged organization, and tells about it once.
func (s *Sealer) mark(ctx context.Context, org uuid.UUID, what string) {
	s.mu.Lock()
	_, known := s.damaged[org]
	s.damaged[org] = what
	s.mu.Unlock()
	if !known {
		s.cfg.Log.ErrorContext(ctx, "the sealed audit log of an organization was changed behind our back; it is not sealed any further until it is mended: run testflow doctor, keep a copy of the database, put the backup's es.sealed_* rows back",
			slog.String("org_id", org.String()), slog.String("what", what))
	}
}

// oldest returns when the oldest event was recorded that isn't sealed yet.
func (s *Sealer) oldest(ctx context.Context) (at time.Time, err error) {
	var when *time.Time
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT recorded_at FROM es.ledger_event WHERE position > (SELECT position FROM es.sealer) ORDER BY position LIMIT 1`).Scan(&when)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("look for what isn't sealed: %w", err)
	}
	if when == nil {
		return time.Time{}, nil
	}
	return *when, nil
}

// Stats returns how it does.
func (s *Sealer) Stats() SealStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Lag returns how long the oldest event waits for its seal.
func (s *Sealer) Lag() time.Duration {
	if oldest := s.Stats().Oldest; !oldest.IsZero() {
		return max(s.cfg.Now().Sub(oldest), 0)
	}
	return 0
}

// Check returns nil when everything is sealed in time, otherwise fault.Unavailable with what is wrong.
func (s *Sealer) Check(context.Context) error {
	st := s.Stats()
	switch {
	case st.Damaged > 0:
		return fault.New(fault.Unavailable, "audit.seals_damaged", "The sealed audit log of %d organizations was changed; testflow doctor says where.", st.Damaged)
	case s.Lag() > sealBehind:
		return fault.New(fault.Unavailable, "audit.seals_behind", "Events wait %s for their seal: %s", s.Lag().Round(time.Second), st.LastError)
	}
	return nil
}
