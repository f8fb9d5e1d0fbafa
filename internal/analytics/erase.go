package analytics

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// tenantTables are all tables of every build of every projection, those that are being built too.
const tenantTables = `
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN es.projection_builds b ON b.schema_name = n.nspname
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped
 WHERE c.relkind = 'r' ORDER BY 1, 2`

// Erase deletes what an organization's runs came to, in every build. Its events must be gone from the log: it waits until
// the projections have passed position, so that none brings a row back. It is for the system.
func (s *Service) Erase(ctx context.Context, orgID uuid.UUID, position int64) error {
	if err := s.Wait(ctx, position); err != nil {
		return fmt.Errorf("wait for the projections: %w", err)
	}
	return s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, tenantTables)
		if err != nil {
			return fmt.Errorf("list the tables of projections: %w", err)
		}
		tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (name pgx.Identifier, err error) {
			name = make(pgx.Identifier, 2)
			return name, row.Scan(&name[0], &name[1])
		})
		if err != nil {
			return fmt.Errorf("list the tables of projections: %w", err)
		}
		for _, table := range tables {
			if _, err := tx.Exec(ctx, "DELETE FROM "+table.Sanitize()+" WHERE org_id = $1", orgID); err != nil {
				return fmt.Errorf("erase from %s: %w", table.Sanitize(), err)
			}
		}
		return nil
	})
}
