package httpapi_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
)

// keptWhenErased is all that stays of an organization that was erased: the signed heads of its log, and that there was one.
var keptWhenErased = []string{"es.sealed_head", "es.erased_orgs"}

// TestAttack_erasedOrganization_leavesNothing walks every table of both databases that names an organization, those of
// tomorrow too: of one whose grace is over no row is left, and of its neighbour every row is as it was.
func TestAttack_erasedOrganization_leavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deps.Orgs.DeletionGrace = time.Hour
	a, b := w.things("admin-a"), w.things("admin-b")
	w.fillTables(a)
	main := superuser(t, w.base.db.URL)
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := main.Exec(t.Context(), sql, args...)
		require.NoError(t, err)
	}
	orgA := uuid.MustParse(a["organizations"])
	exec(`DELETE FROM es.erased_orgs`) // made up by fillTables
	erase := func() int {
		t.Helper()
		n, err := w.deps.Orgs.EraseDue(t.Context(), func(ctx context.Context, id uuid.UUID) error { return w.deps.Analytics.Erase(ctx, id, 0) })
		require.NoError(t, err)
		return n
	}
	asSystem := func(sql string) error {
		return w.base.db.InSystem(t.Context(), func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, sql, orgA); return err })
	}

	// Whose time hasn't come is out of reach, for the system role too.
	exec(`UPDATE runs SET status = 'passed'`)
	before := w.rowsOf(a)
	require.Zero(t, erase())
	require.Equal(t, "TF403", postgres.SQLState(asSystem(`SELECT es.erase_org($1, 10)`)))
	require.Equal(t, "TF403", postgres.SQLState(asSystem(`SELECT es.erase_org_end($1)`)))
	gone := w.do(call{method: "DELETE", path: "/api/organizations/" + a["organizations"], as: "admin-a"})
	require.Equal(t, 202, gone.status, gone.text)
	require.NotEmpty(t, gone.json["eraseAt"])
	require.Zero(t, erase())
	require.Equal(t, "TF403", postgres.SQLState(asSystem(`SELECT es.erase_org($1, 10)`)))
	for table, digest := range before {
		if !strings.HasPrefix(table, "es.ledger_") && table != "public.orgs" {
			require.Equal(t, digest, w.rowsOf(a)[table], table)
		}
	}
	// Nor does the setting open the log to anybody who sets it.
	_, err := main.Exec(t.Context(), `SET testflow.erasing = 'on'`)
	require.NoError(t, err)
	_, err = main.Exec(t.Context(), `DELETE FROM es.ledger_event`)
	require.Equal(t, "TF403", postgres.SQLState(err))
	exec(`RESET testflow.erasing`)

	neighbour := w.rowsOf(b)
	exec(`UPDATE orgs SET erase_at = now() WHERE org_id = $1`, orgA)
	exec(`UPDATE runs SET status = 'running' WHERE run_id = $1`, a["runs"])
	require.Zero(t, erase(), "a run that is under way ends first")
	exec(`UPDATE runs SET status = 'passed' WHERE run_id = $1`, a["runs"])
	require.Equal(t, 1, erase())
	for table, digest := range w.rowsOf(a) {
		if rows, _, _ := strings.Cut(digest, " "); !slices.Contains(keptWhenErased, table) {
			assert.Equal(t, "0", rows, "%s still has rows of the erased organization", table)
		} else {
			assert.NotEqual(t, "0", rows, table)
		}
	}
	assert.Equal(t, neighbour, w.rowsOf(b))
	assert.Equal(t, 404, w.do(call{method: "GET", path: "/api/organizations/" + a["organizations"], as: "admin-a"}).status)
	assert.Equal(t, 200, w.do(call{method: "GET", path: "/api/auth/me", as: "admin-a"}).status, "people stay")

	// What a slow process wrote after the end goes in the next round.
	exec(`INSERT INTO es.idempotency_answers VALUES ($1, 'p', 'r', 'k', 'h', 200, '{}', '', false, now())`, orgA)
	require.Zero(t, erase())
	assert.True(t, strings.HasPrefix(w.rowsOf(a)["es.idempotency_answers"], "0 "))
}
