-- +goose Up

-- Each build of a projection lies in a schema of its own; views in public show the live one. position is the checkpoint:
-- it moves in the transaction that writes what the events changed, under the row's lock, so that any number of runners
-- share the work and each event counts once.
CREATE TABLE es.projection_builds (
  name        text        NOT NULL,
  version     int         NOT NULL CHECK (version >= 1),   -- of the code
  build       int         NOT NULL CHECK (build >= 1),     -- each rebuild is one
  schema_name text        NOT NULL UNIQUE,
  state       text        NOT NULL CHECK (state IN ('live', 'building', 'checking', 'retired')),
  position    bigint      NOT NULL DEFAULT 0,
  target      bigint      NOT NULL DEFAULT 0,              -- the end of the log when it was last looked at
  events      bigint      NOT NULL DEFAULT 0,              -- applied so far
  last_error  text        NOT NULL DEFAULT '',
  started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version, build)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projection_builds_live ON es.projection_builds (name) WHERE state = 'live';

-- Events that a build could not take and went past.
CREATE TABLE es.dead_letters (
  name     text        NOT NULL,
  version  int         NOT NULL,
  build    int         NOT NULL,
  position bigint      NOT NULL,
  type     text        NOT NULL,
  error    text        NOT NULL,
  tries    int         NOT NULL DEFAULT 1,
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version, build, position),
  FOREIGN KEY (name, version, build) REFERENCES es.projection_builds ON DELETE CASCADE
);

-- +goose StatementBegin
DO $$
BEGIN
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON es.projection_builds, es.dead_letters TO %I', current_setting('testflow.role_prefix') || '_system');
END $$;
-- +goose StatementEnd
