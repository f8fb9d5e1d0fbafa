-- +goose Up

-- The last settled event, as published by the pulse: for feeds, replicas, cursors and metrics. It only ever names the
-- position of an event that is committed and flushed, so no crash can bring the sequence back below it.
CREATE TABLE es.watermark (
  id       boolean     PRIMARY KEY DEFAULT true CHECK (id),
  position bigint      NOT NULL DEFAULT 0,
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO es.watermark DEFAULT VALUES;

-- es.last_event returns the position of the last event in (p_after, p_upto], or p_after when there is none. Call it
-- with a fence, as the system role.
-- +goose StatementBegin
CREATE FUNCTION es.last_event(p_after bigint, p_upto bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE l bigint; r bigint;
BEGIN
  SELECT e.position INTO l FROM es.ledger_event e WHERE e.position > p_after AND e.position <= p_upto ORDER BY e.position DESC LIMIT 1;
  SELECT e.position INTO r FROM es.run_event    e WHERE e.position > p_after AND e.position <= p_upto ORDER BY e.position DESC LIMIT 1;
  RETURN greatest(p_after, l, r);
END $$;
-- +goose StatementEnd

-- es.pulse publishes what is settled and sends the one coalesced NOTIFY with it. It returns the watermark.
-- +goose StatementBegin
CREATE FUNCTION es.pulse() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE w bigint; f bigint; last bigint;
BEGIN
  SELECT position INTO w FROM es.watermark;
  SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO f FROM es.pos_seq;
  IF f <= w THEN                   -- nothing was numbered since: the fence, which looks through all locks, is at most here
    RETURN w;
  END IF;
  f := es.fence();
  IF f <= w THEN
    RETURN w;
  END IF;
  last := es.last_event(w, f);
  IF last > w THEN
    UPDATE es.watermark SET position = last, at = clock_timestamp() WHERE position < last;
    PERFORM pg_notify('testflow_position', last::text);
  END IF;
  RETURN last;
END $$;
-- +goose StatementEnd

-- es.read_feed returns the first p_limit settled events after p_after, of all organizations, in order; p_types NULL =
-- every type. When it found fewer it ends with one row without lane whose position is that of the last settled event,
-- of whatever type: everything up to there has been looked at.
-- +goose StatementBegin
CREATE FUNCTION es.read_feed(p_after bigint, p_limit int, p_types smallint[] DEFAULT NULL)
RETURNS TABLE (lane "char", "position" bigint, recorded_at timestamptz, version int, type_id smallint, schema_ver smallint, org_id uuid,
               stream_id uuid, kind text, content_hash bytea, meta jsonb, project_id uuid, test_id uuid, environment_id uuid, region text,
               status text, duration_us int, ok boolean, data jsonb)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE f bigint; n bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'es.read_feed needs READ COMMITTED: a snapshot after the fence';
  END IF;
  f := es.fence();
  RETURN QUERY
    (SELECT 'L'::"char", e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, e.kind, e.content_hash, e.meta,
            NULL::uuid, NULL::uuid, NULL::uuid, NULL::text, NULL::text, NULL::int, NULL::boolean, e.data
       FROM es.ledger_event e
      WHERE e.position > p_after AND e.position <= f AND (p_types IS NULL OR e.type_id = ANY (p_types)) ORDER BY e.position LIMIT p_limit)
    UNION ALL
    (SELECT 'R'::"char", e.position, e.recorded_at, e.version, e.type_id, e.schema_ver, e.org_id, e.stream_id, NULL::text, NULL::bytea, NULL::jsonb,
            e.project_id, e.test_id, e.environment_id, e.region, e.status, e.duration_us, e.ok, e.data
       FROM es.run_event e
      WHERE e.position > p_after AND e.position <= f AND (p_types IS NULL OR e.type_id = ANY (p_types)) ORDER BY e.position LIMIT p_limit)
    ORDER BY 2 LIMIT p_limit;
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n < p_limit THEN
    "position" := es.last_event(p_after, f);
    RETURN NEXT;
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT ON es.watermark TO %I, %I', api, sys);
  EXECUTE format('GRANT UPDATE ON es.watermark TO %I', sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.last_event(bigint, bigint), es.pulse(), es.read_feed(bigint, int, smallint[]) TO %I', sys);
END $$;
-- +goose StatementEnd
