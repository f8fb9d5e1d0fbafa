package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Querier is what can be asked: a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// unprotectedSQL finds the ways past the tenant: $1 is the api role.
const unprotectedSQL = `
WITH tenant AS (
  SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
         a.attnotnull, a.atttypid = 'uuid'::regtype AS is_uuid,
         has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
           OR has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') AS api_may,
         has_table_privilege($1, c.oid, 'TRUNCATE') AS api_truncates
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
SELECT format('%I.%I: %s', nspname, relname, fault) FROM (
  SELECT *, 'row-level security is off' AS fault FROM tenant
    WHERE relkind IN ('r', 'p') AND NOT relrowsecurity AND (api_may OR NOT relispartition)
  UNION ALL
  SELECT *, 'row-level security does not bind the owner (FORCE)' FROM tenant
    WHERE relkind IN ('r', 'p') AND relrowsecurity AND NOT relforcerowsecurity
  UNION ALL
  SELECT *, 'org_id is not uuid NOT NULL' FROM tenant WHERE relkind IN ('r', 'p') AND NOT (attnotnull AND is_uuid)
  UNION ALL
  SELECT *, 'the api role may TRUNCATE, which no policy binds' FROM tenant WHERE api_truncates
  UNION ALL
  SELECT t.*, format('policy %I lets the api role past the tenant', p.polname) FROM tenant t
    JOIN pg_policy p ON p.polrelid = t.oid AND p.polpermissive
    WHERE (0 = ANY (p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE r <> 0 AND pg_has_role($1, r, 'USAGE')))
      AND (coalesce(pg_get_expr(p.polqual, p.polrelid), 'testflow.org_id') NOT LIKE '%testflow.org_id%'
        OR coalesce(pg_get_expr(p.polwithcheck, p.polrelid), 'testflow.org_id') NOT LIKE '%testflow.org_id%')
  UNION ALL
  SELECT *, 'a view that reads as its owner (security_invoker)' FROM tenant
    WHERE relkind = 'v' AND api_may AND NOT coalesce('security_invoker=true' = ANY (reloptions) OR 'security_invoker=on' = ANY (reloptions), false)
  UNION ALL
  SELECT *, 'the api role may read it, and it cannot have policies' FROM tenant WHERE relkind IN ('m', 'f') AND api_may
) faults ORDER BY 1`

// Unprotected returns one line for each relation with a column org_id that the api role could use to get past its
// tenant; none in a healthy database. prefix is the installation's role prefix.
func Unprotected(ctx context.Context, q Querier, prefix string) ([]string, error) {
	rows, err := q.Query(ctx, unprotectedSQL, prefix+"_api")
	if err != nil {
		return nil, fmt.Errorf("look for unprotected tables: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for unprotected tables: %w", err)
	}
	return lines, nil
}
