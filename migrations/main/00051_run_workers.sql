-- +goose Up

-- Which processes execute runs, and when each was last heard of: whose name is missing or silent has lost its runs.
-- It holds no tenant's data; the api role has no business here.
CREATE TABLE run_workers (
  worker_id  text PRIMARY KEY,
  regions    text[] NOT NULL,
  started_at timestamptz NOT NULL,
  seen_at    timestamptz NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 200);

-- +goose StatementBegin
DO $$
BEGIN
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON run_workers TO %I', current_setting('testflow.role_prefix') || '_system');
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE run_workers;
