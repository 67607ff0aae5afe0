-- name: lock_keys
-- All that is done to a key, reading it included, is done by one after the other. Gives no row for a key that another
-- has.
SELECT key
FROM unnest(%(keys)s::text[]) AS asked (key)
WHERE ingest.key_slot(%(bucket)s, key) IN (
    SELECT slot FROM ingest.key_slots
    WHERE slot = ANY(ARRAY(SELECT ingest.key_slot(%(bucket)s, given) FROM unnest(%(keys)s::text[]) AS given))
    FOR UPDATE SKIP LOCKED)

-- name: claim_files
-- The claim is this INSERT; it gives no row when somebody else's claim of the same version stands. A failed version
-- is free again when its retry comes, when it failed without a broker to take it, and on purpose; one with a dead
-- letter only on purpose. So is one that is back after another version of its key was applied, or was passed over,
-- unless changed ones are passed over; one that was missing; and one that stands as seen: a claim is seen only inside
-- its own transaction, so that row tells of a version that nobody has got to apply yet. The epoch is the current one
-- unless it is given, for a file that was claimed in an earlier one. The keys are different ones.
INSERT INTO ingest.ledger AS ledger
    (feed, bucket, prefix, key, etag, version_id, size, epoch, key_time, object_time, event_time,
     first_seen_at, first_seen_by, trace, decision, state)
SELECT feed, bucket, prefix, key, etag, version_id, size, found.epoch, key_time,
       ingest.place_among_versions(bucket, key, etag, object_time, version_id),
       event_time, seen_at, seen_by, trace,
       CASE
           WHEN EXISTS (SELECT FROM ingest.ledger AS other
                        WHERE other.bucket = seen.bucket AND other.key = seen.key
                          AND other.etag <> seen.etag AND other.applied_at IS NOT NULL) THEN 'changed'
           WHEN EXISTS (SELECT FROM tickets.import_meta AS meta
                        WHERE meta.source = feed
                          AND coalesce(meta.metadata->>'source_bucket', bucket) = bucket
                          AND coalesce(meta.metadata->>'source_prefix', prefix) = prefix
                          AND NOT ingest.is_ahead(
                              jsonb_build_object('source_max_key', key, 'source_max_key_time', key_time,
                                                 'epoch', found.epoch),
                              meta.metadata)) THEN 'late'
           ELSE 'new'
       END,
       'seen'
FROM jsonb_to_recordset(%(seen)s)
     AS seen (feed text, bucket text, prefix text, key text, etag text, version_id text, size bigint, epoch integer,
              key_time timestamptz, object_time timestamptz, event_time timestamptz, seen_at timestamptz, seen_by text,
              trace text)
CROSS JOIN LATERAL (SELECT coalesce(seen.epoch, ingest.current_epoch(feed)) AS epoch) AS found
ORDER BY key
ON CONFLICT (bucket, key, etag) DO UPDATE
SET state = 'seen', decision = excluded.decision, reason = NULL, epoch = excluded.epoch, key_time = excluded.key_time,
    object_time = excluded.object_time, version_id = excluded.version_id,
    trace = coalesce(excluded.trace, ledger.trace),
    size = excluded.size, retry_at = NULL, dead_lettered_at = NULL, discarded_at = NULL, done_at = NULL,
    passed_over_time = NULL
-- Whether it is back the store's own time tells, and not where that put it among versions.
WHERE (ledger.state IN ('seen', 'failed') OR ledger.decision = 'missing' OR %(takes_back)s)
  AND ingest.is_open(ledger,
                     (%(object_times)s::timestamptz[])[array_position(%(keys)s::text[], ledger.key)],
                     excluded.version_id)
   OR ledger.state = 'failed'
  AND (%(takes_dead_letters)s
       OR ledger.dead_lettered_at IS NULL AND (%(takes_failed)s OR ledger.retry_at IS NULL OR ledger.retry_at <= now()))
RETURNING key, file_id, epoch, decision, object_time, clock_timestamp() AS now

-- name: count_duplicate
UPDATE ingest.ledger SET duplicates = duplicates + 1
WHERE bucket = %(bucket)s AND key = %(key)s AND etag = %(etag)s
RETURNING file_id, key, sha256, state, reason, retry_at IS NULL AS is_dead_letter, clock_timestamp() AS decided_at,
          ingest.is_back(ledger, %(object_time)s, %(version_id)s) AS is_back

-- name: count_duplicate_of_archived
-- For a key that the bucket has no more: the version of it that was applied, one whose tail is open before others.
UPDATE ingest.ledger SET duplicates = duplicates + 1
WHERE file_id = (SELECT file_id FROM ingest.ledger
                 WHERE bucket = %(bucket)s AND key = ANY(%(keys)s) AND applied_at IS NOT NULL
                 ORDER BY state = 'done', file_id DESC
                 LIMIT 1)
RETURNING file_id, key, etag, object_time, version_id, sha256, state, applied_at AS decided_at

-- name: count_duplicate_of_failed
-- Of a version that has failed and is not to be tried now.
UPDATE ingest.ledger SET duplicates = duplicates + 1
WHERE bucket = %(bucket)s AND key = %(key)s AND etag IN (%(etag)s, '') AND state = 'failed'
  AND (dead_lettered_at IS NOT NULL OR NOT %(takes_failed)s AND retry_at > now())
RETURNING retry_at IS NULL AS is_dead_letter

-- name: has_open_tail
SELECT file_id FROM ingest.ledger
WHERE bucket = %(bucket)s AND key = %(key)s AND etag = %(etag)s AND state = 'applied'

-- name: record_applied
UPDATE ingest.ledger AS file
SET state = 'applied', applied_at = clock_timestamp(), sha256 = done.sha256, last_error = NULL,
    opened_at = done.opened_at, staged_at = done.staged_at,
    error_fingerprint = NULL, held_since = NULL, archive_attempts = 0,
    rows_read = done.read, rows_inserted = inserted, rows_updated = updated, rows_unchanged = unchanged,
    rows_stale = stale, rows_superseded = superseded, rows_rejected = rejected,
    alarms_dropped = alarms, sentinels_dropped = sentinels, dates_never = never,
    lines_read = done.lines_read, lines_blank = done.lines_blank, lines_header = done.lines_header,
    lines_rejected = done.lines_rejected, lines_of_rows = done.lines_of_rows, notes = done.notes
FROM jsonb_to_recordset(%(files)s)
     AS done (file_id bigint, sha256 text, opened_at timestamptz, staged_at timestamptz,
              read bigint, inserted bigint, updated bigint, unchanged bigint, stale bigint, superseded bigint,
              rejected bigint, alarms bigint, sentinels bigint, never bigint,
              lines_read bigint, lines_blank bigint, lines_header bigint, lines_rejected bigint, lines_of_rows bigint,
              notes jsonb)
WHERE file.file_id = done.file_id AND file.file_id = ANY(%(file_ids)s)
RETURNING file.file_id, applied_at

-- name: keep_first_rejects
-- Of a file that is refused for them, with how many there are of each kind.
WITH noted AS (
    UPDATE ingest.ledger SET notes = %(notes)s WHERE file_id = %(file_id)s
)
INSERT INTO ingest.rejects (file_id, line, reason, raw, reason_group, lines, ticket_id)
SELECT %(file_id)s, rejected.*
FROM unnest(%(lines)s::bigint[], %(reasons)s::text[], %(raws)s::text[], %(groups)s::text[], %(counts)s::integer[],
            %(ticket_ids)s::text[]) AS rejected
ON CONFLICT (file_id, line) DO NOTHING

-- name: record_undeclared
-- Columns that files have and their feed does not know; gives those that no file had before. So many are told of, and
-- no more: who writes them may invent one for each file. In one order, so that two that see the same ones cannot
-- deadlock.
INSERT INTO ingest.undeclared_columns (feed, name, file_id)
SELECT %(feed)s, name, file_id
FROM unnest(%(names)s::text[], %(file_ids)s::bigint[]) AS seen (name, file_id)
WHERE NOT EXISTS (SELECT FROM ingest.undeclared_columns AS known
                  WHERE known.feed = %(feed)s AND known.name = seen.name)
  AND %(at_most)s > (SELECT count(*) FROM ingest.undeclared_columns AS known WHERE known.feed = %(feed)s)
ORDER BY name, file_id
ON CONFLICT DO NOTHING
RETURNING name, file_id

-- name: record_passed_over
UPDATE ingest.ledger SET state = 'done', done_at = clock_timestamp(), reason = %(reason)s WHERE file_id = %(file_id)s

-- name: record_back_passed_over
UPDATE ingest.ledger SET passed_over_time = %(object_time)s WHERE file_id = %(file_id)s

-- name: standings
-- Of versions whose tail is open, under their keys' locks: whether one was applied once more since the tail was begun,
-- which has a tail of its own; and whether another version was, so that an object like it in the bucket is another
-- put.
SELECT file_id, state, coalesce(applied_at > decided_at, false) AS is_applied_again,
       EXISTS (SELECT FROM ingest.ledger AS other
               WHERE other.bucket = file.bucket AND other.key = file.key AND other.file_id <> file.file_id
                 AND other.applied_at > decided_at) AS is_overtaken
FROM unnest(%(file_ids)s::bigint[], %(decided)s::timestamptz[]) AS given (file_id, decided_at)
JOIN ingest.ledger AS file USING (file_id)
WHERE file_id = ANY(%(file_ids)s)

-- name: record_archived
-- What left no requests, or whose requests are sent by now, is done as well.
UPDATE ingest.ledger AS file
SET archived_at = clock_timestamp(), archive_key = given.archive_key, reason = coalesce(given.reason, file.reason),
    last_error = NULL, retry_at = NULL,
    state = CASE WHEN given.is_open THEN 'archived' ELSE 'done' END,
    done_at = CASE WHEN NOT given.is_open THEN clock_timestamp() END
FROM (SELECT *, EXISTS (SELECT FROM ingest.outbox AS request
                        WHERE request.file_id = archived.file_id
                          AND request.sent_at IS NULL AND request.handled_at IS NULL) AS is_open
      FROM unnest(%(file_ids)s::bigint[], %(archive_keys)s::text[], %(reasons)s::text[])
           AS archived (file_id, archive_key, reason)) AS given
WHERE file.file_id = given.file_id AND file.file_id = ANY(%(file_ids)s) AND state = 'applied'
RETURNING file.file_id, state

-- name: record_not_archived
-- The sweep tries again after half a minute, then after twice as long each time, and at the least once an hour.
UPDATE ingest.ledger
SET last_error = %(error)s, archive_attempts = archive_attempts + 1,
    retry_at = clock_timestamp() + least(30 * 2 ^ least(archive_attempts, 10), 3600) * interval '1 second'
WHERE file_id = %(file_id)s AND state = 'applied'

-- name: record_done
-- Of each whose own requests are sent.
UPDATE ingest.ledger AS file SET state = 'done', done_at = clock_timestamp()
WHERE file_id = ANY(%(file_ids)s) AND state = 'archived'
  AND NOT EXISTS (SELECT FROM ingest.outbox AS request
                  WHERE request.file_id = file.file_id AND request.sent_at IS NULL AND request.handled_at IS NULL)

-- name: record_failed
-- Attempts count here, not in headers: a wait queue resets the broker's own count. They restart when bytes that were
-- applied once return under their key. The time is that of the object that failed now: what is back is younger than
-- what was applied in between. What was applied and is not back stays so, whatever the store answers to a repetition.
INSERT INTO ingest.ledger AS ledger
    (feed, bucket, prefix, key, etag, size, epoch, key_time, object_time, event_time,
     first_seen_at, first_seen_by, trace, decision, state, attempts, last_error, error_fingerprint, reason)
VALUES (%(feed)s, %(bucket)s, %(prefix)s, %(key)s, %(etag)s, %(size)s,
        ingest.current_epoch(%(feed)s), %(key_time)s, %(object_time)s, %(event_time)s,
        %(seen_at)s, %(seen_by)s, %(trace)s, 'rejected', 'failed', 1, %(error)s, %(fingerprint)s, %(reason)s)
ON CONFLICT (bucket, key, etag) DO UPDATE
SET state = 'failed', decision = 'rejected', last_error = excluded.last_error,
    trace = coalesce(excluded.trace, ledger.trace),
    attempts = CASE WHEN ledger.state IN ('seen', 'failed') THEN ledger.attempts + 1 ELSE 1 END, held_since = NULL,
    object_time = excluded.object_time, error_fingerprint = excluded.error_fingerprint, reason = excluded.reason,
    retry_at = NULL, dead_lettered_at = CASE WHEN %(has_letter)s THEN ledger.dead_lettered_at END,
    discarded_at = CASE WHEN %(has_letter)s THEN ledger.discarded_at END
WHERE ledger.state IN ('seen', 'failed')
   OR (ledger.decision = 'missing' OR %(was_read)s) AND ingest.is_open(ledger, %(object_time)s, %(version_id)s)
RETURNING file_id, attempts

-- name: record_seen
-- At first sight and committed by itself, before the work: somebody may look for it meanwhile. Its COMMIT waits for no
-- disk: what a crash of the server forgets is delivered again. In the order of their keys: two that see the same ones
-- do not wait for each other.
INSERT INTO ingest.ledger
    (feed, bucket, prefix, key, etag, version_id, size, epoch, key_time, object_time, event_time,
     first_seen_at, first_seen_by, trace, decision, state)
SELECT feed, bucket, prefix, key, etag, version_id, size, ingest.current_epoch(feed), key_time, object_time,
       event_time, seen_at, seen_by, trace, 'undecided', 'seen'
FROM set_config('synchronous_commit', 'off', true),
     jsonb_to_recordset(%(seen)s)
     AS seen (feed text, bucket text, prefix text, key text, etag text, version_id text, size bigint,
              key_time timestamptz, object_time timestamptz, event_time timestamptz, seen_at timestamptz, seen_by text,
              trace text)
ORDER BY key
ON CONFLICT (bucket, key, etag) DO NOTHING

-- name: record_held
-- A dependency fails this version, as it has for some seconds. It is the version's own fault, and an attempt, once
-- another one was applied by way of a delivery since, and lately: during this try, or shortly before. Until then
-- everybody may meet the same, in an outage after the one that this version met first as well. Nothing is held here
-- that the ledger has a verdict on.
INSERT INTO ingest.ledger AS ledger
    (feed, bucket, prefix, key, etag, version_id, size, epoch, key_time, object_time, event_time,
     first_seen_at, first_seen_by, trace, decision, state, last_error, held_since)
VALUES (%(feed)s, %(bucket)s, %(prefix)s, %(key)s, %(etag)s, %(version_id)s, %(size)s,
        ingest.current_epoch(%(feed)s), %(key_time)s, %(object_time)s, %(event_time)s,
        %(seen_at)s, %(seen_by)s, %(trace)s, 'undecided', 'seen', %(error)s, clock_timestamp())
ON CONFLICT (bucket, key, etag) DO UPDATE
SET last_error = excluded.last_error, held_since = coalesce(ledger.held_since, excluded.held_since)
WHERE ledger.state IN ('seen', 'failed')
   OR (ledger.decision = 'missing' OR %(takes_back)s) AND ingest.is_open(ledger, %(object_time)s, %(version_id)s)
RETURNING extract(epoch FROM clock_timestamp() - held_since)::float8 AS held_seconds,
          held_since < clock_timestamp() - make_interval(secs => %(patience)s)
          AND EXISTS (SELECT FROM ingest.ledger AS other
                      WHERE other.applied_at > greatest(ledger.held_since, clock_timestamp()
                                                        - make_interval(secs => %(patience)s + %(tried_seconds)s))
                        AND other.bucket = ledger.bucket
                        AND other.prefix = ledger.prefix
                        AND other.first_seen_by IN ('notification', 'poller')) AS is_own

-- name: record_retry
UPDATE ingest.ledger SET retry_at = now() + make_interval(secs => %(delay)s)
WHERE file_id = %(file_id)s AND state = 'failed'

-- name: record_dead_lettered
UPDATE ingest.ledger SET dead_lettered_at = clock_timestamp()
WHERE file_id = %(file_id)s AND state = 'failed'

-- name: record_unread
-- A key that was seen and will not be read: missing in the bucket, or outside the grammar.
INSERT INTO ingest.ledger AS ledger
    (feed, bucket, prefix, key, etag, size, epoch, event_time,
     first_seen_at, first_seen_by, trace, decision, reason, state, done_at)
VALUES (%(feed)s, %(bucket)s, %(prefix)s, %(key)s, %(etag)s, %(size)s, ingest.current_epoch(%(feed)s),
        %(event_time)s, %(seen_at)s, %(seen_by)s, %(trace)s, %(decision)s, %(reason)s, 'done', clock_timestamp())
ON CONFLICT (bucket, key, etag) DO UPDATE SET duplicates = ledger.duplicates + 1

-- name: take_up
UPDATE ingest.ledger SET state = 'seen', decision = 'undecided', reason = NULL, done_at = NULL
WHERE bucket = %(bucket)s AND key = ANY(%(keys)s) AND decision = 'ignored' AND state = 'done' AND reason = %(reason)s

-- name: record_gone
-- What of the keys was seen and not decided, and is not in the bucket any more, or never was; the version that is there
-- now has the ETag that was found.
UPDATE ingest.ledger AS file
SET state = 'done', held_since = NULL,
    decision = CASE state WHEN 'seen' THEN 'missing' ELSE decision END,
    reason = CASE state WHEN 'seen' THEN %(reason)s ELSE reason END, done_at = coalesce(done_at, clock_timestamp())
WHERE file_id = ANY(ARRAY(
          SELECT gone.file_id
          FROM unnest(%(keys)s::text[], %(found)s::text[]) AS now_there (key, etag)
          CROSS JOIN LATERAL (SELECT file_id FROM ingest.ledger AS known
                              WHERE known.bucket = %(bucket)s AND known.key = now_there.key
                                AND known.etag IS DISTINCT FROM now_there.etag
                              OFFSET 0) AS gone))
  AND (state = 'seen' OR state = 'done' AND held_since IS NOT NULL)

-- name: count_ignored_events
-- In the order of their reasons: two bodies with the same ones do not wait for each other.
INSERT INTO ingest.ignored_events AS ignored (day, reason, events)
SELECT (now() AT TIME ZONE 'Africa/Nairobi')::date, counted.reason, counted.events
FROM unnest(%(reasons)s::text[], %(events)s::bigint[]) AS counted (reason, events)
ORDER BY counted.reason
ON CONFLICT (day, reason) DO UPDATE SET events = ignored.events + excluded.events

-- name: begin_epoch
INSERT INTO ingest.epochs (feed, epoch, reason)
SELECT feed, max(epoch) + 1, %(reason)s FROM ingest.epochs WHERE feed = %(feed)s GROUP BY feed
RETURNING epoch

-- name: current_epoch
SELECT epoch, reason, began_at FROM ingest.epochs WHERE feed = %(feed)s ORDER BY epoch DESC LIMIT 1

-- name: is_one_of_a_run
-- Whether so many others of the feed failed for this reason since its last file was applied; their `delay` is that of
-- their next try.
SELECT count(*) >= %(run)s AS is_one
FROM (SELECT FROM ingest.ledger
      WHERE state = 'failed' AND feed = %(feed)s AND reason = %(reason)s
        AND coalesce(retry_at - make_interval(secs => %(delay)s), dead_lettered_at)
            > coalesce((SELECT max(applied_at) FROM ingest.ledger WHERE feed = %(feed)s), '-infinity')
      LIMIT %(run)s) AS others

-- name: failures_in_a_row
-- Tries that failed since the last file was applied. When each was, the waits between them tell, of which the last one
-- ends at `retry_at`: a file that failed before others were applied may still wait for its retry long after that.
SELECT count(*) AS failures
FROM ingest.ledger AS file
CROSS JOIN LATERAL generate_series(1, file.attempts) AS tried
WHERE state = 'failed' AND reason = %(reason)s
  AND retry_at - make_interval(secs => (SELECT sum(delay) FROM unnest(%(delays)s::float8[]) WITH ORDINALITY
                                        AS wait (delay, place) WHERE place BETWEEN tried AND file.attempts))
      > coalesce((SELECT max(applied_at) FROM ingest.ledger), '-infinity')

-- name: open_tails
-- Applied a while ago and still not archived: their process died, and nobody was told again; or the store did not let
-- them be archived, and it is time for another try.
SELECT file_id, key, etag, object_time, version_id, sha256, state, applied_at AS decided_at
FROM ingest.ledger
WHERE state = 'applied' AND bucket = %(bucket)s AND prefix = ANY(%(prefixes)s)
  AND applied_at < now() - make_interval(secs => %(age)s)
  AND (%(due_or_not)s OR retry_at IS NULL OR retry_at <= now())
  AND file_id > %(after)s
ORDER BY file_id
LIMIT 1000

-- name: finish_relayed
UPDATE ingest.ledger AS file SET state = 'done', done_at = clock_timestamp()
WHERE state = 'archived'
  AND NOT EXISTS (SELECT FROM ingest.outbox AS request
                  WHERE request.file_id = file.file_id AND request.sent_at IS NULL AND request.handled_at IS NULL)
