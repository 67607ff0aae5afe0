-- name: now
SELECT clock_timestamp() AS now

-- name: begin_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: create_findings
CREATE TEMPORARY TABLE findings (
    look    integer NOT NULL,
    kind    text NOT NULL,
    subject text COLLATE "C" NOT NULL,
    key     text COLLATE "C",
    detail  text NOT NULL
)

-- name: create_letters
-- The keys that have a dead letter, of this bucket. A key can have several: the oldest is kept.
CREATE TEMPORARY TABLE letters (
    key     text COLLATE "C" PRIMARY KEY,
    dead_at timestamptz
)

-- name: forget_letters
DELETE FROM letters

-- name: keep_letter
INSERT INTO letters (key, dead_at) VALUES (%(key)s, %(dead_at)s)
ON CONFLICT (key) DO UPDATE SET dead_at = least(letters.dead_at, excluded.dead_at)

-- name: create_contents
CREATE TEMPORARY TABLE contents (
    file_id     bigint NOT NULL,
    key         text COLLATE "C" NOT NULL,
    archive_key text COLLATE "C" NOT NULL,
    sha256      text NOT NULL
)

-- name: find_unrecorded
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'unrecorded', object.object_key, object.key,
       format('%%s bytes, archived %%s', object.size, ingest.told(object.modified))
FROM bucket_objects AS object
JOIN ingest.epochs AS first_epoch ON first_epoch.feed = object.feed AND first_epoch.epoch = 1
WHERE object.is_archived
  AND NOT ingest.is_before_ledger(object.key, object.key_time, object.modified, first_epoch)
  AND NOT EXISTS (SELECT FROM ingest.ledger AS file
                  WHERE file.bucket = %(bucket)s AND file.key = object.key AND file.applied_at IS NOT NULL
                    AND (file.archive_key = object.object_key OR file.etag = object.etag))

-- name: find_lost
-- Archived before the listing began, so it had to be in it. A reason says that the object was gone or replaced before
-- it could be archived. What was archived before `expires` the bucket's own rule may have deleted. A version that
-- failed needs an object too, unless a later one was applied or somebody let go of it: whatever its key has in
-- changes/, or its own bytes in the archive. What somebody has acknowledged is told elsewhere.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'lost', coalesce(file.archive_key, file.key), file.key,
       format('applied %%s, %%s bytes, sha256 %%s', ingest.told(file.applied_at), file.size, file.sha256)
FROM ingest.ledger AS file
LEFT JOIN bucket_objects AS object ON object.object_key = file.archive_key
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s)
  AND file.state IN ('archived', 'done') AND file.applied_at IS NOT NULL
  AND coalesce(file.archived_at, file.applied_at) < %(began)s
  AND object.object_key IS NULL AND (file.archive_key IS NOT NULL OR file.reason IS NULL)
  AND (%(expires)s::timestamptz IS NULL OR coalesce(file.archived_at, file.applied_at) >= %(expires)s)
  AND NOT EXISTS (SELECT FROM ingest.losses AS known
                  WHERE known.bucket = file.bucket AND known.key = file.key AND known.etag = file.etag)
UNION ALL
SELECT %(look)s, 'lost', file.key, file.key, format('%%s, never applied, %%s', file.state, file.reason)
FROM ingest.ledger AS file
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s)
  AND (file.state = 'failed' AND file.discarded_at IS NULL
       AND coalesce(file.dead_lettered_at, file.retry_at, file.first_seen_at)
           < CASE WHEN file.dead_lettered_at IS NULL THEN %(old)s ELSE %(began)s END
    OR file.state = 'seen' AND file.first_seen_at < %(old)s)
  AND NOT EXISTS (SELECT FROM bucket_objects AS object
                  WHERE object.key = file.key
                    AND (NOT object.is_archived OR object.etag = file.etag OR file.etag = ''))
  AND NOT ingest.is_superseded(file)
  AND NOT EXISTS (SELECT FROM ingest.losses AS known
                  WHERE known.bucket = file.bucket AND known.key = file.key AND known.etag = file.etag)

-- name: find_size_differs
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'size_differs', object.object_key, file.key,
       format('%%s bytes, should be %%s', object.size, file.size)
FROM ingest.ledger AS file JOIN bucket_objects AS object ON object.object_key = file.archive_key
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s) AND object.size <> file.size

-- name: find_tail_unfinished
-- In turn: applied and not archived; archived with nothing left to relay and not done, which is a consumer's to finish,
-- and there is none without a broker; archived and still in changes/, unless it is another put, which the policy for
-- changed files passes over.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'tail_unfinished', file.key, file.key,
       format('applied %%s, still %%s', ingest.told(file.applied_at), file.state)
FROM ingest.ledger AS file
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s)
  AND (file.state = 'applied' AND file.applied_at < %(old)s
    OR %(has_broker)s AND file.state = 'archived' AND file.archived_at < %(old)s
       AND NOT EXISTS (SELECT FROM ingest.outbox AS request
                       WHERE request.file_id = file.file_id AND request.sent_at IS NULL AND request.handled_at IS NULL))
UNION ALL
SELECT %(look)s, 'tail_unfinished', file.key, file.key,
       format('archived %%s, still in changes/', ingest.told(file.archived_at))
FROM bucket_objects AS object
JOIN ingest.ledger AS file ON file.bucket = %(bucket)s AND file.key = object.key AND file.etag = object.etag
WHERE NOT object.is_archived AND object.modified < %(old)s AND file.prefix = ANY(%(prefixes)s)
  AND file.state IN ('archived', 'done') AND file.applied_at IS NOT NULL AND file.archived_at < %(began)s
  AND NOT ingest.is_passed_over(file, object.modified)

-- name: find_waiting_too_long
-- Nobody has this version, or its retry never came. One that was missing and is there is nobody's either.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'waiting_too_long', object.object_key, object.key, format('since %%s', ingest.told(object.modified))
FROM bucket_objects AS object
WHERE NOT object.is_archived AND object.key_time IS NOT NULL AND object.modified < %(old)s
  AND NOT EXISTS (SELECT FROM ingest.ledger AS file
                  WHERE file.bucket = %(bucket)s AND file.key = object.key AND file.state <> 'seen'
                    AND file.decision <> 'missing'
                    AND (file.etag = object.etag OR file.etag = '' AND file.state = 'failed')
                    AND NOT (file.state = 'failed' AND file.retry_at IS NOT NULL AND file.retry_at < %(old)s))

-- name: find_failed_without_letter
-- A replay that is queued, or that a consumer has in hand, has no letter either: only an empty queue and a key that
-- nobody holds the lock of are evidence.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'failed_without_letter', file.key, file.key,
       format('%%s attempts, %%s: %%s', file.attempts, file.reason, file.last_error)
FROM ingest.ledger AS file
JOIN bucket_objects AS object
    ON object.object_key = file.key AND NOT object.is_archived AND (object.etag = file.etag OR file.etag = '')
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s) AND file.state = 'failed' AND file.retry_at IS NULL
  AND file.discarded_at IS NULL
  AND (file.dead_lettered_at IS NULL OR %(letters_are_read)s AND file.dead_lettered_at < %(began)s)
  AND %(files_queue_is_empty)s
  AND NOT EXISTS (SELECT FROM letters WHERE letters.key = file.key)
  AND NOT EXISTS (SELECT FROM ingest.key_slots AS held
                  JOIN pg_locks AS holder ON holder.locktype = 'transactionid' AND holder.transactionid = held.xmax
                  WHERE held.slot = ingest.key_slot(%(bucket)s, file.key))

-- name: find_letter_of_applied_file
-- Dead letters whose key has an applied version and no failure that came after it, and that no consumer has settled.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'letter_of_applied_file', letter.key, letter.key, format('dead since %%s', ingest.told(letter.dead_at))
FROM letters AS letter
WHERE EXISTS (SELECT FROM ingest.ledger AS applied
              WHERE applied.bucket = %(bucket)s AND applied.key = letter.key AND applied.applied_at < %(old)s)
  AND NOT EXISTS (SELECT FROM ingest.ledger AS failed
                  WHERE failed.bucket = %(bucket)s AND failed.key = letter.key AND failed.state = 'failed'
                    AND NOT EXISTS (SELECT FROM ingest.ledger AS later
                                    WHERE later.bucket = failed.bucket AND later.key = failed.key
                                      AND later.applied_at > failed.dead_lettered_at))

-- name: find_letter_without_failure
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'letter_without_failure', letter.key, letter.key, format('dead since %%s', ingest.told(letter.dead_at))
FROM letters AS letter
WHERE (letter.dead_at IS NULL OR letter.dead_at < %(old)s)
  AND NOT EXISTS (SELECT FROM ingest.ledger AS file
                  WHERE file.bucket = %(bucket)s AND file.key = letter.key
                    AND (file.state = 'failed' OR file.applied_at IS NOT NULL))

-- name: find_request_unsent
-- Without a broker no place is asked for, and the history is to be captured without being asked.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'request_unsent', format('%%s request %%s', request.kind, request.request_id),
       coalesce(file.key, 'the rest of a batch'), format('made %%s', ingest.told(request.created_at))
FROM ingest.outbox AS request LEFT JOIN ingest.ledger AS file USING (file_id)
WHERE request.sent_at IS NULL AND request.handled_at IS NULL AND greatest(request.created_at, request.due_at) < %(old)s
  AND (%(has_broker)s OR request.kind = 'history')

-- name: find_request_lost
-- In turn: sent long ago, not handled, and in no queue any more; and never made, by a file whose rows changed tickets.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'request_lost', format('%%s request %%s', request.kind, request.request_id),
       coalesce(file.key, 'the rest of a batch'), format('sent %%s', ingest.told(request.sent_at))
FROM ingest.outbox AS request LEFT JOIN ingest.ledger AS file USING (file_id)
WHERE request.handled_at IS NULL AND request.sent_at < %(old)s AND request.kind = ANY(%(empty_queues)s::text[])
UNION ALL
SELECT %(look)s, 'request_lost', format('%%s request of %%s', asked.kind, file.key), file.key, 'never made'
FROM ingest.ledger AS file
JOIN unnest(%(feeds)s::text[], %(follow_ons)s::text[]) AS asked (feed, kind) ON asked.feed = file.feed
WHERE file.applied_at IS NOT NULL AND file.rows_inserted + file.rows_updated > 0
  AND NOT EXISTS (SELECT FROM ingest.outbox AS request
                  WHERE request.file_id = file.file_id AND request.kind = asked.kind)

-- name: find_rows_missing
-- Of one feed. In turn: a position without its ticket; a ticket that was written since the ledger began and has no
-- position; fewer tickets than were adopted and inserted, where neither tells of the other (a batch import whose
-- watermark was not known may have counted otherwise); rejected rows that are not kept; and the file that outranks
-- all others, which has to own every ticket that it moved, since nothing can have moved them on.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'rows_missing', format('ticket %%s', known.ticket_id), (known.position).key,
       format('written by line %%s', (known.position).line)
FROM {positions} AS known LEFT JOIN {tickets} AS ticket USING (ticket_id)
WHERE ticket.ticket_id IS NULL
UNION ALL
SELECT %(look)s, 'rows_missing', format('position of ticket %%s', ticket.ticket_id), NULL,
       format('the ticket was written %%s', ingest.told(ticket.ingested_at))
FROM {tickets} AS ticket LEFT JOIN {positions} AS known USING (ticket_id)
WHERE known.ticket_id IS NULL
  AND ticket.ingested_at >= (SELECT began_at FROM ingest.epochs WHERE feed = %(feed)s AND epoch = 1)
UNION ALL
SELECT %(look)s, 'rows_missing', format('tickets of %%s', %(feed)s::text), NULL,
       format('%%s of %%s are there', there.rows, counted.rows)
FROM (SELECT count(*) AS rows FROM {tickets} FULL JOIN {positions} USING (ticket_id)) AS there
CROSS JOIN (SELECT CASE WHEN first_epoch.adopted_key IS NOT NULL
                          OR NOT EXISTS (SELECT FROM public.fleettickets_migrations WHERE how = 'adopted')
                        THEN (SELECT row_count FROM tickets.import_meta WHERE source = %(feed)s)
                        ELSE (SELECT sum(rows_inserted) FROM ingest.ledger
                              WHERE feed = %(feed)s AND applied_at IS NOT NULL) END AS rows
            FROM ingest.epochs AS first_epoch
            WHERE first_epoch.feed = %(feed)s AND first_epoch.epoch = 1) AS counted
WHERE there.rows < counted.rows
UNION ALL
SELECT %(look)s, 'rows_missing', format('rejects of %%s', file.key), file.key,
       format('%%s of %%s are kept', coalesce(kept.rows, 0), file.rows_rejected)
FROM ingest.ledger AS file
LEFT JOIN (SELECT file_id, count(*) AS rows FROM ingest.rejects GROUP BY file_id) AS kept USING (file_id)
WHERE file.feed = %(feed)s AND file.applied_at IS NOT NULL AND file.rows_rejected > coalesce(kept.rows, 0)
UNION ALL
SELECT %(look)s, 'rows_missing', format('positions of %%s', file.key), file.key,
       format('%%s of %%s are there', owned.rows, file.moved)
FROM (SELECT file_id, key, rows_inserted + rows_updated + rows_unchanged AS moved
      FROM ingest.ledger
      -- What is back and failed has the time of its return.
      WHERE feed = %(feed)s AND applied_at IS NOT NULL AND state <> 'failed'
      ORDER BY epoch DESC, key_time DESC NULLS LAST, key DESC, object_time DESC NULLS LAST, etag DESC
      LIMIT 1) AS file
CROSS JOIN LATERAL (SELECT count(*) AS rows FROM {positions} AS written WHERE written.file_id = file.file_id) AS owned
WHERE owned.rows < file.moved

-- name: find_closure_missing
-- Of a feed with a history. One that something else than a merge has written is noted for the next capture, and missing
-- only once that is late.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'closure_missing', format('ticket %%s', ticket.ticket_id), (written.position).key,
       format('closed %%s', ingest.told(ticket.closed_at))
FROM {tickets} AS ticket LEFT JOIN {positions} AS written USING (ticket_id)
WHERE ticket.closed_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM tickets.closure_events AS known
                  WHERE known.ticket_id = ticket.ticket_id AND known.closed_at = ticket.closed_at)
  AND NOT (ticket.ingested_at > %(old)s
           AND EXISTS (SELECT FROM ingest.closures_noted AS note WHERE note.ticket_id = ticket.ticket_id))

-- name: find_ledger_inconsistent
-- What no step of ours leaves behind, in any order or crash. Each row of a file is counted under what became of it, and
-- so is each line, of which a row takes one at the least.
INSERT INTO findings (look, kind, subject, key, detail)
SELECT %(look)s, 'ledger_inconsistent', file.key, file.key, file.contradiction
FROM (SELECT key,
             CASE WHEN applied_at IS NOT NULL AND sha256 IS NULL THEN 'applied, and its sha256 is not known'
                  WHEN applied_at IS NOT NULL AND state = 'seen' THEN 'applied, and seen'
                  WHEN applied_at IS NULL AND state IN ('applied', 'archived') THEN state || ', and never applied'
                  WHEN applied_at IS NULL AND state = 'done' AND reason IS NULL
                      THEN 'done, and neither applied nor why not'
                  WHEN rows_read <> sums.rows
                      THEN format('%%s rows read, and %%s of them accounted for: %%s inserted, %%s updated, '
                                  '%%s unchanged, %%s stale, %%s superseded, %%s rejected, %%s alarms, %%s sentinels',
                                  rows_read, sums.rows, rows_inserted, rows_updated, rows_unchanged, rows_stale,
                                  rows_superseded, rows_rejected, alarms_dropped, sentinels_dropped)
                  WHEN lines_read IS DISTINCT FROM sums.lines
                      THEN format('%%s lines read, and %%s of them accounted for: %%s blank, %%s of headers, '
                                  '%%s rejected, %%s of rows', lines_read, sums.lines, lines_blank, lines_header,
                                  lines_rejected, lines_of_rows)
                  WHEN lines_rejected < rows_rejected
                      THEN format('%%s rows rejected on %%s lines', rows_rejected, lines_rejected)
                  WHEN lines_of_rows < rows_read - rows_rejected
                      THEN format('%%s rows taken of %%s lines', rows_read - rows_rejected, lines_of_rows)
             END AS contradiction
      FROM ingest.ledger
      CROSS JOIN LATERAL (SELECT rows_inserted + rows_updated + rows_unchanged + rows_stale + rows_superseded
                                     + rows_rejected + alarms_dropped + sentinels_dropped AS rows,
                                 lines_blank + lines_header + lines_rejected + lines_of_rows AS lines) AS sums
      WHERE feed = ANY(%(feeds)s)) AS file
WHERE file.contradiction IS NOT NULL

-- name: suspects
-- The objects that a second look is worth, by their keys.
SELECT DISTINCT found.object_key
FROM findings CROSS JOIN LATERAL (VALUES (subject), (key)) AS found (object_key)
WHERE look = %(look)s AND found.object_key > %(after)s
  AND EXISTS (SELECT FROM unnest(%(folders)s::text[]) AS folder WHERE starts_with(found.object_key, folder))
ORDER BY found.object_key
LIMIT 1000

-- name: count_findings
SELECT count(*) AS findings FROM findings WHERE look = %(look)s

-- name: drop_passing
-- What only one of the two looks shows was on its way.
DELETE FROM findings AS found
WHERE look = 1
   OR NOT EXISTS (SELECT FROM findings AS before
                  WHERE before.look = 1 AND before.kind = found.kind AND before.subject = found.subject)

-- name: unrecorded_by_etag
-- Archived objects that may be a version the ledger has under the ETag of an object stored in parts.
SELECT found.subject AS object_key, array_agg(file.sha256) AS digests
FROM findings AS found
JOIN bucket_objects AS object ON object.object_key = found.subject
JOIN ingest.ledger AS file
    ON file.bucket = %(bucket)s AND file.key = found.key AND file.size = object.size AND file.applied_at IS NOT NULL
WHERE found.kind = 'unrecorded' AND found.subject > %(after)s
GROUP BY found.subject
ORDER BY found.subject
LIMIT 1000

-- name: drop_unrecorded
DELETE FROM findings WHERE kind = 'unrecorded' AND subject = %(object_key)s

-- name: keep_finding
INSERT INTO findings (look, kind, subject, key, detail) VALUES (2, %(kind)s, %(subject)s, %(key)s, %(detail)s)

-- name: choose_by_etag
-- The copy of an object stored in parts has another ETag, so only its bytes tell.
INSERT INTO contents (file_id, key, archive_key, sha256)
SELECT file.file_id, file.key, file.archive_key, file.sha256
FROM ingest.ledger AS file JOIN bucket_objects AS object ON object.object_key = file.archive_key
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s) AND file.sha256 IS NOT NULL
  AND object.size = file.size AND object.etag <> file.etag

-- name: choose_by_content
INSERT INTO contents (file_id, key, archive_key, sha256)
SELECT file.file_id, file.key, file.archive_key, file.sha256
FROM ingest.ledger AS file JOIN bucket_objects AS object ON object.object_key = file.archive_key
WHERE file.bucket = %(bucket)s AND file.prefix = ANY(%(prefixes)s) AND file.sha256 IS NOT NULL
  AND object.size = file.size AND object.etag = file.etag
  AND (%(since)s::timestamptz IS NULL OR file.archived_at >= %(since)s)
ORDER BY CASE WHEN %(limit)s::bigint IS NULL THEN 0 ELSE random() END
LIMIT %(limit)s

-- name: count_contents
SELECT count(*) AS contents FROM contents

-- name: next_contents
SELECT file_id, key, archive_key, sha256 FROM contents
WHERE file_id > %(after)s
ORDER BY file_id
LIMIT 1000

-- name: counts
SELECT kind, count(*) AS findings FROM findings GROUP BY kind ORDER BY kind

-- name: examples
SELECT subject, key, detail FROM findings WHERE kind = %(kind)s ORDER BY subject LIMIT %(examples)s

-- name: notes
-- What is accounted for and still worth knowing.
SELECT (SELECT count(*) FROM bucket_objects AS object
        WHERE NOT is_archived AND key_time IS NOT NULL
          AND NOT EXISTS (SELECT FROM ingest.ledger AS file
                          WHERE file.bucket = %(bucket)s AND file.key = object.key AND file.etag = object.etag))
           AS waiting,
       (SELECT count(*) FROM bucket_objects WHERE NOT is_archived AND key_time IS NULL) AS misnamed,
       (SELECT count(*) FROM bucket_objects AS object
        JOIN ingest.epochs AS first_epoch ON first_epoch.feed = object.feed AND first_epoch.epoch = 1
        WHERE object.is_archived
          AND ingest.is_before_ledger(object.key, object.key_time, object.modified, first_epoch)) AS before_the_ledger,
       count(*) AS ledger_rows,
       count(*) FILTER (WHERE state IN ('applied', 'archived')) AS in_progress,
       count(*) FILTER (WHERE state = 'failed' AND NOT is_superseded AND retry_at IS NOT NULL) AS retrying,
       count(*) FILTER (WHERE state = 'failed' AND NOT is_superseded AND retry_at IS NULL) AS failed,
       count(*) FILTER (WHERE state = 'failed' AND is_superseded) AS superseded,
       count(*) FILTER (WHERE decision = 'missing') AS missing,
       count(*) FILTER (WHERE decision = 'changed' AND state = 'done' AND applied_at IS NULL) AS passed_over,
       count(*) FILTER (WHERE applied_at IS NOT NULL AND archive_key IS NULL AND reason IS NOT NULL
                          AND state IN ('archived', 'done')) AS gone_before_archived,
       count(*) FILTER (WHERE is_expired) AS expired,
       (SELECT count(*) FROM ingest.losses AS known WHERE known.bucket = %(bucket)s) AS acknowledged_losses
FROM (SELECT file.*, file.state = 'failed' AND ingest.is_superseded(file) AS is_superseded,
             CASE WHEN archive_key IS NOT NULL AND archived_at < %(expires)s::timestamptz
                  THEN NOT EXISTS (SELECT FROM bucket_objects AS object WHERE object.object_key = file.archive_key)
                  ELSE false END AS is_expired
      FROM ingest.ledger AS file) AS file
WHERE bucket = %(bucket)s AND prefix = ANY(%(prefixes)s)

-- name: acknowledged
-- The losses that somebody has looked into, the last first.
SELECT coalesce(file.archive_key, known.key) AS subject, known.key, known.reason, known.acknowledged_by, known.login,
       known.acknowledged_at
FROM ingest.losses AS known
LEFT JOIN ingest.ledger AS file USING (bucket, key, etag)
WHERE known.bucket = %(bucket)s
ORDER BY known.acknowledged_at DESC, known.key
LIMIT %(examples)s
