-- name: make_roles
-- First of all, so that an administrator who has to do it is told of every role at once.
DO $$
DECLARE
    here text := current_database();
    wanted text;
    lacking text[];
BEGIN
    IF octet_length(here) > 43 THEN -- as ingest.role_name() says, which is not there yet
        here := left(encode(sha256(convert_to(here, 'UTF8')), 'hex'), 32);
    END IF;
    lacking := ARRAY(SELECT name
                     FROM unnest(ARRAY['fleettickets_ingest', 'fleettickets_read',
                                       'fleettickets_ingest_' || here, 'fleettickets_read_' || here]) AS name
                     WHERE to_regrole(quote_ident(name)) IS NULL);
    FOREACH wanted IN ARRAY lacking LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %%I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- the migration of another database was faster
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'this user may not create roles: have an administrator run %%; then migrate again',
                    (SELECT string_agg(format('CREATE ROLE %%I NOLOGIN', name), '; ') FROM unnest(lacking) AS name)
                    USING ERRCODE = 'insufficient_privilege';
        END;
    END LOOP;
END
$$

-- name: close_server_wide
-- Nobody can have come to this database by them yet.
SELECT ingest.close_to(name) FROM unnest(ARRAY['fleettickets_ingest', 'fleettickets_read']) AS name

-- name: close_others
-- One that nobody needs here any more; and that of another database, of which this one is a copy. A session that was
-- begun before the database had roles of its own can act as a former one, whoever's it is: it is left to its end.
SELECT ingest.close_to(name)
FROM ingest.other_roles()
WHERE is_elsewhere AND name <> 'fleettickets_' || kind
   OR logins = '{}'
      AND NOT EXISTS (SELECT FROM pg_stat_activity AS session JOIN public.fleettickets_migrations AS known
                          ON known.name = '22_roles' AND session.backend_start < known.applied_at
                      WHERE session.datname = current_database()
                        AND starts_with(session.application_name, 'fleettickets')
                        AND session.pid <> pg_backend_pid())

-- name: others
-- As they are written in a statement.
SELECT quote_ident(name) AS name, quote_ident(own) AS own, to_regrole(quote_ident(own)) IS NOT NULL AS has_own,
       ARRAY(SELECT quote_ident(login) FROM unnest(logins) AS login) AS logins
FROM ingest.other_roles()
ORDER BY name

-- name: give_rights
-- All that the commands may do, and a reader: the one place for it, also for what a later migration adds. Each time
-- anew, because rights are what a dump can lack and what a copy has for others. Nothing is ever deleted, and what a
-- row of the ledger is about is not rewritten.
DO $$
DECLARE
    rights text[] := ARRAY[
        'INSERT, UPDATE ON tickets.closure_events, tickets.inc_daily_snapshot, tickets.import_meta',
        'INSERT, UPDATE ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations',
        'INSERT, UPDATE ON ingest.ignored_events, ingest.geocoder_requests, ingest.geocoder_pause',
        'INSERT ON ingest.ledger, ingest.outbox, ingest.epochs, ingest.rejects, ingest.discards',
        'INSERT ON ingest.undeclared_columns',
        'INSERT, UPDATE ON ingest.losses',
        'INSERT, UPDATE, DELETE ON ingest.changes', -- what is too old for who follows them
        'INSERT, UPDATE, DELETE ON ingest.canaries', -- what was seen of them, for an hour
        'UPDATE ON ingest.key_slots, ingest.locks, ingest.leases', -- which is the right to lock them
        'DELETE ON ingest.geocoder_requests', -- what the limits ask about no more
        'DELETE ON ingest.closures_noted', -- what a capture has looked at
        'INSERT, UPDATE, DELETE ON tickets.versions, ingest.tellings, ingest.told_rows, ingest.histories' -- for so long
    ];
    positions oid[] := ARRAY(SELECT to_regclass(format('ingest.%%I', feed || '_positions')) FROM ingest.feeds)
                       || 'ingest.positions'::regclass::oid;
    given text;
    member record;
    postgis name := (SELECT nspname FROM pg_namespace
                     WHERE oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'postgis'));
BEGIN
    FOR given IN
        SELECT format('UPDATE (%%s) ON %%s', string_agg(quote_ident(attname), ', ' ORDER BY attnum), attrelid::regclass)
        FROM pg_attribute
        WHERE attrelid = ANY(positions || ARRAY['ingest.ledger'::regclass::oid, 'ingest.outbox'::regclass::oid])
          AND attnum > 0 AND NOT attisdropped
          AND attname NOT IN ('file_id', 'feed', 'bucket', 'prefix', 'key', 'etag', 'event_time', 'first_seen_at',
                              'first_seen_by',
                              'ticket_id', 'kind')
             OR attrelid = ANY(positions) AND attname = 'file_id'
        GROUP BY attrelid
    LOOP
        rights := rights || given;
    END LOOP;
    rights := rights || ARRAY(SELECT format('INSERT, UPDATE ON tickets.%%I', feed) FROM ingest.feeds)
                     || ARRAY(SELECT format('INSERT ON %%s', relation::regclass) FROM unnest(positions) AS relation);

    -- A function is everybody's when it is made, and one that a restore without rights made has not been closed.
    REVOKE EXECUTE ON FUNCTION ingest.beat(text, jsonb), ingest.end_beats(text) FROM PUBLIC;
    FOR member IN
        SELECT ingest.role_name(kind) AS name, kind FROM unnest(ARRAY['ingest', 'read']) AS kind
        UNION ALL
        SELECT name, kind FROM ingest.other_roles()
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA tickets, reporting, ingest TO %%I', member.name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA tickets, reporting, ingest TO %%I', member.name);
        EXECUTE format('GRANT SELECT ON public.fleettickets_migrations TO %%I', member.name);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA tickets, reporting, ingest GRANT SELECT ON TABLES TO %%I',
                       member.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION ingest.beat(text, jsonb), ingest.end_beats(text) TO %%I',
                       member.name);
        IF postgis IS NOT NULL AND NOT has_schema_privilege(member.name, postgis, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %%I TO %%I', postgis, member.name);
        END IF;
        IF member.kind = 'ingest' THEN
            EXECUTE format('REVOKE UPDATE ON ingest.ledger, ingest.outbox FROM %%I', member.name);
            FOREACH given IN ARRAY rights LOOP
                EXECUTE format('GRANT %%s TO %%I', given, member.name);
            END LOOP;
        END IF;
    END LOOP;
END
$$

-- name: filtered
-- Tables whose rows a policy keeps from the current user.
SELECT quote_ident(current_user) AS "user", array_agg(format('%%s', oid::regclass) ORDER BY relname) AS tables
FROM pg_class
WHERE relnamespace IN (to_regnamespace('tickets'), to_regnamespace('ingest'))
  AND relrowsecurity AND row_security_active(oid)

-- name: tell_of_rights
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT name, own, (SELECT string_agg(quote_ident(login), ', ') FROM unnest(logins) AS login) AS logins
        FROM ingest.other_roles()
    LOOP
        RAISE WARNING '%% may still do here what only %% should: %%; then migrate again', found.name, found.own,
            CASE WHEN found.logins IS NULL THEN 'restart what has been running since before'
                 ELSE format('GRANT %%I TO %%s; REVOKE %%I FROM %%2$s', found.own, found.logins, found.name) END;
    END LOOP;
    FOR found IN
        SELECT format('%%s', class.oid::regclass) AS filtered, ours.rolname
        FROM pg_class AS class JOIN pg_roles AS ours
            ON ours.rolname IN (ingest.role_name('ingest'), ingest.role_name('read')) AND NOT ours.rolbypassrls
        WHERE class.relnamespace IN ('tickets'::regnamespace, 'ingest'::regnamespace) AND class.relrowsecurity
    LOOP
        RAISE WARNING 'row-level security is on for %%, and would hide rows from %%: ALTER ROLE %% BYPASSRLS, or '
            'ALTER TABLE %% '
            'DISABLE ROW LEVEL SECURITY', found.filtered, found.rolname, quote_ident(found.rolname), found.filtered;
    END LOOP;
END
$$
