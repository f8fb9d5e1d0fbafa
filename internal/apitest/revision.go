package apitest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/apitest/internal/apitestdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/postgres"
)

// Revisions returns a page of a test's revisions, newest first, and the cursor of the next page.
func (s *Service) Revisions(ctx context.Context, orgID, id uuid.UUID, f RevisionFilter) (items []Revision, next *RevisionCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return nil, nil, err
	}
	params := apitestdb.ListRevisionsParams{OrgID: orgID, TestID: id, MaxRows: int32(f.Limit + 1)}
	if f.After != nil {
		n := int32(f.After.Number)
		params.After = &n
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		head, err := HeadTx(ctx, tx, id)
		if err != nil {
			return err
		}
		rows, err := apitestdb.New(tx).ListRevisions(ctx, params)
		if err != nil {
			return fmt.Errorf("list revisions: %w", err)
		}
		for _, row := range rows {
			r, err := revisionOf(head.ProjectID, row)
			if err != nil {
				return err
			}
			items = append(items, r)
		}
		return nil
	})
	if err == nil && len(items) > f.Limit {
		items = items[:f.Limit]
		next = &RevisionCursor{Number: items[len(items)-1].Number}
	}
	return items, next, err
}

// Revision returns one revision of a test.
func (s *Service) Revision(ctx context.Context, orgID, id uuid.UUID, n int) (r Revision, err error) {
	if _, err := auth.Require(ctx, orgID, auth.TestRead); err != nil {
		return Revision{}, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		head, err := HeadTx(ctx, tx, id)
		if err != nil {
			return err
		}
		row, err := apitestdb.New(tx).GetRevision(ctx, apitestdb.GetRevisionParams{OrgID: orgID, TestID: id, Revision: int32(n)})
		if err != nil {
			return notFound(err, "revision")
		}
		r, err = revisionOf(head.ProjectID, row)
		return err
	})
	return r, err
}

// NoSuchTest is the fault for a test that isn't there, or is another organization's.
func NoSuchTest() error { return notFound(pgx.ErrNoRows, "test") }

// HeadTx returns a test of the transaction's organization without its definition, for rooms that have checked the caller.
func HeadTx(ctx context.Context, tx postgres.OrgTx, id uuid.UUID) (Test, error) {
	row, err := apitestdb.New(tx).GetTestHead(ctx, apitestdb.GetTestHeadParams{OrgID: tx.OrgID(), TestID: id})
	if err != nil {
		return Test{}, notFound(err, "test")
	}
	return headOf(row), nil
}

// HeadsByIDTx returns those of the tests that are there, without their definitions, by id.
func HeadsByIDTx(ctx context.Context, tx postgres.OrgTx, ids []uuid.UUID) (map[uuid.UUID]Test, error) {
	rows, err := apitestdb.New(tx).GetTestHeads(ctx, apitestdb.GetTestHeadsParams{OrgID: tx.OrgID(), TestIds: ids})
	if err != nil {
		return nil, fmt.Errorf("read tests: %w", err)
	}
	heads := make(map[uuid.UUID]Test, len(rows))
	for _, row := range rows {
		heads[row.TestID] = headOf(row)
	}
	return heads, nil
}

// HeadsTx returns the tests of a project that have one of the tags (all tests without tags), without their definitions,
// oldest first, at most limit.
func HeadsTx(ctx context.Context, tx postgres.OrgTx, projectID uuid.UUID, tags []string, limit int) ([]Test, error) {
	rows, err := apitestdb.New(tx).ListTestHeads(ctx, apitestdb.ListTestHeadsParams{
		OrgID: tx.OrgID(), ProjectID: projectID, Tags: orEmpty(tags), MaxRows: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	heads := make([]Test, len(rows))
	for i, row := range rows {
		heads[i] = headOf(row)
	}
	return heads, nil
}

// DefinitionTx returns what revision n of a test holds, also when the test is deleted. It never changes, so it may be
// kept. tx may be a system transaction.
func DefinitionTx(ctx context.Context, tx pgx.Tx, orgID, id uuid.UUID, n int) (d Definition, err error) {
	row, err := apitestdb.New(tx).GetRevision(ctx, apitestdb.GetRevisionParams{OrgID: orgID, TestID: id, Revision: int32(n)})
	if err != nil {
		return Definition{}, notFound(err, "revision")
	}
	if err := json.Unmarshal(row.Definition, &d); err != nil {
		return Definition{}, fmt.Errorf("read revision %d of test %s: %w", n, id, err)
	}
	return d, nil
}

func revisionOf(projectID uuid.UUID, row apitestdb.TestRevision) (r Revision, err error) {
	r = Revision{TestID: row.TestID, Number: int(row.Revision), CreatedAt: row.CreatedAt, CreatedKind: row.CreatedKind, CreatedBy: row.CreatedBy}
	if row.RestoredFrom != nil {
		r.RestoredFrom = int(*row.RestoredFrom)
	}
	r.Definition, err = show(projectID, row.Definition)
	return r, err
}
