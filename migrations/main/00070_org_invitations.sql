-- +goose Up

-- Set: nothing in the organization changes any more, and from then on it is erased.
ALTER TABLE orgs ADD COLUMN erase_at timestamptz;
CREATE INDEX orgs_erase_at ON orgs (erase_at) WHERE erase_at IS NOT NULL;

-- Who was asked to become a member. A token is good once and only for its address; its hash alone is kept. Rows stay for a
-- while after their end, so that a person who wants to be forgotten is found in them; then they go, with the key that
-- seals the address in the log.
CREATE TABLE org_invitations (
  invitation_id uuid PRIMARY KEY,
  org_id        uuid NOT NULL REFERENCES orgs ON DELETE CASCADE,
  email         text NOT NULL,              -- normalized
  role          text NOT NULL CHECK (role IN ('admin', 'manager', 'developer', 'viewer')),
  token_hash    bytea NOT NULL CHECK (octet_length(token_hash) = 32),
  mailed        boolean NOT NULL,           -- the token went to the address and to nobody else, so that it proves it
  invited_by    uuid NOT NULL,
  created_at    timestamptz NOT NULL,
  sent_at       timestamptz NOT NULL,       -- the last time
  expires_at    timestamptz NOT NULL,
  ended_at      timestamptz,
  end_reason    text CHECK (end_reason IN ('accepted', 'revoked', 'replaced')),
  CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE UNIQUE INDEX org_invitations_token ON org_invitations (token_hash);
CREATE UNIQUE INDEX org_invitations_open ON org_invitations (org_id, email) WHERE ended_at IS NULL;
CREATE INDEX org_invitations_org ON org_invitations (org_id, created_at, invitation_id);
CREATE INDEX org_invitations_email ON org_invitations (email);
SELECT es.protect('public.org_invitations');

-- +goose Down
DROP TABLE org_invitations;
ALTER TABLE orgs DROP COLUMN erase_at;
