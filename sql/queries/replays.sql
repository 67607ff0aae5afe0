-- name: standings
-- Each version of some keys; `mark` changes with whatever is decided of it.
SELECT file_id, key, state, decision, reason, last_error, retry_at, applied_at, dead_lettered_at,
       rows_inserted, rows_updated, rows_rejected,
       concat_ws(' ', decision, attempts, duplicates, applied_at, dead_lettered_at, retry_at, discarded_at) AS mark
FROM ingest.ledger
WHERE bucket = %(bucket)s AND key = ANY(%(keys)s)
ORDER BY file_id
