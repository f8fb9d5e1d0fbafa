-- +goose Up

-- How far the lane of runs was dropped: events at or below this position may be gone. Cursors from before it can't resume.
CREATE TABLE es.retention (
  id         boolean     PRIMARY KEY DEFAULT true CHECK (id),
  dropped_to bigint      NOT NULL DEFAULT 0,
  at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO es.retention DEFAULT VALUES;

-- es.drop_partitions drops the days of runs before p_before, whole runs at a time, notes how far that reaches, and returns
-- how many days went. Today and the two days before stay, whatever is asked for.
-- +goose StatementBegin
CREATE FUNCTION es.drop_partitions(p_before date) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, es AS $$
DECLARE part record; last bigint; n int := 0; today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM pg_advisory_xact_lock(21575, 1);
  FOR part IN SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'es.run_event'::regclass
                 AND to_date(right(c.relname, 8), 'YYYYMMDD') < least(p_before, today - 2) ORDER BY c.relname LOOP
    EXECUTE format('SELECT max(position) FROM es.%I', part.name) INTO last;
    UPDATE es.retention SET dropped_to = greatest(dropped_to, coalesce(last, 0)), at = clock_timestamp();
    EXECUTE format('DROP TABLE es.%I', part.name);
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT ON es.retention TO %I, %I', api, sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.drop_partitions(date) TO %I', sys);
END $$;
-- +goose StatementEnd
