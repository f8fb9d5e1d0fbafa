-- +goose Up

-- What was taken of limits, by counter. A counter is a keyed hash of who is limited and in what, so nothing here tells who.
-- Its window begins with the first request and ends by itself; times are the database's, so that the nodes' clocks don't
-- matter. What a crash of the database forgets here is a few minutes of ordinary requests.
CREATE UNLOGGED TABLE rate_counters (
  counter bytea PRIMARY KEY CHECK (octet_length(counter) = 16),
  taken   int NOT NULL,
  ends_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX rate_counters_age ON rate_counters (ends_at);   -- changes once a window, so that counting stays HOT

-- The same for proofs of who somebody is: guessed passwords are not forgotten over a restart or a crash.
CREATE TABLE sign_in_counters (
  counter bytea PRIMARY KEY CHECK (octet_length(counter) = 16),
  taken   int NOT NULL,
  ends_at timestamptz NOT NULL,
  told    boolean NOT NULL DEFAULT false      -- it was recorded that this window is full
) WITH (fillfactor = 70);
CREATE INDEX sign_in_counters_age ON sign_in_counters (ends_at);

-- +goose StatementBegin
-- take_rate takes one of what a counter has, in one write, or says when there is more, without any.
--
-- It looks before it locks, so somebody who is refused costs one read. Who may pass waits for those before them by an
-- advisory lock, which is in memory, and looks again: a row lock would be a write even for those who are refused.
CREATE FUNCTION take_rate(c bytea, most int, lasts interval, OUT admitted boolean, OUT left_over int, OUT resets_in_ms bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE t int; e timestamptz;
BEGIN
  FOR round IN 1..2 LOOP
    SELECT r.taken, r.ends_at INTO t, e FROM rate_counters r WHERE r.counter = c;
    IF t >= most AND e > clock_timestamp() THEN
      admitted := false; left_over := 0; resets_in_ms := ceil(extract(epoch FROM e - clock_timestamp()) * 1000);
      RETURN;
    END IF;
    IF round = 1 THEN
      PERFORM pg_advisory_xact_lock(21577, hashtext(encode(c, 'hex')));
    END IF;
  END LOOP;
  INSERT INTO rate_counters AS r VALUES (c, 1, clock_timestamp() + lasts)
  ON CONFLICT (counter) DO UPDATE
     SET taken   = CASE WHEN r.ends_at > clock_timestamp() THEN r.taken + 1 ELSE 1 END,
         ends_at = CASE WHEN r.ends_at > clock_timestamp() THEN r.ends_at ELSE excluded.ends_at END
  RETURNING r.taken, r.ends_at INTO t, e;
  admitted := true; left_over := greatest(most - t, 0); resets_in_ms := ceil(extract(epoch FROM e - clock_timestamp()) * 1000);
END $$;

-- take_sign_in takes one of each of several counters, or of none when one of them is empty. full_at is the place of the
-- first full one, 0 = none; told says that its being full has been recorded.
CREATE FUNCTION take_sign_in(counters bytea[], most int[], lasts interval,
  OUT full_at int, OUT told boolean, OUT left_over int[], OUT resets_in_ms bigint[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE i int; h int; s record;
BEGIN
  FOR round IN 1..2 LOOP     -- before the locks, so that who is refused costs reads alone, and behind them
    full_at := 0; told := false; left_over := '{}'; resets_in_ms := '{}';
    FOR i IN 1..cardinality(counters) LOOP
      SELECT r.taken, r.told, ceil(extract(epoch FROM r.ends_at - clock_timestamp()) * 1000)::bigint AS ms INTO s
        FROM sign_in_counters r WHERE r.counter = counters[i] AND r.ends_at > clock_timestamp();
      left_over := left_over || greatest(most[i] - coalesce(s.taken, 0), 0);
      resets_in_ms := resets_in_ms || coalesce(s.ms, (extract(epoch FROM lasts) * 1000)::bigint);
      IF s.taken >= most[i] AND full_at = 0 THEN
        full_at := i; told := s.told;
      END IF;
    END LOOP;
    IF full_at > 0 THEN
      RETURN;
    END IF;
    IF round = 1 THEN        -- in one order, so that two callers can't wait for each other
      FOR h IN SELECT DISTINCT hashtext(encode(c, 'hex')) FROM unnest(counters) c ORDER BY 1 LOOP
        PERFORM pg_advisory_xact_lock(21578, h);
      END LOOP;
    END IF;
  END LOOP;
  INSERT INTO sign_in_counters AS r (counter, taken, ends_at)
  SELECT c, 1, clock_timestamp() + lasts FROM unnest(counters) c ORDER BY c   -- as those do who give back
  ON CONFLICT (counter) DO UPDATE
     SET taken   = CASE WHEN r.ends_at > clock_timestamp() THEN r.taken + 1 ELSE 1 END,
         told    = r.told AND r.ends_at > clock_timestamp(),
         ends_at = CASE WHEN r.ends_at > clock_timestamp() THEN r.ends_at ELSE excluded.ends_at END;
  FOR i IN 1..cardinality(counters) LOOP
    left_over[i] := left_over[i] - 1;
  END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON rate_counters, sign_in_counters TO %I', sys);
  REVOKE ALL ON FUNCTION take_rate(bytea, int, interval), take_sign_in(bytea[], int[], interval) FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON FUNCTION take_rate(bytea, int, interval), take_sign_in(bytea[], int[], interval) TO %I', sys);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION take_sign_in(bytea[], int[], interval);
DROP FUNCTION take_rate(bytea, int, interval);
DROP TABLE sign_in_counters;
DROP TABLE rate_counters;
