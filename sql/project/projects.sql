-- name: InsertProject :exec
INSERT INTO projects (project_id, org_id, name, description, version, created_at, updated_at)
VALUES (@project_id, @org_id, @name, @description, 0, @created_at, @created_at);

-- name: RenameProject :exec
UPDATE projects SET name = @name WHERE org_id = @org_id AND project_id = @project_id;

-- name: DescribeProject :exec
UPDATE projects SET description = @description WHERE org_id = @org_id AND project_id = @project_id;

-- name: TouchProject :exec
UPDATE projects SET version = @version, updated_at = @updated_at WHERE org_id = @org_id AND project_id = @project_id;

-- name: DeleteProject :exec
DELETE FROM projects WHERE org_id = @org_id AND project_id = @project_id;

-- name: GetProject :one
SELECT * FROM projects WHERE org_id = @org_id AND project_id = @project_id;

-- Serializes the commands on a project.
-- name: LockProject :one
SELECT * FROM projects WHERE org_id = @org_id AND project_id = @project_id FOR UPDATE;

-- Newest first; the cursor is the last id that was seen.
-- name: ListProjects :many
SELECT * FROM projects
WHERE org_id = @org_id
  AND (@query::text = '' OR position(lower(@query) IN lower(name)) > 0)
  AND (sqlc.narg('after')::uuid IS NULL OR project_id < sqlc.narg('after'))
ORDER BY project_id DESC LIMIT @max_rows;

-- name: InsertEnvironment :exec
INSERT INTO environments (environment_id, org_id, project_id, name, description, variables, version, created_at, updated_at)
VALUES (@environment_id, @org_id, @project_id, @name, @description, @variables, 0, @created_at, @created_at);

-- name: RenameEnvironment :exec
UPDATE environments SET name = @name WHERE org_id = @org_id AND environment_id = @environment_id;

-- name: DescribeEnvironment :exec
UPDATE environments SET description = @description WHERE org_id = @org_id AND environment_id = @environment_id;

-- name: ChangeVariables :exec
UPDATE environments SET variables = (variables - @removed::text[]) || @changed::jsonb
WHERE org_id = @org_id AND environment_id = @environment_id;

-- name: TouchEnvironment :exec
UPDATE environments SET version = @version, updated_at = @updated_at WHERE org_id = @org_id AND environment_id = @environment_id;

-- name: DeleteEnvironment :exec
DELETE FROM environments WHERE org_id = @org_id AND environment_id = @environment_id;

-- name: GetEnvironment :one
SELECT * FROM environments WHERE org_id = @org_id AND environment_id = @environment_id;

-- Serializes the commands on an environment.
-- name: LockEnvironment :one
SELECT * FROM environments WHERE org_id = @org_id AND project_id = @project_id AND environment_id = @environment_id FOR UPDATE;

-- name: FindEnvironment :one
SELECT * FROM environments WHERE org_id = @org_id AND project_id = @project_id AND lower(name) = lower(@name);

-- Newest first; the cursor is the last id that was seen.
-- name: ListEnvironments :many
SELECT * FROM environments
WHERE org_id = @org_id AND project_id = @project_id
  AND (sqlc.narg('after')::uuid IS NULL OR environment_id < sqlc.narg('after'))
ORDER BY environment_id DESC LIMIT @max_rows;

-- name: CountEnvironments :one
SELECT count(*) FROM environments WHERE org_id = @org_id AND project_id = @project_id;

-- name: ChangeProjectVariables :exec
UPDATE projects SET variables = (variables - @removed::text[]) || @changed::jsonb, variables_version = @version
WHERE org_id = @org_id AND project_id = @project_id;
