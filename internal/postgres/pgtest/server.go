package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/migrations"
)

// templateLock is the advisory lock, in the server's postgres database, under which a template is made.
const templateLock = 0x7466_7465_6d70 // "tftemp"

// server is where a process's test databases live.
type server struct {
	url  string // of the postgres database, as a superuser
	what string // one line for people
	pool *pgxpool.Pool
	stop func(ctx context.Context) error

	mu       sync.Mutex
	ready    string // the template's name, once made
	errReady error
}

// find returns a server by TESTFLOW_TEST_PG: url, container, local, or auto, which is the first of them that there is.
// stops says whether somebody will call the server's stop: a wrapper does, a test's own process ends unasked.
func find(ctx context.Context, stops bool) (*server, error) {
	s, err := choose(ctx, stops)
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(s.url)
	if err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	cfg.MaxConns, cfg.MaxConnIdleTime = 4, 5*time.Second
	if s.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.stop(ctx))
	}
	return s, nil
}

func choose(ctx context.Context, stops bool) (*server, error) {
	mode, url := os.Getenv("TESTFLOW_TEST_PG"), os.Getenv("TESTFLOW_TEST_DATABASE_URL")
	switch mode {
	case "", "auto":
		if url != "" {
			return given(url)
		}
		s, err := startContainer(ctx, stops)
		if err == nil {
			return s, nil
		}
		local, errLocal := startLocal(ctx)
		if errLocal != nil {
			return nil, fmt.Errorf("no Postgres for the tests: set TESTFLOW_TEST_DATABASE_URL, or start Docker (%w), or install PostgreSQL (%w)", err, errLocal)
		}
		return local, nil
	case "url":
		if url == "" {
			return nil, errors.New("TESTFLOW_TEST_PG=url needs TESTFLOW_TEST_DATABASE_URL")
		}
		return given(url)
	case "container":
		return startContainer(ctx, stops)
	case "local":
		return startLocal(ctx)
	default:
		return nil, fmt.Errorf("TESTFLOW_TEST_PG=%q: use auto, url, container or local", mode)
	}
}

func given(url string) (*server, error) {
	admin, err := postgres.WithDatabase(url, "postgres")
	if err != nil {
		return nil, fmt.Errorf("TESTFLOW_TEST_DATABASE_URL: %w", err)
	}
	return &server{url: admin, what: "the server at TESTFLOW_TEST_DATABASE_URL", stop: func(context.Context) error { return nil }}, nil
}

// slots bounds how many private servers can run at once from one cache.
const slots = 64

// startLocal starts a private server in the first free slot of the cache. A slot keeps its cluster and templates for
// the next process; its lock is the process's own, and the kernel ends the server with the process.
func startLocal(ctx context.Context) (*server, error) {
	base := os.Getenv("TESTFLOW_TEST_PG_DIR")
	if base == "" {
		cache, err := postgres.DefaultCacheDir()
		if err != nil {
			return nil, err
		}
		base = filepath.Join(cache, "pgtest")
	}
	binDir := os.Getenv("TESTFLOW_PG_BIN")
	say := func(line string) { fmt.Fprintln(os.Stderr, line) }
	if err := postgres.EnsureBinaries(ctx, postgres.EnsureConfig{BinDir: binDir, Say: say}); err != nil {
		return nil, err
	}
	found, err := postgres.FindBinaries(binDir, "")
	if err != nil {
		return nil, err
	}
	base = filepath.Join(base, fmt.Sprint(found[0].Version))
	for i := range slots {
		dir := filepath.Join(base, fmt.Sprintf("slot-%02d", i))
		s, err := startSlot(ctx, dir, found[0].Dir)
		var used *postgres.InUseError
		switch {
		case errors.As(err, &used):
			continue
		case err != nil:
			return nil, err
		}
		return s, nil
	}
	return nil, fmt.Errorf("all %d test servers in %s are in use", slots, base)
}

func startSlot(ctx context.Context, dir, binDir string) (*server, error) {
	cfg := postgres.ServerConfig{DataDir: dir, BinDir: binDir, Throwaway: true}
	pg, err := postgres.StartServer(ctx, cfg)
	var used *postgres.InUseError
	if err != nil && !errors.As(err, &used) {
		// A killed machine leaves a cluster that nothing was synced of; there is nothing in it to save.
		if errWipe := os.RemoveAll(filepath.Join(dir, "postgres")); errWipe != nil {
			return nil, errors.Join(err, errWipe)
		}
		pg, err = postgres.StartServer(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	admin, err := postgres.WithDatabase(pg.URL, "postgres")
	if err != nil {
		return nil, errors.Join(err, pg.Stop(ctx))
	}
	s := &server{url: admin, what: fmt.Sprintf("a private PostgreSQL %d from %s", pg.Version, pg.BinDir), stop: pg.Stop}
	if err := s.sweep(ctx); err != nil {
		return nil, errors.Join(err, pg.Stop(ctx))
	}
	return s, nil
}

// keptTemplates is how many templates of other schemas stay in a slot, for those who go to and fro between branches.
const keptTemplates = 4

// sweep drops what earlier processes left in the slot: test databases, and all but the newest templates.
func (s *server) sweep(ctx context.Context) error {
	keep, err := templateName()
	if err != nil {
		return err
	}
	conn, err := s.admin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_database WHERE datname ~ '^(t|e)_' UNION ALL
		(SELECT datname FROM pg_database WHERE datname ~ '^tmpl_' AND datname <> ALL ($1) ORDER BY oid DESC OFFSET $2)`,
		[]string{keep, keep + "_analytics"}, 2*keptTemplates)
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	for _, name := range names {
		if err := dropDatabase(ctx, conn, name); err != nil {
			return err
		}
	}
	return nil
}

func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	id := pgx.Identifier{name}.Sanitize()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil {
		return fmt.Errorf("look for %s: %w", name, err)
	}
	if !exists {
		return nil
	}
	for _, statement := range []string{"ALTER DATABASE " + id + " IS_TEMPLATE false", "DROP DATABASE " + id + " WITH (FORCE)"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

func (s *server) admin(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return nil, fmt.Errorf("connect to the test server: %w", err)
	}
	return conn, nil
}

// template returns the name of the migrated template, made by whichever process comes first.
func (s *server) template(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready == "" && s.errReady == nil {
		s.ready, s.errReady = s.makeTemplate(ctx)
	}
	return s.ready, s.errReady
}

func (s *server) makeTemplate(ctx context.Context) (string, error) {
	name, err := templateName()
	if err != nil {
		return "", err
	}
	conn, err := s.admin(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, templateLock); err != nil { // until the connection closes
		return "", fmt.Errorf("lock the template: %w", err)
	}
	// The analytics template is finished last, so it alone says that both are.
	var ready bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)`, name+"_analytics").Scan(&ready)
	if err != nil {
		return "", fmt.Errorf("look for the template: %w", err)
	}
	if ready {
		return name, nil
	}
	for _, half := range []string{name, name + "_analytics"} {
		if err := dropDatabase(ctx, conn, half); err != nil {
			return "", err
		}
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	url, err := postgres.WithDatabase(s.url, name)
	if err != nil {
		return "", err
	}
	if err := postgres.Migrate(ctx, postgres.MigrateConfig{URL: url, RolePrefix: RolePrefix}); err != nil {
		return "", err
	}
	for _, db := range []string{name, name + "_analytics"} {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+db+" IS_TEMPLATE true ALLOW_CONNECTIONS false"); err != nil {
			return "", fmt.Errorf("finish the template: %w", err)
		}
	}
	return name, nil
}

// templateName is made of all that decides what the template holds.
func templateName() (string, error) {
	river, err := postgres.RiverVersion()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, "1", river) // the first is of this package's own making
	for _, files := range []fs.FS{migrations.Main, migrations.Analytics} {
		err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(files, path)
			if err != nil {
				return err
			}
			fmt.Fprintln(h, path, len(b))
			_, err = h.Write(b)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("read the migrations: %w", err)
		}
	}
	return "tmpl_" + hex.EncodeToString(h.Sum(nil))[:24], nil
}
