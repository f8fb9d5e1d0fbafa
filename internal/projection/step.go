package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection/internal/projectiondb"
)

// refusal is an error of a projection about its events, in contrast to one of the database.
type refusal struct {
	event eventstore.Event // the first of the batch, the only one when only is set
	only  bool
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// step brings a build on by one batch, in one transaction, and says whether it is at the end of the log or in other
// hands. After an error of the projection it tries the same with half the events, until one stands alone: that one is
// put aside.
func (r *Runner) step(ctx context.Context, f *follower, build int32) (done bool, err error) {
	limit := f.limit(build, r.cfg.BatchSize)
	var n int
	err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		b, err := projectiondb.New(tx).TryLockBuild(ctx, projectiondb.TryLockBuildParams{Name: f.Name, Version: int32(f.Version), Build: build}) //nolint:gosec // versions are small
		if errors.Is(err, pgx.ErrNoRows) {
			done = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("take build %d: %w", build, err)
		}
		n, done, err = r.advance(ctx, tx, f, b, limit, 0)
		return err
	})
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.only:
		return false, r.putAside(ctx, f, build, refused)
	case errors.As(err, &refused):
		f.setLimit(build, limit/2)
		return false, nil
	case err != nil:
		return false, errors.Join(err, r.note(ctx, f, build, err))
	}
	if n > 0 {
		r.applied.WithLabelValues(f.Name).Add(float64(n))
	}
	f.setLimit(build, min(2*limit, r.cfg.BatchSize))
	f.hasMoved()
	return done, nil
}

// advance applies the next batch to a locked build, up to a position (0 = the end), and moves its checkpoint. done: there
// was no more.
func (r *Runner) advance(ctx context.Context, tx pgx.Tx, f *follower, b projectiondb.EsProjectionBuild, limit int, upTo int64) (n int, done bool, err error) {
	read := r.cfg.Store.ReadPublished
	if upTo > 0 {
		read = r.cfg.Store.ReadAll
	}
	batch, err := read(ctx, b.Position, limit, f.Types...)
	if err != nil {
		return 0, false, err
	}
	done = len(batch.Events) < limit
	if upTo > 0 && batch.To >= upTo {
		done, batch.To = true, upTo
		for i, e := range batch.Events {
			if e.Position > upTo {
				batch.Events = batch.Events[:i]
				break
			}
		}
	}
	if batch.To <= b.Position {
		return 0, true, nil
	}
	if len(batch.Events) > 0 {
		if err := apply(ctx, tx, f.Projection, b.SchemaName, batch.Events); err != nil {
			return 0, false, err
		}
	}
	err = projectiondb.New(tx).Advance(ctx, projectiondb.AdvanceParams{
		Name: f.Name, Version: b.Version, Build: b.Build, Position: batch.To, Target: batch.To, Applied: int64(len(batch.Events)),
	})
	if err != nil {
		return 0, false, fmt.Errorf("move the checkpoint: %w", err)
	}
	fault.Hit(fault.PointProjectionApply)
	r.lag.WithLabelValues(f.Name).Set(0)
	return len(batch.Events), done, nil
}

// apply calls the projection with names that mean the build's tables. A panic is an error of the projection.
func apply(ctx context.Context, tx pgx.Tx, p Projection, schema string, events []eventstore.Event) (err error) {
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = "+pgx.Identifier{schema}.Sanitize()); err != nil {
		return fmt.Errorf("set the search path: %w", err)
	}
	refuse := func(err error) error { return &refusal{event: events[0], only: len(events) == 1, err: err} }
	defer func() {
		if v := recover(); v != nil {
			err = refuse(fmt.Errorf("panic: %v", v))
		}
	}()
	if err := p.Apply(ctx, tx, events); err != nil {
		if ofDatabase(ctx, err) {
			return fmt.Errorf("apply: %w", err)
		}
		return refuse(err)
	}
	return nil
}

// ofDatabase says whether an error has nothing to do with the events: the database is away, full or stopped, the
// transaction lost a race, the tables aren't what the code expects, or the caller has gone. The same batch is then tried
// again.
func ofDatabase(ctx context.Context, err error) bool {
	if ctx.Err() != nil || postgres.IsRetryable(err) || postgres.IsUnavailable(err) || postgres.IsUnknownOutcome(err) {
		return true
	}
	switch state := postgres.SQLState(err); state {
	case "":
		return false
	case "42601", "42501":
		return true
	default:
		for _, class := range []string{"08", "25", "40", "42P", "427", "3F", "53", "55", "57", "58", "XX"} {
			if strings.HasPrefix(state, class) {
				return true
			}
		}
		return false
	}
}

// putAside records the one event that a build cannot take and moves past it.
func (r *Runner) putAside(ctx context.Context, f *follower, build int32, refused *refusal) error {
	aside := false
	err := r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := projectiondb.New(tx)
		b, err := q.TryLockBuild(ctx, projectiondb.TryLockBuildParams{Name: f.Name, Version: int32(f.Version), Build: build}) //nolint:gosec // versions are small
		if errors.Is(err, pgx.ErrNoRows) || err == nil && b.Position >= refused.event.Position {
			return nil // another runner was faster
		}
		if err != nil {
			return err
		}
		err = q.AddDeadLetter(ctx, projectiondb.AddDeadLetterParams{
			Name: f.Name, Version: b.Version, Build: build, Position: refused.event.Position, Type: refused.event.Type, Error: printable(refused.err),
		})
		if err != nil {
			return err
		}
		aside = true
		return q.Advance(ctx, projectiondb.AdvanceParams{Name: f.Name, Version: b.Version, Build: build, Position: refused.event.Position, Target: refused.event.Position})
	})
	if err != nil {
		return fmt.Errorf("put event %s aside: %w", refused.event.ID(), err)
	}
	if aside {
		r.dead.WithLabelValues(f.Name).Inc()
		r.cfg.Logger.ErrorContext(ctx, "a projection cannot take an event and goes past it", slog.String("projection", f.Name),
			slog.Int64("position", refused.event.Position), slog.String("type", refused.event.Type), slog.Any("err", refused.err))
	}
	f.setLimit(build, 2)
	f.hasMoved()
	return nil
}

// note keeps the error with the build, for those who look at the list; while the database is away there is nowhere to.
func (r *Runner) note(ctx context.Context, f *follower, build int32, cause error) error {
	text := printable(cause)
	if postgres.IsUnavailable(cause) {
		text = ""
	}
	if ctx.Err() == nil && text != "" {
		return r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			return projectiondb.New(tx).SetError(ctx, projectiondb.SetErrorParams{Name: f.Name, Version: int32(f.Version), Build: build, LastError: text}) //nolint:gosec // versions are small
		})
	}
	return nil
}

// printable is an error's text as Postgres can store it.
func printable(err error) string {
	const most = 2000
	s := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\x00", ""), "\ufffd")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

func (f *follower) limit(build int32, most int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, ok := f.limits[build]; ok {
		return n
	}
	return most
}

func (f *follower) setLimit(build int32, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits[build] = max(n, 1)
}
