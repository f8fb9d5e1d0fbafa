-- Names carry no schema: the search path says which build, and outside a projection the view in public.

-- name: AddUsage :exec
INSERT INTO usage_days AS u (org_id, day, runs, steps, assertions, response_bytes, run_us)
SELECT unnest(@a_org_id::uuid[]), unnest(@a_day::date[]), unnest(@a_runs::bigint[]), unnest(@a_steps::bigint[]), unnest(@a_assertions::bigint[]), unnest(@a_response_bytes::bigint[]), unnest(@a_run_us::bigint[])
ON CONFLICT (org_id, day) DO UPDATE SET runs = u.runs + excluded.runs, steps = u.steps + excluded.steps, assertions = u.assertions + excluded.assertions,
  response_bytes = u.response_bytes + excluded.response_bytes, run_us = u.run_us + excluded.run_us;

-- name: UsageDays :many
SELECT * FROM usage_days WHERE org_id = @org_id AND day >= @from_day AND day < @to_day ORDER BY day;
