package postgres_test

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

func TestErrors_areToldApart(t *testing.T) {
	t.Parallel()
	db := things(t)
	asOwner(t, db, `ALTER TABLE things ADD CONSTRAINT things_name_check CHECK (name <> '')`,
		`CREATE TABLE parts (org_id uuid NOT NULL, name text, CONSTRAINT parts_thing FOREIGN KEY (org_id, name) REFERENCES things)`, `SELECT es.protect('parts')`)
	org := uuid.New()
	require.NoError(t, add(t.Context(), db, org, "x"))

	err := add(t.Context(), db, org, "x")
	assert.True(t, postgres.IsUniqueViolation(err, "things_pkey"))
	assert.True(t, postgres.IsUniqueViolation(err, ""))
	assert.False(t, postgres.IsUniqueViolation(err, "other"))
	assert.False(t, postgres.IsRetryable(err))
	assert.True(t, postgres.IsCheckViolation(add(t.Context(), db, org, ""), "things_name_check"))
	err = db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `INSERT INTO parts VALUES ($1, 'none')`, org)
		return err
	})
	assert.True(t, postgres.IsForeignKeyViolation(err, "parts_thing"))
	err = db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
		var name string
		return tx.QueryRow(ctx, `SELECT name FROM things WHERE name = 'none'`).Scan(&name)
	})
	assert.True(t, postgres.IsNoRows(err))
	assert.False(t, postgres.IsUnavailable(err))
	assert.False(t, postgres.IsUnknownOutcome(err))
}

func TestMigrate_saysInOneLineWhyItCannotConnect(t *testing.T) {
	t.Parallel()
	known, err := url.Parse(things(t).URL)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(u *url.URL)
		says   string
	}{
		"nobody listens":      {func(u *url.URL) { u.Host = "127.0.0.1:1" }, "127.0.0.1:1 doesn't answer"},
		"no such host":        {func(u *url.URL) { u.Host = "nobody.invalid" }, `"nobody.invalid" is not known`},
		"no such database":    {func(u *url.URL) { u.Path = "/nothing_here" }, `no database "nothing_here"`},
		"no such user either": {func(u *url.URL) { u.User = url.UserPassword("stranger", "TFCANARY") }, `doesn't let user "stranger" in`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := *known
			c.change(&u)
			err := postgres.Migrate(t.Context(), postgres.MigrateConfig{URL: u.String(), RolePrefix: "tftest", Logger: slog.New(slog.DiscardHandler)})
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.says)
			assert.Contains(t, err.Error(), "DATABASE_URL", "what to do")
			assert.NotContains(t, err.Error(), "\n")
			assert.NotContains(t, err.Error(), "TFCANARY")
			assert.True(t, postgres.IsConnect(err))
		})
	}
}

func TestErrors_ofTheConnection(t *testing.T) {
	t.Parallel()
	db := things(t)
	closed := db.ConnConfig()
	closed.Host, closed.Port = "127.0.0.1", 1
	_, err := pgx.ConnectConfig(t.Context(), closed)
	assert.True(t, postgres.IsConnect(err))
	assert.True(t, postgres.IsRetryable(err))
	assert.True(t, postgres.IsUnavailable(err))
	assert.False(t, postgres.IsUnknownOutcome(err))

	admin := pgtest.Admin(t)
	// The session dies under a transaction that has written.
	err = db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO things VALUES ($1, 'x')`, uuid.New()); err != nil {
			return err
		}
		_, err := admin.Exec(ctx, `SELECT pg_terminate_backend($1, 5000)`, int(tx.Conn().PgConn().PID()))
		require.NoError(t, err)
		_, err = tx.Exec(ctx, `SELECT 1`)
		return err
	})
	assert.True(t, postgres.IsRetryable(err), "%v", err)
	assert.True(t, postgres.IsUnavailable(err))
}

// A lost COMMIT is neither a success nor a failure, and says so.
func TestErrors_lostCommit_isUnknown(t *testing.T) {
	t.Parallel()
	db := things(t)
	cc, proxy := through(t, db)
	conn, err := pgx.ConnectConfig(t.Context(), cc)
	require.NoError(t, err)
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO things VALUES ($1, 'x')`, uuid.New())
	require.NoError(t, err)
	_, err = proxy.Toxics.AddToxicJson(strings.NewReader(`{"name":"hole","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err = tx.Commit(ctx)
	assert.True(t, postgres.IsUnknownOutcome(err), "%v", err)
	assert.False(t, postgres.IsRetryable(err), "%v", err)
	assert.True(t, postgres.IsUnavailable(err), "%v", err)
}

// A caller that has gone gets no commit, and the connection is fit for the next.
func TestInOrg_canceled_rollsBack(t *testing.T) {
	t.Parallel()
	db := things(t)
	org := uuid.New()
	ctx, cancel := context.WithCancel(t.Context())
	err := db.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `INSERT INTO things VALUES ($1, 'x')`, org)
		cancel()
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, count(t.Context(), t, db.System))
	require.NoError(t, add(t.Context(), db, org, "x"))
	assert.EqualValues(t, 1, db.API.Stat().NewConnsCount(), "the same connection")
}

func TestInOrg_panics_rollsBack(t *testing.T) {
	t.Parallel()
	db := things(t)
	org := uuid.New()
	assert.PanicsWithValue(t, "oh", func() {
		_ = db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
			_, err := tx.Exec(ctx, `INSERT INTO things VALUES ($1, 'x')`, org)
			require.NoError(t, err)
			panic("oh")
		})
	})
	assert.Zero(t, count(t.Context(), t, db.System))
	assert.Zero(t, db.API.Stat().AcquiredConns())
}

func TestInOrg_needsAnOrganization(t *testing.T) {
	t.Parallel()
	db := things(t)
	require.Error(t, db.InOrg(t.Context(), uuid.Nil, func(context.Context, postgres.OrgTx) error { return nil }))
}

// What Go types become in both directions, as slices use them.
func TestTypes_roundTrip(t *testing.T) {
	t.Parallel()
	db := things(t)
	id := uuid.New()
	var got uuid.UUID
	var ids []uuid.UUID
	var none *uuid.UUID
	require.NoError(t, db.API.QueryRow(t.Context(), `SELECT $1::uuid, $2::uuid[], NULL::uuid`, id, []uuid.UUID{id, uuid.Nil}).Scan(&got, &ids, &none))
	assert.Equal(t, id, got)
	assert.Equal(t, []uuid.UUID{id, uuid.Nil}, ids)
	assert.Nil(t, none)
	rows, err := db.API.Query(t.Context(), `SELECT now()`)
	require.NoError(t, err)
	now, err := pgx.CollectOneRow(rows, pgx.RowToMap)
	require.NoError(t, err)
	at, ok := now["now"].(time.Time)
	require.True(t, ok)
	assert.Equal(t, time.UTC, at.Location())
}
