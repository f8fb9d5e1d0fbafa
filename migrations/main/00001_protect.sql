-- +goose Up

-- es holds the log and what every database of ours needs; migrations run as the owner role, so it owns them.
CREATE SCHEMA es;

-- +goose StatementBegin
DO $$
DECLARE prefix text := current_setting('testflow.role_prefix');
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA es, public TO %I, %I', prefix || '_api', prefix || '_system');
  -- functions run for nobody unless a migration says for whom; sequences are named one by one as well
  EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC', prefix || '_owner');
END $$;
-- +goose StatementEnd

-- es.protect puts a tenant table behind row-level security: the api role reads and writes rows of the organization in
-- testflow.org_id only, the system role all, and the owner too, but by a policy, since FORCE binds it as well. The
-- table needs `org_id uuid NOT NULL`. A second call changes nothing. A partitioned table hands its policies to every
-- access through it; partitions get no grants, so that nobody reaches around it.
-- +goose StatementBegin
CREATE FUNCTION es.protect(relation text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  prefix text := current_setting('testflow.role_prefix');
  rel regclass := relation::regclass;
  item record;
BEGIN
  PERFORM 1 FROM pg_class WHERE oid = rel AND relkind IN ('r', 'p');
  IF NOT FOUND THEN
    RAISE EXCEPTION 'es.protect: % is not a table', rel USING ERRCODE = 'wrong_object_type';
  END IF;
  PERFORM 1 FROM pg_attribute
    WHERE attrelid = rel AND attname = 'org_id' AND atttypid = 'uuid'::regtype AND attnotnull AND NOT attisdropped;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'es.protect: % needs a column org_id uuid NOT NULL', rel USING ERRCODE = 'undefined_column';
  END IF;

  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', rel);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', rel);
  FOR item IN SELECT * FROM (VALUES
      ('tenant', prefix || '_api', $q$org_id = (SELECT nullif(current_setting('testflow.org_id', true), '')::uuid)$q$),
      ('everything', prefix || '_system', 'true'),
      ('owner', prefix || '_owner', 'true')) AS p (name, grantee, condition)
  LOOP
    EXECUTE format('DROP POLICY IF EXISTS %I ON %s', item.name, rel);
    EXECUTE format('CREATE POLICY %I ON %s TO %I USING (%s) WITH CHECK (%s)', item.name, rel, item.grantee, item.condition, item.condition);
  END LOOP;
  EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', rel);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I, %I', rel, prefix || '_api', prefix || '_system');
END $$;
-- +goose StatementEnd

-- +goose Down
DROP SCHEMA es CASCADE;
