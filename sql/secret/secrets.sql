-- name: InsertSecret :exec
INSERT INTO secrets (secret_id, org_id, project_id, environment_id, name, description, version, created_at, updated_at, updated_kind, updated_by)
VALUES (@secret_id, @org_id, sqlc.narg('project_id'), sqlc.narg('environment_id'), @name, @description, @version, @created_at, @created_at, @updated_kind, sqlc.narg('updated_by'));

-- name: UpdateSecret :exec
UPDATE secrets SET description = @description, version = @version, updated_at = @updated_at, updated_kind = @updated_kind, updated_by = sqlc.narg('updated_by')
WHERE org_id = @org_id AND secret_id = @secret_id;

-- name: DeleteSecret :exec
DELETE FROM secrets WHERE org_id = @org_id AND secret_id = @secret_id;

-- One scope's, by name. scope is the environment's, the project's or the organization's id.
-- name: ListSecrets :many
SELECT * FROM secrets
WHERE org_id = @org_id AND coalesce(environment_id, project_id, org_id) = @scope AND name > @after
ORDER BY name LIMIT @max_rows;

-- name: FindSecret :one
SELECT * FROM secrets WHERE org_id = @org_id AND coalesce(environment_id, project_id, org_id) = @scope AND name = @name;

-- name: CountSecrets :one
SELECT count(*) FROM secrets WHERE org_id = @org_id AND coalesce(environment_id, project_id, org_id) = @scope;

-- Serializes the commands on a scope until the transaction ends.
-- name: LockScope :exec
SELECT pg_advisory_xact_lock(hashtextextended('secrets ' || @scope::text, 0));

-- Of each name the one of the nearest scope.
-- name: ResolveSecrets :many
SELECT DISTINCT ON (name) * FROM secrets
WHERE org_id = @org_id AND name = ANY(@names::text[])
  AND (environment_id = sqlc.narg('environment_id') OR environment_id IS NULL AND (project_id = @project_id OR project_id IS NULL))
ORDER BY name, environment_id NULLS LAST, project_id NULLS LAST;

-- The names that a project's tests may use: without an environment those of all its environments.
-- name: SecretNames :many
SELECT DISTINCT name FROM secrets
WHERE org_id = @org_id AND (project_id IS NULL OR project_id = @project_id)
  AND (environment_id IS NULL OR sqlc.narg('environment_id')::uuid IS NULL OR environment_id = sqlc.narg('environment_id'));

-- name: InsertSecretValue :exec
INSERT INTO secret_values (org_id, secret_id, version, sealed) VALUES (@org_id, @secret_id, @version, @sealed);

-- Versions of long ago; their grants go with them.
-- name: ForgetSecretValues :exec
DELETE FROM secret_values WHERE org_id = @org_id AND secret_id = @secret_id AND version <= @up_to;

-- What regions have not been given yet. Zero rows: they have it all.
-- name: MissingGrants :many
SELECT v.secret_id, v.version, w.region::text AS region, v.sealed
FROM (SELECT unnest(@secret_ids::uuid[]) AS secret_id, unnest(@versions::int[]) AS version, unnest(@regions::text[]) AS region) AS w
JOIN secret_values v ON v.org_id = @org_id AND v.secret_id = w.secret_id AND v.version = w.version
WHERE NOT EXISTS (SELECT 1 FROM secret_grants g WHERE g.secret_id = v.secret_id AND g.version = v.version AND g.region = w.region);

-- name: InsertGrant :exec
INSERT INTO secret_grants (org_id, secret_id, version, region, sealed) VALUES (@org_id, @secret_id, @version, @region, @sealed)
ON CONFLICT DO NOTHING;

-- name: Grants :many
SELECT g.secret_id, g.version, g.sealed
FROM (SELECT unnest(@secret_ids::uuid[]) AS secret_id, unnest(@versions::int[]) AS version) AS w
JOIN secret_grants g ON g.org_id = @org_id AND g.secret_id = w.secret_id AND g.version = w.version AND g.region = @region;

-- Zero rows: it was used like this before, or is gone.
-- name: InsertUse :many
INSERT INTO secret_uses (org_id, secret_id, version, test_id, revision, used_by)
SELECT @org_id, s.secret_id, @version, @test_id, @revision, @used_by FROM secrets s WHERE s.org_id = @org_id AND s.secret_id = @secret_id
ON CONFLICT DO NOTHING
RETURNING used_at;

-- name: RekeyGrants :many
SELECT secret_id, version, region, org_id, sealed FROM secret_grants
WHERE (secret_id, version, region) > (@after_secret::uuid, @after_version::int, @after_region::text)
ORDER BY secret_id, version, region LIMIT @max_rows;

-- Zero: somebody else was faster, or it is gone.
-- name: ReplaceGrant :execrows
UPDATE secret_grants SET sealed = @sealed WHERE secret_id = @secret_id AND version = @version AND region = @region AND sealed = @was;

-- name: DeleteGrant :exec
DELETE FROM secret_grants WHERE org_id = @org_id AND secret_id = @secret_id AND version = @version AND region = @region;
