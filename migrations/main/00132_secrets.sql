-- +goose Up

-- So that what belongs to them can say in its foreign key that it is the same tenant's.
ALTER TABLE projects ADD CONSTRAINT projects_tenant UNIQUE (org_id, project_id);
ALTER TABLE environments ADD CONSTRAINT environments_tenant UNIQUE (org_id, environment_id);

-- Secrets: their names, and who changed them when. Written by the inline read model of secret.
CREATE TABLE secrets (
  secret_id      uuid PRIMARY KEY,
  org_id         uuid NOT NULL REFERENCES orgs ON DELETE CASCADE,
  project_id     uuid,                         -- NULL = the organization's
  environment_id uuid,                         -- NULL = the project's or the organization's
  name           text NOT NULL,
  description    text NOT NULL,
  version        int NOT NULL CHECK (version > 0),   -- of the value
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL,
  updated_kind   text NOT NULL,                -- user, apiKey, system
  updated_by     uuid,
  UNIQUE (org_id, secret_id),
  CHECK (environment_id IS NULL OR project_id IS NOT NULL),
  FOREIGN KEY (org_id, project_id) REFERENCES projects (org_id, project_id) ON DELETE CASCADE,
  FOREIGN KEY (org_id, environment_id) REFERENCES environments (org_id, environment_id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX secrets_name ON secrets (org_id, coalesce(environment_id, project_id, org_id), name);
SELECT es.protect('public.secrets');

-- Values, sealed with the organization's data key. Not in events, so not here by the read model but by the command itself.
CREATE TABLE secret_values (
  secret_id  uuid NOT NULL,
  version    int NOT NULL,
  org_id     uuid NOT NULL,
  sealed     bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (secret_id, version),
  UNIQUE (org_id, secret_id, version),
  FOREIGN KEY (org_id, secret_id) REFERENCES secrets (org_id, secret_id) ON DELETE CASCADE
);
SELECT es.protect('public.secret_values');

-- Values that runs of a region need, sealed with the region's key: all that its workers can open.
CREATE TABLE secret_grants (
  secret_id  uuid NOT NULL,
  version    int NOT NULL,
  region     text NOT NULL,
  org_id     uuid NOT NULL,
  sealed     bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (secret_id, version, region),
  FOREIGN KEY (org_id, secret_id, version) REFERENCES secret_values (org_id, secret_id, version) ON DELETE CASCADE
);
SELECT es.protect('public.secret_grants');

-- Which version of a secret which revision of a test used first for whom: one event in the log for each.
CREATE TABLE secret_uses (
  secret_id uuid NOT NULL,
  version   int NOT NULL,
  test_id   uuid NOT NULL,
  revision  int NOT NULL,
  used_by   uuid NOT NULL,                     -- the person or key; zero = the system, for schedules
  org_id    uuid NOT NULL,
  used_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (secret_id, version, test_id, revision, used_by),
  FOREIGN KEY (org_id, secret_id) REFERENCES secrets (org_id, secret_id) ON DELETE CASCADE
);
SELECT es.protect('public.secret_uses');

-- Values of the project and of the organization that everybody may read. variables_version is the version of the stream
-- at the last change of them, 0 = they were never set: what a run records.
ALTER TABLE projects ADD COLUMN variables jsonb NOT NULL DEFAULT '{}', ADD COLUMN variables_version int NOT NULL DEFAULT 0;
ALTER TABLE orgs ADD COLUMN variables jsonb NOT NULL DEFAULT '{}', ADD COLUMN variables_version int NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE orgs DROP COLUMN variables_version, DROP COLUMN variables;
ALTER TABLE projects DROP COLUMN variables_version, DROP COLUMN variables;
DROP TABLE secret_uses;
DROP TABLE secret_grants;
DROP TABLE secret_values;
DROP TABLE secrets;
ALTER TABLE environments DROP CONSTRAINT environments_tenant;
ALTER TABLE projects DROP CONSTRAINT projects_tenant;
