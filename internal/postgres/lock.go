package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// lockPoll is how often waitLock asks again. It asks rather than waits in the server, because a session that waits for
// a lock holds a snapshot, which a CREATE INDEX CONCURRENTLY of the holder would wait for.
const lockPoll = 100 * time.Millisecond

// waitLock takes the session's advisory lock key, which conn holds until it closes.
func waitLock(ctx context.Context, conn *pgx.Conn, key int64) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var got bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, key).Scan(&got); err != nil {
			return fmt.Errorf("take the lock: %w", err)
		}
		if got {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for another process that holds the lock: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
