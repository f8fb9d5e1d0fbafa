-- +goose Up

-- The audit log is asked for a type of event, for a subject, for a stretch of time and for a request; actors have their
-- index since 00002. Each ends with the position, so that a page of one value is read in order and ends with its rows.
CREATE INDEX ledger_event_type    ON es.ledger_event (org_id, type_id, position);
CREATE INDEX ledger_event_subject ON es.ledger_event (org_id, stream_id, position);
CREATE INDEX ledger_event_time    ON es.ledger_event (org_id, recorded_at);

-- A column of its own: under row-level security an index on the expression would not be used, since ->> is not leakproof.
ALTER TABLE es.ledger_event ADD COLUMN request_id text GENERATED ALWAYS AS (meta ->> 'requestId') STORED;
CREATE INDEX ledger_event_request ON es.ledger_event (org_id, request_id, position) WHERE request_id IS NOT NULL;

-- +goose Down
DROP INDEX es.ledger_event_request;
ALTER TABLE es.ledger_event DROP COLUMN request_id;
DROP INDEX es.ledger_event_time;
DROP INDEX es.ledger_event_subject;
DROP INDEX es.ledger_event_type;
