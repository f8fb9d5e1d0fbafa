-- +goose Up

-- What a command answered to an Idempotency-Key, written in the command's own transaction and kept for a day.
CREATE TABLE es.idempotency_answers (
  org_id     uuid        NOT NULL,
  principal  text        NOT NULL,       -- who asked: another one's key is another key
  route      text        NOT NULL,
  key        text        NOT NULL,
  body_hash  bytea       NOT NULL,       -- SHA-256 of what was asked: the same key with another body is refused
  status     int         NOT NULL,
  headers    jsonb       NOT NULL,
  body       bytea       NOT NULL,       -- ciphertext where sealed
  sealed     boolean     NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, principal, route, key)
);
CREATE INDEX idempotency_answers_age ON es.idempotency_answers (created_at);
SELECT es.protect('es.idempotency_answers');
