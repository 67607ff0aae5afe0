-- Whether a version of a file counts no more, and so nothing that was wrong with it: another one of its key was applied
-- later, its dead letter was discarded, or the policy for changed files passed it over.
CREATE FUNCTION ingest.counts_no_more(file ingest.ledger) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN file.discarded_at IS NOT NULL
       OR file.state = 'done' AND file.applied_at IS NULL
       OR file.state = 'failed' AND ingest.is_superseded(file)
       OR EXISTS (SELECT FROM ingest.ledger AS later
                  WHERE later.bucket = file.bucket AND later.key = file.key
                    AND later.applied_at IS NOT NULL AND later.state <> 'failed'
                    AND (later.epoch, later.object_time, later.etag) > (file.epoch, file.object_time, file.etag));

-- The position that a line of a file gives its ticket.
CREATE FUNCTION ingest.position_of(file ingest.ledger, line bigint) RETURNS ingest.position
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(file.epoch, file.key_time, file.key, file.object_time, file.etag, line)::ingest.position;
