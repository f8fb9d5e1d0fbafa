-- +goose Up
CREATE TABLE orgs (
  org_id     uuid PRIMARY KEY,
  name       text NOT NULL,
  version    int NOT NULL,                   -- of the organization's stream
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
SELECT es.protect('public.orgs');

CREATE TABLE org_members (
  org_id     uuid NOT NULL REFERENCES orgs ON DELETE CASCADE,
  account_id uuid NOT NULL,
  role       text NOT NULL CHECK (role IN ('admin', 'manager', 'developer', 'viewer')),
  joined_at  timestamptz NOT NULL,
  PRIMARY KEY (org_id, account_id)
);
CREATE INDEX org_members_account ON org_members (account_id, org_id);
SELECT es.protect('public.org_members');

-- The key that seals an organization's secrets, wrapped by the master key.
CREATE TABLE org_keys (
  org_id      uuid PRIMARY KEY REFERENCES orgs ON DELETE CASCADE,
  wrapped_key bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);
SELECT es.protect('public.org_keys');

-- +goose Down
DROP TABLE org_keys;
DROP TABLE org_members;
DROP TABLE orgs;
