
-- name: NamePeople :many
SELECT account_id, name, email FROM accounts WHERE account_id = ANY (@ids::uuid[]);
