package secret

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/secret/internal/secretdb"
	"github.com/testflow/testflow/internal/vault"
)

// rekeyBatch is how many grants are sealed anew in one transaction.
const rekeyBatch = 200

// RekeyGrants seals every grant that isn't with its region's first key, and returns how many there were. It may be stopped
// and begun again at any time, beside runs. A grant that none of the keys opens is deleted: the next run that needs it
// makes it again.
func RekeyGrants(ctx context.Context, db *postgres.DB, region func(name string) (*vault.Ring, error)) (resealed int, err error) {
	var at secretdb.RekeyGrantsParams
	at.MaxRows = rekeyBatch
	for {
		n, done := 0, false
		err := db.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
			q := secretdb.New(tx)
			rows, err := q.RekeyGrants(ctx, at)
			if err != nil {
				return fmt.Errorf("read grants: %w", err)
			}
			done = len(rows) < rekeyBatch
			for _, row := range rows {
				changed, err := rekeyGrant(ctx, q, region, row)
				if err != nil {
					return err
				}
				if changed {
					n++
				}
				at.AfterSecret, at.AfterVersion, at.AfterRegion = row.SecretID, row.Version, row.Region
			}
			return nil
		})
		if err != nil {
			return resealed, err
		}
		if resealed += n; done {
			return resealed, nil
		}
	}
}

func rekeyGrant(ctx context.Context, q *secretdb.Queries, region func(name string) (*vault.Ring, error), row secretdb.RekeyGrantsRow) (changed bool, err error) {
	ring, err := region(row.Region)
	if err != nil || ring.Current(row.Sealed) {
		return false, err
	}
	where := append(sealContext(row.OrgID, row.SecretID, int(row.Version)), row.Region)
	plain, err := ring.Open(row.Sealed, where...)
	if errors.Is(err, vault.ErrUnknownKey) {
		return true, wrap("delete a grant that nobody opens", q.DeleteGrant(ctx, secretdb.DeleteGrantParams{OrgID: row.OrgID, SecretID: row.SecretID, Version: row.Version, Region: row.Region}))
	}
	if err != nil {
		return false, fmt.Errorf("open the grant of version %d of secret %s to region %s: %w", row.Version, row.SecretID, row.Region, err)
	}
	_, err = q.ReplaceGrant(ctx, secretdb.ReplaceGrantParams{
		SecretID: row.SecretID, Version: row.Version, Region: row.Region, Was: row.Sealed, Sealed: ring.Seal(plain, where...),
	})
	return true, wrap("store a grant", err)
}
