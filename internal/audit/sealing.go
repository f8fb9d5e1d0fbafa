package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/seal"
)

// headSpan is how many events one head adds at most.
const headSpan = 10_000

// sealing is one organization's tree while it grows, in one transaction.
type sealing struct {
	s      *Sealer
	tx     pgx.Tx
	org    uuid.UUID
	signer *seal.Signer

	last     seal.Head // Number 0 = there is none
	frontier *seal.Frontier
	signed   []signedHead
	events   int64
}

type signedHead struct {
	seal.Head
	note string
}

// load reads the last head and the right edge of the tree, and holds one against the other and against the chain of keys.
func (o *sealing) load(ctx context.Context, chain *seal.Chain) error {
	last, _, err := lastHead(ctx, o.tx, o.org)
	if err != nil {
		return err
	}
	if last == "" {
		o.frontier = &seal.Frontier{}
		return nil
	}
	if o.last, err = seal.ReadHead(last); err != nil {
		return &damageError{fmt.Sprintf("the last seal can't be read: %v", err)}
	}
	if known, ok := o.s.trees.Get(o.org); ok && known.head == o.last.Hash() {
		f, _ := seal.NewFrontier(known.frontier.Size(), known.frontier.Peaks())
		o.frontier = f
		return nil
	}
	if _, _, err := chain.OpenHead(last); err != nil {
		return &damageError{fmt.Sprintf("seal %d is not genuine: %v", o.last.Number, err)}
	}
	if o.last.OrgID != o.org {
		return &damageError{fmt.Sprintf("seal %d is another organization's", o.last.Number)}
	}
	o.frontier, err = newTree(ctx, o.tx, o.org, o.last.Size).frontier(o.last.Size)
	switch {
	case errors.Is(err, errTreeDamaged):
		return &damageError{err.Error()}
	case err != nil:
		return err
	case o.frontier.Root() != o.last.Root:
		return &damageError{fmt.Sprintf("the stored tree of %d events isn't the one of seal %d", o.last.Size, o.last.Number)}
	}
	return nil
}

// lastHead returns the note of an organization's last head and its number; "" when there is none.
func lastHead(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, org uuid.UUID,
) (note string, number int64, err error) {
	err = q.QueryRow(ctx, `SELECT note, number FROM es.sealed_head WHERE org_id = $1 ORDER BY number DESC LIMIT 1`, org).Scan(&note, &number)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", 0, fmt.Errorf("read the last seal of %s: %w", org, err)
	}
	return note, number, nil
}

// extend adds the next events up to a position, and signs a head over them. more says that there may be others.
func (o *sealing) extend(ctx context.Context, to int64) (more bool, err error) {
	rows, err := o.tx.Query(ctx, `SELECT position, version, recorded_at, content_hash FROM es.ledger_event WHERE org_id = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4`, //nolint:rowserrcheck // ForEachRow does
		o.org, o.last.Position, to, headSpan)
	if err != nil {
		return false, fmt.Errorf("read events of %s: %w", o.org, err)
	}
	var (
		leaves    [][]byte
		positions []int64
		nodes     nodeRows
		position  int64
		version   int
		at        time.Time
		content   []byte
		first     = o.frontier.Size()
	)
	if _, err := pgx.ForEachRow(rows, []any{&position, &version, &at, &content}, func() error {
		if len(content) != len(seal.Hash{}) {
			return fmt.Errorf("the content hash at position %d has %d bytes", position, len(content))
		}
		leaf := seal.Leaf(position, version, at, seal.Hash(content))
		positions, leaves = append(positions, position), append(leaves, leaf[:])
		o.frontier.Add(leaf, nodes.add)
		return nil
	}); err != nil {
		return false, fmt.Errorf("read events of %s: %w", o.org, err)
	}
	n := len(positions)
	if n == 0 {
		return false, nil
	}
	if _, err := o.tx.Exec(ctx, `INSERT INTO es.sealed_leaf (org_id, leaf, position, hash) SELECT $1, $2 + i - 1, p, h FROM unnest($3::bigint[], $4::bytea[]) WITH ORDINALITY AS t (p, h, i)`,
		o.org, first, positions, leaves); err != nil {
		return false, fmt.Errorf("store leaves of %s: %w", o.org, err)
	}
	if len(nodes.n) > 0 {
		if _, err := o.tx.Exec(ctx, `INSERT INTO es.sealed_node (org_id, level, n, hash) SELECT $1, l, n, h FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) AS t (l, n, h)`,
			o.org, nodes.level, nodes.n, nodes.hash); err != nil {
			return false, fmt.Errorf("store nodes of %s: %w", o.org, err)
		}
	}
	o.events += int64(n)
	return n == headSpan, o.sign(ctx, positions[n-1])
}

// nodeRows are the subtrees of stored levels that were completed.
type nodeRows struct {
	level []int16
	n     []int64
	hash  [][]byte
}

func (r *nodeRows) add(level int, n int64, h seal.Hash) {
	if level%tileHeight == 0 {
		r.level, r.n, r.hash = append(r.level, int16(level)), append(r.n, n), append(r.hash, h[:]) //nolint:gosec // at most 64
	}
}

// sign stores the next head, over the tree as it stands.
func (o *sealing) sign(ctx context.Context, position int64) error {
	h := seal.Head{OrgID: o.org, Number: o.last.Number + 1, Size: o.frontier.Size(), Root: o.frontier.Root(), Position: position, Time: o.s.cfg.Now().UTC().Truncate(time.Microsecond)}
	if o.last.Number > 0 {
		h.Previous = o.last.Hash()
		if h.Time.Before(o.last.Time) { // a clock that was put back, or another node's
			h.Time = o.last.Time
		}
	}
	note, err := h.Sign(o.signer)
	if err != nil {
		return err
	}
	if _, err := o.tx.Exec(ctx, `INSERT INTO es.sealed_head (org_id, number, size, position, sealed_at, note) VALUES ($1, $2, $3, $4, $5, $6)`,
		o.org, h.Number, h.Size, h.Position, h.Time, note); err != nil {
		return fmt.Errorf("store seal %d of %s: %w", h.Number, o.org, err)
	}
	o.last = h
	o.signed = append(o.signed, signedHead{h, note})
	return nil
}

// committed keeps what is true now, and publishes the heads.
func (o *sealing) committed(ctx context.Context) {
	s := o.s
	s.mu.Lock()
	delete(s.damaged, o.org)
	s.stats.Events += o.events
	s.stats.Heads += int64(len(o.signed))
	s.mu.Unlock()
	if len(o.signed) == 0 {
		return
	}
	fault.Hit(fault.PointSealCommitted)
	s.trees.Add(o.org, knownTree{head: o.last.Hash(), frontier: o.frontier})
	for _, h := range o.signed {
		s.cfg.Log.InfoContext(ctx, "sealed", slog.String("org_id", h.OrgID.String()), slog.Int64("number", h.Number), slog.Int64("events", h.Size), slog.String("root", h.Root.String()), slog.Int64("position", h.Position))
		if s.cfg.Published == nil {
			continue
		}
		if err := s.cfg.Published(ctx, h.Head, h.note); err != nil {
			s.cfg.Log.ErrorContext(ctx, "a seal could not be published", slog.String("org_id", h.OrgID.String()), slog.Int64("number", h.Number), slog.Any("err", err))
		}
	}
	fault.Hit(fault.PointSealPublished)
}
