package analytics

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/analytics/internal/analyticsdb"
	"github.com/testflow/testflow/internal/eventstore"
	"github.com/testflow/testflow/internal/projection"
	"github.com/testflow/testflow/internal/run"
)

const metricsName = "metrics"

//go:embed metrics.sql
var metricsDDL string

func metricsProjection() projection.Projection {
	return projection.Projection{
		Name: metricsName, Version: 1, Types: []string{run.TypeStepFinished, run.TypeFinished},
		DDL: metricsDDL, Tables: []string{"metrics_minutes", "metrics_hours"}, Apply: applyMetrics,
	}
}

// cellKey is a row's primary key.
type cellKey struct {
	org     uuid.UUID
	bucket  time.Time
	project uuid.UUID
	test    uuid.UUID
	env     uuid.UUID
	region  string
}

// phase is how often steps had a phase, and how long it took in all.
type phase struct{ count, sumUs int64 }

func (p *phase) add(o phase) { p.count += o.count; p.sumUs += o.sumUs }

// The phases of a step, in the order of phaseSet.
const (
	phaseDNS = iota
	phaseConnect
	phaseTLS
	phaseFirstByte
	phaseDownload
	phaseCount
)

type phaseSet [phaseCount]phase

// cell is what events add to a row.
type cell struct {
	passed, failed, errored, inconclusive, canceled int64
	count, sumUs, minUs, maxUs                      int64 // of latency
	sketch                                          *sketch
	phases                                          phaseSet
}

// applyMetrics adds what runs and steps came to, to the minute and the hour in which the log recorded them.
func applyMetrics(ctx context.Context, tx pgx.Tx, events []eventstore.Event) error {
	minutes, hours := map[cellKey]*cell{}, map[cellKey]*cell{}
	for _, e := range events {
		for _, t := range []struct {
			cells map[cellKey]*cell
			width time.Duration
		}{{minutes, time.Minute}, {hours, time.Hour}} {
			key := cellKey{e.OrgID, e.RecordedAt.UTC().Truncate(t.width), e.ProjectID, e.TestID, e.EnvironmentID, e.Region}
			c := t.cells[key]
			if c == nil {
				c = &cell{}
				t.cells[key] = c
			}
			if err := c.add(e); err != nil {
				return fmt.Errorf("event %s: %w", e.ID(), err)
			}
		}
	}
	if err := writeMinutes(ctx, tx, minutes); err != nil {
		return err
	}
	return writeHours(ctx, tx, hours)
}

// add counts one event.
func (c *cell) add(e eventstore.Event) error {
	if e.Type == run.TypeStepFinished {
		var d struct { // the rest of run.StepFinished costs as much again
			Timings run.Timings `json:"timings"`
		}
		if err := e.Decode(&d); err != nil {
			return err
		}
		for i, ms := range [phaseCount]*float64{d.Timings.DNSMs, d.Timings.ConnectMs, d.Timings.TLSMs, d.Timings.FirstByteMs, d.Timings.DownloadMs} {
			if ms != nil {
				c.phases[i].add(phase{1, int64(*ms*1000 + 0.5)})
			}
		}
		return nil
	}
	status := run.Status(e.Status)
	switch status {
	case run.Passed:
		c.passed++
	case run.Failed:
		c.failed++
	case run.Errored:
		c.errored++
	case run.Inconclusive:
		c.inconclusive++
	case run.Canceled:
		c.canceled++
	default:
		return fmt.Errorf("a run cannot end %q", e.Status)
	}
	if status != run.Passed && status != run.Failed {
		return nil
	}
	return c.latency(e.Duration.Microseconds())
}

func (c *cell) latency(us int64) error {
	if c.sketch == nil {
		s, err := newSketch()
		if err != nil {
			return err
		}
		c.sketch, c.minUs = s, us
	}
	c.count++
	c.sumUs += us
	c.minUs, c.maxUs = min(c.minUs, us), max(c.maxUs, us)
	return c.sketch.add(us)
}

// keyColumns are keys as arrays.
type keyColumns struct {
	orgs, projects, tests, envs []uuid.UUID
	buckets                     []time.Time
	regions                     []string
}

func (k *keyColumns) append(key cellKey) {
	k.orgs, k.buckets, k.projects = append(k.orgs, key.org), append(k.buckets, key.bucket), append(k.projects, key.project)
	k.tests, k.envs, k.regions = append(k.tests, key.test), append(k.envs, key.env), append(k.regions, key.region)
}

// withLatency are the keys of those cells whose sketches may have to be merged with what is stored.
func withLatency(cells map[cellKey]*cell) *keyColumns {
	k := &keyColumns{}
	for key, c := range cells {
		if c.count > 0 {
			k.append(key)
		}
	}
	return k
}

// mergeStored merges a stored sketch into the cell that adds to its row.
func mergeStored(cells map[cellKey]*cell, key cellKey, stored []byte) error {
	key.bucket = key.bucket.UTC()
	if c := cells[key]; c != nil && c.sketch != nil {
		return c.sketch.merge(stored)
	}
	return nil
}

// columns are all cells as the arrays that the upsert takes.
func columns(cells map[cellKey]*cell) analyticsdb.AddMinutesParams {
	var k keyColumns
	var p analyticsdb.AddMinutesParams
	for key, c := range cells {
		k.append(key)
		p.APassed, p.AFailed, p.AErrored = append(p.APassed, c.passed), append(p.AFailed, c.failed), append(p.AErrored, c.errored)
		p.AInconclusive, p.ACanceled = append(p.AInconclusive, c.inconclusive), append(p.ACanceled, c.canceled)
		p.ALatencyCount, p.ALatencySumUs = append(p.ALatencyCount, c.count), append(p.ALatencySumUs, c.sumUs)
		p.ALatencyMinUs, p.ALatencyMaxUs = append(p.ALatencyMinUs, c.minUs), append(p.ALatencyMaxUs, c.maxUs)
		encoded := []byte{}
		if c.sketch != nil {
			encoded = c.sketch.encode()
		}
		p.ALatencySketch = append(p.ALatencySketch, encoded)
		for i, to := range [phaseCount][2]*[]int64{
			{&p.ADnsCount, &p.ADnsSumUs},
			{&p.AConnectCount, &p.AConnectSumUs},
			{&p.ATlsCount, &p.ATlsSumUs},
			{&p.AFirstByteCount, &p.AFirstByteSumUs},
			{&p.ADownloadCount, &p.ADownloadSumUs},
		} {
			*to[0], *to[1] = append(*to[0], c.phases[i].count), append(*to[1], c.phases[i].sumUs)
		}
	}
	p.AOrgID, p.ABucket, p.AProjectID, p.ATestID, p.AEnvironmentID, p.ARegion = k.orgs, k.buckets, k.projects, k.tests, k.envs, k.regions
	return p
}

// writeMinutes adds cells to metrics_minutes. The checkpoint's lock keeps others from the rows meanwhile.
func writeMinutes(ctx context.Context, tx pgx.Tx, cells map[cellKey]*cell) error {
	q, k := analyticsdb.New(tx), withLatency(cells)
	rows, err := q.SketchesMinutes(ctx, analyticsdb.SketchesMinutesParams{AOrgID: k.orgs, ABucket: k.buckets, AProjectID: k.projects, ATestID: k.tests, AEnvironmentID: k.envs, ARegion: k.regions})
	if err != nil {
		return fmt.Errorf("read sketches of minutes: %w", err)
	}
	for _, r := range rows {
		if err := mergeStored(cells, cellKey{r.OrgID, r.Bucket, r.ProjectID, r.TestID, r.EnvironmentID, r.Region}, r.LatencySketch); err != nil {
			return err
		}
	}
	if err := q.AddMinutes(ctx, columns(cells)); err != nil {
		return fmt.Errorf("add to minutes: %w", err)
	}
	return nil
}

// writeHours is writeMinutes for metrics_hours.
func writeHours(ctx context.Context, tx pgx.Tx, cells map[cellKey]*cell) error {
	q, k := analyticsdb.New(tx), withLatency(cells)
	rows, err := q.SketchesHours(ctx, analyticsdb.SketchesHoursParams{AOrgID: k.orgs, ABucket: k.buckets, AProjectID: k.projects, ATestID: k.tests, AEnvironmentID: k.envs, ARegion: k.regions})
	if err != nil {
		return fmt.Errorf("read sketches of hours: %w", err)
	}
	for _, r := range rows {
		if err := mergeStored(cells, cellKey{r.OrgID, r.Bucket, r.ProjectID, r.TestID, r.EnvironmentID, r.Region}, r.LatencySketch); err != nil {
			return err
		}
	}
	if err := q.AddHours(ctx, analyticsdb.AddHoursParams(columns(cells))); err != nil {
		return fmt.Errorf("add to hours: %w", err)
	}
	return nil
}
