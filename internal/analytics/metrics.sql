-- The tables of the projection "metrics": what runs of one test in one environment and region came to, by the minute and
-- by the hour that they ended in. Latencies are those of runs that passed or failed, in microseconds.
CREATE TABLE metrics_minutes (
  org_id             uuid        NOT NULL,
  bucket             timestamptz NOT NULL,            -- start of the minute, UTC
  project_id         uuid        NOT NULL,
  test_id            uuid        NOT NULL,
  environment_id     uuid        NOT NULL,            -- nil = none
  region             text        NOT NULL,
  passed             bigint      NOT NULL,
  failed             bigint      NOT NULL,
  errored            bigint      NOT NULL,
  inconclusive       bigint      NOT NULL,
  canceled           bigint      NOT NULL,
  latency_count      bigint      NOT NULL,
  latency_sum_us     bigint      NOT NULL,
  latency_min_us     bigint      NOT NULL,            -- 0 without any
  latency_max_us     bigint      NOT NULL,
  latency_sketch     bytea       NOT NULL,            -- DDSketch, α = 0.01; empty without any
  dns_count          bigint      NOT NULL,            -- steps that had the phase
  dns_sum_us         bigint      NOT NULL,
  connect_count      bigint      NOT NULL,
  connect_sum_us     bigint      NOT NULL,
  tls_count          bigint      NOT NULL,
  tls_sum_us         bigint      NOT NULL,
  first_byte_count   bigint      NOT NULL,
  first_byte_sum_us  bigint      NOT NULL,
  download_count     bigint      NOT NULL,
  download_sum_us    bigint      NOT NULL,
  PRIMARY KEY (org_id, bucket, project_id, test_id, environment_id, region)
);
CREATE INDEX ON metrics_minutes (org_id, test_id, bucket);

CREATE TABLE metrics_hours (LIKE metrics_minutes INCLUDING ALL);
