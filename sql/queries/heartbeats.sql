-- name: beat
SELECT ingest.beat(%(process)s, %(told)s)

-- name: end
SELECT ingest.end_beats(%(process)s)

-- name: seen
-- Ages by this server's clock alone, which wrote all of these times.
SELECT kind, host, pid, version, feeds, queues, started_at,
       extract(epoch FROM clock_timestamp() - beat_at)::float8 AS beat_seconds,
       in_hand, extract(epoch FROM clock_timestamp() - in_hand_since)::float8 AS in_hand_seconds,
       paused_by, paused_why, extract(epoch FROM clock_timestamp() - paused_since)::float8 AS paused_seconds,
       extract(epoch FROM clock_timestamp() - settled_at)::float8 AS settled_seconds
FROM ingest.heartbeats
ORDER BY kind, started_at, process_id
