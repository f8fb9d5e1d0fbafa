package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/seal"
)

const (
	// checkEvery is how long a reader of an export is trusted before it is asked again whether they still may.
	checkEvery = time.Second
	// endTime is what recording the end of an export may take after its client has gone.
	endTime = 5 * time.Second
)

// Evidence adds to an NDJSON export what proves it. One serves one export.
type Evidence interface {
	// Page is called with each page of events, oldest first, in the short transaction that read it. Each of the lines
	// that it returns stands, as JSON, after the page's events; it has a field "line" that is none of the export's own.
	Page(ctx context.Context, tx postgres.OrgTx, page []eventstore.Event) (lines []any, err error)
	// End is called once after the last page.
	End(ctx context.Context, tx postgres.OrgTx) (lines []any, err error)
}

// Request is what somebody wants a copy of.
type Request struct {
	Filter Filter // Filter.After is where a copy that was cut goes on: the position of its last whole event
	Format Format
}

// Exported says how much was written.
type Exported struct {
	Events   int
	Position int64 // of the last event that was written, or what Filter.After was: where the next part goes on
	UpTo     int64 // position up to which the log was looked at
}

// Export writes what the request selects to w, oldest first, up to what is settled when it is called. It reads page by
// page, each in a short transaction, and writes outside of it, so memory is constant and nothing waits for a slow
// reader; after each page it flushes w, when w can be flushed. That somebody takes a copy is recorded before the first
// byte, and how much they got after the last. It needs auth.AuditRead.
func (s *Service) Export(ctx context.Context, orgID uuid.UUID, r Request, w io.Writer) (Exported, error) {
	who, err := auth.Require(ctx, orgID, auth.AuditRead)
	if err != nil {
		return Exported{}, err
	}
	if err := r.Filter.check(s.types()); err != nil {
		return Exported{}, err
	}
	out, err := newEncoder(r.Format, w)
	if err != nil {
		return Exported{}, err
	}
	started := ExportStarted{ExportID: s.NewID(), Format: r.Format, Filter: r.Filter.selection(), After: r.Filter.After}
	if err := s.record(ctx, orgID, who, started); err != nil {
		return Exported{}, fmt.Errorf("record the export: %w", err)
	}
	done, err := s.export(ctx, orgID, started.ExportID, r, out, w)
	// The client may have gone: what left is told all the same.
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	ended := ExportEnded{ExportID: started.ExportID, Events: done.Events, UpTo: done.Position, Complete: err == nil}
	if rerr := s.record(endCtx, orgID, who, ended); rerr != nil {
		s.Log.ErrorContext(ctx, "the end of an export was not recorded", slog.String("export_id", started.ExportID.String()), slog.Any("err", rerr))
	}
	return done, err
}

func (s *Service) export(ctx context.Context, orgID, exportID uuid.UUID, r Request, out encoder, w io.Writer) (Exported, error) {
	done := Exported{Position: r.Filter.After}
	checked := s.Now()
	err := s.pages(ctx, orgID, r, func(p page) error {
		if now := s.Now(); now.Sub(checked) >= checkEvery {
			if err := s.stillMay(ctx, orgID); err != nil {
				return err
			}
			checked = now
		}
		if p.first {
			done.UpTo = p.upTo
			head := header{
				Line: lineHeader, Format: ExportFormat, OrganizationID: orgID, After: r.Filter.After, UpTo: p.upTo,
				Filter: r.Filter.selection(), ExportedAt: s.Now().UTC().Truncate(time.Microsecond), ExportID: exportID,
			}
			if lines, ok := out.(*ndjson); ok && len(p.opening) > 0 {
				lines.signing = s.signing(ctx, orgID, exportID, r.Filter.After, p.opening)
				head.Signed = lines.signing != nil
			}
			if err := out.open(head); err != nil {
				return err
			}
		}
		if err := out.lines(p.opening); err != nil {
			return err
		}
		for i := range p.entries {
			if err := out.event(orgID, p.entries[i], p.events[i]); err != nil {
				return err
			}
			done.Events, done.Position = done.Events+1, p.entries[i].Position
		}
		if err := out.lines(p.evidence); err != nil {
			return err
		}
		if p.last {
			if err := out.close(done); err != nil {
				return err
			}
		} else if err := out.cursor(done.Position); err != nil {
			return err
		}
		if err := out.sign(done.Position); err != nil {
			return err
		}
		return flush(w)
	})
	if err != nil {
		return done, fmt.Errorf("export the audit log: %w", err)
	}
	return done, nil
}

// signing begins the signatures of an export's lines, and puts the key that makes them into its opening. It is nil when
// there is no key to sign with: such an export says what nothing covers, and is better than none.
func (s *Service) signing(ctx context.Context, orgID, exportID uuid.UUID, after int64, opening []any) *seal.Signing {
	first, ok := opening[0].(seal.Seals)
	if s.Signer == nil || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limits.ExportSealWait)
	defer cancel()
	signer, chain, err := s.Signer(ctx)
	if err != nil {
		s.Log.ErrorContext(ctx, "an export's lines can't be signed", slog.String("export_id", exportID.String()), slog.Any("err", err))
		return nil
	}
	first.Keys = chain.Notes() // those that the page's transaction read, or with more behind them
	opening[0] = first
	return seal.NewSigning(signer, orgID, exportID, after)
}

// settle seals what an export will show, itself included, and returns the exclusive end of what is sealed then, or before
// when that is less. ok is false when it can't be had soon.
func (s *Service) settle(ctx context.Context, before int64) (end int64, ok bool) {
	if s.Settle == nil || s.Evidence == nil {
		return before, false
	}
	waitCtx, cancel := context.WithTimeout(ctx, limits.ExportSealWait)
	defer cancel()
	sealed, err := s.Settle(waitCtx)
	if err != nil {
		s.Log.WarnContext(ctx, "an export goes on with what was sealed before it", slog.Any("err", err))
		return before, false
	}
	if before == 0 || sealed+1 < before {
		return sealed + 1, true
	}
	return before, true
}

// stillMay returns a fault when the reader has been signed out, removed or demoted since the export began.
func (s *Service) stillMay(ctx context.Context, orgID uuid.UUID) error {
	if s.Check == nil {
		return nil
	}
	now, err := s.Check(ctx, auth.From(ctx))
	if err != nil {
		return err
	}
	_, err = auth.Require(auth.With(ctx, now), orgID, auth.AuditRead)
	return err
}

func flush(w io.Writer) error {
	f, ok := w.(interface{ Flush() error })
	if !ok {
		return nil
	}
	return f.Flush()
}

// page is one stretch of an export, read and opened.
type page struct {
	first, last bool
	upTo        int64
	opening     []any // evidence, in the first page
	events      []eventstore.Event
	entries     []Entry
	evidence    []any
}

// pages reads what a request selects, page by page, and calls fn with each, outside of the transaction that read it.
func (s *Service) pages(ctx context.Context, orgID uuid.UUID, r Request, fn func(page) error) error {
	q := r.Filter.query()
	q.Limit = limits.ExportPage
	settled := false
	if r.Format == NDJSON {
		q.Before, settled = s.settle(ctx, q.Before)
	}
	var evidence Evidence
	for first := true; ; first = false {
		p := page{first: first}
		err := s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) (err error) {
			if first { // what comes later is another export's
				if !settled { // the fence can go back, and seals stay
					if q.Before, err = s.end(ctx, tx, q.Before); err != nil {
						return err
					}
				}
				if s.Evidence != nil && r.Format == NDJSON {
					if evidence, p.opening, err = s.Evidence(ctx, tx, orgID, r.Filter, r.Filter.After, q.Before-1); err != nil {
						return err
					}
				}
			}
			if p.events, _, err = s.Store.ReadOrg(ctx, tx, orgID, q); err != nil {
				return err
			}
			if p.entries, err = s.entries(ctx, tx, p.events); err != nil || evidence == nil {
				return err
			}
			if p.evidence, err = evidence.Page(ctx, tx, p.events); err != nil || len(p.events) == q.Limit {
				return err
			}
			end, err := evidence.End(ctx, tx)
			p.evidence = append(p.evidence, end...)
			return err
		})
		if err != nil {
			return err
		}
		p.upTo, p.last = q.Before-1, len(p.events) < q.Limit
		if err := fn(p); err != nil || p.last {
			return err
		}
		q.After = p.events[len(p.events)-1].Position
		q.Limit = nextLimit(q.Limit, p.events)
	}
}

// end is the exclusive end of an export that begins now: behind what is settled, or before, where that was asked for.
func (s *Service) end(ctx context.Context, tx pgx.Tx, before int64) (int64, error) {
	fence, err := s.Store.Fence(ctx, tx)
	if err != nil {
		return 0, err
	}
	if before == 0 || fence+1 < before {
		return fence + 1, nil
	}
	return before, nil
}

// nextLimit keeps a page near limits.ExportPageBytes, by what the last one weighed.
func nextLimit(limit int, last []eventstore.Event) int {
	size := 0
	for i := range last {
		size += len(last[i].Data)
	}
	switch {
	case size > limits.ExportPageBytes:
		return max(limit/2, 1)
	case size < limits.ExportPageBytes/2:
		return min(limit*2, limits.ExportPage)
	}
	return limit
}

// record appends a security event to an organization's log, in a transaction of its own.
func (s *Service) record(ctx context.Context, orgID uuid.UUID, who eventstore.Actor, data eventstore.Data) error {
	return s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		_, err := s.Store.Append(ctx, tx, stream(orgID), eventstore.AnyVersion, who, data)
		return err
	})
}

// Cut reports whether an export ended because its reader was gone.
func Cut(err error) bool { return errors.Is(err, context.Canceled) || errors.Is(err, io.ErrClosedPipe) }

func formatUnknown() *fault.Error {
	f := fault.New(fault.Invalid, "request.invalid", "There is no such format.")
	f.Fields = []fault.Field{{Parameter: "format", Detail: "must be ndjson, csv or cloudevents"}}
	return f
}
