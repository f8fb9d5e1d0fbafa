-- name: InsertOrg :exec
INSERT INTO orgs (org_id, name, version, created_at, updated_at) VALUES (@org_id, @name, @version, @created_at, @created_at);

-- name: RenameOrg :exec
UPDATE orgs SET name = @name, version = @version, updated_at = @updated_at WHERE org_id = @org_id;

-- name: GetOrg :one
SELECT * FROM orgs WHERE org_id = @org_id;

-- name: InsertMember :exec
WITH o AS (UPDATE orgs SET version = @version WHERE orgs.org_id = @org_id)
INSERT INTO org_members (org_id, account_id, role, joined_at) VALUES (@org_id, @account_id, @role, @joined_at);

-- name: SetMemberRole :exec
WITH o AS (UPDATE orgs SET version = @version WHERE orgs.org_id = @org_id)
UPDATE org_members m SET role = @role WHERE m.org_id = @org_id AND m.account_id = @account_id;

-- name: DeleteMember :exec
WITH o AS (UPDATE orgs SET version = @version WHERE orgs.org_id = @org_id)
DELETE FROM org_members m WHERE m.org_id = @org_id AND m.account_id = @account_id;

-- name: InsertOrgKey :exec
-- Of two who come at once both keep the first key.
INSERT INTO org_keys (org_id, wrapped_key) VALUES (@org_id, @wrapped_key) ON CONFLICT DO NOTHING;

-- name: GetOrgKey :one
SELECT wrapped_key FROM org_keys WHERE org_id = @org_id;

-- name: ChangeVariables :exec
UPDATE orgs SET variables = (variables - @removed::text[]) || @changed::jsonb, variables_version = @version, version = @version, updated_at = @updated_at
WHERE org_id = @org_id;

-- name: GetVariablesVersion :one
SELECT variables_version FROM orgs WHERE org_id = @org_id;
