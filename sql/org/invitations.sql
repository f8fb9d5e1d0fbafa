-- name: InsertInvitation :one
INSERT INTO org_invitations (invitation_id, org_id, email, role, token_hash, mailed, invited_by, created_at, sent_at, expires_at)
VALUES (@invitation_id, @org_id, @email, @role, @token_hash, @mailed, @invited_by, now(), now(), now() + make_interval(secs => @lifetime_seconds::float8))
RETURNING *;

-- name: CountOpenInvitations :one
SELECT count(*) FROM org_invitations WHERE org_id = @org_id AND ended_at IS NULL;

-- name: LockOpenInvitation :one
-- The one that an address has in an organization. No row: none.
SELECT sqlc.embed(i), now()::timestamptz AS asked_at FROM org_invitations i
 WHERE i.org_id = @org_id AND i.email = @email AND i.ended_at IS NULL FOR UPDATE;

-- name: LockInvitation :one
-- No row: it has ended, or is another organization's.
SELECT sqlc.embed(i), now()::timestamptz AS asked_at FROM org_invitations i
 WHERE i.org_id = @org_id AND i.invitation_id = @invitation_id AND i.ended_at IS NULL FOR UPDATE;

-- name: EndInvitation :exec
UPDATE org_invitations SET ended_at = now(), end_reason = @reason
 WHERE org_id = @org_id AND invitation_id = @invitation_id AND ended_at IS NULL;

-- name: RenewInvitation :one
-- The token before this one is worth nothing from now on.
UPDATE org_invitations SET token_hash = @token_hash, mailed = @mailed, invited_by = @invited_by, sent_at = now(),
       expires_at = now() + make_interval(secs => @lifetime_seconds::float8)
 WHERE org_id = @org_id AND invitation_id = @invitation_id AND ended_at IS NULL
RETURNING *;

-- name: ListInvitations :many
-- Those that are open, with who invites and what they are now. It joins people, so the system role asks.
SELECT sqlc.embed(i), a.name AS inviter_name, m.role AS inviter_role, (i.expires_at <= now())::boolean AS expired
  FROM org_invitations i
  LEFT JOIN accounts a ON a.account_id = i.invited_by
  LEFT JOIN org_members m ON m.org_id = i.org_id AND m.account_id = i.invited_by
 WHERE i.org_id = @org_id AND i.ended_at IS NULL
   AND (i.created_at, i.invitation_id) > (@after_at::timestamptz, @after_id::uuid)
 ORDER BY i.created_at, i.invitation_id LIMIT @row_limit;

-- name: FindInvitation :one
-- By the hash of its token, which is all that its holder has: the system role asks. No row: it has ended or never was.
SELECT sqlc.embed(i), o.name AS org_name, a.name AS inviter_name, (i.expires_at <= now())::boolean AS expired
  FROM org_invitations i JOIN orgs o USING (org_id) LEFT JOIN accounts a ON a.account_id = i.invited_by
 WHERE i.token_hash = @token_hash AND i.ended_at IS NULL;

-- name: MemberByEmail :one
-- As the system role, since it joins people. No row: nobody in the organization has the address.
SELECT m.account_id FROM org_members m JOIN accounts a USING (account_id) WHERE m.org_id = @org_id AND a.email = @email;

-- name: PurgeInvitations :many
-- What ended or expired so long ago that nobody asks any more. As the system role, of all organizations.
DELETE FROM org_invitations WHERE invitation_id IN (
  SELECT invitation_id FROM org_invitations
   WHERE least(ended_at, expires_at) < now() - make_interval(secs => @kept_seconds::float8) LIMIT @batch)
RETURNING invitation_id;

-- name: ForgetInvitations :many
-- Every invitation of an address, in all organizations: the system role asks.
DELETE FROM org_invitations WHERE email = @email RETURNING invitation_id;

-- name: EraseTime :one
SELECT (now() + make_interval(secs => @grace_seconds::float8))::timestamptz AS erase_at;

-- name: SetEraseAt :exec
UPDATE orgs SET erase_at = @erase_at, version = @version, updated_at = @updated_at WHERE org_id = @org_id;

-- name: TouchOrg :exec
UPDATE orgs SET version = @version WHERE org_id = @org_id;

-- name: IsFrozen :one
SELECT (erase_at IS NOT NULL)::boolean FROM orgs WHERE org_id = @org_id;
