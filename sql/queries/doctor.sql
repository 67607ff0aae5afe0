-- name: server
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
       pg_is_in_recovery() AS is_standby,
       (SELECT extversion FROM pg_extension WHERE extname = 'postgis') AS postgis,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'postgis') AS postgis_to_be_had,
       current_user AS "user"

-- name: may_write
SELECT coalesce(bool_and(has_table_privilege(name, 'SELECT, INSERT, UPDATE')), true) AS may_write
FROM unnest(ARRAY['ingest.ledger', 'ingest.positions', 'ingest.outbox', 'tickets.inc', 'tickets.closure_events'])
     AS needed (name)
WHERE to_regclass(name) IS NOT NULL
