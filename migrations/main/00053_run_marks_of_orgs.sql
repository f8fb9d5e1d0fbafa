-- +goose Up

-- The two updates of a batch, told whose run each is: they run as the system role, which no policy binds, so an event
-- of one organization could have moved another's run. Those without organizations stay for the old version.

-- An end that is there already stays: its run is not started any more.
-- +goose StatementBegin
CREATE FUNCTION mark_runs_started(p_run uuid[], p_org uuid[], p_at timestamptz[], p_attempt int[]) RETURNS void LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  UPDATE runs r SET status = CASE WHEN r.finished_at IS NULL THEN 'running' ELSE r.status END,
                    started_at = coalesce(r.started_at, t.at), attempts = greatest(r.attempts, t.attempt)
    FROM unnest(p_run, p_org, p_at, p_attempt) AS t (run_id, org_id, at, attempt)
   WHERE r.run_id = t.run_id AND r.org_id = t.org_id;
END $$;
-- +goose StatementEnd

-- A run's first end counts.
-- +goose StatementBegin
CREATE FUNCTION mark_runs_finished(p_run uuid[], p_org uuid[], p_at timestamptz[], p_status text[], p_reason text[], p_error_code text[], p_error_message text[],
     p_attempts int[], p_duration_ms float8[], p_queued_ms float8[], p_steps int[], p_steps_failed int[], p_steps_skipped int[],
     p_assertions int[], p_assertions_failed int[], p_soft_failed int[]) RETURNS void LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  UPDATE runs r SET status = t.status, reason = t.reason, error_code = t.error_code, error_message = t.error_message,
                    attempts = greatest(r.attempts, t.attempts), finished_at = t.at, duration_ms = t.duration_ms, queued_ms = t.queued_ms,
                    steps = t.steps, steps_failed = t.steps_failed, steps_skipped = t.steps_skipped, assertions = t.assertions,
                    assertions_failed = t.assertions_failed, soft_failed = t.soft_failed
    FROM unnest(p_run, p_org, p_at, p_status, p_reason, p_error_code, p_error_message, p_attempts, p_duration_ms, p_queued_ms, p_steps, p_steps_failed,
                p_steps_skipped, p_assertions, p_assertions_failed, p_soft_failed)
         AS t (run_id, org_id, at, status, reason, error_code, error_message, attempts, duration_ms, queued_ms, steps, steps_failed,
               steps_skipped, assertions, assertions_failed, soft_failed)
   WHERE r.run_id = t.run_id AND r.org_id = t.org_id AND r.finished_at IS NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION mark_runs_started(uuid[], uuid[], timestamptz[], int[]) TO %I, %I', api, sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION mark_runs_finished(uuid[], uuid[], timestamptz[], text[], text[], text[], text[], int[], float8[], float8[], int[], int[], int[], int[], int[], int[]) TO %I, %I', api, sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION mark_runs_started(uuid[], uuid[], timestamptz[], int[]);
DROP FUNCTION mark_runs_finished(uuid[], uuid[], timestamptz[], text[], text[], text[], text[], int[], float8[], float8[], int[], int[], int[], int[], int[], int[]);
