-- +goose Up

-- One position for everything. Gaps are allowed and harmless (es.fence). CACHE 1: a cached value would be handed out
-- after later ones had committed, in another session's past.
CREATE SEQUENCE es.pos_seq AS bigint START 1 CACHE 1;

-- Small numbers on disk, names in Go and in exports. Rows are never changed but for cur_schema, which only grows.
CREATE TABLE es.event_type (
  type_id    smallint PRIMARY KEY,
  name       text     NOT NULL UNIQUE,
  lane       "char"   NOT NULL CHECK (lane IN ('L', 'R')),
  cur_schema smallint NOT NULL DEFAULT 1 CHECK (cur_schema >= 1)
);

-- The ledger: organizations, configuration, security. Permanent, versioned stream by stream.
CREATE TABLE es.ledger_stream (
  org_id      uuid   NOT NULL,
  stream_id   uuid   NOT NULL,
  kind        text   NOT NULL,
  version     int    NOT NULL CHECK (version >= 0),
  last_append uuid   NOT NULL,             -- the append that made `version`
  last_pos    bigint NOT NULL,
  PRIMARY KEY (org_id, stream_id)
) WITH (fillfactor = 80);

CREATE TABLE es.ledger_event (
  position     bigint      NOT NULL,
  recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  version      int         NOT NULL CHECK (version >= 1),
  type_id      smallint    NOT NULL,
  schema_ver   smallint    NOT NULL,
  org_id       uuid        NOT NULL,
  stream_id    uuid        NOT NULL,
  append_id    uuid        NOT NULL,       -- names the append: the same one twice is stored once
  actor_id     uuid,
  kind         text        NOT NULL,
  content_hash bytea       NOT NULL CHECK (octet_length(content_hash) = 32),  -- SHA-256 over RFC 8785 JSON, made in Go
  meta         jsonb       NOT NULL,
  data         jsonb       NOT NULL,
  PRIMARY KEY (org_id, stream_id, version)
);
CREATE UNIQUE INDEX ledger_event_position ON es.ledger_event (position);
CREATE INDEX ledger_event_org_position    ON es.ledger_event (org_id, position);
CREATE INDEX ledger_event_actor           ON es.ledger_event (org_id, actor_id, position) WHERE actor_id IS NOT NULL;
CREATE INDEX ledger_event_append          ON es.ledger_event (org_id, stream_id, append_id);

-- The UTC day of a UUIDv7. A run's events lie in the partition of its id's day, so a run never spans two, the primary
-- key is a guarantee, and dropping a partition drops whole runs.
CREATE FUNCTION es.uuid7_day(u uuid) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN date '1970-01-01' + (('x' || substr(encode(uuid_send(u), 'hex'), 1, 12))::bit(48)::bigint / 86400000)::int;

-- Runs: high volume, dropped by the day. version: see eventstore.AttemptSpan and VersionFinished.
CREATE TABLE es.run_event (
  position       bigint      NOT NULL,
  recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  version        int         NOT NULL CHECK (version >= 1),
  bucket         date        NOT NULL,
  type_id        smallint    NOT NULL,
  schema_ver     smallint    NOT NULL,
  duration_us    int,
  ok             boolean,
  org_id         uuid        NOT NULL,
  stream_id      uuid        NOT NULL,     -- the run's id, a UUIDv7
  project_id     uuid,
  test_id        uuid,
  environment_id uuid,
  region         text,
  status         text,
  data           jsonb       NOT NULL,
  PRIMARY KEY (org_id, stream_id, version, bucket)
) PARTITION BY RANGE (bucket);
CREATE INDEX run_event_position     ON es.run_event (position);
CREATE INDEX run_event_org_position ON es.run_event (org_id, position);

-- Events are facts: nobody changes or removes one. Partitions get the same trigger (00005), since a statement's trigger
-- of the parent doesn't fire when a partition is named directly.
-- +goose StatementBegin
CREATE FUNCTION es.deny() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'es.% is append-only', TG_TABLE_NAME USING ERRCODE = 'TF403';
END $$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.ledger_event FOR EACH STATEMENT EXECUTE FUNCTION es.deny();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.run_event    FOR EACH STATEMENT EXECUTE FUNCTION es.deny();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON es.ledger_stream FOR EACH STATEMENT EXECUTE FUNCTION es.deny();

SELECT es.protect('es.ledger_stream');
SELECT es.protect('es.ledger_event');
SELECT es.protect('es.run_event');

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('REVOKE UPDATE, DELETE ON es.ledger_event, es.run_event FROM %I, %I', api, sys);
  EXECUTE format('REVOKE UPDATE, DELETE ON es.ledger_stream FROM %I, %I', api, sys);
  EXECUTE format('GRANT UPDATE (version, last_append, last_pos) ON es.ledger_stream TO %I, %I', api, sys);
  EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE es.pos_seq TO %I, %I', api, sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.uuid7_day(uuid) TO %I, %I', api, sys);
  EXECUTE format('GRANT SELECT ON es.event_type TO %I, %I', api, sys);
  EXECUTE format('GRANT INSERT, UPDATE (cur_schema) ON es.event_type TO %I', sys);
END $$;
-- +goose StatementEnd
