-- Zero rows: the runs were there already.
-- name: InsertRuns :exec
INSERT INTO runs (run_id, org_id, project_id, test_id, test_name, revision, environment_id, environment_name, region, trigger, suite_id,
                  rerun_of, requested_kind, requested_by, requested_at, timeout_ms, status)
SELECT t.run_id, t.org_id, t.project_id, t.test_id, t.test_name, t.revision, nullif(t.environment_id, '00000000-0000-0000-0000-000000000000'),
       t.environment_name, t.region, t.trigger, nullif(t.suite_id, '00000000-0000-0000-0000-000000000000'),
       nullif(t.rerun_of, '00000000-0000-0000-0000-000000000000'), t.requested_kind,
       nullif(t.requested_by, '00000000-0000-0000-0000-000000000000'), t.requested_at, t.timeout_ms, 'queued'
FROM (SELECT unnest(@run_ids::uuid[]) AS run_id, unnest(@org_ids::uuid[]) AS org_id, unnest(@project_ids::uuid[]) AS project_id,
             unnest(@test_ids::uuid[]) AS test_id, unnest(@test_names::text[]) AS test_name, unnest(@revisions::int[]) AS revision,
             unnest(@environment_ids::uuid[]) AS environment_id, unnest(@environment_names::text[]) AS environment_name,
             unnest(@regions::text[]) AS region, unnest(@triggers::text[]) AS trigger, unnest(@suite_ids::uuid[]) AS suite_id,
             unnest(@rerun_ofs::uuid[]) AS rerun_of, unnest(@requested_kinds::text[]) AS requested_kind,
             unnest(@requested_bys::uuid[]) AS requested_by, unnest(@requested_ats::timestamptz[]) AS requested_at,
             unnest(@timeout_ms::float8[]) AS timeout_ms) t
ON CONFLICT (run_id) DO NOTHING;

-- name: MarkStarted :exec
SELECT mark_runs_started(@run_ids::uuid[], @org_ids::uuid[], @ats::timestamptz[], @attempts::int[]);

-- name: MarkFinished :exec
SELECT mark_runs_finished(@run_ids::uuid[], @org_ids::uuid[], @ats::timestamptz[], @statuses::text[], @reasons::text[], @error_codes::text[], @error_messages::text[],
  @attempts::int[], @duration_ms::float8[], @queued_ms::float8[], @steps::int[], @steps_failed::int[], @steps_skipped::int[],
  @assertions::int[], @assertions_failed::int[], @soft_failed::int[]);

-- name: GetRun :one
SELECT * FROM runs WHERE org_id = @org_id AND run_id = @run_id;

-- name: GetRuns :many
SELECT * FROM runs WHERE org_id = @org_id AND run_id = ANY(@run_ids::uuid[]) ORDER BY run_id;

-- name: ListSuite :many
SELECT * FROM runs WHERE org_id = @org_id AND suite_id = @suite_id ORDER BY run_id;

-- A job that is done again brings the same bodies.
-- name: InsertBodies :exec
INSERT INTO run_body (run_id, attempt, step, iteration, day, org_id, status, content_type, headers, headers_truncated, request_headers, size, truncated, body)
SELECT t.run_id, t.attempt, t.step, t.iteration, es.uuid7_day(t.run_id), t.org_id, t.status, t.content_type, t.headers, t.headers_truncated, t.request_headers,
       t.size, t.truncated, t.body
FROM (SELECT unnest(@run_ids::uuid[]) AS run_id, unnest(@attempts::int[]) AS attempt, unnest(@steps::int[]) AS step, unnest(@iterations::int[]) AS iteration, unnest(@org_ids::uuid[]) AS org_id,
             unnest(@statuses::int[]) AS status, unnest(@content_types::bytea[]) AS content_type, unnest(@headers::bytea[]) AS headers,
             unnest(@headers_truncated::boolean[]) AS headers_truncated, unnest(@request_headers::bytea[]) AS request_headers,
             unnest(@sizes::bigint[]) AS size, unnest(@truncated::boolean[]) AS truncated, unnest(@bodies::bytea[]) AS body) t
ON CONFLICT DO NOTHING;

-- name: GetBody :one
SELECT * FROM run_body
WHERE org_id = @org_id AND run_id = @run_id AND step = @step AND attempt = @attempt AND iteration = @iteration AND day = es.uuid7_day(@run_id);

-- Runs that were requested in the interval and have no end, oldest first, across all organizations.
-- name: ListUnended :many
SELECT run_id, org_id, requested_at, timeout_ms, region, status FROM runs
WHERE run_id > @after AND run_id < @before AND finished_at IS NULL ORDER BY run_id LIMIT @max_rows;

-- Rows of all organizations, the oldest; fewer than max_rows: there are no more.
-- name: DeleteRunsBefore :execrows
DELETE FROM runs WHERE runs.run_id IN (SELECT r.run_id FROM runs r WHERE r.run_id < @before ORDER BY r.run_id LIMIT @max_rows);
