-- name: Now :one
SELECT now()::timestamptz;

-- name: InsertAPIKey :exec
INSERT INTO org_api_keys (key_id, org_id, name, scopes, role, holder_id, created_kind, created_by, expires_at, allowed_addresses, rate_limit, generation, version, created_at, updated_at)
VALUES (@key_id, @org_id, @name, @scopes, @role, @holder_id, @created_kind, @created_by, sqlc.narg('expires_at'), @allowed_addresses, sqlc.narg('rate_limit'), 1, @version, @created_at, @created_at);

-- name: ChangeAPIKey :exec
UPDATE org_api_keys SET name = @name, scopes = @scopes, expires_at = sqlc.narg('expires_at'), allowed_addresses = @allowed_addresses,
  rate_limit = sqlc.narg('rate_limit'), version = @version, updated_at = @updated_at
 WHERE org_id = @org_id AND key_id = @key_id;

-- name: RotateAPIKey :exec
UPDATE org_api_keys SET generation = @generation, holder_id = @holder_id, previous_until = sqlc.narg('previous_until'), version = @version, updated_at = @updated_at
 WHERE org_id = @org_id AND key_id = @key_id;

-- name: RevokeAPIKey :exec
UPDATE org_api_keys SET revoked_at = @revoked_at, revoked_kind = @revoked_kind, revoked_by = @revoked_by, version = @version, updated_at = @revoked_at WHERE org_id = @org_id AND key_id = @key_id;

-- name: InsertAPIKeySecret :exec
INSERT INTO org_api_key_secrets (key_id, org_id, hash) VALUES (@key_id, @org_id, @hash);

-- name: RotateAPIKeySecret :exec
-- The secret before is kept, so that whoever still shows it hears that it has ended; whether it works, previous_until says.
UPDATE org_api_key_secrets SET previous_hash = hash, hash = @hash
 WHERE org_id = @org_id AND key_id = @key_id;

-- name: CountAPIKeys :one
SELECT count(*) FROM org_api_keys WHERE org_id = @org_id AND revoked_at IS NULL;

-- name: LockAPIKey :one
-- Serializes the commands on a key. None reaches a revoked key.
SELECT * FROM org_api_keys WHERE org_id = @org_id AND key_id = @key_id AND revoked_at IS NULL FOR UPDATE;

-- name: GetAPIKey :one
-- Revoked ones too: somebody looks into what a leaked key did.
SELECT sqlc.embed(k), u.last_used_at, u.address AS last_address, m.role AS holder_role,
       (k.expires_at IS NOT NULL AND k.expires_at <= now())::boolean AS expired,
       (k.previous_until IS NOT NULL AND k.previous_until > now())::boolean AS previous_holds
  FROM org_api_keys k
  LEFT JOIN org_api_key_uses u ON u.key_id = k.key_id
  LEFT JOIN org_members m ON m.org_id = k.org_id AND m.account_id = k.holder_id
 WHERE k.org_id = @org_id AND k.key_id = @key_id;

-- name: ListAPIKeys :many
-- Newest first; the cursor is the last id that was seen. No status is all that weren't revoked.
SELECT sqlc.embed(k), u.last_used_at, u.address AS last_address, m.role AS holder_role,
       (k.expires_at IS NOT NULL AND k.expires_at <= now())::boolean AS expired,
       (k.previous_until IS NOT NULL AND k.previous_until > now())::boolean AS previous_holds
  FROM org_api_keys k
  LEFT JOIN org_api_key_uses u ON u.key_id = k.key_id
  LEFT JOIN org_members m ON m.org_id = k.org_id AND m.account_id = k.holder_id
 WHERE k.org_id = @org_id
   AND CASE @status::text
         WHEN 'all' THEN true
         WHEN '' THEN k.revoked_at IS NULL
         ELSE @status = CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked'
                             WHEN k.expires_at IS NOT NULL AND k.expires_at <= now() THEN 'expired'
                             WHEN m.role IS NULL THEN 'suspended'
                             ELSE 'active' END
       END
   AND (sqlc.narg('after')::uuid IS NULL OR k.key_id < sqlc.narg('after'))
 ORDER BY k.key_id DESC LIMIT @row_limit;

-- name: AuthenticateAPIKey :one
-- As the system role, before a tenant is known. Everything that decides about a key in one round trip: it is asked on each
-- request, so that what was revoked stops at once on every node.
SELECT k.org_id, k.role, k.scopes, k.expires_at, k.allowed_addresses, k.rate_limit, k.generation, k.previous_until,
       (k.revoked_at IS NOT NULL)::boolean AS revoked,
       (k.expires_at IS NOT NULL AND k.expires_at <= now())::boolean AS expired,
       (k.previous_until IS NOT NULL AND k.previous_until > now())::boolean AS previous_holds,
       (s.refused_told_at IS NOT NULL AND s.refused_told_at > now() - interval '1 hour')::boolean AS refusal_told,
       s.hash, s.previous_hash, m.role AS holder_role, (o.erase_at IS NOT NULL)::boolean AS frozen,
       EXISTS (SELECT FROM org_api_key_networks n WHERE n.key_id = k.key_id AND n.network = @network AND n.allowed) AS known,
       EXISTS (SELECT FROM org_api_key_networks n WHERE n.key_id = k.key_id AND n.network = @network AND NOT n.allowed) AS known_refused
  FROM org_api_keys k
  JOIN org_api_key_secrets s ON s.key_id = k.key_id
  JOIN orgs o ON o.org_id = k.org_id
  LEFT JOIN org_members m ON m.org_id = k.org_id AND m.account_id = k.holder_id
 WHERE k.key_id = @key_id;

-- name: NoteAPIKeyRefusal :execrows
-- Zero rows: it was told within the hour.
UPDATE org_api_key_secrets SET refused_told_at = now()
 WHERE org_id = @org_id AND key_id = @key_id AND (refused_told_at IS NULL OR refused_told_at <= now() - interval '1 hour');

-- name: NoteAPIKeyNetwork :execrows
-- Zero rows: it is known, or the key has had as many new ones within the hour as are told.
INSERT INTO org_api_key_networks (key_id, org_id, network, allowed)
SELECT @key_id, @org_id, @network, @allowed
 WHERE (SELECT count(*) FROM org_api_key_networks n WHERE n.key_id = @key_id AND n.first_seen_at > now() - interval '1 hour') < @an_hour::bigint
ON CONFLICT DO NOTHING;

-- name: ForgetAPIKeyNetworks :exec
-- Keeps those that were seen last.
DELETE FROM org_api_key_networks d WHERE d.org_id = @org_id AND d.key_id = @key_id AND (d.network, d.allowed) IN (
  SELECT n.network, n.allowed FROM org_api_key_networks n WHERE n.org_id = @org_id AND n.key_id = @key_id
   ORDER BY n.last_seen_at DESC, n.network, n.allowed OFFSET @kept);

-- name: AddAPIKeyUsage :exec
-- In the order of the primary key, so that two nodes can't wait for each other. Keys that are gone are left out.
INSERT INTO org_api_key_usage (key_id, day, route, org_id, requests, refused)
SELECT u.key_id, u.day::date, u.route, k.org_id, u.requests, u.refused
  FROM (SELECT unnest(@key_ids::uuid[]) AS key_id, unnest(@days::text[]) AS day, unnest(@routes::text[]) AS route,
               unnest(@requests::bigint[]) AS requests, unnest(@refused::bigint[]) AS refused) u
  JOIN org_api_keys k ON k.key_id = u.key_id
 ORDER BY u.key_id, u.day::date, u.route
ON CONFLICT (key_id, day, route) DO UPDATE SET requests = org_api_key_usage.requests + EXCLUDED.requests, refused = org_api_key_usage.refused + EXCLUDED.refused;

-- name: NoteAPIKeyUses :exec
-- At most once a minute for each key, whichever nodes say so. Not where the holder was erased meanwhile: it was their
-- address.
INSERT INTO org_api_key_uses (key_id, org_id, last_used_at, address)
SELECT u.key_id, k.org_id, u.at, u.address
  FROM (SELECT unnest(@key_ids::uuid[]) AS key_id, unnest(@used_at::timestamptz[]) AS at, unnest(@addresses::text[]) AS address) u
  JOIN org_api_keys k ON k.key_id = u.key_id
  JOIN person_keys p ON p.account_id = k.key_id
 ORDER BY u.key_id
ON CONFLICT (key_id) DO UPDATE SET last_used_at = EXCLUDED.last_used_at, address = EXCLUDED.address
 WHERE org_api_key_uses.last_used_at <= EXCLUDED.last_used_at - interval '1 minute';

-- name: SeeAPIKeyNetworks :exec
UPDATE org_api_key_networks n SET last_seen_at = now()
  FROM (SELECT unnest(@key_ids::uuid[]) AS key_id, unnest(@networks::text[]) AS network) u
 WHERE n.key_id = u.key_id AND n.network = u.network AND n.allowed AND n.last_seen_at < now() - interval '10 minutes';

-- name: ListAPIKeyUsage :many
-- Newest day first; days are written as 2026-11-22. The cursor is the last row that was seen.
SELECT to_char(day, 'YYYY-MM-DD') AS day, route, requests, refused FROM org_api_key_usage
 WHERE org_id = @org_id AND key_id = @key_id AND day BETWEEN (@from_day::text)::date AND (@to_day::text)::date
   AND (@after_day::text = '' OR day < nullif(@after_day, '')::date OR (day = nullif(@after_day, '')::date AND route > @after_route::text))
 ORDER BY org_api_key_usage.day DESC, route LIMIT @row_limit;

-- name: SumAPIKeyUsage :one
SELECT coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(refused), 0)::bigint AS refused FROM org_api_key_usage
 WHERE org_id = @org_id AND key_id = @key_id AND day BETWEEN (@from_day::text)::date AND (@to_day::text)::date;

-- name: PruneAPIKeyUsage :execrows
DELETE FROM org_api_key_usage WHERE day < (@before::text)::date;
