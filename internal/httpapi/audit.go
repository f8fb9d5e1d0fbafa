package httpapi

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// FeedCursors write positions as the cursors of feed and live stream, and read them.
type FeedCursors interface {
	Encode(org uuid.UUID, position int64) string
	// Decode returns fault.Invalid for what is no cursor of the organization, and current=false for one from before the
	// database was another.
	Decode(org uuid.UUID, cursor string) (position int64, current bool, err error)
}

// ListAuditEvents answers GET /api/audit/events.
func (a *api) ListAuditEvents(ctx context.Context, req oapi.ListAuditEventsRequestObject) (oapi.ListAuditEventsResponseObject, error) {
	cursor, err := after[audit.Cursor](ctx, a.Server, req.Params.Cursor)
	if err != nil {
		return nil, err
	}
	p := req.Params
	items, next, err := a.deps.Audit.List(ctx, orgOf(ctx), audit.Filter{
		Actors: list(p.Actor), Types: list(p.Type), Subjects: list(p.Subject), RequestIDs: list(p.RequestId), From: instant(p.From), To: instant(p.To),
		After: deref(p.After), UpTo: deref(p.UpTo), Limit: a.pageLimit(p.Limit), Before: cursor,
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListAuditEvents200JSONResponse{Body: oapi.AuditEventList{Items: each(items, auditView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

func deref[T any](p *T) (v T) {
	if p != nil {
		return *p
	}
	return v
}

// ReadFeed answers GET /api/events.
func (a *api) ReadFeed(ctx context.Context, req oapi.ReadFeedRequestObject) (oapi.ReadFeedResponseObject, error) {
	org := orgOf(ctx)
	var from int64
	if req.Params.After != nil {
		position, current, err := a.deps.FeedCursors.Decode(org, *req.Params.After)
		if err == nil && !current {
			err = fault.New(fault.Invalid, "cursor.expired", "The cursor is from before the log was restored: read anew from the beginning.")
		}
		if err != nil {
			return nil, at(err, "after")
		}
		from = position
	}
	items, upTo, err := a.deps.Audit.Feed(ctx, org, from, a.pageLimit(req.Params.Limit))
	if err != nil {
		return nil, err
	}
	return oapi.ReadFeed200JSONResponse{Items: each(items, eventView), NextCursor: a.deps.FeedCursors.Encode(org, upTo)}, nil
}

// at names the parameter that a fault is about.
func at(err error, parameter string) error {
	var f *fault.Error
	if errors.As(err, &f) && len(f.Fields) == 0 {
		f.Fields = []fault.Field{{Parameter: parameter, Detail: "must be a cursor of this organization's events"}}
	}
	return err
}

func eventView(e audit.Entry) oapi.Event {
	return oapi.Event{
		Id: e.ID, Type: e.Type, Position: e.Position, RecordedAt: oapi.At(e.RecordedAt), Subject: e.Subject, Version: &e.Version, Data: e.Data,
	}
}

func auditView(e audit.Entry) oapi.AuditEvent {
	view := oapi.AuditEvent{
		Id: e.ID, Type: e.Type, Position: e.Position, RecordedAt: oapi.At(e.RecordedAt), Subject: e.Subject, Version: e.Version,
		Address: some(e.Address), UserAgent: some(e.UserAgent), RequestId: some(e.RequestID), ContentHash: some(e.ContentHash), Data: e.Data,
	}
	view.Actor.Kind, view.Actor.Id = oapi.AuditEventActorKind(e.Actor.Kind), some(e.Actor.ID)
	return view
}
