-- name: HoldAccount :one
SELECT * FROM accounts WHERE account_id = @account_id FOR UPDATE;

-- name: EraseAccount :exec
-- Its sessions, their tokens and its codes go with it.
DELETE FROM accounts WHERE account_id = @account_id;
