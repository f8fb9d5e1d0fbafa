-- +goose Up

-- Who revoked a key. NULL of those that were revoked before this was kept; the log knows.
ALTER TABLE org_api_keys ADD COLUMN revoked_kind text CHECK (revoked_kind IN ('user', 'apiKey')), ADD COLUMN revoked_by uuid;

-- +goose Down
ALTER TABLE org_api_keys DROP COLUMN revoked_by, DROP COLUMN revoked_kind;
