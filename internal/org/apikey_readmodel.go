package org

import (
	"context"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

// applyKey writes what an event of an API key changed. The hash of the secret isn't in events: the command writes it.
func applyKey(ctx context.Context, q *orgdb.Queries, e eventstore.Event) error {
	version := int32(e.Version) //nolint:gosec // the column that it comes from is an int
	switch e.Type {
	case TypeAPIKeyCreated:
		var d APIKeyCreated
		if err := e.Decode(&d); err != nil {
			return err
		}
		row := d.columns()
		return q.InsertAPIKey(ctx, orgdb.InsertAPIKeyParams{
			KeyID: e.StreamID, OrgID: e.OrgID, Name: d.Name, Scopes: row.scopes, Role: string(d.Role), HolderID: d.HolderID,
			CreatedKind: e.Meta.ActorKind, CreatedBy: e.Meta.ActorID, ExpiresAt: d.ExpiresAt, AllowedAddresses: row.addresses,
			RateLimit: row.rate, Version: version, CreatedAt: e.RecordedAt,
		})
	case TypeAPIKeyChanged:
		var d APIKeyChanged
		if err := e.Decode(&d); err != nil {
			return err
		}
		row := d.To.columns()
		return q.ChangeAPIKey(ctx, orgdb.ChangeAPIKeyParams{
			OrgID: e.OrgID, KeyID: e.StreamID, Name: d.To.Name, Scopes: row.scopes, ExpiresAt: d.To.ExpiresAt,
			AllowedAddresses: row.addresses, RateLimit: row.rate, Version: version, UpdatedAt: e.RecordedAt,
		})
	case TypeAPIKeyRotated:
		var d APIKeyRotated
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.RotateAPIKey(ctx, orgdb.RotateAPIKeyParams{
			OrgID: e.OrgID, KeyID: e.StreamID, Generation: int32(d.Generation), //nolint:gosec // one more than an int of the database
			HolderID: d.HolderID, PreviousUntil: d.PreviousUntil, Version: version, UpdatedAt: e.RecordedAt,
		})
	case TypeAPIKeyRevoked:
		at := e.RecordedAt
		return q.RevokeAPIKey(ctx, orgdb.RevokeAPIKeyParams{
			OrgID: e.OrgID, KeyID: e.StreamID, RevokedAt: &at, RevokedKind: &e.Meta.ActorKind, RevokedBy: &e.Meta.ActorID, Version: version,
		})
	}
	return nil
}

type keyColumns struct {
	scopes, addresses []string
	rate              *int32
}

// columns are the settings as the table holds them: no list is NULL there.
func (s KeySettings) columns() keyColumns {
	c := keyColumns{scopes: []string{}, addresses: append([]string{}, s.AllowedAddresses...)}
	for _, perm := range s.Scopes {
		c.scopes = append(c.scopes, string(perm))
	}
	if s.RateLimit > 0 {
		rate := int32(s.RateLimit) //nolint:gosec // at most limits.MaxKeyRate
		c.rate = &rate
	}
	return c
}
