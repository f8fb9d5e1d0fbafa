package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

// things makes a protected table as a migration would.
func things(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	asOwner(t, db, `CREATE TABLE public.things (org_id uuid NOT NULL, name text NOT NULL, PRIMARY KEY (org_id, name))`,
		`SELECT es.protect('public.things')`)
	return db
}

func asOwner(t *testing.T, db *pgtest.DB, statements ...string) {
	t.Helper()
	cfg, err := pgx.ParseConfig(db.URL)
	require.NoError(t, err)
	cfg.RuntimeParams["role"] = db.RolePrefix + "_owner"
	cfg.RuntimeParams["testflow.role_prefix"] = db.RolePrefix
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer conn.Close(t.Context())
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func add(ctx context.Context, db *pgtest.DB, org uuid.UUID, name string) error {
	return db.InOrg(ctx, org, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `INSERT INTO things (org_id, name) VALUES ($1, $2)`, tx.OrgID(), name)
		return err
	})
}

type asker interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func count(ctx context.Context, t *testing.T, q asker) (n int) {
	t.Helper()
	require.NoError(t, q.QueryRow(ctx, `SELECT count(*) FROM things`).Scan(&n))
	return n
}

func TestInOrg_seesAndWritesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	db := things(t)
	a, b := uuid.New(), uuid.New()
	require.NoError(t, add(t.Context(), db, a, "of a"))
	require.NoError(t, add(t.Context(), db, b, "of b"))

	err := db.InOrg(t.Context(), a, func(ctx context.Context, tx postgres.OrgTx) error {
		var name string
		require.NoError(t, tx.QueryRow(ctx, `SELECT name FROM things`).Scan(&name))
		assert.Equal(t, "of a", name)
		tag, err := tx.Exec(ctx, `UPDATE things SET name = 'mine' WHERE org_id = $1`, b)
		require.NoError(t, err)
		assert.Zero(t, tag.RowsAffected())
		tag, err = tx.Exec(ctx, `DELETE FROM things WHERE org_id = $1`, b)
		require.NoError(t, err)
		assert.Zero(t, tag.RowsAffected())
		return nil
	})
	require.NoError(t, err)

	err = db.InOrg(t.Context(), a, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `INSERT INTO things (org_id, name) VALUES ($1, 'planted')`, b)
		return err
	})
	assert.Equal(t, "42501", postgres.SQLState(err))
	err = db.InOrg(t.Context(), a, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := tx.Exec(ctx, `UPDATE things SET org_id = $1`, b)
		return err
	})
	assert.Equal(t, "42501", postgres.SQLState(err))

	assert.Zero(t, count(t.Context(), t, db.API), "without a tenant there is no row")
	assert.Equal(t, 2, count(t.Context(), t, db.System))
}

func TestAfterCommit_runsOnlyThen(t *testing.T) {
	t.Parallel()
	db := things(t)
	org := uuid.New()
	ran := 0
	postgres.AfterCommit(t.Context(), func() { ran++ })
	assert.Equal(t, 1, ran, "no transaction: at once")
	require.NoError(t, db.InOrg(t.Context(), org, func(ctx context.Context, _ postgres.OrgTx) error {
		postgres.AfterCommit(ctx, func() { ran++ })
		assert.Equal(t, 1, ran)
		return db.InSystem(ctx, func(ctx context.Context, _ pgx.Tx) error {
			postgres.AfterCommit(ctx, func() { ran++ })
			return nil
		})
	}))
	assert.Equal(t, 3, ran)
	boom := errors.New("boom")
	require.ErrorIs(t, db.InSystem(t.Context(), func(ctx context.Context, _ pgx.Tx) error {
		postgres.AfterCommit(ctx, func() { ran++ })
		return boom
	}), boom)
	assert.Equal(t, 3, ran)
}

func TestInSystem_joinsInOrgAndGivesTheRoleBack(t *testing.T) {
	t.Parallel()
	db := things(t)
	a, b := uuid.New(), uuid.New()
	require.NoError(t, add(t.Context(), db, b, "of b"))
	require.NoError(t, db.InOrg(t.Context(), a, func(ctx context.Context, tx postgres.OrgTx) error {
		assert.Zero(t, count(ctx, t, tx))
		require.NoError(t, db.InSystem(ctx, func(ctx context.Context, sys pgx.Tx) error {
			assert.Equal(t, 1, count(ctx, t, sys))
			require.ErrorIs(t, db.InOrg(ctx, b, func(context.Context, postgres.OrgTx) error { return nil }), postgres.ErrOtherOrg)
			return db.InOrg(ctx, a, func(ctx context.Context, tx postgres.OrgTx) error {
				assert.Zero(t, count(ctx, t, tx))
				return nil
			})
		}))
		assert.Zero(t, count(ctx, t, tx), "the role is the api's again")
		return add(ctx, db, a, "of a")
	}))
	require.NoError(t, db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		assert.Equal(t, 2, count(ctx, t, tx))
		require.NoError(t, db.InOrg(ctx, a, func(ctx context.Context, tx postgres.OrgTx) error {
			assert.Equal(t, 1, count(ctx, t, tx))
			return nil
		}))
		require.NoError(t, db.InOrg(ctx, b, func(ctx context.Context, tx postgres.OrgTx) error {
			assert.Equal(t, 1, count(ctx, t, tx))
			return nil
		}))
		assert.Equal(t, 2, count(ctx, t, tx), "the role is the system's again")
		return nil
	}))
	assert.Zero(t, count(t.Context(), t, db.API), "nothing of it stays on a connection")
}

func TestJoined_errorRollsAllBack(t *testing.T) {
	t.Parallel()
	db := things(t)
	org, boom := uuid.New(), errors.New("boom")
	err := db.InOrg(t.Context(), org, func(ctx context.Context, _ postgres.OrgTx) error {
		require.NoError(t, add(ctx, db, org, "lost"))
		_ = db.InSystem(ctx, func(context.Context, pgx.Tx) error { return boom })
		require.ErrorIs(t, add(ctx, db, org, "also"), postgres.ErrTxFailed)
		return nil // swallows it
	})
	require.ErrorIs(t, err, boom)
	assert.Zero(t, count(t.Context(), t, db.System))
}
