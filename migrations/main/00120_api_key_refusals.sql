-- +goose Up

-- When the log was last told that a key that is no good any more was shown: once an hour, however often it is.
ALTER TABLE org_api_key_secrets ADD COLUMN refused_told_at timestamptz;

-- +goose Down
ALTER TABLE org_api_key_secrets DROP COLUMN refused_told_at;
