-- name: versions
-- Every version of a key, in every bucket, and of a local file of its name that was imported, in the order seen.
SELECT file_id, bucket, etag, size, sha256, epoch, key_time, object_time, event_time, first_seen_at, first_seen_by,
       split_part(trace, '-', 2) AS trace_id,
       decision, reason, state, duplicates, attempts, retry_at, last_error, error_fingerprint, dead_lettered_at,
       discarded_at, opened_at, staged_at, applied_at, archived_at, archive_key, done_at, passed_over_time,
       rows_read, rows_inserted, rows_updated, rows_unchanged, rows_stale, rows_superseded, rows_rejected,
       alarms_dropped, sentinels_dropped,
       lines_read, lines_blank, lines_header, lines_rejected, lines_of_rows, dates_never, notes,
       (SELECT count(*) FROM {positions} AS written WHERE written.file_id = ledger.file_id) AS tickets_last_written
FROM ingest.ledger
WHERE key = %(key)s OR bucket = %(local)s AND key = %(name)s
ORDER BY file_id

-- name: rejects
-- Settled by the rule of rejects.sql.
SELECT reject.line, reject.lines, reject.ticket_id, reject.reason, left(reject.raw, 200) AS raw,
       ingest.counts_no_more(file)
       OR EXISTS (SELECT FROM {positions} AS written
                  WHERE written.ticket_id = reject.ticket_id
                    AND written.position >= ingest.position_of(file, reject.line)) AS is_settled
FROM ingest.rejects AS reject JOIN ingest.ledger AS file USING (file_id)
WHERE file_id = %(file_id)s
ORDER BY reject.line
LIMIT %(limit)s

-- name: reject_kinds
SELECT coalesce(reason_group, reason) AS kind, count(*) AS rows
FROM ingest.rejects
WHERE file_id = %(file_id)s
GROUP BY 1
ORDER BY rows DESC, kind
LIMIT %(limit)s

-- name: loss
-- What somebody says of a version whose object is gone.
SELECT reason, acknowledged_by, login, acknowledged_at
FROM ingest.losses
WHERE (bucket, key, etag) = (SELECT bucket, key, etag FROM ingest.ledger WHERE file_id = %(file_id)s)

-- name: requests
SELECT kind, created_at, sent_at, handled_at FROM ingest.outbox WHERE file_id = %(file_id)s ORDER BY kind

-- name: ticket
-- Not every feed has each of these columns.
SELECT ticket_id, row ->> 'normalized_status' AS normalized_status, row ->> 'raw_status' AS raw_status,
       (row ->> 'closed_at')::timestamptz AS closed_at, ingested_at
FROM {tickets} AS ticket CROSS JOIN LATERAL to_jsonb(ticket) AS row
WHERE ticket_id = %(ticket_id)s

-- name: writer
-- The change that last wrote a ticket; without a file for a ticket that was there before the ledger.
SELECT (known.position).epoch, (known.position).key_time, (known.position).key, (known.position).object_time,
       (known.position).etag, (known.position).line, file.file_id, file.bucket, file.decision, file.state,
       file.event_time, file.first_seen_at, file.first_seen_by, file.applied_at, file.archive_key
FROM {positions} AS known LEFT JOIN ingest.ledger AS file USING (file_id)
WHERE known.ticket_id = %(ticket_id)s

-- name: ticket_closures
SELECT closed_at, observed_at, (position).epoch, (position).key, (position).line
FROM tickets.closure_events
WHERE ticket_id = %(ticket_id)s
ORDER BY closed_at

-- name: ticket_rejects
-- Every one whose id is this, and those of before ids were kept that have it as a whole field of their text.
SELECT file.key, reject.line, reject.lines, reject.ticket_id, reject.reason, left(reject.raw, 200) AS raw,
       ingest.counts_no_more(file)
       OR EXISTS (SELECT FROM {positions} AS written
                  WHERE written.ticket_id = reject.ticket_id
                    AND written.position >= ingest.position_of(file, reject.line)) AS is_settled
FROM ingest.rejects AS reject JOIN ingest.ledger AS file USING (file_id)
WHERE file.feed = %(feed)s
  AND (reject.ticket_id = %(ticket_id)s
       OR reject.reason_group IS NULL AND strpos(reject.raw, %(ticket_id)s) > 0
          AND EXISTS (SELECT FROM regexp_split_to_table(reject.raw, '[,\r\n]') AS field
                      WHERE btrim(field, E' \t"') = %(ticket_id)s))
ORDER BY file.key_time, file.key, reject.line
LIMIT %(limit)s
