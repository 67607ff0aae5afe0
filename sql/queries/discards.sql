-- name: keep_discard
INSERT INTO ingest.discards (reason, queue, key, died_of, error, fingerprint, attempts, dead_at, headers, body)
VALUES (%(reason)s, %(queue)s, %(key)s, %(died_of)s, %(error)s, %(fingerprint)s, %(attempts)s, %(dead_at)s, %(headers)s,
        %(body)s)
ON CONFLICT DO NOTHING

-- name: mark_discarded
-- The version that the letter is about; all of its key where an older letter does not tell which.
UPDATE ingest.ledger SET discarded_at = clock_timestamp()
WHERE bucket = %(bucket)s AND key = %(key)s AND (%(etag)s::text IS NULL OR etag = %(etag)s) AND state = 'failed'
  AND dead_lettered_at IS NOT NULL AND %(queue)s = 'files'

-- name: mark_let_go
-- Of these versions, those whose letter went on record after they had become one.
UPDATE ingest.ledger AS file SET discarded_at = clock_timestamp()
WHERE file_id = ANY(%(file_ids)s) AND state = 'failed' AND discarded_at IS NULL
  AND EXISTS (SELECT FROM ingest.discards AS kept
              WHERE kept.queue = 'files' AND kept.key = file.key AND kept.reason = %(reason)s
                AND kept.headers ->> 'fleettickets-etag' = file.etag AND kept.discarded_at > file.dead_lettered_at)

-- name: mended
-- Versions that became dead letters, and another one of their key was applied since.
SELECT file_id, key, etag, dead_lettered_at
FROM ingest.ledger AS file
WHERE bucket = %(bucket)s AND state = 'failed' AND dead_lettered_at IS NOT NULL AND discarded_at IS NULL
  AND ingest.is_superseded(file)
  AND EXISTS (SELECT FROM ingest.ledger AS other
              WHERE other.bucket = file.bucket AND other.key = file.key AND other.etag <> file.etag
                AND other.applied_at > file.dead_lettered_at)
