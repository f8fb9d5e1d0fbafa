package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"

	"github.com/testflow/testflow/migrations"
)

// Migration is one step of a database's schema.
type Migration struct {
	Database  string
	Name      string     // the file's name, or river/<version> of the queue
	AppliedAt *time.Time // nil = not yet
}

// MigrationStatus returns all migrations of both databases, the main one's first, in the order of their numbers. Those
// that only a newer testflow knows are listed too. It changes nothing and needs no more than to connect: a database
// that isn't there has all of its migrations ahead.
func MigrationStatus(ctx context.Context, cfg MigrateConfig) ([]Migration, error) {
	main, err := statusOf(ctx, cfg.URL, migrations.Main, false)
	if err != nil {
		return nil, err
	}
	queue, err := riverStatus(ctx, cfg.URL)
	if err != nil {
		return nil, err
	}
	analytics, err := AnalyticsURL(cfg.URL, cfg.AnalyticsURL)
	if err != nil {
		return nil, err
	}
	beside, err := statusOf(ctx, analytics, migrations.Analytics, cfg.AnalyticsURL == "")
	if err != nil {
		return nil, err
	}
	return slices.Concat(main, queue, beside), nil
}

// statusOf lists the goose migrations of one database, which may be missing if mayMiss.
func statusOf(ctx context.Context, dsn string, files fs.FS, mayMiss bool) ([]Migration, error) {
	names, err := namesOf(files)
	if err != nil {
		return nil, err
	}
	database, err := databaseOf(dsn)
	if err != nil {
		return nil, err
	}
	applied := map[int64]time.Time{}
	conn, err := connect(ctx, dsn)
	switch {
	case err == nil:
		defer closeConn(ctx, conn)
		if applied, err = appliedAt(ctx, conn, "public.goose_db_version", `SELECT version_id, tstamp FROM public.goose_db_version WHERE is_applied AND version_id > 0`); err != nil {
			return nil, err
		}
	case mayMiss && SQLState(err) == "3D000": // invalid_catalog_name
	default:
		return nil, err
	}
	return merge(database, names, applied), nil
}

// riverStatus lists the queue's migrations.
func riverStatus(ctx context.Context, dsn string) ([]Migration, error) {
	newest, err := RiverVersion()
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, conn)
	applied, err := appliedAt(ctx, conn, "river.river_migration", `SELECT version, created_at FROM river.river_migration WHERE line = 'main'`)
	if err != nil {
		return nil, err
	}
	names := map[int64]string{}
	for v := range newest {
		names[int64(v+1)] = fmt.Sprintf("%s/%d", RiverSchema, v+1)
	}
	return merge(conn.Config().Database, names, applied), nil
}

// appliedAt reads (version, time) pairs from a table that may not be there yet.
func appliedAt(ctx context.Context, conn *pgx.Conn, table, query string) (map[int64]time.Time, error) {
	applied := map[int64]time.Time{}
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, table).Scan(&exists); err != nil {
		return nil, fmt.Errorf("look for %s: %w", table, err)
	}
	if !exists {
		return applied, nil
	}
	rows, err := conn.Query(ctx, query) //nolint:rowserrcheck // ForEachRow checks it
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	var version int64
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&version, &at}, func() error { applied[version] = at.UTC(); return nil }); err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	return applied, nil
}

func merge(database string, names map[int64]string, applied map[int64]time.Time) []Migration {
	type numbered struct {
		version int64
		Migration
	}
	var all []numbered
	for v, name := range names {
		m := Migration{Database: database, Name: name}
		if at, ok := applied[v]; ok {
			m.AppliedAt = &at
		}
		all = append(all, numbered{v, m})
	}
	for v, at := range applied {
		if _, ok := names[v]; !ok {
			all = append(all, numbered{v, Migration{Database: database, Name: fmt.Sprintf("%d (of a newer testflow)", v), AppliedAt: &at}})
		}
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.version, b.version) })
	list := make([]Migration, len(all))
	for i, n := range all {
		list[i] = n.Migration
	}
	return list
}

// namesOf returns the migrations in an embedded tree by version.
func namesOf(files fs.FS) (map[int64]string, error) {
	names := map[int64]string{}
	err := fs.WalkDir(files, ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		v, err := goose.NumericComponent(at)
		names[v] = path.Base(at)
		return err
	})
	if err == nil && len(names) == 0 {
		err = errors.New("there are none")
	}
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return names, nil
}
