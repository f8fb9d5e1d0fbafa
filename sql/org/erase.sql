-- These run as the system role.

-- name: OrgsToErase :many
-- Whose grace is over and of whose runs none is under way.
SELECT o.org_id FROM orgs o
 WHERE o.erase_at <= now()
   AND NOT EXISTS (SELECT FROM runs r WHERE r.org_id = o.org_id AND r.status IN ('queued', 'running'))
 ORDER BY o.erase_at LIMIT @row_limit;

-- name: LatelyErased :many
SELECT org_id FROM es.erased_orgs WHERE erased_at > now() - make_interval(secs => @seconds::float8);

-- name: EraseOrg :one
SELECT es.erase_org(@org_id::uuid, @batch::int)::bigint AS gone;

-- name: EndErasure :exec
SELECT es.erase_org_end(@org_id::uuid);
