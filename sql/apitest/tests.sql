-- name: InsertTest :exec
INSERT INTO tests (test_id, org_id, project_id, environment_id, name, tags, regions, revision, content_hash, fragments, created_at, updated_at)
VALUES (@test_id, @org_id, @project_id, sqlc.narg('environment_id'), @name, @tags, @regions, @revision, @content_hash, @fragments, @created_at, @created_at);

-- name: ReviseTest :exec
UPDATE tests SET environment_id = sqlc.narg('environment_id'), name = @name, tags = @tags, regions = @regions, revision = @revision,
  content_hash = @content_hash, fragments = @fragments, updated_at = @updated_at
WHERE org_id = @org_id AND test_id = @test_id;

-- name: DeleteTest :exec
DELETE FROM tests WHERE org_id = @org_id AND test_id = @test_id;

-- name: InsertRevision :exec
INSERT INTO test_revisions (test_id, revision, org_id, definition, restored_from, created_at, created_kind, created_by)
VALUES (@test_id, @revision, @org_id, @definition, sqlc.narg('restored_from'), @created_at, @created_kind, @created_by);

-- name: GetTest :one
SELECT sqlc.embed(t), r.definition FROM tests t JOIN test_revisions r USING (test_id, revision)
WHERE t.org_id = @org_id AND t.test_id = @test_id;

-- What a run needs to begin, without the definition.
-- name: GetTestHead :one
SELECT * FROM tests WHERE org_id = @org_id AND test_id = @test_id;

-- The tests of a project that have one of the tags, or all tests.
-- name: ListTestHeads :many
SELECT * FROM tests
WHERE org_id = @org_id AND project_id = @project_id AND (cardinality(@tags::text[]) = 0 OR tags && @tags::text[])
ORDER BY test_id LIMIT @max_rows;

-- Serializes the commands on a test.
-- name: LockTest :one
SELECT * FROM tests WHERE org_id = @org_id AND test_id = @test_id FOR UPDATE;

-- Newest first; the cursor is the last id that was seen.
-- name: ListTests :many
SELECT sqlc.embed(t), r.definition FROM tests t JOIN test_revisions r USING (test_id, revision)
WHERE t.org_id = @org_id
  AND (cardinality(@project_ids::uuid[]) = 0 OR t.project_id = ANY(@project_ids::uuid[]))
  AND t.tags @> @tags::text[]
  AND (@query::text = '' OR position(lower(@query) IN lower(t.name)) > 0)
  AND (sqlc.narg('after')::uuid IS NULL OR t.test_id < sqlc.narg('after'))
ORDER BY t.test_id DESC LIMIT @max_rows;

-- name: GetRevision :one
SELECT * FROM test_revisions WHERE org_id = @org_id AND test_id = @test_id AND revision = @revision;

-- Newest first; the cursor is the last revision that was seen.
-- name: ListRevisions :many
SELECT * FROM test_revisions
WHERE org_id = @org_id AND test_id = @test_id AND (sqlc.narg('after')::int IS NULL OR revision < sqlc.narg('after'))
ORDER BY revision DESC LIMIT @max_rows;

-- name: CountTests :one
SELECT count(*) FROM tests WHERE org_id = @org_id AND project_id = @project_id;

-- name: GetTestHeads :many
SELECT * FROM tests WHERE org_id = @org_id AND test_id = ANY(@test_ids::uuid[]);
