-- These run as the system role, before or beside a tenant: each names the account or the organization itself. They join
-- the tables of account, which org stands on, to be one round trip.

-- name: Authenticate :one
-- No row: the session has ended. No role: the account is not a member of the organization.
SELECT a.operator, m.role, (o.erase_at IS NOT NULL)::boolean AS frozen
  FROM sessions s
  JOIN accounts a ON a.account_id = s.account_id
  LEFT JOIN org_members m ON m.account_id = s.account_id AND m.org_id = @org_id
  LEFT JOIN orgs o ON o.org_id = m.org_id
 WHERE s.session_id = @session_id AND s.account_id = @account_id AND s.ended_at IS NULL AND s.expires_at > now();

-- name: GetRole :one
SELECT m.role, (o.erase_at IS NOT NULL)::boolean AS frozen
  FROM org_members m JOIN orgs o USING (org_id) WHERE m.org_id = @org_id AND m.account_id = @account_id;

-- name: ListOrgsOfAccount :many
SELECT sqlc.embed(o), m.role, m.joined_at FROM org_members m JOIN orgs o USING (org_id)
 WHERE m.account_id = @account_id AND (m.joined_at, m.org_id) > (@after_at::timestamptz, @after_id::uuid)
 ORDER BY m.joined_at, m.org_id LIMIT @row_limit;

-- name: OrgIDsOfAccount :many
SELECT org_id FROM org_members WHERE account_id = @account_id ORDER BY org_id;

-- name: ListMembers :many
SELECT m.account_id, m.role, m.joined_at, a.name, a.email FROM org_members m JOIN accounts a USING (account_id)
 WHERE m.org_id = @org_id AND (m.joined_at, m.account_id) > (@after_at::timestamptz, @after_id::uuid)
 ORDER BY m.joined_at, m.account_id LIMIT @row_limit;

-- name: GetMember :one
SELECT m.account_id, m.role, m.joined_at, a.name, a.email FROM org_members m JOIN accounts a USING (account_id)
 WHERE m.org_id = @org_id AND m.account_id = @account_id;
