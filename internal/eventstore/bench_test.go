package eventstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/testflow/testflow/internal/eventstore"
)

// benchRuns is a batch as a busy sink writes it: 200 runs of one step and three assertions.
func benchRuns(n int) []eventstore.RunEvent {
	org, project, test := newID(), newID(), newID()
	ok := true
	columns := eventstore.RunColumns{ProjectID: project, TestID: test, Region: "default", Status: "passed", Duration: 12 * time.Millisecond, OK: &ok}
	events := make([]eventstore.RunEvent, 0, n)
	for len(events) < n {
		run := newID()
		for i := range 5 {
			events = append(events, eventstore.RunEvent{OrgID: org, RunID: run, Version: 100_001 + i, Data: happened{
				Text: fmt.Sprintf("step %d of %s got a status of 200 and a body of 1024 bytes in 12 ms, as was expected of it", i, run),
				Raw:  []byte(`{"expected":200,"actual":200,"pass":true,"source":"status","operator":"equals","timings":{"dnsMs":0.3,"connectMs":0.6,"totalMs":12.1}}`),
			}, RunColumns: columns})
		}
		events = append(events, eventstore.RunEvent{OrgID: org, RunID: run, Version: eventstore.VersionFinished, Data: ended{"passed"}, RunColumns: columns})
	}
	return events[:n]
}

// BenchmarkAppendRuns is events a second through the store; BenchmarkRawUnnest is the same rows by the barest statement
// that pgx can send. The goal is half of it.
func BenchmarkAppendRuns(b *testing.B) {
	f := newFixture(b)
	store := eventstore.New(eventstore.Config{DB: f.DB.DB, Types: types(), Now: time.Now, NewID: newID})
	const batch = 1200
	for b.Loop() {
		b.StopTimer()
		events := benchRuns(batch)
		b.StartTimer()
		require.NoError(b, f.InSystem(b.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := store.AppendRuns(ctx, tx, events)
			return err
		}))
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkRawUnnest(b *testing.B) {
	f := newFixture(b)
	admin, err := pgx.Connect(b.Context(), f.URL)
	require.NoError(b, err)
	b.Cleanup(func() { _ = admin.Close(context.Background()) })
	_, err = admin.Exec(b.Context(), `CREATE TABLE raw (position bigint NOT NULL, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), version int NOT NULL, type_id smallint NOT NULL,
		org_id uuid NOT NULL, stream_id uuid NOT NULL, project_id uuid, test_id uuid, region text, status text, duration_us int, ok boolean, data json NOT NULL, PRIMARY KEY (org_id, stream_id, version));
		CREATE INDEX ON raw (position); CREATE INDEX ON raw (org_id, position); CREATE SEQUENCE raw_seq`)
	require.NoError(b, err)
	const batch = 1200
	for b.Loop() {
		b.StopTimer()
		events := benchRuns(batch)
		var orgs, runs, projects, tests []uuid.UUID
		var versions, durations []int32
		var regions, statuses []string
		var oks []bool
		var data [][]byte
		for _, e := range events {
			orgs, runs, projects, tests = append(orgs, e.OrgID), append(runs, e.RunID), append(projects, e.ProjectID), append(tests, e.TestID)
			versions, durations, regions, statuses, oks = append(versions, int32(e.Version)), append(durations, int32(e.Duration.Microseconds())), append(regions, e.Region), append(statuses, e.Status), append(oks, true)
			data = append(data, []byte(`{"text":"`+fmt.Sprintf("step %d of %s got a status of 200 and a body of 1024 bytes in 12 ms, as was expected of it", e.Version, e.RunID)+`","raw":{"expected":200,"actual":200,"pass":true,"source":"status","operator":"equals","timings":{"dnsMs":0.3,"connectMs":0.6,"totalMs":12.1}}}`))
		}
		b.StartTimer()
		_, err := admin.Exec(b.Context(), `INSERT INTO raw (position, version, type_id, org_id, stream_id, project_id, test_id, region, status, duration_us, ok, data)
			SELECT nextval('raw_seq'), v, 1, o, r, p, t, g, s, d, k, j FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::int[], $9::boolean[], $10::json[]) AS x (o, r, v, p, t, g, s, d, k, j)`,
			orgs, runs, versions, projects, tests, regions, statuses, durations, oks, data)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
}
