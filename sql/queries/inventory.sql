-- name: forget_objects
DROP TABLE IF EXISTS pg_temp.bucket_objects

-- name: create_objects
-- `key` is the one that the object has in changes/, or had before it was archived; key_time is null where that
-- follows no grammar. Sorted as the store lists, byte by byte.
CREATE TEMPORARY TABLE bucket_objects (
    feed        text NOT NULL,
    object_key  text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    key_time    timestamptz,
    is_archived boolean NOT NULL,
    etag        text COLLATE "C" NOT NULL,
    size        bigint NOT NULL,
    modified    timestamptz NOT NULL
)

-- name: copy_objects
COPY bucket_objects (feed, object_key, key, key_time, is_archived, etag, size, modified) FROM STDIN

-- name: index_objects
CREATE INDEX ON bucket_objects (object_key)

-- name: analyze_objects
ANALYZE bucket_objects

-- name: forget_object
DELETE FROM bucket_objects WHERE object_key = ANY(%(keys)s)

-- name: unapplied_archives
-- Archived objects that the database lacks, or whose place it does not know yet. The epoch is the one that had begun
-- when the file was archived, and the first for what is older: then the database was made anew.
SELECT object.object_key, object.key, object.key_time, object.etag, object.size,
       coalesce(file.object_time, object.modified) AS object_time,
       coalesce((SELECT max(epoch) FROM ingest.epochs WHERE feed = object.feed AND began_at <= object.modified),
                first_epoch.epoch) AS epoch
FROM bucket_objects AS object
JOIN ingest.epochs AS first_epoch ON first_epoch.feed = object.feed AND first_epoch.epoch = 1
LEFT JOIN ingest.ledger AS file
    ON file.bucket = %(bucket)s AND file.key = object.key AND file.etag = object.etag
WHERE object.is_archived
  AND NOT ingest.is_before_ledger(object.key, object.key_time, object.modified, first_epoch)
  AND NOT EXISTS (SELECT FROM ingest.ledger AS applied
                  WHERE applied.bucket = %(bucket)s AND applied.key = object.key AND applied.applied_at IS NOT NULL
                    AND applied.archive_key IS NOT NULL
                    AND (applied.archive_key = object.object_key OR applied.etag = object.etag))
ORDER BY object.key_time, object.key, object.modified, object.object_key

-- name: applied_elsewise
-- Versions of the key that have an object's size and another ETag: an object stored in parts changes its ETag when
-- copied.
SELECT file_id, key, etag, object_time, version_id, sha256, state, applied_at AS decided_at
FROM ingest.ledger
WHERE bucket = %(bucket)s AND key = %(key)s AND etag <> %(etag)s AND size = %(size)s AND applied_at IS NOT NULL
