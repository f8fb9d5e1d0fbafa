-- +goose Up
-- Steps that the tests of a project share, at their last version; earlier ones are in the log.
CREATE TABLE fragments (
  fragment_id uuid PRIMARY KEY,
  org_id      uuid NOT NULL,
  project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
  name        text NOT NULL,
  uses        text[] NOT NULL,          -- names of the fragments that it uses itself
  definition  jsonb NOT NULL,
  version     int NOT NULL,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX fragments_name ON fragments (project_id, lower(name));
CREATE INDEX fragments_org ON fragments (org_id, fragment_id);
SELECT es.protect('public.fragments');

-- The fragments that a test's last revision uses itself. Older programs save none that does.
ALTER TABLE tests ADD COLUMN fragments text[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE tests DROP COLUMN fragments;
DROP TABLE fragments;
