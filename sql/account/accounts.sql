-- name: HasOperator :one
SELECT (operator_id IS NOT NULL)::boolean FROM installation;

-- name: ClaimInstallation :execrows
-- One row: this account is the operator. Others who try wait for the first transaction to end.
UPDATE installation SET operator_id = @account_id WHERE operator_id IS NULL;

-- name: InsertAccount :one
-- No row: the address is taken.
INSERT INTO accounts (account_id, email, name, password_hash, operator, created_at, email_verified_at)
VALUES (@account_id, @email, @name, @password_hash, @operator, now(), CASE WHEN @verified::boolean THEN now() END)
ON CONFLICT (email) DO NOTHING
RETURNING *;

-- name: GetAccount :one
SELECT * FROM accounts WHERE account_id = @account_id;

-- name: GetAccountByEmail :one
SELECT * FROM accounts WHERE email = @email;

-- name: SetPasswordHash :exec
-- Only if nobody changed the password meanwhile.
UPDATE accounts SET password_hash = @password_hash WHERE account_id = @account_id AND password_hash = @old_hash;

-- name: CountFailure :one
-- How many sign-ins failed in the window that is running.
UPDATE accounts SET
  failed_count = CASE WHEN failed_since > now() - make_interval(secs => @window_seconds::float8) THEN failed_count + 1 ELSE 1 END,
  failed_since = CASE WHEN failed_since > now() - make_interval(secs => @window_seconds::float8) THEN failed_since ELSE now() END
WHERE account_id = @account_id RETURNING failed_count;

-- name: ForgetFailures :exec
UPDATE accounts SET failed_count = 0, failed_since = NULL WHERE account_id = @account_id AND failed_count > 0;

-- name: InsertPersonKey :exec
INSERT INTO person_keys (account_id, wrapped_key) VALUES (@account_id, @wrapped_key);

-- name: GetPersonKey :one
-- No row: the person was never here or has been erased.
SELECT wrapped_key FROM person_keys WHERE account_id = @account_id;
