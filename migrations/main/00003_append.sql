-- +goose Up

-- es.enter is called by a writer before the first nextval of its transaction. It takes a shared advisory lock whose key
-- carries the sequence's value v: "all that I will number is above v". The key space is 21574 << 48 (one bigint); other
-- advisory locks of ours use the form with two ints and so never meet it.
CREATE FUNCTION es.enter() RETURNS void LANGUAGE sql VOLATILE AS $$
  SELECT pg_advisory_xact_lock_shared((21574::bigint << 48) |
     (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM es.pos_seq))
$$;

-- es.fence returns the position up to which all is settled: each position at or below it is committed and visible to a
-- snapshot that is taken after this call, or will never be. It reads the sequence first and the locks after, so that a
-- writer it doesn't see numbers its events above the sequence's value.
-- +goose StatementBegin
CREATE FUNCTION es.fence() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE hi bigint; lo bigint;
BEGIN
  SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO hi FROM es.pos_seq;
  SELECT min(((l.classid::bigint & 65535) << 32) | l.objid::bigint) INTO lo
    FROM pg_locks l
   WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint >> 16) = 21574
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());
  RETURN least(hi, coalesce(lo, hi));
END $$;
-- +goose StatementEnd

-- es.append_ledger appends to one stream. p_expected: -1 = any version, 0 = the stream must not exist, n = exactly n;
-- otherwise SQLSTATE TF409 with the actual version as DETAIL. An append_id that the stream knows is not stored again:
-- its rows come back with o_replayed.
-- +goose StatementBegin
CREATE FUNCTION es.append_ledger(p_org uuid, p_stream uuid, p_kind text, p_expected int, p_append uuid, p_actor uuid,
     p_meta jsonb, p_type smallint[], p_schema smallint[], p_hash bytea[], p_data jsonb[])
RETURNS TABLE (o_version int, o_position bigint, o_recorded timestamptz, o_replayed boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE n int := cardinality(p_type); base int;
BEGIN
  -- two creators meet at this row
  INSERT INTO es.ledger_stream (org_id, stream_id, kind, version, last_append, last_pos)
       VALUES (p_org, p_stream, p_kind, 0, p_append, 0) ON CONFLICT DO NOTHING;
  SELECT s.version INTO STRICT base FROM es.ledger_stream s WHERE s.org_id = p_org AND s.stream_id = p_stream FOR UPDATE;
  RETURN QUERY SELECT e.version, e.position, e.recorded_at, true FROM es.ledger_event e
    WHERE e.org_id = p_org AND e.stream_id = p_stream AND e.append_id = p_append ORDER BY e.version;
  IF FOUND THEN
    RETURN;
  END IF;
  IF p_expected >= 0 AND p_expected <> base THEN
    RAISE EXCEPTION 'stream % is at version %, expected %', p_stream, base, p_expected USING ERRCODE = 'TF409', DETAIL = base::text;
  END IF;
  PERFORM es.enter();              -- after the row lock: in a stream, positions grow with versions
  RETURN QUERY
  INSERT INTO es.ledger_event (position, version, type_id, schema_ver, org_id, stream_id, append_id, actor_id, kind, content_hash, meta, data)
    SELECT nextval('es.pos_seq'), base + t.i::int, t.typ, t.sch, p_org, p_stream, p_append, p_actor, p_kind, t.hash, p_meta, t.d
      FROM unnest(p_type, p_schema, p_hash, p_data) WITH ORDINALITY AS t (typ, sch, hash, d, i) ORDER BY t.i
    RETURNING ledger_event.version, ledger_event.position, ledger_event.recorded_at, false;
  UPDATE es.ledger_stream s SET version = base + n, last_append = p_append, last_pos = currval('es.pos_seq')
   WHERE s.org_id = p_org AND s.stream_id = p_stream;
END $$;
-- +goose StatementEnd

-- es.append_runs appends events of any number of runs in one statement and returns those that were stored: what a run
-- has already, by version, is left out, so a repeated job changes nothing and a run ends once. An attempt's first event
-- (version a·100000 + 1) is left out as well when the run has its end. Nil uuids, empty texts and 0 durations are NULL.
-- SQLSTATE TF422: a new run whose id is of a day that has no partition.
-- +goose StatementBegin
CREATE FUNCTION es.append_runs(p_org uuid[], p_run uuid[], p_version int[], p_type smallint[], p_schema smallint[],
     p_project uuid[], p_test uuid[], p_environment uuid[], p_region text[], p_status text[], p_duration int[], p_ok boolean[], p_data jsonb[])
RETURNS TABLE (o_run uuid, o_version int, o_position bigint, o_recorded timestamptz) LANGUAGE plpgsql VOLATILE AS $$
DECLARE bad uuid; ended uuid[]; today date := (now() AT TIME ZONE 'UTC')::date; nil constant uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
  -- only a new run needs a fresh id; an open one may end days later
  SELECT t.run INTO bad FROM unnest(p_run, p_version) AS t (run, ver)
    WHERE t.ver = 1 AND es.uuid7_day(t.run) NOT BETWEEN today - 2 AND today + 1 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'run % is not of these days', bad USING ERRCODE = 'TF422';
  END IF;
  -- Which runs have their end, for first events alone: a lookup by the primary key in a statement of its own, since a
  -- join in the insert would cost every row as much as storing it.
  SELECT coalesce(array_agg(t.run), '{}') INTO ended
    FROM unnest(p_org, p_run, p_version) AS t (org, run, ver)
   CROSS JOIN LATERAL (SELECT FROM es.run_event f
            WHERE f.org_id = t.org AND f.stream_id = t.run AND f.version = 2147483647 AND f.bucket = es.uuid7_day(t.run) LIMIT 1) AS finished
   WHERE t.ver % 100000 = 1 AND t.ver > 100000;
  PERFORM es.enter();              -- before the first nextval of the transaction
  RETURN QUERY
  INSERT INTO es.run_event (position, version, bucket, type_id, schema_ver, duration_us, ok, org_id, stream_id, project_id, test_id, environment_id, region, status, data)
    SELECT nextval('es.pos_seq'), t.ver, es.uuid7_day(t.run), t.typ, t.sch, nullif(t.dur, 0), t.ok, t.org, t.run,
           nullif(t.project, nil), nullif(t.test, nil), nullif(t.env, nil), nullif(t.region, ''), nullif(t.status, ''), t.d
      FROM unnest(p_org, p_run, p_version, p_type, p_schema, p_project, p_test, p_environment, p_region, p_status, p_duration, p_ok, p_data)
           AS t (org, run, ver, typ, sch, project, test, env, region, status, dur, ok, d)
     WHERE NOT (t.ver % 100000 = 1 AND t.ver > 100000 AND t.run = ANY (ended))
     ORDER BY t.run, t.ver         -- one order for all, so that two batches with the same runs cannot deadlock
    ON CONFLICT DO NOTHING
    RETURNING run_event.stream_id, run_event.version, run_event.position, run_event.recorded_at;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system'; f text;
BEGIN
  FOREACH f IN ARRAY ARRAY['es.enter()', 'es.fence()',
      'es.append_ledger(uuid, uuid, text, int, uuid, uuid, jsonb, smallint[], smallint[], bytea[], jsonb[])',
      'es.append_runs(uuid[], uuid[], int[], smallint[], smallint[], uuid[], uuid[], uuid[], text[], text[], int[], boolean[], jsonb[])'] LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I, %I', f, api, sys);
  END LOOP;
END $$;
-- +goose StatementEnd
