-- +goose Up

-- Days of runs whose digest stands in the ledger of every organization that had runs (runs.sealed). They are noted here so
-- that nobody looks twice, and a day that isn't noted isn't dropped.
CREATE TABLE es.sealed_day (
  day       date        PRIMARY KEY,
  sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- As in 00007, but a day goes only once it is sealed, or when nothing ever happened in it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION es.drop_partitions(p_before date) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, es AS $$
DECLARE part record; last bigint; n int := 0; today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM pg_advisory_xact_lock(21575, 1);
  FOR part IN SELECT c.relname AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'es.run_event'::regclass
                 AND to_date(right(c.relname, 8), 'YYYYMMDD') < least(p_before, today - 2) ORDER BY c.relname LOOP
    EXECUTE format('SELECT max(position) FROM es.%I', part.name) INTO last;
    CONTINUE WHEN last IS NOT NULL AND NOT EXISTS (SELECT FROM es.sealed_day s WHERE s.day = part.day);
    UPDATE es.retention SET dropped_to = greatest(dropped_to, coalesce(last, 0)), at = clock_timestamp();
    EXECUTE format('DROP TABLE es.%I', part.name);
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT, INSERT ON es.sealed_day TO %I', sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.drop_partitions(date) TO %I', sys);
END $$;
-- +goose StatementEnd
