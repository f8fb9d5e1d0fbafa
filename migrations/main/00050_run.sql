-- +goose Up

-- The list and status of runs, written by the batch that appends their events. No index stands on a column that changes,
-- so that starting and ending a run are heap-only updates.
CREATE TABLE runs (
  run_id            uuid PRIMARY KEY,      -- UUIDv7: its order is the order of requests
  org_id            uuid NOT NULL,
  project_id        uuid NOT NULL,         -- no references: runs outlive their project and test
  test_id           uuid NOT NULL,
  test_name         text NOT NULL,
  revision          int NOT NULL,
  environment_id    uuid,
  environment_name  text NOT NULL,
  region            text NOT NULL,
  trigger           text NOT NULL CHECK (trigger IN ('manual', 'api', 'schedule', 'suite', 'rerun', 'demo')),
  suite_id          uuid,
  rerun_of          uuid,
  requested_kind    text NOT NULL,
  requested_by      uuid,
  requested_at      timestamptz NOT NULL,
  timeout_ms        double precision NOT NULL,
  status            text NOT NULL CHECK (status IN ('queued', 'running', 'passed', 'failed', 'errored', 'inconclusive', 'canceled')),
  reason            text NOT NULL DEFAULT '',
  error_code        text NOT NULL DEFAULT '',
  error_message     text NOT NULL DEFAULT '',
  attempts          int NOT NULL DEFAULT 0,
  started_at        timestamptz,
  finished_at       timestamptz,
  duration_ms       double precision NOT NULL DEFAULT 0,
  queued_ms         double precision NOT NULL DEFAULT 0,
  steps             int NOT NULL DEFAULT 0,
  steps_failed      int NOT NULL DEFAULT 0,
  steps_skipped     int NOT NULL DEFAULT 0,
  assertions        int NOT NULL DEFAULT 0,
  assertions_failed int NOT NULL DEFAULT 0,
  soft_failed       int NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX runs_org ON runs (org_id, run_id);
CREATE INDEX runs_project ON runs (project_id, run_id);
CREATE INDEX runs_test ON runs (test_id, run_id);
CREATE INDEX runs_suite ON runs (suite_id) WHERE suite_id IS NOT NULL;
SELECT es.protect('public.runs');

-- What a target answered, masked and cut by the executor; the day is that of the run's UUIDv7, as in the log. Bytes,
-- since a target may send what no text or JSON can hold.
CREATE TABLE run_body (
  run_id            uuid NOT NULL,
  attempt           int NOT NULL,
  step              int NOT NULL,
  day               date NOT NULL,
  org_id            uuid NOT NULL,
  status            int NOT NULL,
  content_type      bytea NOT NULL,
  headers           bytea NOT NULL,        -- JSON list of {name, value}
  headers_truncated boolean NOT NULL,
  request_headers   bytea NOT NULL,        -- JSON list of {name, value}
  size              bigint NOT NULL,       -- of the whole body
  truncated         boolean NOT NULL,
  body              bytea NOT NULL,
  PRIMARY KEY (run_id, attempt, step, day)
) PARTITION BY RANGE (day);
ALTER TABLE run_body ALTER COLUMN body SET STORAGE EXTENDED;
SELECT es.protect('public.run_body');

-- es.ensure_run_body makes the daily partitions of bodies from two days back to p_ahead days ahead, as
-- es.ensure_partitions does for the log, and returns how many it made.
-- +goose StatementBegin
CREATE FUNCTION es.ensure_run_body(p_ahead int DEFAULT 7) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE d date; n int := 0; name text; today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  IF p_ahead < 1 OR p_ahead > 60 THEN
    RAISE EXCEPTION 'es.ensure_run_body: % days ahead, but 1 to 60 are allowed', p_ahead USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(21575, 3);     -- several nodes start at once
  FOR d IN SELECT generate_series(today - 2, today + p_ahead, interval '1 day')::date LOOP
    name := 'run_body_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.run_body INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', name);
    EXECUTE format('ALTER TABLE public.run_body ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', name, d, d + 1);
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.ensure_run_body(int) TO %I', current_setting('testflow.role_prefix') || '_system');
END $$;
-- +goose StatementEnd

SELECT es.ensure_run_body();

-- +goose Down
DROP FUNCTION es.ensure_run_body(int);
DROP TABLE run_body;
DROP TABLE runs;
