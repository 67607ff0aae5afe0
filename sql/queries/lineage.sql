-- name: contents
-- Each content that a ticket had, the present one last, and from where on: the first of them from where it was written.
-- `is_as_told` is false where something else than a file has changed it, null where that cannot be known any more.
WITH boundaries AS (
    SELECT *, row_number() OVER (ORDER BY head, line) AS place
    FROM ingest.boundaries(%(feed)s, %(ticket_id)s)
), contents AS (
    SELECT place, raw, written_at FROM boundaries
    UNION ALL
    SELECT 1 + (SELECT count(*) FROM boundaries), raw, ingested_at FROM {tickets} WHERE ticket_id = %(ticket_id)s
), begun AS (
    SELECT content.place, content.raw, coalesce(before.telling, first.telling) AS telling_id,
           coalesce(before.line, first.line) AS line
    FROM contents AS content
    LEFT JOIN boundaries AS before ON before.place = content.place - 1
    LEFT JOIN LATERAL ingest.told_when_written(%(feed)s, %(ticket_id)s, content.written_at) AS first
        ON content.place = 1
    WHERE content.raw IS NOT NULL
)
SELECT (head).epoch, nullif((head).key_time, '-infinity') AS key_time, (head).key, begun.line,
       telling.file_id, file.bucket, file.decision, file.event_time, file.first_seen_at, file.first_seen_by,
       file.archive_key, begun.raw,
       (SELECT bool_or(told.digest = jsonb_hash(begun.raw))
        FROM ingest.told_rows AS part
        CROSS JOIN LATERAL unnest(ticket_ids, lines, digests) AS told (ticket_id, line, digest)
        WHERE part.telling_id = begun.telling_id AND %(ticket_id)s = ANY (ticket_ids)
          AND told.ticket_id = %(ticket_id)s AND told.line = begun.line) AS is_as_told
FROM begun
LEFT JOIN ingest.tellings AS telling USING (telling_id)
LEFT JOIN ingest.ledger AS file ON file.file_id = telling.file_id
ORDER BY place

-- name: history
SELECT nullif(since, '-infinity') AS since FROM ingest.histories WHERE feed = %(feed)s
