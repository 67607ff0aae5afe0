-- name: of_waiting
-- What the ledger has decided of versions that lie in changes/, by their numbers from 1: a delivery would do nothing
-- with them now. Bytes that are back after another version was applied are decided anew, and so is what was missing,
-- and what a policy that is no more passed over.
SELECT waiting.number,
       CASE WHEN file.state <> 'failed' THEN 'ignored'
            WHEN file.discarded_at IS NOT NULL THEN 'discarded'
            WHEN file.dead_lettered_at IS NOT NULL THEN 'dead letters'
            ELSE 'retry' END AS verdict
FROM unnest(%(keys)s::text[], %(etags)s::text[], %(modified)s::timestamptz[])
    WITH ORDINALITY AS waiting (key, etag, modified, number)
JOIN ingest.ledger AS file
    ON file.bucket = %(bucket)s AND file.key = waiting.key AND file.etag = waiting.etag
WHERE CASE WHEN ingest.is_back(file, waiting.modified, NULL)
           THEN %(passes_over)s AND ingest.is_passed_over(file, waiting.modified)
           ELSE file.state = 'done' AND file.applied_at IS NULL
                    AND (file.decision = 'ignored' OR file.decision = 'changed' AND %(passes_over)s)
                OR file.state = 'failed' AND (file.dead_lettered_at IS NOT NULL OR file.retry_at > now()) END
