-- name: create_log
-- Two that make it at the same moment do not see each other.
DO $$
BEGIN
    CREATE TABLE IF NOT EXISTS public.fleettickets_migrations (
        name       text PRIMARY KEY,
        sha256     text NOT NULL,
        how        text NOT NULL CHECK (how IN ('run', 'adopted')),
        applied_at timestamptz NOT NULL DEFAULT now()
    );
EXCEPTION
    WHEN duplicate_table OR duplicate_object OR unique_violation THEN
        NULL;
END
$$

-- name: log_exists
SELECT to_regclass('public.fleettickets_migrations') IS NOT NULL AS exists

-- name: read_log
SELECT name, sha256, how, applied_at FROM public.fleettickets_migrations

-- name: take_turn
-- One migration at a time, until its transaction ends. Nobody who only reads can take this lock or is held up by it.
SET LOCAL lock_timeout = '3s';
LOCK TABLE public.fleettickets_migrations IN SHARE ROW EXCLUSIVE MODE;
SET LOCAL lock_timeout = '30s'

-- name: in_the_way
-- Who has another migration in hand; or whoever has anything of ours open, since a change of a table waits for
-- readers too.
SELECT string_agg(DISTINCT format('process %%s (%%s, %%s%%s)', holder.pid, holder.usename,
                                  coalesce(nullif(holder.application_name, ''), 'an unnamed program'),
                                  ', in a transaction since ' || date_trunc('second', holder.xact_start)),
                  '; ') AS holders
FROM pg_locks AS held
JOIN pg_class AS wanted ON wanted.oid = held.relation
JOIN pg_stat_activity AS holder ON holder.pid = held.pid
WHERE held.locktype = 'relation' AND held.granted AND held.pid <> pg_backend_pid()
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (wanted.oid = to_regclass('public.fleettickets_migrations') AND held.mode <> 'AccessShareLock'
       OR NOT %(migrations_only)s
          AND wanted.relnamespace IN
              (to_regnamespace('tickets'), to_regnamespace('reporting'), to_regnamespace('ingest')))

-- name: record_migration
INSERT INTO public.fleettickets_migrations (name, sha256, how) VALUES (%(name)s, %(sha256)s, %(how)s)
