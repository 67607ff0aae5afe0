-- name: candidates
-- Versions of a file, by its key or that of its archived object, which verify calls lost where their object is gone. Of
-- several keys a file has one: a bare name may be in any folder.
SELECT key, etag, coalesce(archive_key, key) AS object_key
FROM ingest.ledger AS file
WHERE bucket = %(bucket)s AND (key = ANY (%(keys)s) OR archive_key = ANY (%(keys)s))
  AND (state IN ('archived', 'done') AND applied_at IS NOT NULL AND (archive_key IS NOT NULL OR reason IS NULL)
       OR state IN ('seen', 'failed') AND discarded_at IS NULL AND NOT ingest.is_superseded(file))
ORDER BY file_id

-- name: acknowledge
-- Said once more, the last word counts.
INSERT INTO ingest.losses (bucket, key, etag, reason, acknowledged_by)
VALUES (%(bucket)s, %(key)s, %(etag)s, %(reason)s, %(by)s)
ON CONFLICT (bucket, key, etag) DO UPDATE
SET reason = excluded.reason, acknowledged_by = excluded.acknowledged_by, login = session_user,
    acknowledged_at = clock_timestamp()
