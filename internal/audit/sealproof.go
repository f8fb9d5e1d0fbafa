package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

// Hash is a SHA-256 whose text is base64.
type Hash = seal.Hash

// Seal is a signed head as the API shows it.
type Seal struct {
	seal.Head
	Note string // as it was signed: what to keep, and what verifies
}

// SealCursor is where the next page of seals begins.
type SealCursor struct {
	Number int64 `json:"n"` // seals before it
}

// SealFilter selects a page of seals.
type SealFilter struct {
	Limit  int         // 1 … limits.MaxPage, 0 = limits.DefaultPage
	Before *SealCursor // nil: from the newest
}

// EventProof shows that an event is in the sealed history.
type EventProof struct {
	Position    int64
	Version     int
	RecordedAt  time.Time
	ContentHash seal.Hash
	Leaf        int64
	LeafHash    seal.Hash // of the four above
	Hashes      []seal.Hash
	Seal        Seal
	Keys        []SealingKey
}

// ConsistencyProof shows that the history of From events is the beginning of the one of To events.
type ConsistencyProof struct {
	From, To         int64
	FromRoot, ToRoot seal.Hash
	Hashes           []seal.Hash
}

// SealedHeads returns a page of an organization's seals, newest first, and every key that signed any. It needs
// auth.AuditRead.
func (s *Service) SealedHeads(ctx context.Context, orgID uuid.UUID, f SealFilter) (items []Seal, keys []SealingKey, next *SealCursor, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return nil, nil, nil, err
	}
	if f.Limit <= 0 {
		f.Limit = limits.DefaultPage
	}
	f.Limit = min(f.Limit, limits.MaxPage)
	before := int64(maxPosition)
	if f.Before != nil {
		before = f.Before.Number
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		if keys, _, err = sealingKeys(ctx, tx); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT note FROM es.sealed_head WHERE org_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3`, orgID, before, f.Limit+1)
		if err != nil {
			return err
		}
		notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, note := range notes {
			h, err := seal.ReadHead(note)
			if err != nil {
				return fmt.Errorf("read a seal: %w", err)
			}
			items = append(items, Seal{h, note})
		}
		if len(items) > f.Limit {
			items = items[:f.Limit]
			next = &SealCursor{Number: items[f.Limit-1].Number}
		}
		return nil
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("list seals: %w", err)
	}
	return items, keys, next, nil
}

// Prove shows that the event at a position is in the history that the newest seal covers. fault.NotFound: there is no such
// event. fault.Conflict: it isn't sealed yet. It needs auth.AuditRead.
func (s *Service) Prove(ctx context.Context, orgID uuid.UUID, position int64) (p EventProof, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return p, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		p, err = prove(ctx, tx, orgID, position)
		return err
	})
	if err != nil {
		return EventProof{}, fmt.Errorf("prove position %d: %w", position, err)
	}
	return p, nil
}

func prove(ctx context.Context, tx pgx.Tx, orgID uuid.UUID, position int64) (p EventProof, err error) {
	var content []byte
	err = tx.QueryRow(ctx, `SELECT position, version, recorded_at, content_hash FROM es.ledger_event WHERE org_id = $1 AND position = $2`, orgID, position).
		Scan(&p.Position, &p.Version, &p.RecordedAt, &content)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, fault.New(fault.NotFound, "audit.event_not_found", "There is no such event in the audit log.")
	}
	if err != nil {
		return p, err
	}
	copy(p.ContentHash[:], content)
	p.LeafHash = seal.Leaf(p.Position, p.Version, p.RecordedAt, p.ContentHash)
	head, err := headBefore(ctx, tx, orgID, maxPosition)
	if err != nil {
		return p, err
	}
	err = tx.QueryRow(ctx, `SELECT leaf FROM es.sealed_leaf WHERE org_id = $1 AND position = $2`, orgID, position).Scan(&p.Leaf)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && p.Leaf >= head.size {
		return p, fault.New(fault.Conflict, "audit.not_sealed_yet", "This event is not sealed yet. That takes a few seconds: ask again.")
	}
	if err != nil {
		return p, err
	}
	if p.Seal.Head, err = seal.ReadHead(head.note); err != nil {
		return p, fmt.Errorf("read seal %d: %w", head.number, err)
	}
	p.Seal.Note = head.note
	if p.Keys, _, err = sealingKeys(ctx, tx); err != nil {
		return p, err
	}
	p.Hashes, err = tlog.ProveRecord(p.Seal.Size, p.Leaf, newTree(ctx, tx, orgID, p.Seal.Size))
	return p, err
}

// Consistency shows that the history of from events is the beginning of the one of to events; to 0 = what the newest seal
// covers. fault.Invalid: there aren't that many. It needs auth.AuditRead.
func (s *Service) Consistency(ctx context.Context, orgID uuid.UUID, from, to int64) (p ConsistencyProof, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AuditRead); err != nil {
		return p, err
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		head, err := headBefore(ctx, tx, orgID, maxPosition)
		if err != nil {
			return err
		}
		if to == 0 {
			to = head.size
		}
		if f := rangeFault(from, to, head.size); f != nil {
			return f
		}
		p.From, p.To = from, to
		t := newTree(ctx, tx, orgID, head.size)
		if p.FromRoot, err = tlog.TreeHash(from, t); err != nil {
			return err
		}
		if p.ToRoot, err = tlog.TreeHash(to, t); err != nil {
			return err
		}
		p.Hashes, err = tlog.ProveTree(to, from, t)
		return err
	})
	if err != nil {
		return ConsistencyProof{}, fmt.Errorf("prove that %d events precede %d: %w", from, to, err)
	}
	return p, nil
}

func rangeFault(from, to, size int64) error {
	var fields []fault.Field
	if from < 1 || from > to {
		fields = append(fields, fault.Field{Parameter: "from", Detail: "must be at least 1, and at most `to`"})
	}
	if to > size {
		fields = append(fields, fault.Field{Parameter: "to", Detail: fmt.Sprintf("must be at most %d, the number of sealed events", size)})
	}
	if fields == nil {
		return nil
	}
	f := fault.New(fault.Invalid, "request.invalid", "There is no proof between these sizes.")
	f.Fields = fields
	return f
}
