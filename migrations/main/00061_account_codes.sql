-- +goose Up

-- When somebody proved that they read the mail of the account's address; null = not yet.
ALTER TABLE accounts ADD COLUMN email_verified_at timestamptz;

-- Codes that were sent by mail. Each is good once, for one purpose and for the address that it was sent to.
CREATE TABLE account_codes (
  code_hash  bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
  account_id uuid NOT NULL REFERENCES accounts ON DELETE CASCADE,
  purpose    text NOT NULL CHECK (purpose IN ('verify_email', 'reset_password', 'registration_tried')),
  email      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at    timestamptz
);
CREATE INDEX account_codes_account ON account_codes (account_id, purpose, created_at);
CREATE INDEX account_codes_expiry ON account_codes (expires_at);

-- Registrations that wait for their code, where registration is confirmed by mail: nothing else exists of them yet.
CREATE TABLE pending_registrations (
  code_hash         bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
  email             text NOT NULL,
  name              text NOT NULL,
  password_hash     text NOT NULL,
  organization_name text NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT now(),
  expires_at        timestamptz NOT NULL
);
CREATE INDEX pending_registrations_email ON pending_registrations (email, created_at);
CREATE INDEX pending_registrations_expiry ON pending_registrations (expires_at);

-- +goose StatementBegin
DO $$
DECLARE sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON account_codes, pending_registrations TO %I', sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE pending_registrations;
DROP TABLE account_codes;
ALTER TABLE accounts DROP COLUMN email_verified_at;
