package account

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/account/internal/accountdb"
)

// AddTx makes the key of somebody who has no account and is known by what they were sent, such as an invitation: id is
// that thing's. What is personal of them in events is sealed with it. It works as the system role.
func (p *Persons) AddTx(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	_, err := p.createTx(ctx, tx, id)
	return err
}

// ForgetTx destroys keys, and with them what was sealed with them. Processes that have one in memory go on with it for a
// few seconds at most. It works as the system role; unknown ids change nothing.
func (p *Persons) ForgetTx(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) error {
	if err := accountdb.New(tx).DeletePersonKeys(ctx, ids); err != nil {
		return fmt.Errorf("destroy keys of people: %w", err)
	}
	for _, id := range ids {
		p.cache.Remove(id)
	}
	return nil
}
