-- +goose Up

-- Organizations whose grace is over and of which nothing is left but the signed heads of their log. The row says that
-- there was one, so that a head without events isn't taken for a theft.
CREATE TABLE es.erased_orgs (
  org_id    uuid        PRIMARY KEY,
  erased_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
SELECT es.protect('es.erased_orgs');

-- The one way past "append-only": inside es.erase_org, which runs as the owner of the log, and which refuses every
-- organization that wasn't scheduled and whose time hasn't come. The setting alone is worth nothing to anybody else.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION es.deny() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' AND current_setting('testflow.erasing', true) = 'on'
     AND current_user = (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'es') THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'es.% is append-only', TG_TABLE_NAME USING ERRCODE = 'TF403';
END $$;
-- +goose StatementEnd

-- es.erase_org deletes up to p_batch rows of an organization from each table of the log and of the read models, whatever
-- tables there are: every one with a column org_id, partitions one by one, and none by name. Two stay: the signed heads,
-- by which an export that somebody kept can still be verified, and es.erased_orgs. It returns how many rows went; 0 =
-- none is left but the one in orgs, which es.erase_org_end takes. SQLSTATE TF403: its time has not come.
-- +goose StatementBegin
CREATE FUNCTION es.erase_org(p_org uuid, p_batch int) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE rel regclass; n bigint; gone bigint := 0; held boolean := false;
BEGIN
  PERFORM 1 FROM public.orgs WHERE org_id = p_org AND erase_at <= now();
  IF NOT FOUND THEN
    PERFORM 1 FROM es.erased_orgs WHERE org_id = p_org;   -- swept again, for what a slow process wrote after the end
    IF NOT FOUND THEN
      RAISE EXCEPTION 'organization % is not to be erased', p_org USING ERRCODE = 'TF403';
    END IF;
  END IF;
  PERFORM set_config('testflow.erasing', 'on', true);
  -- its keys first, so that what is sealed is lost even if the rest takes until tomorrow; then who may see it
  FOR rel IN SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND a.atttypid = 'uuid'::regtype AND NOT a.attisdropped
              WHERE s.nspname IN ('es', 'public') AND c.relkind = 'r'
                AND c.oid NOT IN ('public.orgs'::regclass, 'es.sealed_head'::regclass, 'es.erased_orgs'::regclass)
              ORDER BY c.relname <> 'org_keys', c.relname <> 'org_members', c.relname LOOP
    BEGIN
      EXECUTE format('DELETE FROM %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %s WHERE org_id = $1 LIMIT $2))', rel, rel) USING p_org, p_batch;
      GET DIAGNOSTICS n = ROW_COUNT;
      gone := gone + n;
    EXCEPTION WHEN foreign_key_violation THEN
      held := true;                       -- by rows that go in this round or the next
    END;
  END LOOP;
  PERFORM set_config('testflow.erasing', 'off', true);
  IF held AND gone = 0 THEN
    RAISE EXCEPTION 'organization %: rows hold each other and none can go', p_org USING ERRCODE = 'foreign_key_violation';
  END IF;
  RETURN gone;
END $$;
-- +goose StatementEnd

-- es.erase_org_end notes the end and takes the last row; nothing else of the organization may be left.
-- +goose StatementBegin
CREATE FUNCTION es.erase_org_end(p_org uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  IF es.erase_org(p_org, 1) <> 0 THEN
    RAISE EXCEPTION 'organization % has rows left', p_org USING ERRCODE = 'TF409', DETAIL = '0';
  END IF;
  INSERT INTO es.erased_orgs (org_id) VALUES (p_org) ON CONFLICT DO NOTHING;
  DELETE FROM public.orgs WHERE org_id = p_org;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE api text := current_setting('testflow.role_prefix') || '_api'; sys text := current_setting('testflow.role_prefix') || '_system';
BEGIN
  EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON es.erased_orgs FROM %I, %I', api, sys);
  EXECUTE format('GRANT EXECUTE ON FUNCTION es.erase_org(uuid, int), es.erase_org_end(uuid) TO %I', sys);
END $$;
-- +goose StatementEnd
