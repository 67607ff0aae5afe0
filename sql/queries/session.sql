-- name: server_process
SELECT pg_catalog.pg_backend_pid() AS pid

-- name: fix_names
-- A name without a schema is PostgreSQL's, PostGIS's or that of a temporary table of this session, whatever search_path
-- login, database or DATABASE_URL bring along. Rows that a policy would hide make an error, and not a smaller answer.
SET search_path = pg_catalog;
SELECT set_config('search_path',
                  coalesce((SELECT quote_ident(nspname) FROM pg_namespace
                            WHERE oid = (SELECT extnamespace FROM pg_extension WHERE extname = 'postgis')), 'public'),
                  false),
       set_config('row_security', 'off', false)

-- name: act_as
-- The database's own role before the one that belonged to the whole server; a role has rights in the databases that
-- granted them, and only there is it taken. From PostgreSQL 16 on, who has made a role is a member that may not take
-- it.
SELECT set_config('role', rolname, false)
FROM (SELECT rolname FROM pg_roles
      WHERE (rolname = %(role)s OR starts_with(rolname::text, %(role)s::text || '_'))
        AND CASE WHEN current_setting('server_version_num')::integer < 160000 THEN pg_has_role(oid, 'MEMBER')
                 ELSE pg_has_role(oid, 'SET') END
        AND has_schema_privilege(oid, to_regnamespace('ingest'), 'USAGE')
      ORDER BY rolname DESC
      LIMIT 1) AS ours

-- name: notice_silence
-- What a consumer that was cut off has locked is free again within a minute, not after the two hours of the system.
SELECT set_config('tcp_keepalives_idle', '20', false), set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '5', false), set_config('tcp_user_timeout', '45000', false);

-- name: wait_for_store
-- A transaction of ours is open while the store is read and written, which has deadlines of its own.
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')

-- name: plan_once
-- To plan a statement anew takes as long as to run it for a small file, so it is done once, whatever it is given. How
-- much will be staged then the planner cannot know: it would compile for longer than a statement takes. Nor does it
-- know that tables grow: on the first day it would have each read as a whole, and go on so.
SELECT set_config('jit', 'off', false), set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_seqscan', 'off', false)

-- name: only_read
-- Of several looks within a transaction, all see the same; times are told as the feeds tell theirs. What is asked for
-- differs by how much of a table it needs, so each is planned for what it is; and to compile for what the planner takes
-- for much takes longer than the looks do.
SELECT set_config('jit', 'off', false), set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('TimeZone', 'Africa/Nairobi', false),
       set_config('default_transaction_read_only', 'on', false), set_config('statement_timeout', %(timeout)s, false),
       set_config('default_transaction_isolation', 'repeatable read', false)

-- name: keep_commits
-- Of the other settings each keeps a commit through a crash of the server.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'

-- name: be_brief
-- For who would rather not know than wait.
SELECT set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false)
