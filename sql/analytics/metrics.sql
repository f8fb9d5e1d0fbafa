-- Names carry no schema: the search path says which build, and outside a projection the views in public.

-- name: SketchesMinutes :many
-- The sketches of the rows that exist, for merging.
SELECT m.org_id, m.bucket, m.project_id, m.test_id, m.environment_id, m.region, m.latency_sketch
  FROM (SELECT unnest(@a_org_id::uuid[]) AS org_id, unnest(@a_bucket::timestamptz[]) AS bucket, unnest(@a_project_id::uuid[]) AS project_id, unnest(@a_test_id::uuid[]) AS test_id, unnest(@a_environment_id::uuid[]) AS environment_id, unnest(@a_region::text[]) AS region) k
  JOIN metrics_minutes m ON m.org_id = k.org_id AND m.bucket = k.bucket AND m.project_id = k.project_id AND m.test_id = k.test_id AND m.environment_id = k.environment_id AND m.region = k.region
 WHERE m.latency_count > 0;

-- name: AddMinutes :exec
INSERT INTO metrics_minutes AS m (org_id, bucket, project_id, test_id, environment_id, region, passed, failed, errored, inconclusive, canceled, latency_count, latency_sum_us, latency_min_us, latency_max_us, latency_sketch, dns_count, dns_sum_us, connect_count, connect_sum_us, tls_count, tls_sum_us, first_byte_count, first_byte_sum_us, download_count, download_sum_us)
SELECT unnest(@a_org_id::uuid[]), unnest(@a_bucket::timestamptz[]), unnest(@a_project_id::uuid[]), unnest(@a_test_id::uuid[]), unnest(@a_environment_id::uuid[]), unnest(@a_region::text[]), unnest(@a_passed::bigint[]), unnest(@a_failed::bigint[]), unnest(@a_errored::bigint[]), unnest(@a_inconclusive::bigint[]), unnest(@a_canceled::bigint[]), unnest(@a_latency_count::bigint[]), unnest(@a_latency_sum_us::bigint[]), unnest(@a_latency_min_us::bigint[]), unnest(@a_latency_max_us::bigint[]), unnest(@a_latency_sketch::bytea[]), unnest(@a_dns_count::bigint[]), unnest(@a_dns_sum_us::bigint[]), unnest(@a_connect_count::bigint[]), unnest(@a_connect_sum_us::bigint[]), unnest(@a_tls_count::bigint[]), unnest(@a_tls_sum_us::bigint[]), unnest(@a_first_byte_count::bigint[]), unnest(@a_first_byte_sum_us::bigint[]), unnest(@a_download_count::bigint[]), unnest(@a_download_sum_us::bigint[])
ON CONFLICT (org_id, bucket, project_id, test_id, environment_id, region) DO UPDATE SET
  passed = m.passed + excluded.passed, failed = m.failed + excluded.failed, errored = m.errored + excluded.errored, inconclusive = m.inconclusive + excluded.inconclusive, canceled = m.canceled + excluded.canceled, latency_count = m.latency_count + excluded.latency_count, latency_sum_us = m.latency_sum_us + excluded.latency_sum_us, dns_count = m.dns_count + excluded.dns_count, dns_sum_us = m.dns_sum_us + excluded.dns_sum_us, connect_count = m.connect_count + excluded.connect_count, connect_sum_us = m.connect_sum_us + excluded.connect_sum_us, tls_count = m.tls_count + excluded.tls_count, tls_sum_us = m.tls_sum_us + excluded.tls_sum_us, first_byte_count = m.first_byte_count + excluded.first_byte_count, first_byte_sum_us = m.first_byte_sum_us + excluded.first_byte_sum_us, download_count = m.download_count + excluded.download_count, download_sum_us = m.download_sum_us + excluded.download_sum_us,
  latency_min_us = CASE WHEN m.latency_count = 0 THEN excluded.latency_min_us WHEN excluded.latency_count = 0 THEN m.latency_min_us ELSE least(m.latency_min_us, excluded.latency_min_us) END,
  latency_max_us = greatest(m.latency_max_us, excluded.latency_max_us),
  latency_sketch = CASE WHEN excluded.latency_count > 0 THEN excluded.latency_sketch ELSE m.latency_sketch END;

-- name: SketchesHours :many
-- The sketches of the rows that exist, for merging.
SELECT m.org_id, m.bucket, m.project_id, m.test_id, m.environment_id, m.region, m.latency_sketch
  FROM (SELECT unnest(@a_org_id::uuid[]) AS org_id, unnest(@a_bucket::timestamptz[]) AS bucket, unnest(@a_project_id::uuid[]) AS project_id, unnest(@a_test_id::uuid[]) AS test_id, unnest(@a_environment_id::uuid[]) AS environment_id, unnest(@a_region::text[]) AS region) k
  JOIN metrics_hours m ON m.org_id = k.org_id AND m.bucket = k.bucket AND m.project_id = k.project_id AND m.test_id = k.test_id AND m.environment_id = k.environment_id AND m.region = k.region
 WHERE m.latency_count > 0;

-- name: AddHours :exec
INSERT INTO metrics_hours AS m (org_id, bucket, project_id, test_id, environment_id, region, passed, failed, errored, inconclusive, canceled, latency_count, latency_sum_us, latency_min_us, latency_max_us, latency_sketch, dns_count, dns_sum_us, connect_count, connect_sum_us, tls_count, tls_sum_us, first_byte_count, first_byte_sum_us, download_count, download_sum_us)
SELECT unnest(@a_org_id::uuid[]), unnest(@a_bucket::timestamptz[]), unnest(@a_project_id::uuid[]), unnest(@a_test_id::uuid[]), unnest(@a_environment_id::uuid[]), unnest(@a_region::text[]), unnest(@a_passed::bigint[]), unnest(@a_failed::bigint[]), unnest(@a_errored::bigint[]), unnest(@a_inconclusive::bigint[]), unnest(@a_canceled::bigint[]), unnest(@a_latency_count::bigint[]), unnest(@a_latency_sum_us::bigint[]), unnest(@a_latency_min_us::bigint[]), unnest(@a_latency_max_us::bigint[]), unnest(@a_latency_sketch::bytea[]), unnest(@a_dns_count::bigint[]), unnest(@a_dns_sum_us::bigint[]), unnest(@a_connect_count::bigint[]), unnest(@a_connect_sum_us::bigint[]), unnest(@a_tls_count::bigint[]), unnest(@a_tls_sum_us::bigint[]), unnest(@a_first_byte_count::bigint[]), unnest(@a_first_byte_sum_us::bigint[]), unnest(@a_download_count::bigint[]), unnest(@a_download_sum_us::bigint[])
ON CONFLICT (org_id, bucket, project_id, test_id, environment_id, region) DO UPDATE SET
  passed = m.passed + excluded.passed, failed = m.failed + excluded.failed, errored = m.errored + excluded.errored, inconclusive = m.inconclusive + excluded.inconclusive, canceled = m.canceled + excluded.canceled, latency_count = m.latency_count + excluded.latency_count, latency_sum_us = m.latency_sum_us + excluded.latency_sum_us, dns_count = m.dns_count + excluded.dns_count, dns_sum_us = m.dns_sum_us + excluded.dns_sum_us, connect_count = m.connect_count + excluded.connect_count, connect_sum_us = m.connect_sum_us + excluded.connect_sum_us, tls_count = m.tls_count + excluded.tls_count, tls_sum_us = m.tls_sum_us + excluded.tls_sum_us, first_byte_count = m.first_byte_count + excluded.first_byte_count, first_byte_sum_us = m.first_byte_sum_us + excluded.first_byte_sum_us, download_count = m.download_count + excluded.download_count, download_sum_us = m.download_sum_us + excluded.download_sum_us,
  latency_min_us = CASE WHEN m.latency_count = 0 THEN excluded.latency_min_us WHEN excluded.latency_count = 0 THEN m.latency_min_us ELSE least(m.latency_min_us, excluded.latency_min_us) END,
  latency_max_us = greatest(m.latency_max_us, excluded.latency_max_us),
  latency_sketch = CASE WHEN excluded.latency_count > 0 THEN excluded.latency_sketch ELSE m.latency_sketch END;

