-- name: ForgetKeyAddresses :many
-- Where the API keys were used that a person held or made; which keys these are.
WITH held AS (SELECT key_id FROM org_api_keys WHERE holder_id = @account_id OR created_kind = 'user' AND created_by = @account_id),
     uses AS (DELETE FROM org_api_key_uses u USING held WHERE u.key_id = held.key_id),
     networks AS (DELETE FROM org_api_key_networks n USING held WHERE n.key_id = held.key_id)
SELECT key_id FROM held;
