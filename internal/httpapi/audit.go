package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

const (
	exportTrailer = "X-Export-Complete"
	// exportBuffer is sent at once, and exportGrace is what a client gets to take it.
	exportBuffer = 64 << 10
	exportGrace  = 30 * time.Second
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
		Actors: list(p.Actor), Types: list(p.Type), Subjects: list(p.Subject), From: instant(p.From), To: instant(p.To),
		Limit: a.pageLimit(p.Limit), Before: cursor,
	})
	if err != nil {
		return nil, err
	}
	answer := oapi.ListAuditEvents200JSONResponse{Body: oapi.AuditEventList{Items: each(items, auditView)}}
	answer.Body.NextCursor, answer.Headers.Link, err = nextPage(ctx, a.Server, next)
	return answer, err
}

// ExportAudit answers GET /api/audit/export.
func (a *api) ExportAudit(ctx context.Context, req oapi.ExportAuditRequestObject) (oapi.ExportAuditResponseObject, error) {
	p := req.Params
	return auditExport{api: a, ctx: ctx, filter: audit.Filter{
		Actors: list(p.Actor), Types: list(p.Type), Subjects: list(p.Subject), From: instant(p.From), To: instant(p.To),
	}}, nil
}

// auditExport writes an export while it is read, so that its size costs no memory.
type auditExport struct {
	*api
	ctx    context.Context //nolint:containedctx // of the one answer that this value is
	filter audit.Filter
}

// VisitExportAuditResponse writes the export. What fails before the first byte is a problem document; later the answer is
// cut, so that nobody takes a part for the whole.
func (e auditExport) VisitExportAuditResponse(w http.ResponseWriter) error {
	connection := http.NewResponseController(w)
	out := bufio.NewWriterSize(deadlineWriter{w, connection, e.deps.Now}, exportBuffer)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	begun := false
	begin := func() {
		begun = true
		h := w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Content-Disposition", `attachment; filename="audit.ndjson"`)
		h.Set("Trailer", exportTrailer)
		w.WriteHeader(http.StatusOK)
	}
	err := e.deps.Audit.Each(e.ctx, orgOf(e.ctx), e.filter, func(entry audit.Entry) error {
		if !begun {
			begin()
		}
		return enc.Encode(auditView(entry))
	})
	if err == nil && !begun {
		begin()
	}
	if err == nil {
		err = out.Flush()
	}
	switch {
	case err != nil && !begun:
		return err
	case err != nil:
		e.log.WarnContext(e.ctx, "export was cut", slog.String("request_id", requestOf(e.ctx).id), slog.Any("err", err))
		panic(http.ErrAbortHandler)
	}
	w.Header().Set(exportTrailer, "true")
	return nil
}

// deadlineWriter gives the client time anew for each part that it takes.
type deadlineWriter struct {
	w          http.ResponseWriter
	connection *http.ResponseController
	now        func() time.Time
}

// Write sends a part.
func (d deadlineWriter) Write(b []byte) (int, error) {
	if err := d.connection.SetWriteDeadline(d.now().Add(exportGrace)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("set deadline of an export: %w", err)
	}
	return d.w.Write(b)
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
