package eventstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// EnsurePartitions makes the daily partitions of runs up to a week ahead, and returns how many were missing. It is called
// at start and daily; several processes may call it at once.
func (s *Store) EnsurePartitions(ctx context.Context) (made int, err error) {
	err = s.cfg.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, `SELECT es.ensure_partitions()`).Scan(&made)
	})
	if err != nil {
		return 0, fmt.Errorf("make partitions: %w", err)
	}
	return made, nil
}
