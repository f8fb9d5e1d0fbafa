-- name: IsLastAdmin :one
SELECT (EXISTS (SELECT FROM org_members m WHERE m.org_id = @org_id AND m.account_id = @account_id AND m.role = 'admin')
    AND NOT EXISTS (SELECT FROM org_members m WHERE m.org_id = @org_id AND m.account_id <> @account_id AND m.role = 'admin'))::boolean;
