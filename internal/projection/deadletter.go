package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/projection/internal/projectiondb"
)

// maxLetters bounds what is listed and retried at once.
const maxLetters = 1000

// DeadLetter is an event that a projection could not take and went past.
type DeadLetter struct {
	Position int64
	Type     string
	Error    string
	Tries    int
	At       time.Time
}

// DeadLetters returns the first thousand of the live build, by position.
func (r *Runner) DeadLetters(ctx context.Context, name string) ([]DeadLetter, error) {
	q := projectiondb.New(r.cfg.DB.System)
	live, err := q.LiveBuild(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %s: %w", name, err)
	}
	rows, err := q.DeadLetters(ctx, projectiondb.DeadLettersParams{Name: name, Version: live.Version, Build: live.Build, N: maxLetters})
	if err != nil {
		return nil, fmt.Errorf("list dead letters of %s: %w", name, err)
	}
	all := make([]DeadLetter, len(rows))
	for i, d := range rows {
		all[i] = DeadLetter{Position: d.Position, Type: d.Type, Error: d.Error, Tries: int(d.Tries), At: d.At}
	}
	return all, nil
}

// RetryDeadLetters has the live build take its dead letters again, one by one, oldest first, and returns how many it took
// and how many stay. An event that retention has removed stays, as a record of what is missing.
func (r *Runner) RetryDeadLetters(ctx context.Context, name string) (taken, left int, err error) {
	f, ok := r.byName[name]
	if !ok {
		return 0, 0, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	letters, err := r.DeadLetters(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	for _, letter := range letters {
		e, found, err := r.cfg.Store.ReadAt(ctx, letter.Position)
		if err != nil {
			return taken, left, err
		}
		if !found {
			left++
			continue
		}
		err = r.retry(ctx, f, e)
		var refused *refusal
		switch {
		case err == nil:
			taken++
		case errors.As(err, &refused):
			left++
			if err := r.stillDead(ctx, f, refused); err != nil {
				return taken, left, err
			}
		default:
			return taken, left, fmt.Errorf("retry event %s: %w", e.ID(), err)
		}
	}
	return taken, left, nil
}

// retry applies one event to the live build and takes its letter away, in one transaction.
func (r *Runner) retry(ctx context.Context, f *follower, e eventstore.Event) error {
	return r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := projectiondb.New(tx)
		live, err := q.LockLiveBuild(ctx, f.Name)
		if err != nil {
			return err
		}
		n, err := q.DeleteDeadLetter(ctx, projectiondb.DeleteDeadLetterParams{Name: f.Name, Version: live.Version, Build: live.Build, Position: e.Position})
		if err != nil || n == 0 { // 0: another one was faster
			return err
		}
		return apply(ctx, tx, f.Projection, live.SchemaName, []eventstore.Event{e})
	})
}

func (r *Runner) stillDead(ctx context.Context, f *follower, refused *refusal) error {
	return r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := projectiondb.New(tx)
		live, err := q.LockLiveBuild(ctx, f.Name)
		if err != nil {
			return err
		}
		return q.AddDeadLetter(ctx, projectiondb.AddDeadLetterParams{
			Name: f.Name, Version: live.Version, Build: live.Build, Position: refused.event.Position, Type: refused.event.Type, Error: printable(refused.err),
		})
	})
}
