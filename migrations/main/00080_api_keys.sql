-- +goose Up

-- API keys: programs of an organization. Written by the inline read model of org, but for what follows each table's head.
CREATE TABLE org_api_keys (
  key_id            uuid PRIMARY KEY,
  org_id            uuid NOT NULL REFERENCES orgs ON DELETE CASCADE,
  name              text NOT NULL,
  scopes            text[] NOT NULL,           -- permissions by name, never shorthands
  role              text NOT NULL CHECK (role IN ('admin', 'manager', 'developer', 'viewer')),   -- the most that it ever is
  holder_id         uuid NOT NULL,             -- the member who saw the secret: the key is never more than he is now
  created_kind      text NOT NULL CHECK (created_kind IN ('user', 'apiKey')),
  created_by        uuid NOT NULL,
  expires_at        timestamptz,               -- NULL = never
  allowed_addresses text[] NOT NULL,           -- networks; empty = from everywhere
  rate_limit        int CHECK (rate_limit > 0),
  generation        int NOT NULL CHECK (generation > 0),   -- of the secret: rotation makes the next
  previous_until    timestamptz,               -- until then the secret before holds as well; NULL = it doesn't
  version           int NOT NULL,              -- of the key's stream
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL,
  revoked_at        timestamptz,
  UNIQUE (org_id, key_id)
) WITH (fillfactor = 80);
SELECT es.protect('public.org_api_keys');

-- What is stored of the secrets: SHA-256. Not in events, so not here by the read model but by the command itself.
CREATE TABLE org_api_key_secrets (
  key_id        uuid PRIMARY KEY,
  org_id        uuid NOT NULL,
  hash          bytea NOT NULL CHECK (octet_length(hash) = 32),
  previous_hash bytea CHECK (octet_length(previous_hash) = 32),
  FOREIGN KEY (org_id, key_id) REFERENCES org_api_keys (org_id, key_id) ON DELETE CASCADE
);
SELECT es.protect('public.org_api_key_secrets');

-- When and whence a key was used last, to the minute. Apart from the key, so that it may change often.
CREATE TABLE org_api_key_uses (
  key_id       uuid PRIMARY KEY,
  org_id       uuid NOT NULL,
  last_used_at timestamptz NOT NULL,
  address      text NOT NULL,
  FOREIGN KEY (org_id, key_id) REFERENCES org_api_keys (org_id, key_id) ON DELETE CASCADE
) WITH (fillfactor = 50);
SELECT es.protect('public.org_api_key_uses');

-- The networks (/24, /64) that a key was used from: one that isn't here is an event. As many as are kept, the last ones.
CREATE TABLE org_api_key_networks (
  key_id        uuid NOT NULL,
  network       text NOT NULL,
  allowed       boolean NOT NULL,              -- false = it tried and was refused
  org_id        uuid NOT NULL,
  first_seen_at timestamptz NOT NULL DEFAULT now(),
  last_seen_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (key_id, network, allowed),
  FOREIGN KEY (org_id, key_id) REFERENCES org_api_keys (org_id, key_id) ON DELETE CASCADE
);
SELECT es.protect('public.org_api_key_networks');

-- Requests by key, UTC day and route template. Added to every few seconds.
CREATE TABLE org_api_key_usage (
  key_id   uuid NOT NULL,
  day      date NOT NULL,
  route    text NOT NULL,                      -- GET /api/runs/{id}
  org_id   uuid NOT NULL,
  requests bigint NOT NULL,
  refused  bigint NOT NULL,                    -- of them, those that were answered 4xx or 5xx
  PRIMARY KEY (key_id, day, route),
  FOREIGN KEY (org_id, key_id) REFERENCES org_api_keys (org_id, key_id) ON DELETE CASCADE
) WITH (fillfactor = 50);
CREATE INDEX org_api_key_usage_day ON org_api_key_usage (day);
SELECT es.protect('public.org_api_key_usage');

-- +goose Down
DROP TABLE org_api_key_usage;
DROP TABLE org_api_key_networks;
DROP TABLE org_api_key_uses;
DROP TABLE org_api_key_secrets;
DROP TABLE org_api_keys;
