-- +goose Up

-- es.ensure_partitions makes the daily partitions of runs from two days back to p_ahead days ahead, and returns how many
-- it made. It is called at start and daily, by anybody's system role: the definer owns the log. A partition is built
-- beside and attached, so that nobody who reads or writes the log waits for it.
-- +goose StatementBegin
CREATE FUNCTION es.ensure_partitions(p_ahead int DEFAULT 7) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, es AS $$
DECLARE d date; n int := 0; name text; today date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
  IF p_ahead < 1 OR p_ahead > 60 THEN
    RAISE EXCEPTION 'es.ensure_partitions: % days ahead, but 1 to 60 are allowed', p_ahead USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(21575, 1);     -- several nodes start at once
  FOR d IN SELECT generate_series(today - 2, today + p_ahead, interval '1 day')::date LOOP
    name := 'run_event_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('es.' || name) IS NOT NULL;
    EXECUTE format('CREATE TABLE es.%I (LIKE es.run_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                      WITH (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_freeze_min_age = 0)', name);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON es.%I FOR EACH STATEMENT EXECUTE FUNCTION es.deny()', name);
    EXECUTE format('ALTER TABLE es.run_event ATTACH PARTITION es.%I FOR VALUES FROM (%L) TO (%L)', name, d, d + 1);
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.ensure_partitions(int) TO %I', current_setting('testflow.role_prefix') || '_system');
END $$;
-- +goose StatementEnd

SELECT es.ensure_partitions();
