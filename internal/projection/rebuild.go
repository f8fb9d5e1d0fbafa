package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection/internal/projectiondb"
)

// States of a build.
const (
	stateLive     = "live"     // shown by the views
	stateBuilding = "building" // catches up, then becomes live
	stateChecking = "checking" // made to be compared, never shown
	stateRetired  = "retired"  // was live; its tables are dropped soon
)

// Status says how a build stands.
type Status struct {
	Name            string
	Version, Build  int
	State           string // live, building, checking, retired
	Position        int64
	Target          int64 // the end of the log
	Events          int64 // applied since it was made
	EventsPerSecond float64
	ETA             time.Duration // until Position is Target, at the present speed; 0 = there, or not known
	DeadLetters     int
	LastError       string // "" since the last success
	StartedAt       time.Time
	UpdatedAt       time.Time
}

// List returns all builds, by name, version and build.
func (r *Runner) List(ctx context.Context) ([]Status, error) {
	rows, err := projectiondb.New(r.cfg.DB.System).Builds(ctx)
	if err != nil {
		return nil, fmt.Errorf("list projections: %w", err)
	}
	end, err := r.cfg.Store.End(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Status, len(rows))
	for i, b := range rows {
		all[i] = Status{
			Name: b.Name, Version: int(b.Version), Build: int(b.Build), State: b.State, Position: b.Position, Target: max(end, b.Position), Events: b.Events,
			DeadLetters: int(b.DeadLetters), LastError: b.LastError, StartedAt: b.StartedAt, UpdatedAt: b.UpdatedAt,
		}
		all[i].pace(b.UpdatedAt.Sub(b.StartedAt))
	}
	return all, nil
}

// pace fills in speed and ETA from what was done in a time.
func (s *Status) pace(took time.Duration) {
	if took <= 0 || s.Position <= 0 || s.State == stateRetired {
		return
	}
	s.EventsPerSecond = float64(s.Events) / took.Seconds()
	if s.Target > s.Position {
		s.ETA = time.Duration(float64(took) / float64(s.Position) * float64(s.Target-s.Position)).Round(time.Second)
	}
}

// Passed returns the position that every build has passed that is shown or will be: events up to there are needed no more.
func (r *Runner) Passed(ctx context.Context) (position int64, err error) {
	position, err = projectiondb.New(r.cfg.DB.System).Passed(ctx)
	if err != nil {
		return 0, fmt.Errorf("find what every projection has passed: %w", err)
	}
	return position, nil
}

// Dropped returns the position up to which events of runs may have been dropped, 0 when all are there. A rebuild makes
// nothing of what was dropped, so it has less than the projection that lives.
func (r *Runner) Dropped(ctx context.Context) (position int64, err error) {
	return r.cfg.Store.Oldest(ctx)
}

// Rebuild makes a projection anew from the beginning of the log beside the live one, and swaps when it has caught up.
// Readers see the old tables until then. progress (nil = none) is called about once a second and at the end. When it is
// broken off, a running Runner goes on with the build; a second Rebuild joins the one under way.
func (r *Runner) Rebuild(ctx context.Context, name string, progress func(Status)) error {
	f, ok := r.byName[name]
	if !ok {
		return fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	build, err := r.startBuild(ctx, f)
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", name, err)
	}
	began, last := r.cfg.Now(), time.Time{}
	for {
		done, err := r.step(ctx, f, build)
		if err != nil {
			return fmt.Errorf("rebuild %s: %w", name, err)
		}
		if done {
			if err := r.swapIfReady(ctx, f); err != nil {
				return fmt.Errorf("rebuild %s: %w", name, err)
			}
		}
		now := r.cfg.Now()
		if progress == nil && !done || progress != nil && !done && now.Sub(last) < time.Second {
			continue
		}
		last = now
		s, err := r.status(ctx, name, f.Version, int(build))
		if err != nil {
			return fmt.Errorf("rebuild %s: %w", name, err)
		}
		s.pace(now.Sub(began))
		if progress != nil {
			progress(s)
		}
		if s.State == stateLive || s.State == stateRetired {
			return nil
		}
		if done { // another runner has it
			sleep(ctx, 20*time.Millisecond)
		}
	}
}

func (r *Runner) status(ctx context.Context, name string, version, build int) (Status, error) {
	all, err := r.List(ctx)
	if err != nil {
		return Status{}, err
	}
	for _, s := range all {
		if s.Name == name && s.Version == version && s.Build == build {
			return s, nil
		}
	}
	return Status{State: stateRetired}, nil // swapped, replaced and dropped already
}

// startBuild adds a build beside the live one, or finds the one that is under way.
func (r *Runner) startBuild(ctx context.Context, f *follower) (build int32, err error) {
	err = r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(21575, 10)`); err != nil {
			return err
		}
		b, err := projectiondb.New(tx).BuildingBuild(ctx, projectiondb.BuildingBuildParams{Name: f.Name, Version: int32(f.Version)}) //nolint:gosec // versions are small
		if err == nil {
			build = b.Build
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		build, err = r.addBuild(ctx, tx, f.Projection, stateBuilding)
		return err
	})
	return build, err
}

// addBuild makes a build's schema and tables, and the views when it is the first. It holds the setup lock.
func (r *Runner) addBuild(ctx context.Context, tx pgx.Tx, p Projection, state string) (int32, error) {
	q := projectiondb.New(tx)
	build, err := q.NextBuild(ctx, projectiondb.NextBuildParams{Name: p.Name, Version: int32(p.Version)}) //nolint:gosec // versions are small
	if err != nil {
		return 0, err
	}
	schema := fmt.Sprintf("%s_v%d_b%d", p.Name, p.Version, build)
	err = q.AddBuild(ctx, projectiondb.AddBuildParams{Name: p.Name, Version: int32(p.Version), Build: build, SchemaName: schema, State: state}) //nolint:gosec // versions are small
	if err != nil {
		return 0, err
	}
	err = r.asOwner(ctx, tx, func() error {
		ident, api, system := pgx.Identifier{schema}.Sanitize(), r.role("_api"), r.role("_system")
		statements := []string{
			"CREATE SCHEMA " + ident,
			"GRANT USAGE ON SCHEMA " + ident + " TO " + api + ", " + system,
			"SET LOCAL search_path = " + ident,
			p.DDL,
		}
		for _, table := range p.Tables {
			name := pgx.Identifier{schema, table}.Sanitize()
			statements = append(statements,
				"SELECT es.protect('"+strings.ReplaceAll(name, "'", "''")+"')",
				"REVOKE INSERT, UPDATE, DELETE ON "+name+" FROM "+api)
		}
		for _, sql := range statements {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("make build %s: %w", schema, err)
			}
		}
		if state == stateLive {
			return r.showViews(ctx, tx, p, schema)
		}
		return nil
	})
	return build, err
}

// showViews points the views in public to a build. The role is the owner's.
func (r *Runner) showViews(ctx context.Context, tx pgx.Tx, p Projection, schema string) error {
	for _, table := range p.Tables {
		view := pgx.Identifier{"public", table}.Sanitize()
		for _, sql := range []string{
			"DROP VIEW IF EXISTS " + view,
			"CREATE VIEW " + view + " WITH (security_invoker = true) AS SELECT * FROM " + pgx.Identifier{schema, table}.Sanitize(),
			"GRANT SELECT ON " + view + " TO " + r.role("_api") + ", " + r.role("_system"),
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return fmt.Errorf("show %s: %w", schema, err)
			}
		}
	}
	return nil
}

func (r *Runner) role(suffix string) string {
	return pgx.Identifier{r.cfg.DB.RolePrefix() + suffix}.Sanitize()
}

// asOwner runs fn with the role that owns the tables, as the login may, being a member of it. An error leaves the
// transaction to be rolled back.
func (r *Runner) asOwner(ctx context.Context, tx pgx.Tx, fn func() error) error {
	if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+r.role("_owner")+"; SET LOCAL testflow.role_prefix = '"+r.cfg.DB.RolePrefix()+"'"); err != nil {
		return fmt.Errorf("become the owner: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+r.role("_system")+"; SET LOCAL search_path = DEFAULT"); err != nil {
		return fmt.Errorf("become the system again: %w", err)
	}
	return nil
}

// swapIfReady makes the newest build under way the live one when it has all that the live one has, in one transaction.
// It holds the live build meanwhile, so that it cannot run ahead.
func (r *Runner) swapIfReady(ctx context.Context, f *follower) error {
	swapped := false
	err := r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := projectiondb.New(tx)
		live, err := q.LockLiveBuild(ctx, f.Name)
		if err != nil {
			return fmt.Errorf("take the live build: %w", err)
		}
		next, err := q.BuildingBuild(ctx, projectiondb.BuildingBuildParams{Name: f.Name, Version: int32(f.Version)}) //nolint:gosec // versions are small
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if next, err = q.TryLockBuild(ctx, projectiondb.TryLockBuildParams{Name: next.Name, Version: next.Version, Build: next.Build}); err != nil {
			if errors.Is(err, pgx.ErrNoRows) {
				return nil // another runner works on it
			}
			return err
		}
		if next.State != stateBuilding || next.Position < live.Position {
			return nil
		}
		for _, s := range []projectiondb.SetStateParams{
			{Name: live.Name, Version: live.Version, Build: live.Build, State: stateRetired},
			{Name: next.Name, Version: next.Version, Build: next.Build, State: stateLive},
		} {
			if err := q.SetState(ctx, s); err != nil {
				return err
			}
		}
		swapped = true
		return r.asOwner(ctx, tx, func() error { return r.showViews(ctx, tx, f.Projection, next.SchemaName) })
	})
	if err != nil {
		return fmt.Errorf("swap %s: %w", f.Name, err)
	}
	if swapped {
		r.cfg.Logger.InfoContext(ctx, "a projection was rebuilt and swapped in", slog.String("projection", f.Name))
	}
	return nil
}

// pruneNowAndThen drops the tables of retired builds.
func (r *Runner) pruneNowAndThen(ctx context.Context) {
	for sleep(ctx, pruneEvery) {
		if err := r.Prune(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "tables of retired builds stay for now", slog.Any("err", err))
		}
	}
}

// Prune drops the tables of retired builds, and of checks that were broken off. A build that somebody still reads stays
// for the next time.
func (r *Runner) Prune(ctx context.Context) error {
	builds, err := projectiondb.New(r.cfg.DB.System).RetiredBuilds(ctx)
	if err != nil {
		return fmt.Errorf("list retired builds: %w", err)
	}
	for _, b := range builds {
		if err := r.drop(ctx, b); err != nil && postgres.SQLState(err) != "55P03" {
			return err
		}
	}
	return nil
}

func (r *Runner) drop(ctx context.Context, b projectiondb.EsProjectionBuild) error {
	err := r.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := projectiondb.New(tx).DeleteBuild(ctx, projectiondb.DeleteBuildParams{Name: b.Name, Version: b.Version, Build: b.Build})
		if err != nil {
			return err
		}
		return r.asOwner(ctx, tx, func() error {
			_, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'; DROP SCHEMA IF EXISTS "+pgx.Identifier{b.SchemaName}.Sanitize()+" CASCADE")
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("drop build %s: %w", b.SchemaName, err)
	}
	return nil
}
