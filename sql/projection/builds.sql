-- name: Builds :many
SELECT b.*, (SELECT count(*) FROM es.dead_letters d WHERE d.name = b.name AND d.version = b.version AND d.build = b.build)::int AS dead_letters
  FROM es.projection_builds b ORDER BY b.name, b.version, b.build;

-- name: ActiveBuilds :many
SELECT build, state FROM es.projection_builds WHERE name = @name AND version = @version AND state IN ('live', 'building') ORDER BY build;

-- name: LiveBuild :one
SELECT * FROM es.projection_builds WHERE name = @name AND state = 'live';

-- name: LockLiveBuild :one
SELECT * FROM es.projection_builds WHERE name = @name AND state = 'live' FOR UPDATE;

-- name: LockBuild :one
SELECT * FROM es.projection_builds WHERE name = @name AND version = @version AND build = @build FOR UPDATE;

-- name: TryLockBuild :one
-- No row: another runner has it, or it is no longer worked on.
SELECT * FROM es.projection_builds WHERE name = @name AND version = @version AND build = @build AND state IN ('live', 'building', 'checking') FOR UPDATE SKIP LOCKED;

-- name: BuildingBuild :one
SELECT * FROM es.projection_builds WHERE name = @name AND version = @version AND state = 'building' ORDER BY build DESC LIMIT 1;

-- name: NextBuild :one
SELECT (coalesce(max(build), 0) + 1)::int FROM es.projection_builds WHERE name = @name AND version = @version;

-- name: AddBuild :exec
INSERT INTO es.projection_builds (name, version, build, schema_name, state, target) VALUES (@name, @version, @build, @schema_name, @state, @target);

-- name: Advance :exec
UPDATE es.projection_builds SET position = @position, target = greatest(@target::bigint, @position), events = events + @applied, last_error = '', updated_at = clock_timestamp()
 WHERE name = @name AND version = @version AND build = @build;

-- name: SetError :exec
UPDATE es.projection_builds SET last_error = @last_error, updated_at = clock_timestamp() WHERE name = @name AND version = @version AND build = @build;

-- name: SetState :exec
UPDATE es.projection_builds SET state = @state, updated_at = clock_timestamp() WHERE name = @name AND version = @version AND build = @build;

-- name: RetiredBuilds :many
SELECT * FROM es.projection_builds WHERE state = 'retired' OR (state = 'checking' AND updated_at < clock_timestamp() - interval '1 hour') ORDER BY name, version, build;

-- name: DeleteBuild :exec
DELETE FROM es.projection_builds WHERE name = @name AND version = @version AND build = @build;

-- name: AddDeadLetter :exec
INSERT INTO es.dead_letters (name, version, build, position, type, error) VALUES (@name, @version, @build, @position, @type, @error)
ON CONFLICT (name, version, build, position) DO UPDATE SET error = excluded.error, tries = es.dead_letters.tries + 1, at = clock_timestamp();

-- name: DeadLetters :many
SELECT * FROM es.dead_letters WHERE name = @name AND version = @version AND build = @build ORDER BY position LIMIT @n;

-- name: DeleteDeadLetter :execrows
DELETE FROM es.dead_letters WHERE name = @name AND version = @version AND build = @build AND position = @position;

-- name: Passed :one
-- The position that every build has passed that is or will be shown.
SELECT coalesce(min(position), 0)::bigint AS position FROM es.projection_builds WHERE state IN ('live', 'building', 'checking');
