package analytics

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/testflow/testflow/internal/analytics/internal/analyticsdb"
	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/run"
)

const usageName = "usage"

//go:embed usage.sql
var usageDDL string

func usageProjection() projection.Projection {
	return projection.Projection{
		Name: usageName, Version: 1, Types: []string{run.TypeAttemptFinished, run.TypeFinished},
		DDL: usageDDL, Tables: []string{"usage_days"}, Apply: applyUsage,
	}
}

// applyUsage adds runs, and what their attempts used, to the day in which the log recorded them.
func applyUsage(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	type key struct {
		org uuid.UUID
		day time.Time
	}
	days := map[key]*UsageDay{}
	for _, e := range events {
		k := key{e.OrgID, e.RecordedAt.UTC().Truncate(24 * time.Hour)}
		d := days[k]
		if d == nil {
			d = &UsageDay{}
			days[k] = d
		}
		if e.Type == run.TypeFinished {
			d.Runs++
			continue
		}
		var a run.AttemptFinished
		if err := e.Decode(&a); err != nil {
			return fmt.Errorf("event %s: %w", e.ID(), err)
		}
		d.Steps += int64(a.Counts.Steps)
		d.Assertions += int64(a.Counts.Assertions)
		d.ResponseBytes += int64(a.Counts.ResponseBytes)
		d.RunTime += time.Duration(a.DurationMs*1000+0.5) * time.Microsecond
	}
	var p analyticsdb.AddUsageParams
	for k, d := range days {
		p.AOrgID, p.ADay = append(p.AOrgID, k.org), append(p.ADay, pgtype.Date{Time: k.day, Valid: true})
		p.ARuns, p.ASteps, p.AAssertions = append(p.ARuns, d.Runs), append(p.ASteps, d.Steps), append(p.AAssertions, d.Assertions)
		p.AResponseBytes, p.ARunUs = append(p.AResponseBytes, d.ResponseBytes), append(p.ARunUs, d.RunTime.Microseconds())
	}
	if err := analyticsdb.New(tx).AddUsage(ctx, p); err != nil {
		return fmt.Errorf("add to usage: %w", err)
	}
	return nil
}

// Usage is what an organization used, by day.
type Usage struct {
	From, To time.Time
	Items    []UsageDay // those that hold runs, by day
}

// UsageDay is one UTC day.
type UsageDay struct {
	Day                                    time.Time
	Runs, Steps, Assertions, ResponseBytes int64
	RunTime                                time.Duration // of all attempts
}

// Usage returns the days that begin in [from, to); without, the last 30 days. It needs auth.AnalyticsRead.
func (s *Service) Usage(ctx context.Context, orgID uuid.UUID, from, to time.Time) (Usage, error) {
	if _, err := auth.Require(ctx, orgID, auth.AnalyticsRead); err != nil {
		return Usage{}, err
	}
	from, to, err := s.span(from, to, usageSpan)
	if err != nil {
		return Usage{}, err
	}
	out := Usage{From: from, To: to}
	last := to.Truncate(24 * time.Hour)
	if last.Before(to) {
		last = last.Add(24 * time.Hour)
	}
	err = s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := analyticsdb.New(tx).UsageDays(ctx, analyticsdb.UsageDaysParams{
			OrgID: orgID, FromDay: pgtype.Date{Time: from.Truncate(24 * time.Hour), Valid: true}, ToDay: pgtype.Date{Time: last, Valid: true},
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			out.Items = append(out.Items, UsageDay{
				Day: r.Day.Time, Runs: r.Runs, Steps: r.Steps, Assertions: r.Assertions, ResponseBytes: r.ResponseBytes, RunTime: time.Duration(r.RunUs) * time.Microsecond,
			})
		}
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("read usage: %w", err)
	}
	return out, nil
}
