package apitest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest/internal/apitestdb"
	"github.com/testflow/testflow/internal/eventstore"
)

// readModel keeps the tables tests, test_revisions and fragments in the append's own transaction.
type readModel struct{}

// ReadModel returns the inline read model of tests.
func ReadModel() eventstore.ReadModel { return readModel{} }

// Apply writes what the events changed.
func (readModel) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	for _, e := range events {
		apply := applyTest
		switch e.Kind {
		case Kind:
		case FragmentKind:
			apply = applyFragment
		default:
			continue
		}
		if err := apply(ctx, apitestdb.New(tx), e); err != nil {
			return fmt.Errorf("apply %s: %w", e.Type, err)
		}
	}
	return nil
}

func applyTest(ctx context.Context, q *apitestdb.Queries, e eventstore.Event) error {
	at := e.RecordedAt.UTC()
	switch e.Type {
	case TypeCreated:
		var d Created
		if err := e.Decode(&d); err != nil {
			return err
		}
		hash, err := hex.DecodeString(d.ContentHash)
		if err != nil {
			return err
		}
		if err := q.InsertTest(ctx, apitestdb.InsertTestParams{
			TestID: e.StreamID, OrgID: e.OrgID, ProjectID: d.ProjectID, EnvironmentID: orNull(d.Definition.EnvironmentID), Name: d.Definition.Name,
			Tags: orEmpty(d.Definition.Tags), Regions: orEmpty(d.Definition.Regions), Revision: 1, ContentHash: hash, Fragments: orEmpty(d.Definition.Uses()), CreatedAt: at,
		}); err != nil {
			return err
		}
		return insertRevision(ctx, q, e, 1, d.Definition, nil)
	case TypeRevised:
		var d Revised
		if err := e.Decode(&d); err != nil {
			return err
		}
		hash, err := hex.DecodeString(d.ContentHash)
		if err != nil {
			return err
		}
		if err := q.ReviseTest(ctx, apitestdb.ReviseTestParams{
			OrgID: e.OrgID, TestID: e.StreamID, EnvironmentID: orNull(d.Definition.EnvironmentID), Name: d.Definition.Name,
			Tags: orEmpty(d.Definition.Tags), Regions: orEmpty(d.Definition.Regions), Revision: int32(d.Revision), ContentHash: hash, Fragments: orEmpty(d.Definition.Uses()), UpdatedAt: at,
		}); err != nil {
			return err
		}
		var from *int32
		if d.RestoredFrom > 0 {
			n := int32(d.RestoredFrom)
			from = &n
		}
		return insertRevision(ctx, q, e, d.Revision, d.Definition, from)
	case TypeDeleted:
		return q.DeleteTest(ctx, apitestdb.DeleteTestParams{OrgID: e.OrgID, TestID: e.StreamID})
	}
	return nil
}

func insertRevision(ctx context.Context, q *apitestdb.Queries, e eventstore.Event, n int, d Definition, from *int32) error {
	definition, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return q.InsertRevision(ctx, apitestdb.InsertRevisionParams{
		TestID: e.StreamID, Revision: int32(n), OrgID: e.OrgID, Definition: definition, RestoredFrom: from,
		CreatedAt: e.RecordedAt.UTC(), CreatedKind: e.Meta.ActorKind, CreatedBy: e.Meta.ActorID,
	})
}

func orNull(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

func orNil(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}
