-- Roles belong to the whole server, so those of 17 let a login of one database into every other one. From here on each
-- database has its own, which `migrate` makes and gives their rights each time (sql/queries/roles.sql): a copy or a
-- restore under another name has roles of its own from then on. A login that is still a member of the former ones goes on
-- as it was until it is a member of these.
CREATE FUNCTION ingest.role_name(kind text) RETURNS text
LANGUAGE sql STABLE
RETURN 'fleettickets_' || kind || '_'
       || CASE WHEN octet_length(current_database()::text) <= 43 THEN current_database()::text
               ELSE left(encode(sha256(convert_to(current_database()::text, 'UTF8')), 'hex'), 32) END;
COMMENT ON FUNCTION ingest.role_name(text) IS
    'This database''s role, of kind ingest or read; a name too long for one is hashed.';

CREATE FUNCTION ingest.other_roles(
    OUT name text, OUT kind text, OUT own text, OUT logins text[], OUT is_elsewhere boolean
) RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
SELECT other.rolname, other.kind, other.own,
       ARRAY(SELECT login.rolname::text
             FROM pg_roles AS login
             WHERE login.rolcanlogin AND NOT login.rolsuper AND login.rolname <> session_user
               AND pg_has_role(login.oid, other.oid, 'MEMBER')
               AND NOT coalesce(pg_has_role(login.oid, to_regrole(quote_ident(other.own))::oid, 'MEMBER'), false)
             ORDER BY 1),
       EXISTS (SELECT FROM pg_shdepend AS used
               WHERE used.refclassid = 'pg_authid'::regclass AND used.refobjid = other.oid
                 AND used.dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
FROM (SELECT oid, rolname::text, wanted.kind, ingest.role_name(wanted.kind) AS own
      FROM pg_roles CROSS JOIN unnest(ARRAY['ingest', 'read']) AS wanted (kind)
      WHERE (rolname = 'fleettickets_' || wanted.kind OR starts_with(rolname::text, 'fleettickets_' || wanted.kind || '_'))
        AND has_schema_privilege(oid, 'ingest', 'USAGE')) AS other
WHERE other.rolname <> other.own
$$;
COMMENT ON FUNCTION ingest.other_roles() IS
    'Roles of ours that may do something here and are not this database''s: those of the whole server, and of the database '
    'that this one is a copy of or was renamed from. logins has who is a member of it and not of this database''s own.';

CREATE FUNCTION ingest.close_to(role_name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA tickets, reporting, ingest FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON public.fleettickets_migrations FROM %I', role_name);
    EXECUTE format('REVOKE ALL ON SCHEMA tickets, reporting, ingest FROM %I', role_name);
    EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA tickets, reporting, ingest REVOKE ALL ON TABLES FROM %I', role_name);
END
$$;
COMMENT ON FUNCTION ingest.close_to(text) IS 'Takes from a role what it was given in this database.';

-- What was applied under a key is a fact of the past. No role may change bucket, key and ETag of a ledger row, and nobody
-- who applies files the hash of the bytes: what the archive has can always be held against it.
CREATE FUNCTION ingest.keep_sha256() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger row %: these bytes are others than were applied under the same key and ETag', OLD.file_id
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER keep_sha256 BEFORE UPDATE OF sha256 ON ingest.ledger
FOR EACH ROW WHEN (OLD.sha256 IS NOT NULL AND NEW.sha256 IS DISTINCT FROM OLD.sha256)
EXECUTE FUNCTION ingest.keep_sha256();

-- What a dashboard calls in a session of its own finds the same functions whatever search_path that session has. A function
-- that the batch import made has names that only its author knows, and stays as it is. So do those that run for each
-- row, which this would slow down by a tenth: only the program writes rows, and its sessions have a path of their own.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT called.oid::regprocedure AS signature
        FROM pg_proc AS called
        WHERE called.pronamespace IN ('tickets'::regnamespace, 'reporting'::regnamespace, 'ingest'::regnamespace)
          AND called.prosqlbody IS NULL
          AND NOT coalesce(array_to_string(called.proconfig, ' ') LIKE '%search_path=%', false)
          AND called.proname NOT IN ('eat_ts', 'feed_minutes', 'resolve_geom', 'keep_sha256')
          AND (called.pronamespace = 'ingest'::regnamespace
               OR NOT EXISTS (SELECT FROM public.fleettickets_migrations WHERE how = 'adopted'))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', found.signature);
    END LOOP;
END
$$;
