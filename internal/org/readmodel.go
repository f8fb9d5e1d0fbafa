package org

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/org/internal/orgdb"
)

type readModel struct{}

// ReadModel returns the inline read model that keeps orgs, org_members and org_api_keys: what was changed is read at once.
func ReadModel() eventstore.ReadModel { return readModel{} }

// Apply writes what the events changed.
func (readModel) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	q := orgdb.New(tx)
	for _, e := range events {
		if e.Lane != eventstore.Ledger {
			continue
		}
		var err error
		switch e.Kind {
		case Kind:
			err = apply(ctx, q, e)
		case KindAPIKey:
			err = applyKey(ctx, q, e)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Type, err)
		}
	}
	return nil
}

func apply(ctx context.Context, q *orgdb.Queries, e eventstore.Event) error {
	version := int32(e.Version) //nolint:gosec // the column that it comes from is an int
	switch e.Type {
	case TypeCreated:
		var d Created
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.InsertOrg(ctx, orgdb.InsertOrgParams{OrgID: e.OrgID, Name: d.Name, Version: version, CreatedAt: e.RecordedAt})
	case TypeRenamed:
		var d Renamed
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.RenameOrg(ctx, orgdb.RenameOrgParams{OrgID: e.OrgID, Name: d.To, Version: version, UpdatedAt: e.RecordedAt})
	case TypeMemberAdded:
		var d MemberAdded
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.InsertMember(ctx, orgdb.InsertMemberParams{OrgID: e.OrgID, AccountID: d.AccountID, Role: string(d.Role), JoinedAt: e.RecordedAt, Version: version})
	case TypeMemberRoleChanged:
		var d MemberRoleChanged
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.SetMemberRole(ctx, orgdb.SetMemberRoleParams{OrgID: e.OrgID, AccountID: d.AccountID, Role: string(d.To), Version: version})
	case TypeMemberRemoved:
		var d MemberRemoved
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.DeleteMember(ctx, orgdb.DeleteMemberParams{OrgID: e.OrgID, AccountID: d.AccountID, Version: version})
	case TypeDeletionScheduled:
		var d DeletionScheduled
		if err := e.Decode(&d); err != nil {
			return err
		}
		return q.SetEraseAt(ctx, orgdb.SetEraseAtParams{OrgID: e.OrgID, EraseAt: &d.EraseAt, Version: version, UpdatedAt: e.RecordedAt})
	case TypeVariablesChanged:
		return applyVariables(ctx, q, e)
	case TypeRestored:
		return q.SetEraseAt(ctx, orgdb.SetEraseAtParams{OrgID: e.OrgID, Version: version, UpdatedAt: e.RecordedAt})
	default: // what a command wrote into its own table beside the event, such as invitations
		return q.TouchOrg(ctx, orgdb.TouchOrgParams{OrgID: e.OrgID, Version: version})
	}
}
