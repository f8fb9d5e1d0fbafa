package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/projection/internal/projectiondb"
)

// Checksum is what a table holds, whatever the order of its rows: their number and the sum of their hashes.
type Checksum struct {
	Table string
	Rows  int64
	Sum   string
}

// Comparison is the live build beside a rebuild from zero to the same position.
type Comparison struct {
	Name          string
	Position      int64
	Live, Rebuilt []Checksum
	DeadLetters   int // of the live build; what it went past, a rebuild may take
}

// Equal says whether both hold the same.
func (c Comparison) Equal() bool { return slices.Equal(c.Live, c.Rebuilt) }

// Checksum returns what the tables of the live build hold, and at which position.
func (r *Runner) Checksum(ctx context.Context, name string) (sums []Checksum, position int64, err error) {
	f, ok := r.byName[name]
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		live, err := projectiondb.New(tx).LockLiveBuild(ctx, name)
		if err != nil {
			return err
		}
		position = live.Position
		sums, err = checksums(ctx, tx, f.Projection, live.SchemaName)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("checksum of %s: %w", name, err)
	}
	return sums, position, nil
}

func checksums(ctx context.Context, tx pgx.Tx, p Projection, schema string) ([]Checksum, error) {
	sums := make([]Checksum, 0, len(p.Tables))
	for _, table := range p.Tables {
		c := Checksum{Table: table}
		err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM `+pgx.Identifier{schema, table}.Sanitize()+` t`).Scan(&c.Rows, &c.Sum)
		if err != nil {
			return nil, fmt.Errorf("sum up %s: %w", table, err)
		}
		sums = append(sums, c)
	}
	return sums, nil
}

// Compare rebuilds a projection from zero beside the live one, to the live one's position, and compares them. The live
// one goes on meanwhile but for the last stretch, for which it is held. Nothing of the rebuild stays.
func (r *Runner) Compare(ctx context.Context, name string) (c Comparison, err error) {
	f, ok := r.byName[name]
	if !ok {
		return c, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	c.Name = name
	var build int32
	err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, 10)`); err != nil {
			return err
		}
		build, err = r.addBuild(ctx, tx, f.Projection, stateChecking)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("compare %s: %w", name, err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		b := projectiondb.EsProjectionBuild{Name: name, Version: int32(f.Version), Build: build, SchemaName: fmt.Sprintf("%s_v%d_b%d", name, f.Version, build)} //nolint:gosec // versions are small
		err = errors.Join(err, r.drop(end, b))
	}()
	// Up to where the live one is now, in steps; then hold the live one and do the rest.
	for {
		ready := false
		err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			ready, err = r.catchUpTo(ctx, tx, f, build, false, &c)
			return err
		})
		var refused *refusal
		switch {
		case errors.As(err, &refused) && refused.only:
			err = r.putAside(ctx, f, build, refused)
		case errors.As(err, &refused):
			f.setLimit(build, f.limit(build, r.cfg.BatchSize)/2)
			err = nil
		}
		if err != nil {
			return c, fmt.Errorf("compare %s: %w", name, err)
		}
		if ready {
			break
		}
	}
	err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := r.catchUpTo(ctx, tx, f, build, true, &c)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("compare %s: %w", name, err)
	}
	return c, nil
}

// catchUpTo brings a checking build to the live one's position: by one batch, or, when hold is set, holding the live one,
// to the very position, and then compares.
func (r *Runner) catchUpTo(ctx context.Context, tx pgx.Tx, f *follower, build int32, hold bool, c *Comparison) (ready bool, err error) {
	q := projectiondb.New(tx)
	lock := q.LiveBuild
	if hold {
		lock = q.LockLiveBuild
	}
	live, err := lock(ctx, f.Name)
	if err != nil {
		return false, err
	}
	for {
		b, err := q.LockBuild(ctx, projectiondb.LockBuildParams{Name: f.Name, Version: int32(f.Version), Build: build}) //nolint:gosec // versions are small
		if err != nil {
			return false, err
		}
		if b.Position >= live.Position {
			break
		}
		if _, _, err := r.advance(ctx, tx, f, b, f.limit(build, r.cfg.BatchSize), live.Position); err != nil {
			return false, err
		}
		if !hold {
			return false, nil
		}
	}
	if !hold {
		return true, nil
	}
	c.Position = live.Position
	if c.Live, err = checksums(ctx, tx, f.Projection, live.SchemaName); err != nil {
		return false, err
	}
	if c.Rebuilt, err = checksums(ctx, tx, f.Projection, fmt.Sprintf("%s_v%d_b%d", f.Name, f.Version, build)); err != nil {
		return false, err
	}
	letters, err := q.DeadLetters(ctx, projectiondb.DeadLettersParams{Name: f.Name, Version: live.Version, Build: live.Build, N: maxLetters})
	c.DeadLetters = len(letters)
	return true, err
}

// String says what was found, in one line.
func (c Comparison) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %d:", c.Name, c.Position)
	for i, l := range c.Live {
		word := "equal"
		if i >= len(c.Rebuilt) || c.Rebuilt[i] != l {
			word = "DIFFERENT"
		}
		fmt.Fprintf(&b, " %s %s (%d rows)", l.Table, word, l.Rows)
	}
	return b.String()
}

const (
	lagPositions = 100_000          // further behind than this is unhealthy even on the move
	lagStill     = 30 * time.Second // behind and not moved for so long, too
)

// Check returns nil when every projection follows the log, otherwise fault.Unavailable that names the first that doesn't.
func (r *Runner) Check(ctx context.Context) error {
	builds, err := r.List(ctx)
	if err != nil {
		return fault.New(fault.Unavailable, "projection_unknown", "The projections can't be looked at.").Because(err)
	}
	live := map[string]bool{}
	for _, b := range builds {
		if _, ours := r.byName[b.Name]; !ours || b.State != stateLive {
			continue
		}
		live[b.Name] = true
		behind := b.Target - b.Position
		switch {
		case b.LastError != "":
			return fault.New(fault.Unavailable, "projection_failing", "The projection %s stands still at %d, since it fails.", b.Name, b.Position).Because(errors.New(b.LastError))
		case behind > lagPositions, behind > 0 && r.cfg.Now().Sub(b.UpdatedAt) > lagStill:
			return fault.New(fault.Unavailable, "projection_behind", "The projection %s is at %d, the log at %d.", b.Name, b.Position, b.Target)
		}
	}
	for name := range r.byName {
		if !live[name] {
			return fault.New(fault.Unavailable, "projection_missing", "The projection %s is not set up.", name)
		}
	}
	return nil
}
