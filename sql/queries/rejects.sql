-- name: groups
-- Of one feed, by reason, the largest first; and all together, without a reason, which comes last. Settled is a reject
-- whose version counts no more, since another one of its key was applied later, its dead letter was discarded, or the
-- policy passes it over; or whose ticket has a later position, or its own, as when a file was judged anew. OFFSET has
-- each file looked up by its id: it costs as much as there are rejects, however many files there are.
SELECT fingerprint, reason, count(*) AS rows, count(*) FILTER (WHERE is_settled) AS settled,
       count(*) FILTER (WHERE is_refused) AS of_refused_files, count(DISTINCT file_id) AS files,
       min(at) AS oldest, max(at) AS newest,
       (array_agg(key ORDER BY at, file_id, line))[1] AS key, (array_agg(line ORDER BY at, file_id, line))[1] AS line
FROM (SELECT left(encode(sha256(convert_to(coalesce(reject.reason_group, reject.reason), 'UTF8')), 'hex'), 8)
                 AS fingerprint,
             coalesce(reject.reason_group, reject.reason) AS reason,
             reject.file_id, reject.line, file.key, file.at, file.is_refused,
             file.counts_no_more
             OR EXISTS (SELECT FROM {positions} AS written
                        WHERE written.ticket_id = reject.ticket_id
                          AND written.position >= ROW(file.epoch, file.key_time, file.key, file.object_time, file.etag,
                                                      reject.line)::ingest.position) AS is_settled
      FROM (SELECT * FROM ingest.rejects
            WHERE %(files)s::bigint[] IS NULL OR file_id = ANY(%(files)s)
            ORDER BY file_id DESC, line DESC
            LIMIT %(newest)s) AS reject
      CROSS JOIN LATERAL (
          SELECT ledger.*, ledger.state = 'failed' OR ledger.applied_at IS NULL AS is_refused,
                 CASE WHEN ledger.state = 'failed' THEN coalesce(ledger.dead_lettered_at, ledger.first_seen_at)
                      ELSE coalesce(ledger.applied_at, ledger.done_at, ledger.first_seen_at) END AS at,
                 ingest.counts_no_more(ledger) AS counts_no_more
          FROM ingest.ledger
          WHERE ledger.file_id = reject.file_id AND ledger.feed = %(feed)s
          OFFSET 0) AS file) AS told
WHERE (%(with_settled)s OR NOT is_settled) AND (%(group)s::text IS NULL OR fingerprint = %(group)s)
  AND (%(older_than)s::interval IS NULL OR at <= now() - %(older_than)s::interval)
  AND (%(newer_than)s::interval IS NULL OR at >= now() - %(newer_than)s::interval)
GROUP BY GROUPING SETS ((fingerprint, reason), ())
ORDER BY grouping(reason), rows DESC, oldest, reason

-- name: rows
-- The same one by one as they stood: by the files in the order seen, and by line.
SELECT *
FROM (SELECT file.feed, file.key, reject.line, reject.lines, reject.ticket_id, reject.reason,
             left(encode(sha256(convert_to(coalesce(reject.reason_group, reject.reason), 'UTF8')), 'hex'), 8)
                 AS fingerprint,
             file.at, file.is_refused,
             file.counts_no_more
             OR EXISTS (SELECT FROM {positions} AS written
                        WHERE written.ticket_id = reject.ticket_id
                          AND written.position >= ROW(file.epoch, file.key_time, file.key, file.object_time, file.etag,
                                                      reject.line)::ingest.position) AS is_settled,
             reject.raw, reject.file_id
      FROM ingest.rejects AS reject
      CROSS JOIN LATERAL (
          SELECT ledger.*, ledger.state = 'failed' OR ledger.applied_at IS NULL AS is_refused,
                 CASE WHEN ledger.state = 'failed' THEN coalesce(ledger.dead_lettered_at, ledger.first_seen_at)
                      ELSE coalesce(ledger.applied_at, ledger.done_at, ledger.first_seen_at) END AS at,
                 ingest.counts_no_more(ledger) AS counts_no_more
          FROM ingest.ledger
          WHERE ledger.file_id = reject.file_id AND ledger.feed = %(feed)s
          OFFSET 0) AS file
      WHERE %(files)s::bigint[] IS NULL OR reject.file_id = ANY(%(files)s)) AS told
WHERE (%(with_settled)s OR NOT is_settled) AND (%(group)s::text IS NULL OR fingerprint = %(group)s)
  AND (%(older_than)s::interval IS NULL OR at <= now() - %(older_than)s::interval)
  AND (%(newer_than)s::interval IS NULL OR at >= now() - %(newer_than)s::interval)
ORDER BY file_id, line
LIMIT %(limit)s

-- name: files
-- Every version of a file, by its key or the key of its archive.
SELECT file_id FROM ingest.ledger
WHERE feed = %(feed)s AND (key = ANY(%(keys)s) OR archive_key = ANY(%(keys)s))
ORDER BY file_id

-- name: are_more
SELECT count(*) > %(than)s AS are_more FROM (SELECT FROM ingest.rejects LIMIT %(than)s + 1) AS counted
