// Package analytics answers how runs went over time: counts, uptime, latency percentiles and usage. Its tables follow the
// log as projections in a database of their own, so heavy questions never touch the log. It decides nothing and alerts
// nobody.
package analytics

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/testflow/testflow/internal/auth"
	"github.com/testflow/testflow/internal/fault"
	"github.com/testflow/testflow/internal/limits"
	"github.com/testflow/testflow/internal/postgres"
	"github.com/testflow/testflow/internal/projection"
)

const (
	metricsSpan = 24 * time.Hour      // asked for when no from is given
	usageSpan   = 30 * 24 * time.Hour // the same for usage
	autoBuckets = 500                 // an interval that wasn't given makes at most so many
)

// intervals are the widths of buckets, narrowest first, as they are written in the API.
var intervals = []struct {
	name  string
	width time.Duration
}{
	{"1m", time.Minute},
	{"5m", 5 * time.Minute},
	{"15m", 15 * time.Minute},
	{"1h", time.Hour},
	{"6h", 6 * time.Hour},
	{"1d", 24 * time.Hour},
}

// Projections are the ones that this room reads, for the runner.
func Projections() []projection.Projection {
	return []projection.Projection{metricsProjection(), usageProjection()}
}

// Service answers questions.
type Service struct {
	DB *postgres.DB // the analytics database
	// Follow waits until the tables have reached a position of the log; projection.Runner.Wait does it. nil = they are read
	// as they are.
	Follow func(ctx context.Context, position int64, projections ...string) error
	Now    func() time.Time
}

// Query selects runs. Zero fields select nothing away.
type Query struct {
	ProjectIDs, TestIDs []uuid.UUID
	EnvironmentIDs      []uuid.UUID // uuid.Nil = runs without environment
	Regions             []string
	From, To            time.Time // by the time that runs ended, half-open, to the minute; without: the last 24 h
	Interval            string    // 1m 5m 15m 1h 6h 1d; "" = the narrowest that gives at most 500 buckets
	GroupBy             string    // project test environment region, or ""
}

// Metrics is runs over time.
type Metrics struct {
	From, To          time.Time
	Interval, GroupBy string
	Items             []Bucket // those that hold runs, by group and start
}

// Bucket is what the runs came to that ended in a stretch of time.
type Bucket struct {
	Start                                           time.Time
	Group                                           string // id, or name of the region
	Passed, Failed, Errored, Inconclusive, Canceled int64
	Latency                                         *Latency // nil without a run that passed or failed
	Phases                                          Phases
}

// Runs returns how many runs ended.
func (b Bucket) Runs() int64 { return b.judged() + b.Inconclusive + b.Canceled }

// judged is how many of them say something about the target.
func (b Bucket) judged() int64 { return b.Passed + b.Failed + b.Errored }

// Uptime returns the part of judged runs that passed, from 0 to 1; ok=false without any.
func (b Bucket) Uptime() (part float64, ok bool) {
	n := b.judged()
	return float64(b.Passed) / float64(max(n, 1)), n > 0
}

// ErrorRate returns the part of judged runs that failed or errored, from 0 to 1; ok=false without any.
func (b Bucket) ErrorRate() (part float64, ok bool) {
	n := b.judged()
	return float64(b.Failed+b.Errored) / float64(max(n, 1)), n > 0
}

// Latency is how long runs took that passed or failed. Percentiles are within 1 % (DDSketch, α = 0.01); the others are
// exact.
type Latency struct{ Avg, P50, P90, P95, P99, Min, Max time.Duration }

// Phases are the averages of steps' phases; nil = no step had it.
type Phases struct{ DNS, Connect, TLS, FirstByte, Download *time.Duration }

// Metrics returns an organization's runs by bucket and group. It needs auth.AnalyticsRead.
func (s *Service) Metrics(ctx context.Context, orgID uuid.UUID, q Query) (Metrics, error) {
	if _, err := auth.Require(ctx, orgID, auth.AnalyticsRead); err != nil {
		return Metrics{}, err
	}
	q, width, err := s.settle(q)
	if err != nil {
		return Metrics{}, err
	}
	items, err := s.read(ctx, orgID, q, width)
	if err != nil {
		return Metrics{}, fmt.Errorf("read metrics: %w", err)
	}
	return Metrics{From: q.From, To: q.To, Interval: q.Interval, GroupBy: q.GroupBy, Items: items}, nil
}

// Summary is one bucket for a time, and one for the equally long time before it.
type Summary struct {
	From, To          time.Time
	Current, Previous Bucket
}

// Summary returns an organization's totals. Interval and GroupBy are not looked at. It needs auth.AnalyticsRead.
func (s *Service) Summary(ctx context.Context, orgID uuid.UUID, q Query) (out Summary, err error) {
	if _, err := auth.Require(ctx, orgID, auth.AnalyticsRead); err != nil {
		return Summary{}, err
	}
	q.Interval, q.GroupBy = "1d", ""
	if q, _, err = s.settle(q); err != nil {
		return Summary{}, err
	}
	out = Summary{From: q.From, To: q.To}
	if out.Current, err = s.total(ctx, orgID, q); err != nil {
		return Summary{}, fmt.Errorf("read the summary: %w", err)
	}
	q.From, q.To = q.From.Add(-q.To.Sub(q.From)), q.From
	if out.Previous, err = s.total(ctx, orgID, q); err != nil {
		return Summary{}, fmt.Errorf("read the summary: %w", err)
	}
	return out, nil
}

func (s *Service) total(ctx context.Context, orgID uuid.UUID, q Query) (Bucket, error) {
	items, err := s.read(ctx, orgID, q, 0)
	if err != nil || len(items) == 0 {
		return Bucket{Start: q.From}, err
	}
	return items[0], nil
}

// Wait returns when what the log held up to a position is in the tables.
func (s *Service) Wait(ctx context.Context, position int64) error {
	if s.Follow == nil {
		return nil
	}
	return s.Follow(ctx, position, metricsName, usageName)
}

// span fills in and checks the times, to the minute.
func (s *Service) span(from, to time.Time, without time.Duration) (time.Time, time.Time, error) {
	if to.IsZero() {
		to = s.Now()
	}
	to = to.UTC()
	if from.IsZero() {
		from = to.Add(-without)
	}
	from = from.UTC().Truncate(time.Minute)
	if whole := to.Truncate(time.Minute); whole.Before(to) {
		to = whole.Add(time.Minute)
	}
	f := fault.New(fault.Invalid, "analytics.range_invalid", "The time range is not valid.")
	switch {
	case !from.Before(to):
		f.Fields = append(f.Fields, fault.Field{Parameter: "from", Detail: "It must be before to."})
	case to.Sub(from) > limits.MaxSpan:
		f.Fields = append(f.Fields, fault.Field{Parameter: "from", Detail: "It may be at most five years before to."})
	default:
		return from, to, nil
	}
	return from, to, f
}

// settle fills in what q leaves open, and refuses what makes no sense.
func (s *Service) settle(q Query) (Query, time.Duration, error) {
	var err error
	if q.From, q.To, err = s.span(q.From, q.To, metricsSpan); err != nil {
		return q, 0, err
	}
	span := q.To.Sub(q.From)
	if _, ok := groupColumns[q.GroupBy]; !ok && q.GroupBy != "" {
		f := fault.New(fault.Invalid, "analytics.group_by_invalid", "Metrics can't be grouped by that.")
		f.Fields = append(f.Fields, fault.Field{Parameter: "groupBy", Detail: "It is project, test, environment or region."})
		return q, 0, f
	}
	for _, i := range intervals {
		if q.Interval == "" && span/i.width <= autoBuckets || q.Interval == i.name {
			q.Interval = i.name
			if span/i.width > limits.MaxBuckets {
				f := fault.New(fault.Invalid, "analytics.interval_too_narrow", "That would be too many buckets.")
				f.Fields = append(f.Fields, fault.Field{Parameter: "interval", Detail: fmt.Sprintf("At most %d buckets fit in an answer: ask for a wider interval or a shorter time.", limits.MaxBuckets)})
				return q, 0, f
			}
			return q, i.width, nil
		}
	}
	if q.Interval == "" {
		last := intervals[len(intervals)-1]
		q.Interval = last.name
		return q, last.width, nil
	}
	f := fault.New(fault.Invalid, "analytics.interval_invalid", "There is no such interval.")
	f.Fields = append(f.Fields, fault.Field{Parameter: "interval", Detail: "It is 1m, 5m, 15m, 1h, 6h or 1d."})
	return q, 0, f
}
