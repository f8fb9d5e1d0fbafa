package analytics

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/testflow/testflow/internal/postgres"
)

// groupColumns are what metrics can be grouped by.
var groupColumns = map[string]string{
	"project":     "project_id::text",
	"test":        "test_id::text",
	"environment": "environment_id::text",
	"region":      "region",
}

// metricColumns are read from both tables, in the order in which read scans them.
const metricColumns = `passed, failed, errored, inconclusive, canceled, latency_count, latency_sum_us, latency_min_us, latency_max_us, latency_sketch,
	dns_count, dns_sum_us, connect_count, connect_sum_us, tls_count, tls_sum_us, first_byte_count, first_byte_sum_us, download_count, download_sum_us`

// read merges the rows that q selects into buckets of a width (0 = one for all), by group and start. It streams: memory
// is that of the answer.
func (s *Service) read(ctx context.Context, orgID uuid.UUID, q Query, width time.Duration) ([]Bucket, error) {
	type key struct {
		group string
		start time.Time
	}
	cells := map[key]*cell{}
	sql, args := q.sql(orgID, width)
	err := s.DB.InOrg(ctx, orgID, func(ctx context.Context, tx postgres.OrgTx) error {
		rows, err := tx.Query(ctx, sql, args...) //nolint:rowserrcheck // ForEachRow does
		if err != nil {
			return err
		}
		var at time.Time
		var group string
		var r cell
		var encoded []byte
		p := &r.phases
		_, err = pgx.ForEachRow(rows, []any{
			&at, &group, &r.passed, &r.failed, &r.errored, &r.inconclusive, &r.canceled, &r.count, &r.sumUs, &r.minUs, &r.maxUs, &encoded,
			&p[phaseDNS].count, &p[phaseDNS].sumUs, &p[phaseConnect].count, &p[phaseConnect].sumUs, &p[phaseTLS].count, &p[phaseTLS].sumUs,
			&p[phaseFirstByte].count, &p[phaseFirstByte].sumUs, &p[phaseDownload].count, &p[phaseDownload].sumUs,
		}, func() error {
			k := key{group, q.From}
			if width > 0 {
				k.start = at.UTC().Truncate(width)
			}
			c := cells[k]
			if c == nil {
				c = &cell{}
				cells[k] = c
			}
			return c.merge(&r, encoded)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	buckets := make([]Bucket, 0, len(cells))
	for k, c := range cells {
		b, err := c.bucket(k.start, k.group)
		if err != nil {
			return nil, err
		}
		if b.Runs() > 0 { // a step whose run hasn't ended yet is no run
			buckets = append(buckets, b)
		}
	}
	slices.SortFunc(buckets, func(a, b Bucket) int { return cmp.Or(cmp.Compare(a.Group, b.Group), a.Start.Compare(b.Start)) })
	return buckets, nil
}

// sql selects the rows of q: whole hours from the hours' table when the buckets are as wide, and what is left at both
// ends from the minutes'.
func (q Query) sql(orgID uuid.UUID, width time.Duration) (string, []any) {
	args := []any{orgID}
	arg := func(v any) string { args = append(args, v); return "$" + strconv.Itoa(len(args)) }
	where := "org_id = $1"
	if len(q.ProjectIDs) > 0 {
		where += " AND project_id = ANY (" + arg(q.ProjectIDs) + ")"
	}
	if len(q.TestIDs) > 0 {
		where += " AND test_id = ANY (" + arg(q.TestIDs) + ")"
	}
	if len(q.EnvironmentIDs) > 0 {
		where += " AND environment_id = ANY (" + arg(q.EnvironmentIDs) + ")"
	}
	if len(q.Regions) > 0 {
		where += " AND region = ANY (" + arg(q.Regions) + ")"
	}
	group := "''"
	if column, ok := groupColumns[q.GroupBy]; ok {
		group = column
	}
	part := func(table string, from, to time.Time) string {
		return "SELECT bucket, " + group + ", " + metricColumns + " FROM " + table + " WHERE " + where + " AND bucket >= " + arg(from) + " AND bucket < " + arg(to)
	}
	first := q.From.Truncate(time.Hour) // of the whole hours
	if first.Before(q.From) {
		first = first.Add(time.Hour)
	}
	last := q.To.Truncate(time.Hour)
	if width > 0 && width < time.Hour || !first.Before(last) {
		return part("metrics_minutes", q.From, q.To), args
	}
	parts := []string{part("metrics_hours", first, last)}
	if q.From.Before(first) {
		parts = append(parts, part("metrics_minutes", q.From, first))
	}
	if last.Before(q.To) {
		parts = append(parts, part("metrics_minutes", last, q.To))
	}
	return strings.Join(parts, " UNION ALL "), args
}

// merge adds a stored row.
func (c *cell) merge(r *cell, encoded []byte) error {
	c.passed += r.passed
	c.failed += r.failed
	c.errored += r.errored
	c.inconclusive += r.inconclusive
	c.canceled += r.canceled
	for i := range r.phases {
		c.phases[i].add(r.phases[i])
	}
	if r.count == 0 {
		return nil
	}
	if c.sketch == nil {
		s, err := newSketch()
		if err != nil {
			return err
		}
		c.sketch, c.minUs = s, r.minUs
	}
	c.count += r.count
	c.sumUs += r.sumUs
	c.minUs, c.maxUs = min(c.minUs, r.minUs), max(c.maxUs, r.maxUs)
	return c.sketch.merge(encoded)
}

// bucket is the cell as it is shown.
func (c *cell) bucket(start time.Time, group string) (Bucket, error) {
	b := Bucket{Start: start, Group: group, Passed: c.passed, Failed: c.failed, Errored: c.errored, Inconclusive: c.inconclusive, Canceled: c.canceled}
	average := func(p phase) *time.Duration {
		if p.count == 0 {
			return nil
		}
		d := time.Duration(p.sumUs) * time.Microsecond / time.Duration(p.count)
		return &d
	}
	b.Phases = Phases{
		DNS: average(c.phases[phaseDNS]), Connect: average(c.phases[phaseConnect]), TLS: average(c.phases[phaseTLS]),
		FirstByte: average(c.phases[phaseFirstByte]), Download: average(c.phases[phaseDownload]),
	}
	if c.count == 0 {
		return b, nil
	}
	values, err := c.sketch.quantiles(0.5, 0.9, 0.95, 0.99)
	if err != nil {
		return b, err
	}
	// A percentile lies between the exact ends, whatever the sketch rounds to.
	us := func(v float64) time.Duration {
		return time.Duration(min(max(v, float64(c.minUs)), float64(c.maxUs)) * float64(time.Microsecond))
	}
	b.Latency = &Latency{
		Avg: time.Duration(c.sumUs) * time.Microsecond / time.Duration(c.count), P50: us(values[0]), P90: us(values[1]), P95: us(values[2]), P99: us(values[3]),
		Min: time.Duration(c.minUs) * time.Microsecond, Max: time.Duration(c.maxUs) * time.Microsecond,
	}
	return b, nil
}
