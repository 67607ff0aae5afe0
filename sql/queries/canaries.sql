-- name: delivered
WITH past AS (
    DELETE FROM ingest.canaries WHERE delivered_at < clock_timestamp() - interval '1 hour'
)
INSERT INTO ingest.canaries (key, seen_by) VALUES (%(key)s, %(seen_by)s) ON CONFLICT (key) DO NOTHING

-- name: opened
UPDATE ingest.canaries SET opened_at = clock_timestamp() WHERE key = %(key)s

-- name: applied
UPDATE ingest.canaries SET applied_at = clock_timestamp() WHERE key = %(key)s

-- name: failed
UPDATE ingest.canaries SET trouble = %(trouble)s WHERE key = %(key)s

-- name: archived
UPDATE ingest.canaries SET archived_at = clock_timestamp() WHERE key = %(key)s

-- name: removed
UPDATE ingest.canaries SET removed_at = clock_timestamp() WHERE key = %(key)s

-- name: clock
SELECT clock_timestamp() AS now

-- name: seen
SELECT seen_by, delivered_at, opened_at, applied_at, archived_at, removed_at, trouble
FROM ingest.canaries
WHERE key = %(key)s
