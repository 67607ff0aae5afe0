-- How far the batch import had got when its database was adopted: of what lies in processed/, only that was never for
-- the ledger to know. A database that was made empty, or restored to a dump from before the ledger, lacks the rest.
ALTER TABLE ingest.epochs
    ADD COLUMN adopted_key text COLLATE "C",
    ADD COLUMN adopted_key_time timestamptz,
    ADD COLUMN adopted_rows bigint;
COMMENT ON COLUMN ingest.epochs.adopted_key IS
    'Of the first epoch: the watermark of the batch import whose database was adopted; NULL where none was.';
COMMENT ON COLUMN ingest.epochs.adopted_key_time IS 'The instant that adopted_key names.';
COMMENT ON COLUMN ingest.epochs.adopted_rows IS
    'The tickets that were there then; NULL for a database adopted before they were counted.';

-- Adopted by an earlier version: the rows that nothing has written since still have the old watermark.
UPDATE ingest.epochs
SET adopted_key = (old.position).key, adopted_key_time = (old.position).key_time
FROM (SELECT position FROM ingest.positions WHERE file_id IS NULL ORDER BY position DESC LIMIT 1) AS old
WHERE epoch = 1;

-- Whether an archived object is the batch import's: archived before the first epoch began, and at or below the
-- watermark if its name is a change file's. LastModified may have whole seconds, so the second of the beginning is the
-- ledger's: a file too many is held back by the guard, one too few would be missing. One expression, so that it becomes
-- part of the query for a million objects.
CREATE FUNCTION ingest.is_before_ledger(key text, key_time timestamptz, modified timestamptz, first_epoch ingest.epochs)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (first_epoch).adopted_key IS NOT NULL
       AND modified < date_trunc('second', (first_epoch).began_at)
       AND (key_time IS NULL
            OR (key_time, key COLLATE "C") <= ((first_epoch).adopted_key_time, (first_epoch).adopted_key));

-- Whether the bytes of a version are back under their key, after another version was applied in between: they are then what
-- the exporter says now, whatever became of them before.
CREATE FUNCTION ingest.is_back(file ingest.ledger, found_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN found_at > file.object_time
       AND EXISTS (SELECT FROM ingest.ledger AS between_them
                   WHERE between_them.bucket = file.bucket AND between_them.key = file.key
                     AND between_them.applied_at IS NOT NULL AND between_them.object_time > file.object_time);

-- A version that failed is history once a later one of its key was applied, by the whole seconds of LastModified. One that
-- could not be read has neither an ETag nor a LastModified, and its time is that of its delivery: what was applied since
-- was it, or took its place. It is a failure again when its bytes come back under the key and fail again.
CREATE FUNCTION ingest.is_superseded(file ingest.ledger) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM ingest.ledger AS applied
               WHERE applied.bucket = file.bucket AND applied.key = file.key AND applied.applied_at IS NOT NULL
                 AND applied.file_id <> file.file_id
                 AND CASE file.etag WHEN '' THEN applied.applied_at ELSE applied.object_time END
                     >= date_trunc('second', file.object_time));
