-- name: InsertCode :execrows
-- No row: there were that many in the last hour already, and one more mail helps nobody.
INSERT INTO account_codes (code_hash, account_id, purpose, email, expires_at)
SELECT @code_hash, @account_id, @purpose, @email, now() + make_interval(secs => @lifetime_seconds::float8)
 WHERE (SELECT count(*) FROM account_codes c
         WHERE c.account_id = @account_id AND c.purpose = @purpose AND c.created_at > now() - interval '1 hour') < @most_an_hour::int;

-- name: GetCode :one
-- The account of a code that is good now.
SELECT sqlc.embed(a) FROM account_codes c JOIN accounts a USING (account_id)
 WHERE c.code_hash = @code_hash AND c.purpose = @purpose AND c.used_at IS NULL AND c.expires_at > now() AND c.email = a.email;

-- name: UseCode :one
-- No row: it isn't good, or somebody else used it first.
UPDATE account_codes c SET used_at = now() FROM accounts a
 WHERE c.code_hash = @code_hash AND c.purpose = @purpose AND c.used_at IS NULL AND c.expires_at > now()
   AND a.account_id = c.account_id AND a.email = c.email
RETURNING c.account_id;

-- name: EndCodes :exec
-- Whatever else was sent for the purpose is worth nothing from now on; it still counts for the hour.
UPDATE account_codes SET used_at = now() WHERE account_id = @account_id AND purpose = @purpose AND used_at IS NULL;

-- name: PurgeCodes :execrows
DELETE FROM account_codes WHERE expires_at < now() - interval '1 day';

-- name: VerifyEmail :execrows
-- No row: it is verified already, or the address is another one by now.
UPDATE accounts SET email_verified_at = now() WHERE account_id = @account_id AND email = @email AND email_verified_at IS NULL;

-- name: ChangePassword :execrows
-- No row: somebody changed it meanwhile.
UPDATE accounts SET password_hash = @password_hash, failed_count = 0, failed_since = NULL
 WHERE account_id = @account_id AND password_hash = @old_hash;

-- name: ListSessions :many
-- Those that live, the last used first.
SELECT session_id, created_at, last_seen_at, expires_at, address, agent FROM sessions
 WHERE account_id = @account_id AND ended_at IS NULL AND expires_at > now()
 ORDER BY last_seen_at DESC, session_id DESC LIMIT @row_limit;

-- name: EndSessions :many
-- All that live but one; the zero id spares none.
UPDATE sessions SET ended_at = now(), end_reason = @reason
 WHERE account_id = @account_id AND session_id <> @spared AND ended_at IS NULL AND expires_at > now()
RETURNING session_id;

-- name: InsertPending :execrows
-- No row: there were that many for the address in the last hour already.
INSERT INTO pending_registrations (code_hash, email, name, password_hash, organization_name, expires_at)
SELECT @code_hash, @email, @name, @password_hash, @organization_name, now() + make_interval(secs => @lifetime_seconds::float8)
 WHERE (SELECT count(*) FROM pending_registrations p WHERE p.email = @email AND p.created_at > now() - interval '1 hour') < @most_an_hour::int;

-- name: GetPending :one
SELECT email, name, password_hash, organization_name FROM pending_registrations WHERE code_hash = @code_hash AND expires_at > now();

-- name: TakePending :execrows
DELETE FROM pending_registrations WHERE code_hash = @code_hash AND expires_at > now();

-- name: ForgetPending :exec
DELETE FROM pending_registrations WHERE email = @email;

-- name: PurgePending :execrows
DELETE FROM pending_registrations WHERE expires_at < now();

-- name: ForgetCodes :exec
DELETE FROM account_codes WHERE account_id = @account_id;

-- name: ResetPassword :exec
-- By a code that came by mail, which proves the address too.
UPDATE accounts SET password_hash = @password_hash, failed_count = 0, failed_since = NULL,
       email_verified_at = coalesce(email_verified_at, now())
 WHERE account_id = @account_id;

-- name: LockAccount :exec
-- One after the other, so that what is counted of an account is counted right.
SELECT 1 FROM accounts WHERE account_id = @account_id FOR NO KEY UPDATE;

-- name: LockAddress :exec
-- The same for an address that has no account yet.
SELECT pg_advisory_xact_lock(hashtextextended('pending_registrations:' || @email::text, 0));
