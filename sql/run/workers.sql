-- The clock is the database's, the same for every process.
-- name: Beat :exec
INSERT INTO run_workers (worker_id, regions, started_at, seen_at) VALUES (@worker_id, @regions, clock_timestamp(), clock_timestamp())
ON CONFLICT (worker_id) DO UPDATE SET seen_at = excluded.seen_at, regions = excluded.regions;

-- name: SignOff :exec
DELETE FROM run_workers WHERE worker_id = @worker_id;

-- name: IsAlive :one
SELECT EXISTS (SELECT FROM run_workers WHERE worker_id = @worker_id AND seen_at > clock_timestamp() - @silence::interval) AS alive;

-- name: ForgetWorkers :exec
DELETE FROM run_workers WHERE seen_at < clock_timestamp() - @silence::interval;

-- name: ListRegions :many
SELECT DISTINCT unnest(regions)::text AS region FROM run_workers WHERE seen_at > clock_timestamp() - @silence::interval;
