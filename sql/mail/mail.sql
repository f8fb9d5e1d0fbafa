-- name: InsertMail :exec
INSERT INTO outgoing_mails (mail_id, kind, account_id, wrapped_key, sealed, expires_at)
VALUES (@mail_id, @kind, @account_id, @wrapped_key, @sealed, now() + make_interval(secs => @kept_seconds::float8));

-- name: ClaimMail :one
-- Counts an attempt and keeps others off for as long as it may take. No row: it was handed over, is dead, or somebody
-- else is at it: see MailState.
UPDATE outgoing_mails SET attempts = attempts + 1, leased_until = now() + make_interval(secs => @lease_seconds::float8)
 WHERE mail_id = @mail_id AND dead_at IS NULL AND (leased_until IS NULL OR leased_until <= now())
RETURNING kind, wrapped_key::bytea AS wrapped_key, sealed::bytea AS sealed, created_at, attempts, (expires_at <= now())::boolean AS expired;

-- name: MailWaits :one
SELECT EXISTS (SELECT FROM outgoing_mails WHERE mail_id = @mail_id AND dead_at IS NULL);

-- name: DeleteMail :execrows
DELETE FROM outgoing_mails WHERE mail_id = @mail_id;

-- name: PostponeMail :exec
UPDATE outgoing_mails SET leased_until = NULL, problem = @problem::text WHERE mail_id = @mail_id AND dead_at IS NULL;

-- name: BuryMail :execrows
UPDATE outgoing_mails SET dead_at = now(), problem = @problem::text, leased_until = NULL, wrapped_key = NULL, sealed = NULL
 WHERE mail_id = @mail_id AND dead_at IS NULL;

-- name: BuryExpired :many
-- Those whose job is gone too.
UPDATE outgoing_mails SET dead_at = now(), problem = coalesce(problem || ', until it was worth nothing any more', 'nobody took it in time'),
       leased_until = NULL, wrapped_key = NULL, sealed = NULL
 WHERE dead_at IS NULL AND expires_at < now() - interval '10 minutes'
RETURNING mail_id, kind, attempts, problem::text AS problem;

-- name: PurgeDead :execrows
DELETE FROM outgoing_mails WHERE dead_at < now() - make_interval(secs => @kept_seconds::float8);

-- name: DeleteMailOfAccount :execrows
DELETE FROM outgoing_mails WHERE account_id = @account_id;

-- name: Backlog :one
-- How the mail is: what has waited for more than the given time, and what died of our own side's fault in the last day.
SELECT count(*) FILTER (WHERE dead_at IS NULL AND attempts > 0 AND created_at < now() - make_interval(secs => @late_seconds::float8)) AS late,
       count(*) FILTER (WHERE dead_at > now() - interval '1 day' AND problem NOT LIKE 'refused %') AS dead,
       coalesce((SELECT p.problem FROM outgoing_mails p WHERE p.problem IS NOT NULL AND p.problem NOT LIKE 'refused %'
                 ORDER BY coalesce(p.dead_at, p.created_at) DESC LIMIT 1), '')::text AS problem
  FROM outgoing_mails;

-- name: ListMails :many
SELECT mail_id, kind, created_at, expires_at, attempts, dead_at, coalesce(problem, '')::text AS problem
  FROM outgoing_mails ORDER BY created_at DESC LIMIT @row_limit;

-- name: ListWaiting :many
SELECT mail_id FROM outgoing_mails WHERE dead_at IS NULL ORDER BY created_at, mail_id LIMIT @row_limit;
