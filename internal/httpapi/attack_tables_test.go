package httpapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/postgres"
)

// tenantTables are all relations of a database that name an organization, partitions under their parents.
const tenantTables = `
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition ORDER BY c.relkind IN ('v', 'm'), 1`

// superuser connects past every policy.
func superuser(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func tablesOf(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), tenantTables)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return tables
}

// rowsOf is a digest of every row of an organization, by table, as a superuser sees them.
func (w *world) rowsOf(th things) map[string]string {
	w.t.Helper()
	digests := map[string]string{}
	for _, url := range []string{w.base.db.URL, w.base.db.AnalyticsURL} {
		conn := superuser(w.t, url)
		for _, table := range tablesOf(w.t, conn) {
			var digest string
			sql := fmt.Sprintf(`SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM %s t WHERE org_id = $1`, table)
			require.NoError(w.t, conn.QueryRow(w.t.Context(), sql, th["organizations"]).Scan(&digest), table)
			digests[table] = digest
		}
	}
	return digests
}

// TestAttack_everyTable_withAForeignTenant: the api role, its tenant set to one organization, reads, changes, deletes and
// plants nothing of another in any table of either database; without a tenant it sees nothing at all.
func TestAttack_everyTable_withAForeignTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.things("admin-a"), w.things("admin-b")
	w.fillTables(a)
	before := w.rowsOf(a)
	for name, db := range map[string]struct {
		url string
		db  *postgres.DB
	}{"main": {w.base.db.URL, w.base.db.DB}, "analytics": {w.base.db.AnalyticsURL, w.base.db.Analytics}} {
		conn := superuser(t, db.url)
		tables := tablesOf(t, conn)
		require.NotEmpty(t, tables, name)
		for _, table := range tables {
			var rows int
			require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM `+table+` WHERE org_id = $1`, a["organizations"]).Scan(&rows))
			if !assert.Positive(t, rows, "%s has no row of the attacked organization, so nothing is shown: make one in fillTables", table) {
				continue
			}
			w.attackTable(db.db, conn, table, uuid.MustParse(a["organizations"]), uuid.MustParse(b["organizations"]))
		}
	}
	assert.Equal(t, before, w.rowsOf(a))
}

// attackTable tries one table as the api role with the tenant set to own.
func (w *world) attackTable(db *postgres.DB, conn *pgx.Conn, table string, victim, own uuid.UUID) {
	t := w.t
	t.Helper()
	var row string // one of the victim's, to plant a copy of
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT to_jsonb(t)::text FROM `+table+` t WHERE org_id = $1 LIMIT 1`, victim).Scan(&row))
	var columns string // a generated column takes no value, whoever gives it
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`, table).Scan(&columns))
	for what, sql := range map[string]string{
		"select": `SELECT FROM ` + table + ` WHERE org_id = $1`,
		"update": `UPDATE ` + table + ` SET org_id = org_id WHERE org_id = $1`,
		"steal":  `UPDATE ` + table + ` SET org_id = '` + own.String() + `' WHERE org_id = $1`,
		"delete": `DELETE FROM ` + table + ` WHERE org_id = $1`,
		"plant":  `INSERT INTO ` + table + ` (` + columns + `) SELECT ` + columns + ` FROM jsonb_populate_record(NULL::` + table + `, ` + quote(row) + `) r WHERE r.org_id = $1`,
	} {
		err := db.InOrg(t.Context(), own, func(ctx context.Context, tx postgres.OrgTx) error {
			tag, err := tx.Exec(ctx, sql, victim)
			if err != nil {
				return err
			}
			if tag.RowsAffected() != 0 {
				return fmt.Errorf("%d rows", tag.RowsAffected())
			}
			if what == "plant" {
				return fmt.Errorf("nothing refused it")
			}
			return nil
		})
		if err != nil {
			assert.Equal(t, "42501", postgres.SQLState(err), "%s %s: %v", what, table, err) // may not, or the policy's check
		}
	}
	var seen int
	err := db.API.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&seen)
	if err != nil {
		assert.Equal(t, "42501", postgres.SQLState(err), "%s: %v", table, err)
	}
	assert.Zero(t, seen, "%s without a tenant", table)
}

func quote(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'::jsonb` }

// fillTables puts a row of the organization where using the door alone leaves none.
func (w *world) fillTables(th things) {
	w.t.Helper()
	made := w.do(call{method: "POST", path: "/api/projects", as: "admin-a", body: `{"name":"kept answer"}`, header: map[string]string{"Idempotency-Key": "k"}})
	require.Equal(w.t, 201, made.status, made.text)
	main, analytics := superuser(w.t, w.base.db.URL), superuser(w.t, w.base.db.AnalyticsURL)
	_, err := main.Exec(w.t.Context(), `INSERT INTO es.sealed_node (org_id, level, n, hash) VALUES ($1, 8, 0, sha256('256 events'))`, th["organizations"])
	require.NoError(w.t, err)
	for conn, tables := range map[*pgx.Conn][]string{main: tablesOf(w.t, main), analytics: tablesOf(w.t, analytics)} {
		for _, table := range tables {
			w.fabricate(conn, table, th)
		}
	}
}

// fabricate writes one row of made-up values where the organization has none, past foreign keys and policies: what is
// tried is whose row it is, not what it says.
func (w *world) fabricate(conn *pgx.Conn, table string, th things) {
	w.t.Helper()
	ctx := w.t.Context()
	var there bool
	require.NoError(w.t, conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table+` WHERE org_id = $1)`, th["organizations"]).Scan(&there))
	var kind string
	require.NoError(w.t, conn.QueryRow(ctx, `SELECT relkind FROM pg_class WHERE oid = $1::text::regclass`, table).Scan(&kind))
	if there || kind == "v" || kind == "m" { // a view shows what its tables hold
		return
	}
	tx, err := conn.Begin(ctx)
	require.NoError(w.t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	_, err = tx.Exec(ctx, `SET LOCAL session_replication_role = replica`)
	require.NoError(w.t, err)
	rows, err := tx.Query(ctx, `SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND attnotnull AND NOT atthasdef AND NOT attisdropped AND attidentity = ''`, table)
	require.NoError(w.t, err)
	type column struct{ Name, Type string }
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	require.NoError(w.t, err)
	var names, values []string
	for _, c := range columns {
		value, ok := fabricated[c.Type]
		require.True(w.t, ok, "%s.%s: no made-up value for %s", table, c.Name, c.Type)
		if c.Name == "org_id" {
			value = "'" + th["organizations"] + "'"
		}
		names, values = append(names, pgx.Identifier{c.Name}.Sanitize()), append(values, value)
	}
	// A made-up row that a CHECK refuses needs a true one: the walk says that the table is empty.
	_, err = tx.Exec(ctx, `INSERT INTO `+table+` (`+strings.Join(names, ", ")+`) VALUES (`+strings.Join(values, ", ")+`)`)
	require.NoError(w.t, err, "%s takes no made-up row; make a true one of it through the door in fillTables", table)
	require.NoError(w.t, tx.Commit(ctx))
}

// fabricated are values by type that most CHECKs let through.
var fabricated = map[string]string{
	"uuid": "gen_random_uuid()", "text": "'viewer'", "integer": "1", "bigint": "1", "smallint": "8", "boolean": "false", "bytea": `decode(repeat('00', 32), 'hex')`,
	"timestamp with time zone": "now()", "date": "current_date", "jsonb": "'{}'", "json": "'{}'", "double precision": "0", "real": "0", "numeric": "0", "text[]": "'{}'", "uuid[]": "'{}'",
	"integer[]": "'{}'", "bigint[]": "'{}'", "inet": "'127.0.0.1'", "cidr": "'127.0.0.0/8'", "interval": "'1 s'",
}
