-- name: InsertFragment :exec
INSERT INTO fragments (fragment_id, org_id, project_id, name, uses, definition, version, created_at, updated_at)
VALUES (@fragment_id, @org_id, @project_id, @name, @uses, @definition, @version, @created_at, @created_at);

-- name: ChangeFragment :exec
UPDATE fragments SET name = @name, uses = @uses, definition = @definition, version = @version, updated_at = @updated_at
WHERE org_id = @org_id AND fragment_id = @fragment_id;

-- name: DeleteFragment :exec
DELETE FROM fragments WHERE org_id = @org_id AND fragment_id = @fragment_id;

-- name: GetFragment :one
SELECT * FROM fragments WHERE org_id = @org_id AND project_id = @project_id AND fragment_id = @fragment_id;

-- Newest first; the cursor is the last id that was seen.
-- name: ListFragments :many
SELECT * FROM fragments
WHERE org_id = @org_id AND project_id = @project_id AND (sqlc.narg('after')::uuid IS NULL OR fragment_id < sqlc.narg('after'))
ORDER BY fragment_id DESC LIMIT @max_rows;

-- name: GetFragments :many
SELECT * FROM fragments WHERE org_id = @org_id AND project_id = @project_id ORDER BY name;

-- A save of a test or a fragment that uses fragments waits for the commands that change one, which lock them all, and the
-- other way round; in one order, so that none waits for another in a circle.
-- name: ShareFragments :many
SELECT * FROM fragments WHERE org_id = @org_id AND project_id = @project_id ORDER BY fragment_id FOR SHARE;

-- name: LockFragments :many
SELECT * FROM fragments WHERE org_id = @org_id AND project_id = @project_id ORDER BY fragment_id FOR UPDATE;

-- The tests of a project that use one of the fragments themselves.
-- name: ListUsers :many
SELECT t.test_id, t.name, t.environment_id, r.definition FROM tests t JOIN test_revisions r USING (test_id, revision)
WHERE t.org_id = @org_id AND t.project_id = @project_id AND t.fragments && @names::text[]
ORDER BY t.name;
