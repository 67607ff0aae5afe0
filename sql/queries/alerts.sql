-- name: watch
SELECT ingest.watch_alerts(%(bucket)s, %(who)s, %(seconds)s) AS is_mine

-- name: note
SELECT ingest.note_alerts(%(bucket)s, %(who)s, %(seen)s, %(gone)s, %(now_line)s, %(over_seconds)s) AS is_noted

-- name: open_causes
SELECT cause FROM ingest.alerts WHERE bucket = %(bucket)s AND over_at IS NULL ORDER BY cause

-- name: to_tell
-- In the order in which they came to be told.
SELECT alert_id, cause, line, advice, began_at, over_at, over_line, told_at IS NOT NULL AS is_told
FROM ingest.alerts
WHERE bucket = %(bucket)s
  AND (due_at IS NOT NULL AND told_at IS NULL OR over_at IS NOT NULL AND over_told_at IS NULL)
ORDER BY due_at, alert_id

-- name: told
SELECT ingest.alert_told(%(alert_id)s, %(is_over)s)

-- name: standing
-- How many causes there are that were to be told, how many messages the receiver has not taken, since when, and who
-- watches. Of a bucket that nobody has ever watched there is nothing.
SELECT count(*) FILTER (WHERE due_at IS NOT NULL AND over_at IS NULL) AS open,
       count(*) FILTER (WHERE due_at IS NOT NULL AND told_at IS NULL)
       + count(*) FILTER (WHERE over_at IS NOT NULL AND over_told_at IS NULL) AS untold,
       extract(epoch FROM clock_timestamp() - least(
           min(due_at) FILTER (WHERE told_at IS NULL), min(over_at) FILTER (WHERE over_told_at IS NULL)
       ))::float8 AS untold_seconds,
       (SELECT holder FROM ingest.leases
        WHERE name = 'alerts ' || left(%(bucket)s, 63) AND until > clock_timestamp()) AS watched_by
FROM ingest.alerts
WHERE bucket = %(bucket)s
