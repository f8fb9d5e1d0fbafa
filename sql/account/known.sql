-- name: AddressesOf :many
-- Where an account was used from, the latest first. Sessions that ended because somebody else had them prove nothing.
SELECT s.address FROM sessions s JOIN accounts a USING (account_id)
 WHERE (a.email = @email OR a.account_id = @account_id) AND (s.ended_at IS NULL OR s.end_reason = 'signed_out')
 GROUP BY s.address ORDER BY max(s.last_seen_at) DESC LIMIT 200;
