package account

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/postgres/pgtest"
	"github.com/testflow/testflow/internal/vault"
)

func TestPersons_sealAndOpen(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	master, err := vault.NewMaster(vault.GenerateMasterKey())
	require.NoError(t, err)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	node := func() *Persons {
		p, err := NewPersons(db.DB, master, func() time.Time { return now })
		require.NoError(t, err)
		return p
	}
	one, another := node(), node()
	ada, bob := uuid.New(), uuid.New()
	require.NoError(t, db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		for _, person := range []uuid.UUID{ada, bob} {
			if _, err := one.createTx(ctx, tx, person); err != nil {
				return err
			}
		}
		return nil
	}))
	const canary = "TFCANARY-192.0.2.7"
	var sealed string
	// In a tenant's transaction, as the log does it: the key is read as the system, and the tenant is back afterwards.
	org := uuid.New()
	require.NoError(t, db.InOrg(t.Context(), org, func(ctx context.Context, tx postgres.OrgTx) (err error) {
		if sealed, err = another.Seal(ctx, tx, ada, canary); err != nil {
			return err
		}
		var role, tenant string
		if err := tx.QueryRow(ctx, "SELECT current_user, current_setting('testflow.org_id')").Scan(&role, &tenant); err != nil {
			return err
		}
		require.Equal(t, pgtest.RolePrefix+"_api", role)
		require.Equal(t, org.String(), tenant)
		return nil
	}))
	require.True(t, strings.HasPrefix(sealed, "sealed:"))
	require.NotContains(t, sealed, canary)
	for _, p := range []*Persons{one, another} {
		plain, err := p.Open(t.Context(), ada, sealed)
		require.NoError(t, err)
		require.Equal(t, canary, plain)
	}
	_, err = one.Open(t.Context(), bob, sealed)
	require.Error(t, err, "another person's key opens nothing")
	plain, err := one.Open(t.Context(), ada, "never sealed")
	require.NoError(t, err)
	require.Equal(t, "never sealed", plain)

	// Losing the key is being forgotten.
	_, err = db.System.Exec(t.Context(), "DELETE FROM person_keys WHERE account_id = $1", ada)
	require.NoError(t, err)
	_, err = node().Open(t.Context(), ada, sealed)
	require.ErrorIs(t, err, ErrErased)
	now = now.Add(personCacheFor)
	_, err = one.Open(t.Context(), ada, sealed)
	require.ErrorIs(t, err, ErrErased, "a warm cache forgets too")
	again, err := one.Seal(t.Context(), nil, ada, canary)
	require.NoError(t, err)
	require.Empty(t, again, "nothing more is kept")
}

func TestTables_tenantsSeeNoPeople(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, table := range []string{"installation", "accounts", "person_keys", "sessions", "refresh_tokens"} {
		for _, sql := range []string{"SELECT * FROM " + table, "DELETE FROM " + table, "INSERT INTO " + table + " DEFAULT VALUES"} {
			_, err := db.API.Exec(t.Context(), sql)
			require.Equal(t, "42501", postgres.SQLState(err), "%s: %v", sql, err)
		}
	}
	_, err := db.System.Exec(t.Context(), "DELETE FROM installation")
	require.Equal(t, "42501", postgres.SQLState(err), "nobody makes an installation new")
}
