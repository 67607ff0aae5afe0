-- name: bound_lock_waits
SELECT set_config('lock_timeout', %(timeout)s, false)

-- name: lock_holders
-- This database's other sessions that have more locked than a reader can, without those that wait for a lock
-- themselves: whoever is in the way at the end waits for none. How long they have been at it, only who may see others'
-- activity is told.
SELECT DISTINCT activity.pid, activity.usename AS "user", activity.application_name AS application,
       extract(epoch FROM clock_timestamp() - activity.xact_start)::float8 AS seconds
FROM pg_stat_activity AS activity JOIN pg_locks AS held USING (pid)
WHERE activity.datname = current_database() AND activity.pid <> pg_backend_pid() AND held.granted
  AND held.locktype IN ('relation', 'advisory') AND held.mode <> 'AccessShareLock'
  AND NOT EXISTS (SELECT FROM pg_locks AS wanted WHERE wanted.pid = activity.pid AND NOT wanted.granted)
ORDER BY seconds DESC NULLS LAST, activity.pid
LIMIT 3

-- name: waits
-- Sessions of ours that wait for a lock now, for how long, and who has it.
SELECT waiting.pid, waiting.application_name AS application,
       (SELECT relation::regclass::text FROM pg_locks
        WHERE pg_locks.pid = waiting.pid AND NOT granted AND relation IS NOT NULL LIMIT 1) AS relation,
       extract(epoch FROM clock_timestamp() - waitstart.since)::float8 AS seconds,
       holder.pid AS held_by, holder.usename AS held_by_user, holder.application_name AS held_by_application
FROM pg_stat_activity AS waiting
JOIN (SELECT pid, min(waitstart) AS since FROM pg_locks WHERE NOT granted GROUP BY pid) AS waitstart USING (pid)
LEFT JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker (pid) ON true
LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocker.pid
WHERE waiting.datname = current_database() AND waiting.application_name LIKE 'fleettickets%%'
ORDER BY seconds DESC, waiting.pid
LIMIT 20
