-- name: DeletePersonKeys :exec
DELETE FROM person_keys WHERE account_id = ANY (@ids::uuid[]);
