-- +goose Up
CREATE TABLE tests (
  test_id        uuid PRIMARY KEY,
  org_id         uuid NOT NULL,
  project_id     uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
  environment_id uuid,                 -- no reference: a test outlives its environment and then says so
  name           text NOT NULL,
  tags           text[] NOT NULL,
  regions        text[] NOT NULL,
  revision       int NOT NULL,
  content_hash   bytea NOT NULL,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL
);
CREATE UNIQUE INDEX tests_name ON tests (project_id, lower(name));
CREATE INDEX tests_org ON tests (org_id, test_id);
CREATE INDEX tests_project ON tests (project_id, test_id);
SELECT es.protect('public.tests');

-- A revision never changes and outlives its test: runs were made from it.
CREATE TABLE test_revisions (
  test_id       uuid NOT NULL,
  revision      int NOT NULL,
  org_id        uuid NOT NULL,
  definition    jsonb NOT NULL,
  restored_from int,
  created_at    timestamptz NOT NULL,
  created_kind  text NOT NULL,         -- the actor's
  created_by    uuid NOT NULL,
  PRIMARY KEY (test_id, revision)
);
SELECT es.protect('public.test_revisions');

-- +goose Down
DROP TABLE test_revisions;
DROP TABLE tests;
