// Package pgtest gives tests real, migrated databases of their own, cloned from a template in tens of milliseconds. It
// finds its server by itself: an address that is given, a container, or a private server from local binaries. It is
// for tests and benchmarks only and leaves no server behind.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/testflow/testflow/internal/postgres"
)

const (
	// RolePrefix is the installation prefix of every test database; roles belong to the server, databases share them.
	RolePrefix = "tftest"
	// maxConns of each pool keeps many packages' tests within the server's connections.
	maxConns = 6
	// setupLimit bounds start of the server, migration of the template and the clones.
	setupLimit = 3 * time.Minute
)

// DB is a migrated installation: the main database, embedded, and the analytics one beside it.
type DB struct {
	*postgres.DB
	Analytics    *postgres.DB
	URL          string // of the main database, as a login that may become every role; a superuser
	AnalyticsURL string
	RolePrefix   string
}

// New returns two databases of the test's own, migrated to the newest state and else empty. They are dropped when the
// test ends. Tests that use it can run in parallel.
func New(tb testing.TB) *DB {
	tb.Helper()
	db := Unopened(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), setupLimit)
	defer cancel()
	db.DB = open(ctx, tb, db.URL)
	db.Analytics = open(ctx, tb, db.AnalyticsURL)
	return db
}

// Unopened is New without open pools, for tests of whole programs that open their own.
func Unopened(tb testing.TB) *DB {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), setupLimit)
	defer cancel()
	srv, err := shared(ctx)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tmpl, err := srv.template(ctx)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	name := "t_" + strings.ToLower(rand.Text()[:16])
	db := &DB{RolePrefix: RolePrefix}
	var g errgroup.Group // each takes a while, mostly in the server's checkpointer
	g.Go(func() (err error) { db.URL, err = srv.clone(ctx, tmpl, name); return err })
	g.Go(func() (err error) {
		db.AnalyticsURL, err = srv.clone(ctx, tmpl+"_analytics", name+"_analytics", "REVOKE ALL ON DATABASE %s FROM PUBLIC")
		return err
	})
	tb.Cleanup(func() { srv.cleanup(tb, drop(name), drop(name+"_analytics")) })
	if err := g.Wait(); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return db
}

func drop(database string) string { return "DROP DATABASE IF EXISTS " + database + " WITH (FORCE)" }

// Empty returns the address of a database of the test's own without anything in it, and a role prefix of its own whose
// roles are dropped with it: for tests of migrations. The analytics database beside it is dropped too.
func Empty(tb testing.TB) (url, prefix string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), setupLimit)
	defer cancel()
	srv, err := shared(ctx)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	name := "e_" + strings.ToLower(rand.Text()[:16])
	tb.Cleanup(func() {
		srv.cleanup(tb, drop(name), drop(name+"_analytics"),
			"DROP ROLE IF EXISTS "+name+"_owner", "DROP ROLE IF EXISTS "+name+"_api", "DROP ROLE IF EXISTS "+name+"_system")
	})
	if _, err := srv.pool.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	if url, err = postgres.WithDatabase(srv.url, name); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return url, name
}

// Admin returns a connection to the server's postgres database as a superuser, closed when the test ends.
func Admin(tb testing.TB) *pgx.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), setupLimit)
	defer cancel()
	srv, err := shared(ctx)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	conn, err := srv.admin(ctx)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			tb.Errorf("pgtest: close: %v", err)
		}
	})
	return conn
}

func open(ctx context.Context, tb testing.TB, url string) *postgres.DB {
	tb.Helper()
	db, err := postgres.Open(ctx, postgres.Config{URL: url, RolePrefix: RolePrefix, MaxConns: maxConns, AppName: "pgtest"})
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(db.Close)
	return db
}

// shared returns the server of this process, found on first use.
func shared(ctx context.Context) (*server, error) {
	sharedOnce.Do(func() {
		// The server outlives the test that asked first.
		sharedServer, errShared = find(context.WithoutCancel(ctx), false)
	})
	return sharedServer, errShared
}

var (
	sharedOnce   sync.Once
	sharedServer *server
	errShared    error
)

// clone makes a database from a template, with the privileges of the database itself, which templates don't hand on.
func (s *server) clone(ctx context.Context, template, name string, more ...string) (string, error) {
	for _, statement := range append([]string{
		// Half the time of the default, where its checkpoints need no disk; 0.2 s on two busy cores.
		"CREATE DATABASE %s TEMPLATE " + template + " STRATEGY file_copy",
		"GRANT CREATE, TEMPORARY ON DATABASE %s TO " + RolePrefix + "_owner",
		"GRANT CONNECT ON DATABASE %s TO " + RolePrefix + "_api, " + RolePrefix + "_system",
	}, more...) {
		if _, err := s.pool.Exec(ctx, fmt.Sprintf(statement, name)); err != nil {
			return "", fmt.Errorf("clone %s: %w", template, err)
		}
	}
	return postgres.WithDatabase(s.url, name)
}

// cleanup runs statements after a test, when its own context is over.
func (s *server) cleanup(tb testing.TB, statements ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, statement := range statements {
		if _, err := s.pool.Exec(ctx, statement); err != nil {
			tb.Errorf("pgtest: clean up: %s: %v", statement, err)
		}
	}
}
