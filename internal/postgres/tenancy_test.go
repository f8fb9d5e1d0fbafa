package postgres_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
)

// Every table of every room that names an organization is behind row-level security.
func TestSchema_everyTenantTableIsProtected(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for name, q := range map[string]postgres.Querier{"main": db.System, "analytics": db.Analytics.System} {
		lines, err := postgres.Unprotected(t.Context(), q, db.RolePrefix)
		require.NoError(t, err)
		assert.Empty(t, lines, name)
	}
}

func TestUnprotected_findsEachWayPast(t *testing.T) {
	t.Parallel()
	for want, ddl := range map[string][]string{
		"row-level security is off":              {`CREATE TABLE x (org_id uuid NOT NULL)`},
		"does not bind the owner":                {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `ALTER TABLE x NO FORCE ROW LEVEL SECURITY`},
		"may TRUNCATE":                           {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `GRANT TRUNCATE ON x TO tftest_api`},
		"policy careless lets the api role past": {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `CREATE POLICY careless ON x USING (true)`},
		"org_id is not uuid NOT NULL":            {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `ALTER TABLE x ALTER org_id DROP NOT NULL`},
		"a view that reads as its owner":         {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `CREATE VIEW v AS SELECT * FROM x`, `GRANT SELECT ON v TO tftest_api`},
		"cannot have policies":                   {`CREATE TABLE x (org_id uuid NOT NULL)`, `SELECT es.protect('x')`, `CREATE MATERIALIZED VIEW v AS SELECT * FROM x`, `GRANT SELECT ON v TO tftest_api`},
		`x_1: row-level security is off`: {
			`CREATE TABLE x (org_id uuid NOT NULL, n int) PARTITION BY LIST (n)`, `SELECT es.protect('x')`,
			`CREATE TABLE x_1 PARTITION OF x FOR VALUES IN (1)`, `GRANT SELECT ON x_1 TO tftest_api`,
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			asOwner(t, db, ddl...)
			lines, err := postgres.Unprotected(t.Context(), db.System, db.RolePrefix)
			require.NoError(t, err)
			require.Len(t, lines, 1)
			assert.Contains(t, lines[0], want)
		})
	}
}

func TestProtect_partitionedTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	asOwner(t, db, `CREATE TABLE parts (org_id uuid NOT NULL, n int NOT NULL) PARTITION BY LIST (n)`,
		`CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)`, `SELECT es.protect('public.parts')`, `SELECT es.protect('public.parts')`)
	lines, err := postgres.Unprotected(t.Context(), db.System, db.RolePrefix)
	require.NoError(t, err)
	assert.Empty(t, lines)
	a, b := uuid.New(), uuid.New()
	for _, org := range []uuid.UUID{a, b} {
		require.NoError(t, db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) error {
			_, err := tx.Exec(ctx, `INSERT INTO parts VALUES ($1, 1)`, org)
			return err
		}))
	}
	err = db.InOrg(t.Context(), a, func(ctx context.Context, tx postgres.OrgTx) error {
		var n int
		require.NoError(t, tx.QueryRow(ctx, `SELECT count(*) FROM parts`).Scan(&n))
		assert.Equal(t, 1, n)
		return tx.QueryRow(ctx, `SELECT count(*) FROM parts_1`).Scan(&n)
	})
	assert.Equal(t, "42501", postgres.SQLState(err), "nobody reaches around by a partition's name")
}

func TestProtect_refusesWhatCannotBeATenantTable(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	asOwner(t, db, `CREATE TABLE without (id int)`, `CREATE TABLE optional (org_id uuid)`, `CREATE VIEW seen AS SELECT gen_random_uuid() AS org_id`,
		`DO $$ DECLARE r text; BEGIN FOREACH r IN ARRAY ARRAY['without', 'optional', 'seen'] LOOP
			BEGIN PERFORM es.protect(r); RAISE EXCEPTION 'protected %', r USING ERRCODE = 'TF000';
			EXCEPTION WHEN undefined_column OR wrong_object_type THEN NULL; END;
		END LOOP; END $$`)
}

// The owner, too, is bound by policies: take its own away and it sees nothing.
func TestProtect_bindsTheOwner(t *testing.T) {
	t.Parallel()
	db := things(t)
	require.NoError(t, add(t.Context(), db, uuid.New(), "x"))
	asOwner(t, db, `DO $$ BEGIN ASSERT (SELECT count(*) FROM things) = 1; END $$`, `DROP POLICY owner ON things`,
		`DO $$ BEGIN ASSERT (SELECT count(*) FROM things) = 0; END $$`)
}
