-- +goose Up

-- What runs say is written once, read by Go and never looked into by SQL: json keeps the bytes, where jsonb takes them
-- apart on the way in and puts them together on the way out. With the plain insert below that halves what an event costs.
ALTER TABLE es.run_event ALTER COLUMN data TYPE json USING data::text::json;

-- es.append_runs appends events of any number of runs in one statement and returns those that were stored, by position:
-- what a run has already, by version, is left out, so a repeated job changes nothing and a run ends once. An attempt's
-- first event (version a·100000 + 1) is left out as well when the run has its end. Nil uuids, empty texts and 0 durations
-- are NULL. SQLSTATE TF422: a new run whose id is of a day that has no partition.
DROP FUNCTION es.append_runs(uuid[], uuid[], int[], smallint[], smallint[], uuid[], uuid[], uuid[], text[], text[], int[], boolean[], jsonb[]);
-- +goose StatementBegin
CREATE FUNCTION es.append_runs(p_org uuid[], p_run uuid[], p_version int[], p_type smallint[], p_schema smallint[],
     p_project uuid[], p_test uuid[], p_environment uuid[], p_region text[], p_status text[], p_duration int[], p_ok boolean[], p_data json[])
RETURNS TABLE (o_run uuid, o_version int, o_position bigint, o_recorded timestamptz) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  nil constant uuid := '00000000-0000-0000-0000-000000000000';
  today date; bad uuid; ended uuid[] := '{}'; requests boolean; firsts boolean;
BEGIN
  SELECT bool_or(v = 1), bool_or(v % 100000 = 1 AND v > 1) INTO requests, firsts FROM unnest(p_version) v;
  IF requests THEN                 -- only a new run needs a fresh id; an open one may end days later
    today := (now() AT TIME ZONE 'UTC')::date;
    SELECT t.run INTO bad FROM unnest(p_run, p_version) AS t (run, ver)
      WHERE t.ver = 1 AND es.uuid7_day(t.run) NOT BETWEEN today - 2 AND today + 1 LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'run % is not of these days', bad USING ERRCODE = 'TF422';
    END IF;
  END IF;
  IF firsts THEN
    -- Which runs have their end, for first events alone: a lookup by the primary key in a statement of its own, since a
    -- join in the insert would cost every row as much as storing it.
    SELECT coalesce(array_agg(t.run), '{}') INTO ended
      FROM unnest(p_org, p_run, p_version) AS t (org, run, ver)
     CROSS JOIN LATERAL (SELECT FROM es.run_event f
              WHERE f.org_id = t.org AND f.stream_id = t.run AND f.version = 2147483647 AND f.bucket = es.uuid7_day(t.run) LIMIT 1) AS finished
     WHERE t.ver % 100000 = 1 AND t.ver > 100000;
  END IF;
  PERFORM es.enter();              -- before the first nextval of the transaction
  -- Nearly always none of it is there yet, and an insert that need not ask costs a quarter less. Both insert in one order
  -- for all, so that two batches with the same runs cannot deadlock.
  BEGIN
    -- The sort holds the rows back until all are stored: those of an insert that fails half-way must not be returned.
    RETURN QUERY
    WITH stored AS (
      INSERT INTO es.run_event (position, version, bucket, type_id, schema_ver, duration_us, ok, org_id, stream_id, project_id, test_id, environment_id, region, status, data)
      SELECT nextval('es.pos_seq'), t.ver, es.uuid7_day(t.run), t.typ, t.sch, nullif(t.dur, 0), t.ok, t.org, t.run,
             nullif(t.project, nil), nullif(t.test, nil), nullif(t.env, nil), nullif(t.region, ''), nullif(t.status, ''), t.d
        FROM unnest(p_org, p_run, p_version, p_type, p_schema, p_project, p_test, p_environment, p_region, p_status, p_duration, p_ok, p_data)
             AS t (org, run, ver, typ, sch, project, test, env, region, status, dur, ok, d)
       WHERE NOT (t.ver % 100000 = 1 AND t.ver > 100000 AND t.run = ANY (ended))
       ORDER BY t.run, t.ver
      RETURNING stream_id, version, position, recorded_at)
    SELECT s.stream_id, s.version, s.position, s.recorded_at FROM stored s ORDER BY s.position;
  EXCEPTION WHEN unique_violation THEN
    RETURN QUERY
    WITH stored AS (
      INSERT INTO es.run_event (position, version, bucket, type_id, schema_ver, duration_us, ok, org_id, stream_id, project_id, test_id, environment_id, region, status, data)
      SELECT nextval('es.pos_seq'), t.ver, es.uuid7_day(t.run), t.typ, t.sch, nullif(t.dur, 0), t.ok, t.org, t.run,
             nullif(t.project, nil), nullif(t.test, nil), nullif(t.env, nil), nullif(t.region, ''), nullif(t.status, ''), t.d
        FROM unnest(p_org, p_run, p_version, p_type, p_schema, p_project, p_test, p_environment, p_region, p_status, p_duration, p_ok, p_data)
             AS t (org, run, ver, typ, sch, project, test, env, region, status, dur, ok, d)
       WHERE NOT (t.ver % 100000 = 1 AND t.ver > 100000 AND t.run = ANY (ended))
       ORDER BY t.run, t.ver
      ON CONFLICT DO NOTHING
      RETURNING stream_id, version, position, recorded_at)
    SELECT s.stream_id, s.version, s.position, s.recorded_at FROM stored s ORDER BY s.position;
  END;
END $$;
-- +goose StatementEnd

-- es.read_feed returns the first p_limit settled events after p_after, of all organizations, in order; p_types NULL =
-- every type. What is settled is what the pulse has published, or what es.fence finds at the price of a look through all
-- locks: with p_look, and when nothing is published after p_after. Without p_data the data of runs' events is left out. When it found fewer than p_limit it ends
-- with one row without lane whose position is that of the last settled event, of whatever type: everything up to there
-- has been looked at.
DROP FUNCTION es.read_feed(bigint, int, smallint[]);
-- +goose StatementBegin
CREATE FUNCTION es.read_feed(p_after bigint, p_limit int, p_types smallint[], p_look boolean, p_data boolean)
RETURNS TABLE (lane "char", "position" bigint, recorded_at timestamptz, version int, type_id smallint, schema_ver smallint, org_id uuid,
               stream_id uuid, kind text, content_hash bytea, meta jsonb, project_id uuid, test_id uuid, environment_id uuid, region text,
               status text, duration_us int, ok boolean, data json)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE f bigint; n bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'es.read_feed needs READ COMMITTED: a snapshot after the fence';
  END IF;
  IF NOT p_look THEN
    SELECT w.position INTO f FROM es.watermark w;
    p_look := f <= p_after;
  END IF;
  IF p_look THEN
    f := es.fence();
  END IF;
  RETURN QUERY
    (SELECT 'L'::"char", e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, e.kind, e.content_hash, e.meta,
            NULL::uuid, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::int, NULL::boolean, e.data::json
       FROM es.ledger_event e
      WHERE e.position > p_after AND e.position <= f AND (p_types IS NULL OR e.type_id = ANY (p_types)) ORDER BY e.position LIMIT p_limit)
    UNION ALL
    (SELECT 'R'::"char", e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, NULL::text, NULL::bytea, NULL::jsonb,
            e.project_id, e.test_id, e.environment_id, e.region, e.status, e.duration_us, e.ok, CASE WHEN p_data THEN e.data END
       FROM es.run_event e
      WHERE e.position > p_after AND e.position <= f AND (p_types IS NULL OR e.type_id = ANY (p_types)) ORDER BY e.position LIMIT p_limit)
    ORDER BY 2 LIMIT p_limit;
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n < p_limit THEN
    "position" := CASE WHEN p_look THEN es.last_event(p_after, f) ELSE f END;   -- the watermark is an event's position
    RETURN NEXT;
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.append_runs(uuid[], uuid[], int[], smallint[], smallint[], uuid[], uuid[], uuid[], text[], text[], int[], boolean[], json[]) TO %I, %I', api, sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.read_feed(bigint, int, smallint[], boolean, boolean) TO %I', sys);
END $$;
-- +goose StatementEnd
