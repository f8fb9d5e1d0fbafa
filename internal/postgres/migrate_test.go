package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/migrations"
)

func connectTo(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func scan[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&v), sql)
	return v
}

func TestMigrate_manyAtOnce_andAgain(t *testing.T) {
	t.Parallel()
	url, prefix := pgtest.Empty(t)
	_, err := postgres.Open(t.Context(), postgres.Config{URL: url, RolePrefix: prefix})
	require.ErrorIs(t, err, postgres.ErrNotMigrated)

	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			return postgres.Migrate(t.Context(), postgres.MigrateConfig{URL: url, RolePrefix: prefix})
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, postgres.Migrate(t.Context(), postgres.MigrateConfig{URL: url, RolePrefix: prefix}))

	main := connectTo(t, url)
	assert.Equal(t, 3, scan[int](t, main, `SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 AND NOT rolcanlogin AND NOT rolbypassrls AND NOT rolsuper`, prefix+`\_%`))
	assert.Zero(t, scan[int](t, main, `SELECT count(*) FROM pg_indexes WHERE schemaname = 'river' AND indexdef ILIKE '%using gin%'`))
	assert.Equal(t, prefix+"_owner", scan[string](t, main, `SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'es'`))
	analytics, err := postgres.AnalyticsURL(url, "")
	require.NoError(t, err)
	beside := connectTo(t, analytics)
	assert.Equal(t, prefix+"_owner", scan[string](t, beside, `SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'es'`))
	assert.False(t, scan[bool](t, beside, `SELECT EXISTS (SELECT FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = current_database() AND a.grantee = 0)`),
		"nobody else connects to the analytics database")
	_, err = postgres.Open(t.Context(), postgres.Config{URL: url, RolePrefix: prefix + "_x"})
	require.ErrorIs(t, err, postgres.ErrNotMigrated)
}

func TestMigrate_newerDatabase_isRefused(t *testing.T) {
	t.Parallel()
	url, prefix := pgtest.Empty(t)
	cfg := postgres.MigrateConfig{URL: url, RolePrefix: prefix}
	require.NoError(t, postgres.Migrate(t.Context(), cfg))
	main := connectTo(t, url)
	for _, c := range []struct{ undo, do string }{
		{"DELETE FROM goose_db_version WHERE version_id = 99999", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"},
		{"DELETE FROM river.river_migration WHERE version = 99", "INSERT INTO river.river_migration (line, version) VALUES ('main', 99)"},
	} {
		_, err := main.Exec(t.Context(), c.do)
		require.NoError(t, err)
		var newer *postgres.NewerSchemaError
		require.ErrorAs(t, postgres.Migrate(t.Context(), cfg), &newer)
		assert.NotContains(t, newer.Error(), "\n")
		_, err = main.Exec(t.Context(), c.undo)
		require.NoError(t, err)
	}
	require.NoError(t, postgres.Migrate(t.Context(), cfg))
}

func TestMigrationStatus_beforeAndAfter(t *testing.T) {
	t.Parallel()
	url, prefix := pgtest.Empty(t)
	cfg := postgres.MigrateConfig{URL: url, RolePrefix: prefix}
	before, err := postgres.MigrationStatus(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, "00001_protect.sql", before[0].Name)
	for _, m := range before {
		assert.Nil(t, m.AppliedAt, m.Name)
	}
	require.NoError(t, postgres.Migrate(t.Context(), cfg))
	_, err = connectTo(t, url).Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)")
	require.NoError(t, err)
	after, err := postgres.MigrationStatus(t.Context(), cfg)
	require.NoError(t, err)
	assert.Len(t, after, len(before)+1)
	databases := map[string]int{}
	for _, m := range after {
		assert.NotNil(t, m.AppliedAt, m.Name)
		databases[m.Database]++
	}
	assert.Len(t, databases, 2)
}

func TestCheckSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	require.NoError(t, db.CheckSchema(t.Context(), migrations.Main))
	require.NoError(t, db.Analytics.CheckSchema(t.Context(), migrations.Analytics))
	conn := connectTo(t, db.URL)
	_, err := conn.Exec(t.Context(), "DELETE FROM goose_db_version WHERE version_id = 1")
	require.NoError(t, err)
	var pending *postgres.PendingError
	require.ErrorAs(t, db.CheckSchema(t.Context(), migrations.Main), &pending)
	assert.Equal(t, []int64{1}, pending.Missing)
	_, err = conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, true), (99999, true)")
	require.NoError(t, err)
	var newer *postgres.NewerSchemaError
	require.ErrorAs(t, db.CheckSchema(t.Context(), migrations.Main), &newer)
	assert.EqualValues(t, 99999, newer.Version)
}

// A migration that fails is undone, named, and runs again once its obstacle has gone.
func TestMigrate_brokenDatabase_namesTheMigration(t *testing.T) {
	t.Parallel()
	url, prefix := pgtest.Empty(t)
	main := connectTo(t, url)
	_, err := main.Exec(t.Context(), "CREATE SCHEMA es")
	require.NoError(t, err)
	cfg := postgres.MigrateConfig{URL: url, RolePrefix: prefix}
	var failed *postgres.MigrationError
	require.ErrorAs(t, postgres.Migrate(t.Context(), cfg), &failed)
	assert.Equal(t, "00001_protect.sql", failed.File)
	assert.Contains(t, failed.Error(), `schema "es" already exists`)
	_, err = main.Exec(t.Context(), "DROP SCHEMA es")
	require.NoError(t, err)
	require.NoError(t, postgres.Migrate(t.Context(), cfg))
}

// A login that may do nothing gets the SQL for an administrator, and with that done it is enough for everything.
func TestMigrate_modestLogin_isToldWhatToHaveDone(t *testing.T) {
	t.Parallel()
	dsn, prefix := pgtest.Empty(t)
	admin := connectTo(t, dsn)
	login := prefix + "_login"
	_, err := admin.Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'x'", login))
	require.NoError(t, err)
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	database := strings.TrimPrefix(u.Path, "/")
	conn := pgtest.Admin(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, s := range []string{"DROP DATABASE IF EXISTS " + database + "_analytics WITH (FORCE)", "DROP DATABASE IF EXISTS " + database + " WITH (FORCE)", "DROP ROLE " + login} {
			_, err := conn.Exec(ctx, s)
			assert.NoError(t, err)
		}
	})
	u.User = url.UserPassword(login, "x")
	cfg := postgres.MigrateConfig{URL: u.String(), RolePrefix: prefix}

	rounds := 0
	for ; rounds < 10; rounds++ {
		err := postgres.Migrate(t.Context(), cfg)
		if err == nil {
			break
		}
		var ask *postgres.AdminSQLError
		require.ErrorAs(t, err, &ask)
		assert.NotContains(t, err.Error(), "\n")
		t.Logf("round %d: %v\n%s", rounds, err, ask.Script())
		at, err := postgres.WithDatabase(dsn, ask.Database)
		require.NoError(t, err)
		conn := connectTo(t, at)
		for _, s := range ask.SQL {
			_, err := conn.Exec(t.Context(), s)
			require.NoError(t, err, s)
		}
	}
	assert.Equal(t, 1, rounds, "asked once, for everything")

	db, err := postgres.Open(t.Context(), postgres.Config{URL: u.String(), RolePrefix: prefix, MaxConns: 2})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.InOrg(t.Context(), uuid.New(), func(ctx context.Context, tx postgres.OrgTx) error {
		return db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			var role string
			require.NoError(t, tx.QueryRow(ctx, "SELECT current_user").Scan(&role))
			assert.Equal(t, prefix+"_system", role)
			return nil
		})
	}))
}

// A login that may make roles and databases, and owns its own, needs no administrator.
func TestMigrate_loginThatMayCreate_needsNobody(t *testing.T) {
	t.Parallel()
	dsn, prefix := pgtest.Empty(t)
	admin := pgtest.Admin(t)
	login := prefix + "_login"
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	database := strings.TrimPrefix(u.Path, "/")
	for _, s := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE CREATEDB PASSWORD 'x'", login),
		fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", database, login),
	} {
		_, err := admin.Exec(t.Context(), s)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, s := range []string{
			"DROP DATABASE IF EXISTS " + database + "_analytics WITH (FORCE)", "DROP DATABASE IF EXISTS " + database + " WITH (FORCE)",
			fmt.Sprintf("DROP ROLE %[1]s_owner, %[1]s_api, %[1]s_system, %[2]s", prefix, login),
		} {
			_, err := admin.Exec(ctx, s)
			assert.NoError(t, err)
		}
	})
	u.User = url.UserPassword(login, "x")
	require.NoError(t, postgres.Migrate(t.Context(), postgres.MigrateConfig{URL: u.String(), RolePrefix: prefix}))
	db, err := postgres.Open(t.Context(), postgres.Config{URL: u.String(), RolePrefix: prefix, MaxConns: 2})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Ping(t.Context()))
}

type noopArgs struct{}

func (noopArgs) Kind() string { return "noop" }

type noopWorker struct {
	river.WorkerDefaults[noopArgs]
	done chan int64
}

func (w *noopWorker) Work(_ context.Context, job *river.Job[noopArgs]) error {
	w.done <- job.ID
	return nil
}

// The system role has all that a working, leading River client needs; the api role has nothing of it.
func TestMigrate_riverWorksAsSystem(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	worker := &noopWorker{done: make(chan int64, 10)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	client, err := river.NewClient(riverpgxv5.New(db.System), &river.Config{
		Schema: postgres.RiverSchema, Workers: workers, Queues: map[string]river.QueueConfig{"default": {MaxWorkers: 2}},
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond, ReindexerIndexNames: []string{},
	})
	require.NoError(t, err)
	completed, stopEvents := client.Subscribe(river.EventKindJobCompleted)
	defer stopEvents()
	require.NoError(t, client.Start(t.Context()))
	var id int64
	require.NoError(t, db.InOrg(t.Context(), uuid.New(), func(ctx context.Context, _ postgres.OrgTx) error {
		return db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			r, err := client.InsertTx(ctx, tx, noopArgs{}, nil)
			if err == nil {
				id = r.Job.ID
			}
			return err
		})
	}))
	assert.Equal(t, id, await(t, worker.done))
	assert.Equal(t, id, await(t, completed).Job.ID)
	_, err = client.InsertManyFast(t.Context(), []river.InsertManyParams{{Args: noopArgs{}}, {Args: noopArgs{}}})
	require.NoError(t, err)
	await(t, worker.done)
	await(t, worker.done)
	stop, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	require.NoError(t, client.Stop(stop))

	_, err = db.API.Exec(t.Context(), "SELECT FROM river.river_job")
	assert.Equal(t, "42501", postgres.SQLState(err))
}

func TestWithDatabase(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://u:p@h:1/a?sslmode=disable": "b's",
		"host=h port=1 user=u dbname=a":        "b's",
	} {
		got, err := postgres.WithDatabase(dsn, "b's")
		require.NoError(t, err)
		cfg, err := pgx.ParseConfig(got)
		require.NoError(t, err, got)
		assert.Equal(t, want, cfg.Database)
		assert.Equal(t, "h", cfg.Host)
		assert.Equal(t, "u", cfg.User)
	}
	_, err := postgres.WithDatabase("postgres://u:secret@h:port/a", "b")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "secret")
}

func TestPrefixOf(t *testing.T) {
	for _, c := range []struct{ url, prefix, want string }{
		{"postgres://u@h/testflow", "", "testflow"},
		{"postgres://u@h/testflow", "acme", "acme"},
		{"postgres://u@h/My-DB", "", ""},
		{"postgres://u@h/a", "x y", ""},
		{"postgres://u@h/a", strings.Repeat("a", 60), ""},
	} {
		got, err := postgres.PrefixOf(c.url, c.prefix)
		assert.Equal(t, c.want, got)
		assert.Equal(t, c.want == "", err != nil)
	}
}
