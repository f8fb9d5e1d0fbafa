-- +goose Up

-- What makes the ledger tamper-evident: the leaves of each organization's tree, the roots of its full subtrees, and the
-- signed heads. Everything here is a fact, and nobody changes one. How it is verified: internal/seal.

-- A leaf an event of the ledger, in order of position. It is the event's hash once more, in another table, so that a
-- changed event can be named and not only noticed.
CREATE TABLE es.sealed_leaf (
  org_id   uuid   NOT NULL,
  leaf     bigint NOT NULL CHECK (leaf >= 0),
  position bigint NOT NULL,
  hash     bytea  NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (org_id, leaf)
);
CREATE UNIQUE INDEX sealed_leaf_position ON es.sealed_leaf (org_id, position);

-- The root of the n-th 2^level leaves, for levels 8, 16, 24 …: any other hash of the tree is at most 256 of these or of
-- leaves away.
CREATE TABLE es.sealed_node (
  org_id uuid     NOT NULL,
  level  smallint NOT NULL CHECK (level > 0 AND level % 8 = 0),
  n      bigint   NOT NULL CHECK (n >= 0),
  hash   bytea    NOT NULL CHECK (octet_length(hash) = 32),
  PRIMARY KEY (org_id, level, n)
);

-- Signed heads. The columns beside the note repeat what stands in it, for queries; what counts is the note.
CREATE TABLE es.sealed_head (
  org_id    uuid        NOT NULL,
  number    bigint      NOT NULL CHECK (number >= 1),
  size      bigint      NOT NULL CHECK (size >= 0),
  position  bigint      NOT NULL,
  sealed_at timestamptz NOT NULL,
  note      text        NOT NULL,
  PRIMARY KEY (org_id, number)
);
CREATE INDEX sealed_head_size ON es.sealed_head (org_id, size);

-- The keys that sign, oldest first, each vouched for by the one before (statement). They belong to the installation. A
-- private key is sealed by the master key, and destroyed when the next one takes over.
CREATE TABLE es.sealing_key (
  number      int         PRIMARY KEY CHECK (number >= 1),
  public_key  text        NOT NULL UNIQUE,
  statement   text        NOT NULL,
  created_at  timestamptz NOT NULL,
  wrapped_key bytea,
  private_key bytea,
  retired_at  timestamptz,
  CHECK ((private_key IS NULL) = (retired_at IS NOT NULL) AND (private_key IS NULL) = (wrapped_key IS NULL))
);

-- Who seals holds this row; position is how far all organizations are known to be sealed.
CREATE TABLE es.sealer (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  position  bigint  NOT NULL DEFAULT 0
);
INSERT INTO es.sealer DEFAULT VALUES;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.sealed_leaf FOR EACH STATEMENT EXECUTE FUNCTION es.deny();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.sealed_node FOR EACH STATEMENT EXECUTE FUNCTION es.deny();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.sealed_head FOR EACH STATEMENT EXECUTE FUNCTION es.deny();
CREATE TRIGGER no_delete   BEFORE DELETE OR TRUNCATE ON es.sealing_key FOR EACH STATEMENT EXECUTE FUNCTION es.deny();

SELECT es.protect('es.sealed_leaf');
SELECT es.protect('es.sealed_node');
SELECT es.protect('es.sealed_head');

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON es.sealed_leaf, es.sealed_node, es.sealed_head FROM %I', api);
  EXECUTE format('REVOKE UPDATE, DELETE ON es.sealed_leaf, es.sealed_node, es.sealed_head FROM %I', sys);
  EXECUTE format('GRANT SELECT (number, public_key, statement, created_at, retired_at) ON es.sealing_key TO %I', api);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE (wrapped_key, private_key, retired_at) ON es.sealing_key TO %I', sys);
  EXECUTE format('GRANT SELECT, UPDATE (position) ON es.sealer TO %I', sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE es.sealer;
DROP TABLE es.sealing_key;
DROP TABLE es.sealed_head;
DROP TABLE es.sealed_node;
DROP TABLE es.sealed_leaf;
