package httpapi

import (
	"context"
	"time"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/testflow/testflow/internal/analytics"
	"github.com/testflow/testflow/internal/httpapi/internal/oapi"
)

// GetMetrics answers GET /api/analytics/metrics.
func (a *api) GetMetrics(ctx context.Context, req oapi.GetMetricsRequestObject) (oapi.GetMetricsResponseObject, error) {
	p := req.Params
	q := analytics.Query{
		ProjectIDs: list(p.ProjectId), TestIDs: list(p.TestId), EnvironmentIDs: list(p.EnvironmentId), Regions: list(p.Region),
		From: instant(p.From), To: instant(p.To),
	}
	if p.Interval != nil {
		q.Interval = string(*p.Interval)
	}
	if p.GroupBy != nil {
		q.GroupBy = string(*p.GroupBy)
	}
	m, err := a.deps.Analytics.Metrics(ctx, orgOf(ctx), q)
	if err != nil {
		return nil, err
	}
	return oapi.GetMetrics200JSONResponse{
		From: oapi.At(m.From), To: oapi.At(m.To), Interval: m.Interval, GroupBy: some(m.GroupBy), Items: each(m.Items, bucketView),
	}, nil
}

// GetSummary answers GET /api/analytics/summary.
func (a *api) GetSummary(ctx context.Context, req oapi.GetSummaryRequestObject) (oapi.GetSummaryResponseObject, error) {
	p := req.Params
	s, err := a.deps.Analytics.Summary(ctx, orgOf(ctx), analytics.Query{
		ProjectIDs: list(p.ProjectId), TestIDs: list(p.TestId), EnvironmentIDs: list(p.EnvironmentId), Regions: list(p.Region),
		From: instant(p.From), To: instant(p.To),
	})
	if err != nil {
		return nil, err
	}
	return oapi.GetSummary200JSONResponse{
		From: oapi.At(s.From), To: oapi.At(s.To), Current: bucketView(s.Current), Previous: bucketView(s.Previous),
	}, nil
}

// GetUsage answers GET /api/analytics/usage.
func (a *api) GetUsage(ctx context.Context, req oapi.GetUsageRequestObject) (oapi.GetUsageResponseObject, error) {
	u, err := a.deps.Analytics.Usage(ctx, orgOf(ctx), instant(req.Params.From), instant(req.Params.To))
	if err != nil {
		return nil, err
	}
	return oapi.GetUsage200JSONResponse{From: oapi.At(u.From), To: oapi.At(u.To), Items: each(u.Items, func(d analytics.UsageDay) oapi.UsageDay {
		return oapi.UsageDay{
			Day: openapi_types.Date{Time: d.Day}, Runs: d.Runs, Steps: d.Steps, Assertions: d.Assertions, RunMs: millis(d.RunTime), ResponseBytes: d.ResponseBytes,
		}
	})}, nil
}

// millis is a duration as it leaves the process: milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func optionalMillis(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	return ptr(millis(*d))
}

func bucketView(b analytics.Bucket) oapi.MetricsBucket {
	view := oapi.MetricsBucket{
		Start: oapi.At(b.Start), Group: some(b.Group), Runs: b.Runs(), Passed: b.Passed, Failed: b.Failed, Errored: b.Errored,
		Inconclusive: b.Inconclusive, Canceled: b.Canceled,
	}
	if uptime, ok := b.Uptime(); ok {
		view.Uptime = &uptime
	}
	if rate, ok := b.ErrorRate(); ok {
		view.ErrorRate = &rate
	}
	if l := b.Latency; l != nil {
		view.Latency = &oapi.Latency{
			Avg: millis(l.Avg), P50: millis(l.P50), P90: millis(l.P90), P95: millis(l.P95), P99: millis(l.P99), Min: millis(l.Min), Max: millis(l.Max),
		}
	}
	if p := b.Phases; p != (analytics.Phases{}) {
		view.Phases = &oapi.Phases{
			Dns: optionalMillis(p.DNS), Connect: optionalMillis(p.Connect), Tls: optionalMillis(p.TLS),
			FirstByte: optionalMillis(p.FirstByte), Download: optionalMillis(p.Download),
		}
	}
	return view
}
