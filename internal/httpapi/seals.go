package httpapi

import (
	"context"
	"encoding/hex"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// ListSeals answers GET /api/audit/seals.
func (a *api) ListSeals(ctx context.Context, req oapi.ListSealsRequestObject) (oapi.ListSealsResponseObject, error) {
	cursor, err := after[audit.SealCursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	items, keys, next, err := a.deps.Audit.SealedHeads(ctx, orgOf(ctx), audit.SealFilter{Limit: a.pageLimit(req.Params.Limit), Before: cursor})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListSeals200JSONResponse{Body: oapi.SealList{Items: each(items, sealView), Keys: each(keys, sealingKeyView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// ProveAuditEvent answers GET /api/audit/events/{position}/proof.
func (a *api) ProveAuditEvent(ctx context.Context, req oapi.ProveAuditEventRequestObject) (oapi.ProveAuditEventResponseObject, error) {
	p, err := a.deps.Audit.Prove(ctx, orgOf(ctx), req.Position)
	if err != nil {
		return nil, err
	}
	return oapi.ProveAuditEvent200JSONResponse{
		Position: p.Position, Version: p.Version, RecordedAtMicros: p.RecordedAt.UnixMicro(), ContentHash: hex.EncodeToString(p.ContentHash[:]),
		Leaf: p.Leaf, LeafHash: p.LeafHash.String(), Hashes: each(p.Hashes, audit.Hash.String), Seal: sealView(p.Seal), Keys: each(p.Keys, sealingKeyView),
	}, nil
}

// ProveConsistency answers GET /api/audit/seals/consistency.
func (a *api) ProveConsistency(ctx context.Context, req oapi.ProveConsistencyRequestObject) (oapi.ProveConsistencyResponseObject, error) {
	p, err := a.deps.Audit.Consistency(ctx, orgOf(ctx), req.Params.From, deref(req.Params.To))
	if err != nil {
		return nil, err
	}
	return oapi.ProveConsistency200JSONResponse{
		From: p.From, To: p.To, FromRoot: p.FromRoot.String(), ToRoot: p.ToRoot.String(), Hashes: each(p.Hashes, audit.Hash.String),
	}, nil
}

func sealView(s audit.Seal) oapi.Seal {
	return oapi.Seal{Number: s.Number, Size: s.Size, Position: s.Position, Root: s.Root.String(), SealedAt: oapi.At(s.Time), Note: s.Note}
}

func sealingKeyView(k audit.SealingKey) oapi.SealingKey {
	view := oapi.SealingKey{Number: k.Number, Fingerprint: k.Key.Fingerprint(), PublicKey: k.Key.String(), CreatedAt: oapi.At(k.CreatedAt), Statement: k.Note}
	if k.RetiredAt != nil {
		at := oapi.At(*k.RetiredAt)
		view.RetiredAt = &at
	}
	return view
}
