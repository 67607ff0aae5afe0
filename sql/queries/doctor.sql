-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
       pg_is_in_recovery() AS is_standby,
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis') AS postgis,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'postgis') AS postgis_to_be_had,
       current_user AS "user"

-- name: rights
-- What the role that the login acts as may not do, of what the consumer does; found by number, since a name cannot
-- even be read in a schema that is closed.
WITH needed (relation, rights) AS (
    SELECT unnest(ARRAY[format('tickets.%%s', feed), format('ingest.%%s_positions', feed)]),
           ARRAY['SELECT', 'INSERT', 'UPDATE']
    FROM ingest.feeds
    UNION ALL
    VALUES ('tickets.closure_events', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('tickets.inc_daily_snapshot', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('tickets.import_meta', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.ledger', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.ignored_events', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.outbox', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.key_slots', ARRAY['SELECT', 'UPDATE']),
           ('ingest.locks', ARRAY['SELECT', 'UPDATE']),
           ('ingest.leases', ARRAY['SELECT', 'UPDATE']),
           ('ingest.epochs', ARRAY['SELECT', 'INSERT']),
           ('ingest.rejects', ARRAY['SELECT', 'INSERT']),
           ('ingest.discards', ARRAY['SELECT', 'INSERT']),
           ('tickets.cluster_aliases', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('tickets.geo_clusters', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('tickets.geo_locations', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.geocoder_requests', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('ingest.geocoder_pause', ARRAY['SELECT', 'INSERT', 'UPDATE']),
           ('ingest.changes', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('ingest.canaries', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
           ('ingest.closures_noted', ARRAY['SELECT', 'DELETE'])
), answered (name, right_needed, is_given) AS (
    -- Of some tables only what changes after the insert may be updated.
    SELECT relation, right_needed, CASE right_needed WHEN 'UPDATE' THEN has_any_column_privilege(class.oid, 'UPDATE')
                                                     ELSE has_table_privilege(class.oid, right_needed) END
    FROM needed CROSS JOIN unnest(rights) AS right_needed
    JOIN pg_class AS class ON class.relname = split_part(relation, '.', 2)
                          AND class.relnamespace = to_regnamespace(split_part(relation, '.', 1))
    UNION ALL
    SELECT format('schema %%s', nspname), 'USAGE', has_schema_privilege(oid, 'USAGE')
    FROM pg_namespace
    WHERE nspname IN ('tickets', 'ingest', 'reporting')
       OR oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'postgis')
)
SELECT quote_ident(current_user) AS "user",
       (SELECT quote_ident(rolname) FROM pg_roles
        WHERE starts_with(rolname::text, %(role)s::text)
          AND has_schema_privilege(oid, to_regnamespace('ingest'), 'USAGE')
        ORDER BY rolname DESC LIMIT 1) AS role,
       array_agg(format('%%s on %%s', right_needed, name) ORDER BY name, right_needed)
           FILTER (WHERE NOT is_given) AS missing
FROM answered

-- name: bound_rehearsal
SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '30s', true)

-- name: rehearsed
-- Whether each statement had its effect, and the trigger placed the first ticket by the coordinates that its row has.
SELECT (SELECT count(*) FROM {tickets} JOIN {positions} USING (ticket_id)
        WHERE file_id = %(file_id)s AND (geom IS NOT NULL) = (raw ->> 'latitude' IS NOT NULL)) = 2
   AND (SELECT count(*) FROM tickets.closure_events WHERE (position).etag = %(etag)s) = %(closures)s
   AND (SELECT count(*) FROM ingest.rejects WHERE file_id = %(file_id)s) = 1
   AND (SELECT count(*) FROM ingest.outbox WHERE file_id = %(file_id)s) = %(requests)s
   AND (SELECT count(*) FROM tickets.import_meta WHERE source = %(feed)s) = 1
   AND (SELECT state FROM ingest.ledger WHERE file_id = %(file_id)s) = 'applied' AS is_whole
