-- +goose Up

-- Mail on its way out. What it says and to whom is sealed with a key of its own, which the master key wraps; a row goes
-- when its mail was handed over, and is emptied when that can't be done. It belongs to no organization: the system role
-- alone reads it.
CREATE TABLE outgoing_mails (
  mail_id      uuid PRIMARY KEY,
  kind         text NOT NULL CHECK (kind ~ '^[a-z_]+\.[a-z_]+$'),
  account_id   uuid,                          -- whose mail it is, so that it goes with them; null = nobody's with an account
  wrapped_key  bytea,
  sealed       bytea,
  created_at   timestamptz NOT NULL DEFAULT now(),
  expires_at   timestamptz NOT NULL,          -- worth nothing afterwards
  attempts     int NOT NULL DEFAULT 0,
  leased_until timestamptz,                   -- somebody is handing it over
  problem      text,                          -- of the last attempt, in our words and codes: never the server's text
  dead_at      timestamptz,
  CHECK ((dead_at IS NULL) = (sealed IS NOT NULL AND wrapped_key IS NOT NULL)),
  CHECK (dead_at IS NULL OR problem IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX outgoing_mails_account ON outgoing_mails (account_id);
CREATE INDEX outgoing_mails_expiry ON outgoing_mails (expires_at);

-- +goose StatementBegin
DO $$
DECLARE sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON outgoing_mails TO %I', sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE outgoing_mails;
