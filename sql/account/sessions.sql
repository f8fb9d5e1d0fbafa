-- name: InsertSession :exec
INSERT INTO sessions (session_id, account_id, chosen_org, expires_at, address, agent)
VALUES (@session_id, @account_id, @chosen_org, now() + make_interval(secs => @lifetime_seconds::float8), @address, @agent);

-- name: InsertRefreshToken :exec
INSERT INTO refresh_tokens (token_hash, session_id, expires_at)
VALUES (@token_hash, @session_id, now() + make_interval(secs => @idle_seconds::float8));

-- name: RotateRefreshToken :one
-- Marks the token used and inserts its child, in one statement: of several who try at once the first one uses it and the
-- others, waiting for its row, then fit only through the grace for the same client. No row: see FindRefreshToken.
WITH used AS (
  UPDATE refresh_tokens t
     SET used_at = coalesce(t.used_at, now()), used_by = coalesce(t.used_by, @client), children = t.children + 1
    FROM sessions s
   WHERE t.token_hash = ANY (@hashes::bytea[]) AND s.session_id = t.session_id
     AND s.ended_at IS NULL AND s.expires_at > now() AND t.expires_at > now()
     AND (t.used_at IS NULL
          OR (t.used_by = @client AND t.used_at > now() - make_interval(secs => @grace_seconds::float8) AND t.children < @max_children::int))
  RETURNING s.session_id, s.account_id, s.chosen_org, s.expires_at
), child AS (
  INSERT INTO refresh_tokens (token_hash, session_id, expires_at)
  SELECT @child_hash, session_id, least(now() + make_interval(secs => @idle_seconds::float8), expires_at) FROM used
), seen AS (
  UPDATE sessions s SET last_seen_at = now(), address = @address, agent = @agent FROM used WHERE s.session_id = used.session_id
)
SELECT session_id, account_id, chosen_org FROM used;

-- name: FindRefreshToken :one
SELECT t.session_id, s.account_id, (t.used_at IS NOT NULL)::boolean AS used,
       (s.ended_at IS NOT NULL OR s.expires_at <= now() OR t.expires_at <= now())::boolean AS over
  FROM refresh_tokens t JOIN sessions s USING (session_id)
 WHERE t.token_hash = ANY (@hashes::bytea[]);

-- name: EndSession :execrows
-- No row: it has ended before.
UPDATE sessions SET ended_at = now(), end_reason = @reason
 WHERE session_id = @session_id AND account_id = @account_id AND ended_at IS NULL;

-- name: ChooseOrg :exec
UPDATE sessions SET chosen_org = @chosen_org WHERE session_id = @session_id;

-- name: PurgeSessions :execrows
-- Sessions that nobody can use any more, with their tokens.
DELETE FROM sessions WHERE session_id IN (
  SELECT session_id FROM sessions WHERE least(ended_at, expires_at) < now() - make_interval(secs => @kept_seconds::float8) LIMIT @batch);
