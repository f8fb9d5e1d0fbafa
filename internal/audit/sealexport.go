package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

// maxLeavesPage bounds the leaves of one page: there are more than events only where events were taken away.
const maxLeavesPage = 20_000

// seals is the Evidence of exports: keys, heads and leaves for a whole log, a proof for each event of a selection. It
// shows what is stored as it is, damaged or not; to judge is the verifier's.
type seals struct {
	orgID uuid.UUID
	whole bool
	head  storedHead // the last one
	tree  *tree

	at     int64 // position up to which leaves were written
	number int64 // of the last head that was written
}

// storedHead is a row of es.sealed_head; what counts is the note.
type storedHead struct {
	number, size, position int64
	note                   string
}

// Seals begins the evidence of an export; it is what Service.Evidence wants.
func Seals(ctx context.Context, tx postgres.OrgTx, orgID uuid.UUID, f Filter, after, upTo int64) (Evidence, []any, error) {
	s := &seals{orgID: orgID, whole: !f.selects(), at: after}
	notes, err := keyNotes(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	// A selection is proven against the newest head, the whole log by those that lie in it.
	bound := upTo
	if !s.whole {
		bound = maxPosition
	}
	if s.head, err = headBefore(ctx, tx, orgID, bound); err != nil {
		return nil, nil, err
	}
	s.tree = newTree(ctx, tx, orgID, s.head.size)
	opening := []any{seal.Seals{Line: seal.LineSeals, Keys: notes, Size: s.head.size, Position: s.head.position, Head: s.head.note}}
	if s.whole && after > 0 {
		start, err := s.start(ctx, tx, after)
		if err != nil {
			return nil, nil, err
		}
		opening = append(opening, start)
	}
	return s, opening, nil
}

// maxPosition is behind every position.
const maxPosition = 1<<63 - 1

// keyNotes returns the statements of all sealing keys as they are stored.
func keyNotes(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, `SELECT statement FROM es.sealing_key ORDER BY number`)
	if err != nil {
		return nil, fmt.Errorf("read the sealing keys: %w", err)
	}
	notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the sealing keys: %w", err)
	}
	return notes, nil
}

// headBefore returns the last head whose events all lie at or before a position; the zero storedHead when there is none.
func headBefore(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, position int64) (h storedHead, err error) {
	err = tx.QueryRow(ctx, `SELECT number, size, position, note FROM es.sealed_head WHERE org_id = $1 AND position <= $2 ORDER BY number DESC LIMIT 1`, orgID, position).
		Scan(&h.number, &h.size, &h.position, &h.note)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return h, fmt.Errorf("read the last seal: %w", err)
	}
	return h, nil
}

// start describes the tree before a part that doesn't begin at the beginning.
func (s *seals) start(ctx context.Context, tx pgx.Tx, after int64) (seal.Start, error) {
	size := s.head.size
	if after < s.head.position {
		err := tx.QueryRow(ctx, `SELECT leaf FROM es.sealed_leaf WHERE org_id = $1 AND position > $2 ORDER BY position LIMIT 1`, s.orgID, after).Scan(&size)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return seal.Start{}, fmt.Errorf("find the first leaf behind %d: %w", after, err)
		}
	}
	start := seal.Start{Line: seal.LineStart, Size: size, Peaks: []seal.Hash{}}
	frontier, err := s.tree.frontier(size)
	switch {
	case err == nil:
		start.Peaks = frontier.Peaks()
	case !errors.Is(err, errTreeDamaged):
		return seal.Start{}, err
	}
	err = tx.QueryRow(ctx, `SELECT number, note FROM es.sealed_head WHERE org_id = $1 AND size <= $2 AND number <= $3 ORDER BY number DESC LIMIT 1`, s.orgID, size, s.head.number).Scan(&s.number, &start.Head)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return seal.Start{}, fmt.Errorf("read the seal before %d: %w", after, err)
	}
	return start, nil
}

// Page returns the lines that prove a page.
func (s *seals) Page(ctx context.Context, tx postgres.OrgTx, page []eventstore.Event) ([]any, error) {
	if len(page) == 0 || s.head.number == 0 {
		return nil, nil
	}
	s.tree = s.tree.in(ctx, tx)
	if !s.whole {
		return s.proofs(ctx, tx, page)
	}
	return s.stretch(ctx, tx, min(page[len(page)-1].Position, s.head.position))
}

// End returns the lines behind the last page.
func (s *seals) End(ctx context.Context, tx postgres.OrgTx) ([]any, error) {
	if !s.whole || s.head.number == 0 {
		return nil, nil
	}
	return s.stretch(ctx, tx, s.head.position)
}

// stretch returns the heads and leaves up to a position that were not written yet.
func (s *seals) stretch(ctx context.Context, tx pgx.Tx, to int64) (lines []any, err error) {
	rows, err := tx.Query(ctx, `SELECT number, note FROM es.sealed_head WHERE org_id = $1 AND number > $2 AND number <= $3 AND position <= $4 ORDER BY number`, s.orgID, s.number, s.head.number, to) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return nil, fmt.Errorf("read seals: %w", err)
	}
	var note string
	if _, err := pgx.ForEachRow(rows, []any{&s.number, &note}, func() error {
		lines = append(lines, seal.HeadLine{Line: seal.LineHead, Note: note})
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read seals: %w", err)
	}
	rows, err = tx.Query(ctx, `SELECT leaf, position, hash FROM es.sealed_leaf WHERE org_id = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4`, s.orgID, s.at, to, maxLeavesPage) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return nil, fmt.Errorf("read leaves: %w", err)
	}
	var leaf, position int64
	var raw []byte
	var l *seal.Leaves
	if _, err := pgx.ForEachRow(rows, []any{&leaf, &position, &raw}, func() error {
		if l == nil || leaf != l.First+int64(len(l.Positions)) { // a gap begins another line, so that it is seen
			l = &seal.Leaves{Line: seal.LineLeaves, First: leaf}
			lines = append(lines, l)
		}
		var h seal.Hash
		copy(h[:], raw)
		l.Positions, l.Hashes = append(l.Positions, position), append(l.Hashes, h)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read leaves: %w", err)
	}
	s.at = max(s.at, to)
	return lines, nil
}

// proofs returns a proof for each event that is sealed.
func (s *seals) proofs(ctx context.Context, tx pgx.Tx, page []eventstore.Event) (lines []any, err error) {
	positions := make([]int64, len(page))
	for i, e := range page {
		positions[i] = e.Position
	}
	rows, err := tx.Query(ctx, `SELECT leaf, position FROM es.sealed_leaf WHERE org_id = $1 AND position = ANY ($2) AND leaf < $3 ORDER BY position`, s.orgID, positions, s.head.size) //nolint:rowserrcheck // ForEachRow does
	if err != nil {
		return nil, fmt.Errorf("find leaves: %w", err)
	}
	var proofs []seal.Proof
	p := seal.Proof{Line: seal.LineProof}
	if _, err := pgx.ForEachRow(rows, []any{&p.Leaf, &p.Position}, func() error {
		proofs = append(proofs, p)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("find leaves: %w", err)
	}
	for _, p := range proofs {
		hashes, err := tlog.ProveRecord(s.head.size, p.Leaf, s.tree)
		switch {
		case errors.Is(err, errTreeDamaged):
			continue // an event without its proof is what the verifier tells
		case err != nil:
			return nil, fmt.Errorf("prove position %d: %w", p.Position, err)
		}
		p.Hashes = hashes
		lines = append(lines, p)
	}
	return lines, nil
}
