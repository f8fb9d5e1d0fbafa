-- +goose Up
CREATE TABLE projects (
  project_id  uuid PRIMARY KEY,
  org_id      uuid NOT NULL,
  name        text NOT NULL,
  description text NOT NULL,
  version     int NOT NULL,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX projects_name ON projects (org_id, lower(name));
CREATE INDEX projects_org ON projects (org_id, project_id);
SELECT es.protect('public.projects');

CREATE TABLE environments (
  environment_id uuid PRIMARY KEY,
  org_id         uuid NOT NULL,
  project_id     uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
  name           text NOT NULL,
  description    text NOT NULL,
  variables      jsonb NOT NULL,
  version        int NOT NULL,
  created_at     timestamptz NOT NULL,
  updated_at     timestamptz NOT NULL
);
CREATE UNIQUE INDEX environments_name ON environments (project_id, lower(name));
CREATE INDEX environments_project ON environments (project_id, environment_id);
SELECT es.protect('public.environments');

-- +goose Down
DROP TABLE environments;
DROP TABLE projects;
