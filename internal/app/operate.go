package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/cli"
	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection"
)

type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" help:"Bring the database to this version's schema; safe to run at any time and by several at once."`
	Status migrateStatusCommand `cmd:"" help:"Show every migration and when it was applied. Changes nothing."`
}

type migrateUpCommand struct{}

// Run migrates the database of DATABASE_URL, or the one of our own.
func (migrateUpCommand) Run(ctx context.Context, t terminal) error {
	return withDatabase(ctx, t, func(ctx context.Context, c *config.Config, log *slog.Logger) error {
		if err := postgres.Migrate(ctx, migrateConfig(c, log)); err != nil {
			return err
		}
		t.printf("The database is at this version's schema.\n")
		return nil
	})
}

type migrateStatusCommand struct{}

// Run prints a line a migration.
func (migrateStatusCommand) Run(ctx context.Context, t terminal) error {
	return withDatabase(ctx, t, func(ctx context.Context, c *config.Config, log *slog.Logger) error {
		all, err := postgres.MigrationStatus(ctx, migrateConfig(c, log))
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "DATABASE\tMIGRATION\tAPPLIED")
		for _, m := range all {
			applied := "pending"
			if m.AppliedAt != nil {
				applied = m.AppliedAt.Format(time.RFC3339)
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", m.Database, m.Name, applied)
		}
		return w.Flush()
	})
}

func migrateConfig(c *config.Config, log *slog.Logger) postgres.MigrateConfig {
	return postgres.MigrateConfig{URL: c.Database.URL, AnalyticsURL: c.Database.AnalyticsURL, RolePrefix: c.Database.RolePrefix, Logger: log}
}

type projectionsCommand struct {
	List    projectionsListCommand    `cmd:"" help:"Show every projection: where it stands, its speed, what it could not take."`
	Rebuild projectionsRebuildCommand `cmd:"" help:"Build a projection anew from the whole log beside the live one, then swap."`
	Retry   projectionsRetryCommand   `cmd:"" help:"Apply again the events that a projection could not take."`
}

type projectionsListCommand struct{}

// Run prints a line a build.
func (projectionsListCommand) Run(ctx context.Context, t terminal) error {
	return withRunner(ctx, t, func(ctx context.Context, r *projection.Runner) error {
		all, err := r.List(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', tabwriter.AlignRight)
		_, _ = fmt.Fprintln(w, "NAME\tVERSION\tBUILD\tSTATE\tPOSITION\tBEHIND\tEVENTS/S\tDEAD LETTERS\tLAST ERROR\t")
		for _, s := range all {
			_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%.0f\t%d\t%s\t\n", s.Name, s.Version, s.Build, s.State, s.Position, s.Target-s.Position, s.EventsPerSecond, s.DeadLetters, s.LastError)
		}
		return w.Flush()
	})
}

type projectionsRebuildCommand struct {
	Name           string `arg:"" help:"Name of the projection, as in: testflow projections list."`
	WithoutDropped bool   `help:"Rebuild although old runs were dropped: what they added to the projection is lost."`
}

// Run rebuilds and tells about it once a second on standard error.
func (p *projectionsRebuildCommand) Run(ctx context.Context, t terminal) error {
	return withRunner(ctx, t, func(ctx context.Context, r *projection.Runner) error {
		dropped, err := r.Dropped(ctx)
		if err != nil {
			return err
		}
		if dropped > 0 && !p.WithoutDropped {
			return &cli.Exit{Code: cli.ExitFailed, Err: fmt.Errorf("runs up to position %d were dropped (TESTFLOW_RETENTION_RUN_DAYS), and a rebuild would lose what they added to %s; nothing was changed. To lose it: --without-dropped", dropped, p.Name)}
		}
		err = r.Rebuild(ctx, p.Name, func(s projection.Status) {
			_, _ = fmt.Fprintf(t.err, "%s: position %d of %d, %.0f events/s, %s to go\n", s.Name, s.Position, s.Target, s.EventsPerSecond, s.ETA)
		})
		if errors.Is(err, projection.ErrUnknown) {
			return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("there is no projection %q; see: testflow projections list", p.Name)}
		}
		if err != nil {
			return err
		}
		t.printf("%s was rebuilt and is live.\n", p.Name)
		return nil
	})
}

type projectionsRetryCommand struct {
	Name string `arg:"" help:"Name of the projection."`
}

// Run retries the dead letters; exit code 1 says that some are left.
func (p *projectionsRetryCommand) Run(ctx context.Context, t terminal) error {
	return withRunner(ctx, t, func(ctx context.Context, r *projection.Runner) error {
		taken, left, err := r.RetryDeadLetters(ctx, p.Name)
		if errors.Is(err, projection.ErrUnknown) {
			return &cli.Exit{Code: cli.ExitUsage, Err: fmt.Errorf("there is no projection %q; see: testflow projections list", p.Name)}
		}
		if err != nil {
			return err
		}
		t.printf("%d applied, %d left.\n", taken, left)
		if left > 0 {
			return &cli.Exit{Code: cli.ExitFailed}
		}
		return nil
	})
}

// withDatabase calls fn with settings whose DATABASE_URL is set: the given one, or that of a Postgres of our own, which is
// started for the time of the call.
func withDatabase(ctx context.Context, t terminal, fn func(ctx context.Context, c *config.Config, log *slog.Logger) error) (err error) {
	c, err := config.Load(config.Up, t.environ)
	if err != nil {
		return err
	}
	if t.color {
		c.Log.Level = max(c.Log.Level, slog.LevelWarn) // a person wants the answer, not the way to it
	}
	log := t.logger(c.Log)
	if c.Database.URL != "" {
		return fn(ctx, c, log)
	}
	dir, err := openDataDir(c)
	if err != nil {
		return err
	}
	if err := dir.prepare(); err != nil {
		return err
	}
	server, err := ownPostgres(ctx, c, dir, log)
	if err != nil {
		return inUse(err)
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	return fn(ctx, c, log)
}

// inUse tells the person whose platform is running how to reach its database all the same.
func inUse(err error) error {
	var used *postgres.InUseError
	if !errors.As(err, &used) {
		return err
	}
	return fmt.Errorf("%w; while it runs, give its address: DATABASE_URL=$(cat %s/database.url)", err, used.Dir)
}

// withStore opens both databases as they are and registers the event types.
func withStore(ctx context.Context, t terminal, fn func(ctx context.Context, dbs *databases, store *eventstore.Store, log *slog.Logger) error) error {
	return withDatabase(ctx, t, func(ctx context.Context, c *config.Config, log *slog.Logger) error {
		dbs, err := openDatabases(ctx, c, false, log)
		if err != nil {
			return err
		}
		defer dbs.close()
		store := eventstore.New(eventstore.Config{DB: dbs.main, Types: eventTypes(), Inline: inlineModels(), Now: time.Now, NewID: newID, Logger: log})
		if err := store.Sync(ctx); err != nil {
			return err
		}
		return fn(ctx, dbs, store, log)
	})
}

// withStoreConfig opens both databases as they are, for what needs the settings too.
func withStoreConfig(ctx context.Context, t terminal, fn func(ctx context.Context, c *config.Config, dbs *databases) error) error {
	return withDatabase(ctx, t, func(ctx context.Context, c *config.Config, log *slog.Logger) error {
		dbs, err := openDatabases(ctx, c, false, log)
		if err != nil {
			return err
		}
		defer dbs.close()
		return fn(ctx, c, dbs)
	})
}

func withRunner(ctx context.Context, t terminal, fn func(ctx context.Context, r *projection.Runner) error) error {
	return withStore(ctx, t, func(ctx context.Context, dbs *databases, store *eventstore.Store, log *slog.Logger) error {
		r := projection.NewRunner(projection.Config{Store: store, DB: dbs.analytics, Projections: analytics.Projections(), Now: time.Now, Logger: log})
		if err := r.Setup(ctx); err != nil {
			return err
		}
		return fn(ctx, r)
	})
}
