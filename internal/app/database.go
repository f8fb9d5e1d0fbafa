package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/testflow/testflow/internal/config"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/migrations"
)

// databases are the main database and the one of analytics beside it, open and at this binary's schema.
type databases struct {
	main, analytics *postgres.DB
	url             string // of main; holds a password
}

// openDatabases migrates when asked to, and opens both databases.
func openDatabases(ctx context.Context, c *config.Config, migrate bool, log *slog.Logger) (*databases, error) {
	prefix, err := postgres.PrefixOf(c.Database.URL, c.Database.RolePrefix)
	if err != nil {
		return nil, err
	}
	analyticsURL, err := postgres.AnalyticsURL(c.Database.URL, c.Database.AnalyticsURL)
	if err != nil {
		return nil, err
	}
	if migrate {
		err := postgres.Migrate(ctx, migrateConfig(c, log))
		if err != nil {
			return nil, err
		}
	}
	open := func(url, app string) (*postgres.DB, error) {
		return postgres.Open(ctx, postgres.Config{
			URL: url, RolePrefix: prefix, MaxConns: int32(min(c.Database.MaxConns, 1000)), AppName: app, Logger: log, //nolint:gosec // bounded above
		})
	}
	main, err := open(c.Database.URL, "testflow")
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	analytics, err := open(analyticsURL, "testflow-analytics")
	if err != nil {
		main.Close()
		return nil, fmt.Errorf("open the database of analytics: %w", err)
	}
	dbs := &databases{main: main, analytics: analytics, url: c.Database.URL}
	if err := dbs.checkSchema(ctx); err != nil {
		dbs.close()
		return nil, err
	}
	return dbs, nil
}

// checkSchema says what either database lacks. One that a newer testflow has migrated is fit for this one too, since
// migrations are made so that the version before goes on: nodes are replaced one after the other.
func (d *databases) checkSchema(ctx context.Context) error {
	var newer *postgres.NewerSchemaError
	if err := d.main.CheckSchema(ctx, migrations.Main); err != nil && !errors.As(err, &newer) {
		return err
	}
	if err := d.analytics.CheckSchema(ctx, migrations.Analytics); err != nil && !errors.As(err, &newer) {
		return err
	}
	return nil
}

func (d *databases) close() {
	d.analytics.Close()
	d.main.Close()
}

// ownPostgres starts a server of our own in the data directory and puts its address into the settings.
func ownPostgres(ctx context.Context, c *config.Config, dir *dataDir, log *slog.Logger) (*postgres.Server, error) {
	server, err := postgres.StartServer(ctx, postgres.ServerConfig{
		DataDir: dir.path, BinDir: c.Database.PGBin, Logger: log,
		Say: func(line string) { log.InfoContext(ctx, "getting a database server", slog.String("how", line)) },
	})
	if err != nil {
		return nil, err
	}
	c.Database.URL, c.OwnDatabase = server.URL, true
	return server, nil
}

// watchPostgres ends the process when its own Postgres dies.
func watchPostgres(server *postgres.Server) part {
	return part{
		name: "postgres",
		run: func(ctx context.Context) error {
			select {
			case <-server.Done():
				if err := server.Err(); err != nil {
					return fmt.Errorf("our own Postgres ended: %w", err)
				}
				return nil
			case <-ctx.Done():
				return nil
			}
		},
		stop: server.Stop,
	}
}
