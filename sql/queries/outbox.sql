-- name: unsent
-- Oldest first, a thousand of each kind at a time; each with the trace of its file.
SELECT request_id, kind, (SELECT trace FROM ingest.ledger AS file WHERE file.file_id = next.file_id) AS trace
FROM unnest(%(kinds)s::text[]) AS asked (kind)
CROSS JOIN LATERAL (SELECT request_id, file_id FROM ingest.outbox AS request
                    WHERE request.kind = asked.kind AND sent_at IS NULL AND handled_at IS NULL
                      AND due_at <= clock_timestamp()
                    ORDER BY request_id
                    LIMIT %(at_most)s) AS next
ORDER BY request_id

-- name: ask_again
-- The oldest request of each kind, where nothing was done for it so long after it was sent: its message may be gone
-- with its queue, or what seemed to stand for it there was something else. Whoever takes one does all that is asked.
UPDATE ingest.outbox SET sent_at = NULL
WHERE request_id = ANY (ARRAY(
    SELECT oldest.request_id
    FROM unnest(%(kinds)s::text[]) AS asked (kind)
    CROSS JOIN LATERAL (SELECT request_id, sent_at FROM ingest.outbox AS request
                        WHERE request.kind = asked.kind AND handled_at IS NULL AND due_at <= clock_timestamp()
                        ORDER BY request_id
                        LIMIT 1) AS oldest
    WHERE sent_at < clock_timestamp() - make_interval(secs => %(age)s)))
RETURNING request_id

-- name: mark_sent
UPDATE ingest.outbox SET sent_at = clock_timestamp() WHERE request_id = ANY(%(requests)s)

-- name: unhandled
SELECT request_id, (SELECT trace FROM ingest.ledger AS file WHERE file.file_id = request.file_id) AS trace
FROM ingest.outbox AS request
WHERE kind = %(kind)s AND handled_at IS NULL AND due_at <= clock_timestamp()
ORDER BY request_id

-- name: seconds_since_last_handled
SELECT extract(epoch FROM clock_timestamp() - handled_at)::float8 AS seconds
FROM ingest.outbox
WHERE kind = %(kind)s AND handled_at IS NOT NULL
ORDER BY handled_at DESC
LIMIT 1

-- name: mark_handled
UPDATE ingest.outbox SET handled_at = clock_timestamp() WHERE request_id = ANY(%(requests)s)
