-- +goose Up
-- A step that is repeated has several responses in an attempt. Older programs write none of them but the first, and find
-- that one.
ALTER TABLE run_body ADD COLUMN iteration int NOT NULL DEFAULT 0;
ALTER TABLE run_body DROP CONSTRAINT run_body_pkey;
ALTER TABLE run_body ADD PRIMARY KEY (run_id, attempt, step, iteration, day);

-- +goose Down
DELETE FROM run_body WHERE iteration > 0;
ALTER TABLE run_body DROP CONSTRAINT run_body_pkey;
ALTER TABLE run_body ADD PRIMARY KEY (run_id, attempt, step, day);
ALTER TABLE run_body DROP COLUMN iteration;
