package postgres_test

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

const patience = 20 * time.Second

// through returns db's connection settings by way of a proxy that can be made to misbehave.
func through(t *testing.T, db *pgtest.DB) (*pgx.ConnConfig, *toxiproxy.Proxy) {
	t.Helper()
	cc := db.ConnConfig()
	proxy := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), t.Name(),
		"127.0.0.1:0", net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port))))
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	host, port, err := net.SplitHostPort(proxy.Listen)
	require.NoError(t, err)
	p, err := strconv.ParseUint(port, 10, 16)
	require.NoError(t, err)
	cc.Host, cc.Port = host, uint16(p)
	return cc, proxy
}

// listening starts Listen and returns what it reports.
func listening(t *testing.T, cc *pgx.ConnConfig) (up chan struct{}, down chan error, got chan string) {
	t.Helper()
	up, down, got = make(chan struct{}, 100), make(chan error, 100), make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- postgres.Listen(ctx, postgres.ListenConfig{
			Conn: cc, Channel: "testflow_position", PingEvery: 200 * time.Millisecond, PingTimeout: 500 * time.Millisecond,
			OnUp: func(context.Context) { up <- struct{}{} }, OnDown: func(err error) { down <- err }, OnNotify: func(p string) { got <- p },
		})
	}()
	t.Cleanup(func() {
		cancel()
		assert.ErrorIs(t, await(t, done), context.Canceled)
	})
	return up, down, got
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Error("nothing came")
	}
	return v
}

func notify(t *testing.T, db *pgtest.DB, payload string) {
	t.Helper()
	_, err := db.System.Exec(t.Context(), `SELECT pg_notify('testflow_position', $1)`, payload)
	require.NoError(t, err)
}

func TestDBListen_saysReadyFirst(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, got, done := make(chan struct{}, 1), make(chan string, 1), make(chan error, 1)
	go func() {
		done <- db.Listen(ctx, "testflow_position", func() { ready <- struct{}{} }, func(p string) { got <- p })
	}()
	await(t, ready)
	notify(t, db, "7")
	assert.Equal(t, "7", await(t, got))
	cancel()
	assert.ErrorIs(t, await(t, done), context.Canceled)
}

func TestListen_hearsWhatIsSentOnceUp(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	up, _, got := listening(t, db.ConnConfig())
	await(t, up)
	notify(t, db, "1")
	notify(t, db, "2")
	assert.Equal(t, "1", await(t, got))
	assert.Equal(t, "2", await(t, got))
}

// A connection that nobody resets and that carries nothing any more is found by its ping.
func TestListen_silentlyCut_comesBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cc, proxy := through(t, db)
	up, down, got := listening(t, cc)
	await(t, up)
	for _, stream := range []string{"upstream", "downstream"} {
		_, err := proxy.Toxics.AddToxicJson(strings.NewReader(`{"name":"hole_` + stream + `","type":"timeout","stream":"` + stream + `","attributes":{"timeout":0}}`))
		require.NoError(t, err)
	}
	begin := time.Now()
	require.Error(t, await(t, down))
	assert.Less(t, time.Since(begin), 10*time.Second)
	notify(t, db, "lost") // while it is deaf
	require.NoError(t, proxy.Toxics.RemoveToxic(t.Context(), "hole_upstream"))
	require.NoError(t, proxy.Toxics.RemoveToxic(t.Context(), "hole_downstream"))
	await(t, up) // the caller catches up here
	notify(t, db, "heard")
	assert.Equal(t, "heard", await(t, got))
}

func TestListen_killed_comesBack(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	cc := db.ConnConfig()
	cc.RuntimeParams["application_name"] = "victim"
	up, down, got := listening(t, cc)
	await(t, up)
	_, err := pgtest.Admin(t).Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND datname = $1`, cc.Database)
	require.NoError(t, err)
	require.Error(t, await(t, down))
	await(t, up)
	notify(t, db, "heard")
	assert.Equal(t, "heard", await(t, got))
}

func TestLead_oneAtATime_theNextFollows(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	type term struct {
		node int
		pid  uint32
	}
	terms := make(chan term, 10)
	for node := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- postgres.Lead(ctx, postgres.LeadConfig{Conn: db.ConnConfig(), Key: 7, Retry: 20 * time.Millisecond}, func(ctx context.Context, conn *pgx.Conn) error {
				terms <- term{node, conn.PgConn().PID()}
				for {
					if _, err := conn.Exec(ctx, "SELECT pg_sleep(0.01)"); err != nil {
						return err
					}
				}
			})
		}()
		t.Cleanup(func() {
			cancel()
			assert.ErrorIs(t, await(t, done), context.Canceled)
		})
	}
	admin := pgtest.Admin(t)
	for range 3 {
		leader := await(t, terms)
		assert.Empty(t, terms, "another leads beside it")
		var holders int
		require.NoError(t, admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			WHERE locktype = 'advisory' AND granted AND objid = 7 AND datname = $1`, db.ConnConfig().Database).Scan(&holders))
		assert.Equal(t, 1, holders)
		_, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, int(leader.pid))
		require.NoError(t, err)
	}
}
