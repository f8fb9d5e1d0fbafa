package httpapi

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/testflow/testflow/internal/audit"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// The trailers of an export. Complete says that nothing is missing, the others how much came and where the next part
// goes on.
const (
	trailerComplete = "X-Export-Complete"
	trailerEvents   = "X-Export-Events"
	trailerPosition = "X-Export-Position"
)

const (
	// exportBuffer is sent at once, and exportGrace is what a client gets to take it.
	exportBuffer = 64 << 10
	exportGrace  = 30 * time.Second
)

// exportMedia are the media types of the formats, in the order in which they are preferred.
var exportMedia = []struct {
	format          audit.Format
	media, fileName string
}{
	{audit.NDJSON, "application/x-ndjson", "audit.ndjson"},
	{audit.CSV, "text/csv", "audit.csv"},
	{audit.CloudEvents, "application/cloudevents-batch+json", "audit.cloudevents.json"},
}

// ExportAudit answers GET /api/audit/export.
func (a *api) ExportAudit(ctx context.Context, req oapi.ExportAuditRequestObject) (oapi.ExportAuditResponseObject, error) {
	p := req.Params
	r := audit.Request{Format: acceptedFormat(requestOf(ctx).header), Filter: audit.Filter{
		Actors: list(p.Actor), Types: list(p.Type), Subjects: list(p.Subject), RequestIDs: list(p.RequestId), From: instant(p.From), To: instant(p.To),
		After: deref(p.After), UpTo: deref(p.UpTo),
	}}
	if p.Format != nil {
		r.Format = audit.Format(*p.Format)
	}
	return auditExport{api: a, ctx: ctx, request: r}, nil
}

// acceptedFormat is the first format that the header Accept names; that there is one has been checked.
func acceptedFormat(h http.Header) audit.Format {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept"), ","), ",") {
		media, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		for _, m := range exportMedia {
			if media == m.media {
				return m.format
			}
		}
	}
	return audit.NDJSON
}

// acceptsGzip reports whether the client takes a compressed answer.
func acceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, weight, _ := strings.Cut(strings.ReplaceAll(part, " ", ""), ";")
		if strings.EqualFold(coding, "gzip") {
			return strings.Trim(strings.TrimPrefix(strings.ToLower(weight), "q="), "0.") != "" || weight == ""
		}
	}
	return false
}

// auditExport writes an export while it is read, so that its size costs no memory.
type auditExport struct {
	*api
	ctx     context.Context //nolint:containedctx // of the one answer that this value is
	request audit.Request
}

// VisitExportAuditResponse writes the export. What fails before the first byte is a problem document; later the answer is
// cut, so that nobody takes a part for the whole.
func (e auditExport) VisitExportAuditResponse(w http.ResponseWriter) error {
	out := e.stream(w)
	done, err := e.deps.Audit.Export(e.ctx, orgOf(e.ctx), e.request, out)
	if err == nil {
		err = out.close()
	}
	switch {
	case err != nil && !out.begun:
		return err
	case err != nil:
		level := slog.LevelWarn
		if e.ctx.Err() != nil || audit.Cut(err) { // the client went away, which is its right
			level = slog.LevelInfo
		}
		e.log.Log(e.ctx, level, "export was cut", slog.String("request_id", requestOf(e.ctx).id), slog.Int("events", done.Events), slog.Any("err", err))
		panic(http.ErrAbortHandler)
	}
	h := w.Header()
	h.Set(trailerComplete, "true")
	h.Set(trailerEvents, strconv.Itoa(done.Events))
	h.Set(trailerPosition, strconv.FormatInt(done.Position, 10))
	return nil
}

// stream is the body of an export: buffered, compressed where that is wanted, with time anew for each part that the
// client takes.
func (e auditExport) stream(w http.ResponseWriter) *exportStream {
	s := &exportStream{w: w, zipped: acceptsGzip(requestOf(e.ctx).header), connection: http.NewResponseController(w), now: e.deps.Now}
	for _, m := range exportMedia {
		if m.format == e.request.Format {
			s.media, s.fileName = m.media, m.fileName
		}
	}
	s.out = bufio.NewWriterSize(writerFunc(s.send), exportBuffer)
	if s.zipped {
		s.zip = gzip.NewWriter(s.out)
	}
	return s
}

type exportStream struct {
	w               http.ResponseWriter
	connection      *http.ResponseController
	now             func() time.Time
	media, fileName string
	zipped          bool
	begun           bool
	out             *bufio.Writer
	zip             *gzip.Writer // nil = as it is
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Write takes a piece of the export.
func (s *exportStream) Write(b []byte) (int, error) {
	if s.zip != nil {
		return s.zip.Write(b)
	}
	return s.out.Write(b)
}

// Flush sends a page that is whole.
func (s *exportStream) Flush() error {
	if s.zip != nil {
		if err := s.zip.Flush(); err != nil {
			return fmt.Errorf("compress an export: %w", err)
		}
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	if err := s.connection.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("send a part of an export: %w", err)
	}
	return nil
}

func (s *exportStream) close() error {
	if s.zip != nil {
		if err := s.zip.Close(); err != nil {
			return fmt.Errorf("compress an export: %w", err)
		}
	}
	return s.out.Flush()
}

// send passes on what the buffer held; the headers go before the first of it.
func (s *exportStream) send(b []byte) (int, error) {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", s.media)
		h.Set("Content-Disposition", `attachment; filename="`+s.fileName+`"`)
		h.Add("Vary", "Accept, Accept-Encoding")
		h.Set("Trailer", strings.Join([]string{trailerComplete, trailerEvents, trailerPosition}, ", "))
		if s.zipped {
			h.Set("Content-Encoding", "gzip")
		}
		s.w.WriteHeader(http.StatusOK)
	}
	if err := s.connection.SetWriteDeadline(s.now().Add(exportGrace)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, fmt.Errorf("set deadline of an export: %w", err)
	}
	return s.w.Write(b)
}

var _ io.Writer = (*exportStream)(nil)
