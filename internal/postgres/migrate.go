package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/testflow/testflow/migrations"
)

// RiverSchema is the schema of the queue's tables.
const RiverSchema = "river"

// migrateLock is the advisory lock, in the main database, that one migrating process holds.
const migrateLock = 0x7466_6d69_6772 // "tfmigr"

// MigrateConfig says what to migrate.
type MigrateConfig struct {
	URL          string // the main database
	AnalyticsURL string // "" = <database>_analytics on the same server, made if need be
	RolePrefix   string // "" = the main database's name
	Logger       *slog.Logger
}

// NewerSchemaError says that the database was migrated by a newer TestFlow than this one.
type NewerSchemaError struct {
	Database string
	Version  int64 // the newest migration that was applied
	Known    int64 // the newest that this binary carries
}

// Error says what to do.
func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("the database %q is at migration %d, this testflow knows %d at most: run the newer testflow, or restore a backup from before its upgrade", e.Database, e.Version, e.Known)
}

// MigrationError says which migration failed. Each runs in a transaction of its own, so what it had done is undone.
type MigrationError struct {
	Database string
	File     string
	Err      error
}

// Error names database and file.
func (e *MigrationError) Error() string {
	return fmt.Sprintf("migrate %q, %s: %v", e.Database, e.File, e.Err)
}

// Unwrap returns the cause.
func (e *MigrationError) Unwrap() error { return e.Err }

// AnalyticsURL returns the address of the analytics database that belongs to the main one at url, unless override
// names another.
func AnalyticsURL(url, override string) (string, error) {
	if override != "" {
		return override, nil
	}
	name, err := databaseOf(url)
	if err != nil {
		return "", err
	}
	return WithDatabase(url, name+"_analytics")
}

// Migrate makes the installation's roles, brings the main database, the queue's schema and the analytics database up
// to date, and returns. It does nothing when nothing is to be done; of two that run at once one waits. It returns
// *AdminSQLError where the login may not do its part, *NewerSchemaError for a database ahead of this binary and
// *MigrationError for a migration that failed.
func Migrate(ctx context.Context, cfg MigrateConfig) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	prefix, err := PrefixOf(cfg.URL, cfg.RolePrefix)
	if err != nil {
		return err
	}
	analytics, err := AnalyticsURL(cfg.URL, cfg.AnalyticsURL)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, cfg.URL)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if err := waitLock(ctx, conn, migrateLock); err != nil { // freed when the connection closes
		return err
	}
	var databases []string
	if cfg.AnalyticsURL == "" {
		if databases, err = missingDatabase(ctx, conn, analytics); err != nil {
			return err
		}
	}
	if err := prepareRoles(ctx, conn, prefix, false, databases...); err != nil {
		return err
	}
	if err := goUp(ctx, cfg.URL, prefix, migrations.Main, "main", cfg.Logger); err != nil {
		return err
	}
	if err := riverUp(ctx, cfg.URL, prefix, cfg.Logger); err != nil {
		return err
	}
	return migrateAnalytics(ctx, cfg, analytics, prefix)
}

func migrateAnalytics(ctx context.Context, cfg MigrateConfig, analytics, prefix string) error {
	conn, err := connect(ctx, analytics)
	if err != nil {
		return fmt.Errorf("the analytics database: %w", err)
	}
	defer closeConn(ctx, conn)
	if err := prepareRoles(ctx, conn, prefix, cfg.AnalyticsURL == ""); err != nil {
		return err
	}
	return goUp(ctx, analytics, prefix, migrations.Analytics, "analytics", cfg.Logger)
}

// missingDatabase returns the statement that makes the database that dsn names, unless the server has it.
func missingDatabase(ctx context.Context, conn *pgx.Conn, dsn string) ([]string, error) {
	name, err := databaseOf(dsn)
	if err != nil {
		return nil, err
	}
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil {
		return nil, fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil, nil
	}
	return []string{"CREATE DATABASE " + quote(name) + " OWNER " + quote(conn.Config().User)}, nil
}

// ownerConfig returns a connection that acts as the installation's owner and tells migrations the prefix.
func ownerConfig(cc *pgx.ConnConfig, prefix string) {
	tuneConn(cc, "testflow migrate")
	cc.RuntimeParams["role"] = prefix + "_owner"
	cc.RuntimeParams["testflow.role_prefix"] = prefix
}

// goUp applies the goose migrations of one folder.
func goUp(ctx context.Context, dsn, prefix string, files fs.FS, folder string, log *slog.Logger) (err error) {
	cc, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	ownerConfig(cc, prefix)
	db := stdlib.OpenDB(*cc)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(db, files, folder)
	if err != nil {
		return err
	}
	if err := refuseNewer(ctx, db, provider, cc.Database); err != nil {
		return err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			return &MigrationError{Database: cc.Database, File: partial.Failed.Source.Path, Err: partial.Err}
		}
		return fmt.Errorf("migrate %q: %w", cc.Database, err)
	}
	for _, r := range results {
		log.InfoContext(ctx, "migration applied", slog.String("database", cc.Database), slog.String("file", r.Source.Path), slog.Duration("took", r.Duration))
	}
	// The doors' readiness reads the version as either role.
	grant := "GRANT SELECT ON goose_db_version TO " + quote(prefix+"_api") + ", " + quote(prefix+"_system") //nolint:gosec // quoted
	if _, err := db.ExecContext(ctx, grant); err != nil {
		return fmt.Errorf("migrate %q: %w", cc.Database, err)
	}
	return nil
}

func newProvider(db *sql.DB, files fs.FS, folder string) (*goose.Provider, error) {
	sub, err := fs.Sub(files, folder)
	if err != nil {
		return nil, fmt.Errorf("open the migrations: %w", err)
	}
	// Rooms number their migrations in ranges of their own, so a lower number may land after a higher one.
	p, err := goose.NewProvider(goose.DialectPostgres, db, sub, goose.WithAllowOutofOrder(true), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

// refuseNewer returns a NewerSchemaError when the database holds a migration that this binary does not carry.
func refuseNewer(ctx context.Context, db *sql.DB, provider *goose.Provider, database string) error {
	var exists bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass('public.goose_db_version') IS NOT NULL`).Scan(&exists); err != nil {
		return fmt.Errorf("read the schema version of %q: %w", database, err)
	}
	if !exists {
		return nil
	}
	known := map[int64]bool{0: true}
	var newest int64
	for _, s := range provider.ListSources() {
		known[s.Version] = true
		newest = max(newest, s.Version)
	}
	rows, err := db.QueryContext(ctx, `SELECT version_id FROM public.goose_db_version WHERE is_applied ORDER BY version_id DESC`)
	if err != nil {
		return fmt.Errorf("read the schema version of %q: %w", database, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return fmt.Errorf("read the schema version of %q: %w", database, err)
		}
		if !known[v] {
			return &NewerSchemaError{Database: database, Version: v, Known: newest}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the schema version of %q: %w", database, err)
	}
	return nil
}

// PendingError says that the database lacks migrations that this binary needs: run `testflow migrate up`.
type PendingError struct {
	Database string
	Missing  []int64 // versions, ascending
}

// Error says what to do.
func (e *PendingError) Error() string {
	return fmt.Sprintf("the database %q lacks %d migrations, the first is %d: run `testflow migrate up`", e.Database, len(e.Missing), e.Missing[0])
}

// CheckSchema compares a database with the migrations that this binary carries for it: migrations.Main or
// migrations.Analytics. nil = ready; else *PendingError or *NewerSchemaError, or why it couldn't be asked. It is one
// query, made for readiness checks.
func (d *DB) CheckSchema(ctx context.Context, files fs.FS) error {
	names, err := namesOf(files)
	if err != nil {
		return err
	}
	needed := slices.Sorted(maps.Keys(names))
	rows, err := d.System.Query(ctx, `SELECT version_id FROM public.goose_db_version WHERE is_applied AND version_id > 0`)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	have, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	name := d.System.Config().ConnConfig.Database
	for _, v := range have {
		if !slices.Contains(needed, v) {
			return &NewerSchemaError{Database: name, Version: v, Known: needed[len(needed)-1]}
		}
	}
	var missing []int64
	for _, v := range needed {
		if !slices.Contains(have, v) {
			missing = append(missing, v)
		}
	}
	if len(missing) > 0 {
		return &PendingError{Database: name, Missing: missing}
	}
	return nil
}

// riverUp applies the queue's own migrations in its schema and gives the system role what its client needs.
func riverUp(ctx context.Context, dsn, prefix string, log *slog.Logger) error {
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	ownerConfig(pc.ConnConfig, prefix)
	pc.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return fmt.Errorf("open the queue's migrations: %w", err)
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+RiverSchema); err != nil {
		return fmt.Errorf("make the queue's schema: %w", err)
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: RiverSchema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("read the queue's migrations: %w", err)
	}
	known := migrator.AllVersions()
	newest := known[len(known)-1].Version
	var have int
	if err := pool.QueryRow(ctx, riverVersionSQL).Scan(&have); err != nil {
		return fmt.Errorf("read the queue's schema version: %w", err)
	}
	if have > newest {
		return &NewerSchemaError{Database: pc.ConnConfig.Database + "/" + RiverSchema, Version: int64(have), Known: int64(newest)}
	}
	res, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	if err != nil {
		return &MigrationError{Database: pc.ConnConfig.Database, File: RiverSchema, Err: err}
	}
	for _, v := range res.Versions {
		log.InfoContext(ctx, "migration applied", slog.String("database", pc.ConnConfig.Database), slog.String("file", fmt.Sprintf("%s/%d", RiverSchema, v.Version)), slog.Duration("took", v.Duration))
	}
	return prepareRiver(ctx, pool, quote(prefix+"_system"))
}

// riverVersionSQL reads the newest applied migration of the queue, through query_to_xml because the table may not be
// there yet. River's own reader fails on a version that it doesn't know.
const riverVersionSQL = `SELECT CASE WHEN to_regclass('river.river_migration') IS NULL THEN 0 ELSE
	coalesce((xpath('/row/v/text()', query_to_xml('SELECT max(version) AS v FROM river.river_migration', false, true, '')))[1]::text::int, 0) END`

// prepareRiver drops the two GIN indexes that we never search by, which cost every insert, and grants the queue to the
// system role, each time anew, since it is cheap. The api role gets nothing: jobs carry no tenant policy.
func prepareRiver(ctx context.Context, pool *pgxpool.Pool, system string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		for _, s := range []string{
			"DROP INDEX IF EXISTS river.river_job_args_index",
			"DROP INDEX IF EXISTS river.river_job_metadata_index",
			"GRANT USAGE ON SCHEMA river TO " + system,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA river TO " + system,
			"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA river TO " + system,
			"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA river TO " + system,
		} {
			if _, err := tx.Exec(ctx, s); err != nil {
				return fmt.Errorf("prepare the queue: %w", err)
			}
		}
		return nil
	})
}

func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	cc, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", err)
	}
	tuneConn(cc, "testflow migrate")
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, explainConnect(err)
	}
	return conn, nil
}

// closeConn closes conn, politely where that is still possible; the server notices a broken one by itself.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = conn.Close(end)
}

// RiverVersion returns the version of the queue's schema that this binary migrates to.
func RiverVersion() (int, error) {
	m, err := rivermigrate.New(riverpgxv5.New(nil), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, fmt.Errorf("read the queue's migrations: %w", err)
	}
	all := m.AllVersions()
	return all[len(all)-1].Version, nil
}
