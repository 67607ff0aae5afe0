-- What only who may write can hold. An advisory lock is anybody's who may connect, a reader's too; a row lock needs the
-- right to UPDATE. One row of these stands for all keys of one hash: whoever meets a stranger there waits a moment.
CREATE TABLE ingest.key_slots (slot integer PRIMARY KEY);
COMMENT ON TABLE ingest.key_slots IS
    'Locks: a key is in hand of whoever has its slot FOR UPDATE, and a dry run has the whole table. The rows never change.';
INSERT INTO ingest.key_slots (slot) SELECT generate_series(0, 16383);

CREATE FUNCTION ingest.key_slot(bucket text, key text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashtextextended(bucket || '/' || key, 0) & 16383)::integer;

ALTER TABLE ingest.ledger
    ADD COLUMN version_id text COLLATE "C",
    ADD COLUMN held_since timestamptz,
    ADD COLUMN archive_attempts integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT ledger_decision_check,
    ADD CONSTRAINT ledger_decision_check
        CHECK (decision IN ('new', 'late', 'changed', 'missing', 'rejected', 'ignored', 'undecided'));
COMMENT ON COLUMN ingest.ledger.version_id IS
    'The store''s own name of the object that was read, in a bucket that keeps versions; NULL elsewhere.';
COMMENT ON COLUMN ingest.ledger.held_since IS
    'Since when a dependency fails this version; NULL once it was applied or has failed for good.';
COMMENT ON COLUMN ingest.ledger.archive_attempts IS 'Times that the store did not let its object be archived.';

CREATE INDEX ledger_held ON ingest.ledger (file_id) WHERE state = 'seen' OR held_since IS NOT NULL;

-- Whether the bytes of a version are back under their key, after another version of it: they are then what the exporter
-- says now, whatever became of them before. A key is read under its lock, so what is read after another was applied was
-- put after it; LastModified has whole seconds, and tells of the rest. In a bucket that keeps versions the very put that
-- was read before can come to light again, from under a later one: that is no news.
CREATE FUNCTION ingest.is_back(file ingest.ledger, found_at timestamptz, found_version text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (file.version_id IS DISTINCT FROM found_version OR file.version_id IS NULL)
       AND EXISTS (SELECT FROM ingest.ledger AS between_them
                   WHERE between_them.bucket = file.bucket AND between_them.key = file.key
                     AND between_them.file_id <> file.file_id AND between_them.applied_at IS NOT NULL
                     AND date_trunc('second', between_them.object_time)
                         BETWEEN date_trunc('second', file.object_time) AND found_at
                     AND (date_trunc('second', found_at) > date_trunc('second', file.object_time)
                          OR file.state <> 'failed' AND between_them.applied_at > file.applied_at));
DROP FUNCTION ingest.is_back(ingest.ledger, timestamptz);

-- Whether the ledger has a verdict on a version that was read, or whether it is to be decided now. A failed one has its
-- retries and its letter, which are the claim's business.
CREATE FUNCTION ingest.is_open(file ingest.ledger, found_at timestamptz, found_version text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN file.state = 'seen'
       OR file.state = 'done' AND file.decision = 'changed' AND file.applied_at IS NULL -- passed over by policy
       OR ingest.is_back(file, found_at, found_version);

-- Where a version that is read now stands among those of its key: at its LastModified, and behind those of the same second
-- that were applied before. A bucket that keeps versions can show them in another order than they were stored in.
CREATE FUNCTION ingest.place_among_versions(found_bucket text, found_key text, found_etag text, found_at timestamptz,
                                            found_version text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN found_version IS NOT NULL THEN found_at
            ELSE (SELECT greatest(found_at, max(other.object_time) + interval '1 microsecond')
                  FROM ingest.ledger AS other
                  WHERE other.bucket = found_bucket AND other.key = found_key AND other.etag <> found_etag
                    AND other.applied_at IS NOT NULL
                    AND date_trunc('second', other.object_time) = date_trunc('second', found_at)) END;

COMMENT ON COLUMN tickets.inc.raw IS
    'Every value of the change file as a JSON string, and null for the feed''s own columns that are empty; region lower-case, '
    'raw_status upper-case.';

GRANT SELECT ON ingest.key_slots TO fleettickets_ingest, fleettickets_read;
GRANT UPDATE ON ingest.key_slots TO fleettickets_ingest;
