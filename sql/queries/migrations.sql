-- name: lock_migrations
SELECT pg_advisory_lock(hashtext('fleettickets.migrations'))

-- name: unlock_migrations
SELECT pg_advisory_unlock(hashtext('fleettickets.migrations'))

-- name: create_log
CREATE TABLE IF NOT EXISTS public.fleettickets_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    how        text NOT NULL CHECK (how IN ('run', 'adopted')),
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: log_exists
SELECT to_regclass('public.fleettickets_migrations') IS NOT NULL AS exists

-- name: read_log
SELECT name, sha256, how, applied_at FROM public.fleettickets_migrations

-- name: record_migration
INSERT INTO public.fleettickets_migrations (name, sha256, how) VALUES (%(name)s, %(sha256)s, %(how)s)

-- name: limit_lock_wait
SET LOCAL lock_timeout = '30s'

-- name: old_watermark
SELECT metadata->>'source_max_key' AS key
FROM tickets.import_meta
WHERE source = 'inc' AND metadata->>'source_max_key' IS NOT NULL AND metadata->>'source_max_key_time' IS NULL

-- name: complete_old_watermark
UPDATE tickets.import_meta
SET metadata = metadata || jsonb_build_object('source_max_key_time', %(key_time)s::timestamptz),
    row_count = (SELECT count(*) FROM tickets.inc)
WHERE source = 'inc'

-- name: position_old_rows
-- Rows that were there before count as written by the file at the old watermark, whichever it was.
INSERT INTO ingest.positions (ticket_id, position)
SELECT ticket_id, ROW(1, %(key_time)s::timestamptz, %(key)s::text, 'infinity'::timestamptz, '', 0)::ingest.position
FROM tickets.inc
ON CONFLICT (ticket_id) DO NOTHING

-- name: keep_adoption
-- The first adoption counts: what a batch import that was started again has read since is named, and applied again.
UPDATE ingest.epochs
SET adopted_key = %(key)s, adopted_key_time = %(key_time)s, adopted_rows = (SELECT count(*) FROM tickets.inc)
WHERE epoch = 1 AND adopted_key IS NULL

-- name: act_as
SELECT set_config('role', member_of.rolname, false)
FROM pg_roles AS member_of
WHERE member_of.rolname = %(role)s AND pg_has_role(member_of.oid, 'MEMBER')
  AND has_schema_privilege(member_of.oid, to_regnamespace('ingest'), 'USAGE')

-- name: notice_silence
-- What a consumer that was cut off has locked is free again within a minute, not after the two hours of the system.
SELECT set_config('tcp_keepalives_idle', '20', false), set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '5', false), set_config('tcp_user_timeout', '45000', false);

-- name: keep_commits
-- Of the other settings each keeps a commit through a crash of the server.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
