-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
       pg_is_in_recovery() AS is_standby,
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis') AS postgis,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'postgis') AS postgis_to_be_had,
       current_user AS "user"

-- name: rights
-- What the role that the login acts as may not do, of what the consumer does.
SELECT current_user AS "user", array_agg(format('%%s on %%s', right_needed, name) ORDER BY name, right_needed)
           FILTER (WHERE NOT has_table_privilege(name, right_needed)) AS missing
FROM (VALUES ('tickets.inc', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('tickets.closure_events', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('tickets.inc_daily_snapshot', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('tickets.import_meta', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.ledger', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.positions', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.ignored_events', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.outbox', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.epochs', ARRAY['SELECT', 'INSERT']),
             ('ingest.rejects', ARRAY['SELECT', 'INSERT']),
             ('ingest.discards', ARRAY['SELECT', 'INSERT']),
             ('tickets.cluster_aliases', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('tickets.geo_clusters', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('tickets.geo_locations', ARRAY['SELECT', 'INSERT', 'UPDATE']),
             ('ingest.geocoder_requests', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
             ('ingest.geocoder_pause', ARRAY['SELECT', 'INSERT', 'UPDATE'])) AS needed (name, rights)
     CROSS JOIN unnest(rights) AS right_needed
WHERE to_regclass(name) IS NOT NULL
