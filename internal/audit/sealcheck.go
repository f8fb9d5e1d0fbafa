package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/seal"
)

// maxSealFindings is how many violations CheckSeals names.
const maxSealFindings = 100

// CheckSeals returns what breaks invariant I11: organizations, and people's own logs, whose ledger isn't what was sealed,
// by every head that is stored and every one of kept (signed notes); and days of runs that aren't what their digest says.
// It verifies the export that an auditor would get, without a record of it. An erased organization is left out.
func (s *Service) CheckSeals(ctx context.Context, kept []string) (found []string, err error) {
	var orgs []uuid.UUID
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT org_id FROM es.ledger_stream UNION SELECT org_id FROM es.sealed_head WHERE number = 1 ORDER BY 1`)
		if err != nil {
			return err
		}
		if orgs, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
			return err
		}
		// What the filters of the audit log look at must be what is hashed.
		rows, err = tx.Query(ctx, `SELECT 'position ' || position || ' of ' || org_id || ': the column of the actor says ' || coalesce(actor_id::text, 'nobody') || ', the event ' || coalesce(meta->>'actorId', 'nobody')
			FROM es.ledger_event WHERE actor_id::text IS DISTINCT FROM meta->>'actorId' LIMIT $1`, maxSealFindings)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check the seals: %w", err)
	}
	for _, org := range orgs {
		erased, err := s.isErased(ctx, org)
		if err != nil {
			return nil, fmt.Errorf("check the seals: %w", err)
		}
		if erased {
			continue
		}
		places, err := s.checkSealed(ctx, org, kept)
		if err != nil {
			return nil, fmt.Errorf("check the seals of %s: %w", org, err)
		}
		runs, err := s.checkRuns(ctx, org)
		if err != nil {
			return nil, err
		}
		if found = append(append(found, places...), runs...); len(found) >= maxSealFindings {
			break
		}
	}
	return found, nil
}

// isErased says whether the organization was deleted for good: of its log only the heads are left.
func (s *Service) isErased(ctx context.Context, org uuid.UUID) (erased bool, err error) {
	err = s.DB.InSystem(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var there bool
		if err := tx.QueryRow(ctx, `SELECT to_regclass('es.erased_orgs') IS NOT NULL`).Scan(&there); err != nil || !there {
			return err
		}
		return tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM es.erased_orgs WHERE org_id = $1)`, org).Scan(&erased)
	})
	return erased, err
}

// checkSealed verifies one organization's export as it is made.
func (s *Service) checkSealed(ctx context.Context, org uuid.UUID, kept []string) (found []string, err error) {
	ctx, cancel := context.WithCancel(auth.With(ctx, auth.Principal{Kind: auth.System, OrgID: org}))
	defer cancel()
	unsigned := *s // nothing leaves, so no key is asked for and nothing is sealed
	unsigned.Signer, unsigned.Settle = nil, nil
	r, w := io.Pipe()
	exported := make(chan error, 1)
	go func() {
		buf := bufio.NewWriterSize(w, 1<<16)
		out, err := newEncoder(NDJSON, buf)
		if err == nil {
			_, err = unsigned.export(ctx, org, uuid.Nil, Request{Format: NDJSON}, out, buf)
		}
		err = errors.Join(err, buf.Flush())
		_ = w.CloseWithError(err) // never fails
		exported <- err
	}()
	report, err := seal.Verify(ctx, r, seal.Options{Kept: kept})
	_ = r.CloseWithError(io.ErrClosedPipe) // never fails; lets the export end
	if exportErr := <-exported; err != nil {
		if exportErr != nil {
			return nil, exportErr
		}
		return nil, err
	}
	for _, f := range report.Findings {
		f.Line = 0 // of a file that nobody has
		found = append(found, fmt.Sprintf("organization %s: %s", org, f))
	}
	return found, nil
}
