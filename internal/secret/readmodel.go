package secret

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/secret/internal/secretdb"
)

type readModel struct{}

// ReadModel returns the inline read model that keeps the table secrets. Values are no business of events.
func ReadModel() eventstore.ReadModel { return readModel{} }

// Apply writes what the events changed.
func (readModel) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	q := secretdb.New(tx)
	for _, e := range events {
		if e.Lane != eventstore.Ledger || e.Kind != Kind {
			continue
		}
		if err := apply(ctx, q, e); err != nil {
			return fmt.Errorf("apply %s: %w", e.Type, err)
		}
	}
	return nil
}

func apply(ctx context.Context, q *secretdb.Queries, e eventstore.Event) error {
	switch e.Type {
	case TypeSet:
		var d Set
		if err := e.Decode(&d); err != nil {
			return err
		}
		at := e.RecordedAt.UTC().Truncate(time.Microsecond)
		if d.Version == 1 {
			return q.InsertSecret(ctx, secretdb.InsertSecretParams{
				SecretID: e.StreamID, OrgID: e.OrgID, ProjectID: some(d.ProjectID), EnvironmentID: some(d.EnvironmentID), Name: d.Name,
				Description: d.Description, Version: 1, CreatedAt: at, UpdatedKind: e.Meta.ActorKind, UpdatedBy: some(e.Meta.ActorID),
			})
		}
		return q.UpdateSecret(ctx, secretdb.UpdateSecretParams{
			OrgID: e.OrgID, SecretID: e.StreamID, Description: d.Description, Version: int32(d.Version), //nolint:gosec // versions are int on disk
			UpdatedAt: at, UpdatedKind: e.Meta.ActorKind, UpdatedBy: some(e.Meta.ActorID),
		})
	case TypeRemoved:
		return q.DeleteSecret(ctx, secretdb.DeleteSecretParams{OrgID: e.OrgID, SecretID: e.StreamID})
	}
	return nil
}
