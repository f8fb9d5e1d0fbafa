-- +goose Up

-- Who made this installation its own: one row, and the account in it is set once.
CREATE TABLE installation (
  singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  operator_id uuid
);
INSERT INTO installation DEFAULT VALUES;

-- People. They belong to no organization, so there is no org_id and no tenant policy: the system role alone reads them.
CREATE TABLE accounts (
  account_id     uuid PRIMARY KEY,
  email          text NOT NULL,              -- normalized; one account an address
  name           text NOT NULL,
  password_hash  text NOT NULL,              -- argon2id, with its parameters
  operator       boolean NOT NULL,
  created_at     timestamptz NOT NULL,
  failed_count   int NOT NULL DEFAULT 0,     -- failed sign-ins since failed_since
  failed_since   timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX accounts_email ON accounts (email);
CREATE UNIQUE INDEX accounts_operator ON accounts (operator) WHERE operator;   -- there is one operator

-- The key that seals a person's e-mail, name, address and agent in events. Deleting the row erases them.
CREATE TABLE person_keys (
  account_id  uuid PRIMARY KEY,
  wrapped_key bytea NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- One sign-in. Times are the database's.
CREATE TABLE sessions (
  session_id   uuid PRIMARY KEY,
  account_id   uuid NOT NULL REFERENCES accounts ON DELETE CASCADE,
  chosen_org   uuid,                         -- goes into access tokens; membership is checked on each request
  created_at   timestamptz NOT NULL DEFAULT now(),
  last_seen_at timestamptz NOT NULL DEFAULT now(),   -- of the last sign-in or refresh
  expires_at   timestamptz NOT NULL,         -- whatever is done with it
  ended_at     timestamptz,
  end_reason   text CHECK (end_reason IN ('signed_out', 'refresh_reused', 'revoked', 'password_changed', 'erased')),
  address      text NOT NULL,
  agent        text NOT NULL,
  CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX sessions_account ON sessions (account_id, created_at);

-- A family of refresh tokens is the tokens of a session. Each is good once: used_at is set in the statement that makes its child.
CREATE TABLE refresh_tokens (
  token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,           -- when it was not used by then
  used_at    timestamptz,
  used_by    bytea,                          -- hash of the client that used it first
  children   int NOT NULL DEFAULT 0
) WITH (fillfactor = 80);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- +goose StatementBegin
DO $$
DECLARE sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT, UPDATE (operator_id) ON installation TO %I', sys);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON accounts, person_keys, sessions, refresh_tokens TO %I', sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE refresh_tokens;
DROP TABLE sessions;
DROP TABLE person_keys;
DROP TABLE accounts;
DROP TABLE installation;
