-- +goose Up

-- es.drop_run_body drops the days of bodies before p_before, and returns how many days went. Today and the two days before
-- stay, whatever is asked for.
-- +goose StatementBegin
CREATE FUNCTION es.drop_run_body(p_before date) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE part record; n int := 0; today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM pg_advisory_xact_lock(21575, 3);     -- as es.ensure_run_body
  FOR part IN SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'public.run_body'::regclass
                 AND to_date(right(c.relname, 8), 'YYYYMMDD') < least(p_before, today - 2) ORDER BY c.relname LOOP
    EXECUTE format('DROP TABLE public.%I', part.name);
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;
-- +goose StatementEnd

-- es.droppable returns the first day, at most p_before, whose runs must stay, and the last position of those before it: as
-- es.drop_partitions decides, which stops at the last days and at a day with runs that is not sealed.
-- +goose StatementBegin
CREATE FUNCTION es.droppable(p_before date, OUT o_until date, OUT o_last bigint) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, es AS $$
DECLARE part record; last bigint;
BEGIN
  o_until := least(p_before, (now() AT TIME ZONE 'UTC')::date - 2);
  o_last := 0;
  FOR part IN SELECT c.relname AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'es.run_event'::regclass
                 AND to_date(right(c.relname, 8), 'YYYYMMDD') < o_until ORDER BY c.relname LOOP
    EXECUTE format('SELECT max(position) FROM es.%I', part.name) INTO last;
    CONTINUE WHEN last IS NULL;
    IF NOT EXISTS (SELECT FROM es.sealed_day s WHERE s.day = part.day) THEN
      o_until := part.day;
      RETURN;
    END IF;
    o_last := greatest(o_last, last);
  END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.drop_run_body(date), es.droppable(date) TO %I', current_setting('testflow.role_prefix') || '_system');
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION es.droppable(date);
DROP FUNCTION es.drop_run_body(date);
