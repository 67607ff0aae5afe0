-- name: tell
-- What the staged rows are about, before any of them is merged. Gives no row while the feed has no history.
WITH files AS (
    SELECT place, file.file_id, file.key_time, ingest.position_of(file, 0) AS head
    FROM unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place)
    JOIN ingest.ledger AS file USING (file_id)
    WHERE EXISTS (SELECT FROM ingest.histories WHERE feed = %(feed)s)
), told AS (
    INSERT INTO ingest.tellings AS known (feed, file_id, head, told_at, is_whole)
    SELECT %(feed)s, file_id, head, CASE WHEN %(is_live)s THEN now() END, true FROM files
    ON CONFLICT (feed, head) DO UPDATE SET is_whole = true
    RETURNING telling_id, head
), parts AS (
    -- A file of any size is told in parts that fit into memory.
    INSERT INTO ingest.told_rows (telling_id, part, feed, key_time, ticket_ids, lines, digests)
    SELECT telling_id, line / 16384, %(feed)s, key_time, array_agg(ticket_id), array_agg(line),
           array_agg(jsonb_hash(raw))
    FROM staging JOIN files USING (place) JOIN told USING (head)
    WHERE reject_reason IS NULL
    GROUP BY telling_id, key_time, line / 16384
    ON CONFLICT (telling_id, part) DO NOTHING
)
SELECT place, telling_id FROM files JOIN told USING (head) ORDER BY place

-- name: begin_history
-- Of what was applied before, the last row of each ticket is known; rebuild-history reads the others. One that is begun
-- already gives no row.
INSERT INTO ingest.histories (feed, since)
SELECT %(feed)s, greatest((SELECT max(key_time) FROM ingest.ledger WHERE feed = %(feed)s AND applied_at IS NOT NULL),
                          (SELECT adopted_key_time FROM ingest.epochs WHERE feed = %(feed)s AND epoch = 1),
                          '-infinity')
ON CONFLICT (feed) DO NOTHING
RETURNING feed

-- name: forget_versions
-- From before nothing was kept for a while, so nothing of it can be gone on from.
DELETE FROM tickets.versions WHERE feed = %(feed)s

-- name: forget_told_rows
DELETE FROM ingest.told_rows WHERE feed = %(feed)s

-- name: forget_tellings
DELETE FROM ingest.tellings WHERE feed = %(feed)s

-- name: tell_positions
WITH written AS (
    SELECT ticket_id, file_id, (position).line,
           ROW((position).epoch, (position).key_time, (position).key, (position).object_time, (position).etag,
               0)::ingest.position AS head
    FROM {positions}
), told AS (
    INSERT INTO ingest.tellings (feed, file_id, head, is_whole)
    SELECT %(feed)s, max(file_id), head, false FROM written GROUP BY head
    RETURNING telling_id, head
), placed AS MATERIALIZED (
    SELECT telling_id, ticket_id, line, head,
           (row_number() OVER (PARTITION BY telling_id ORDER BY line) - 1) / 16384 AS nth
    FROM written JOIN told USING (head)
), parts AS (
    -- Numbered below those of the whole file, should it be read again.
    INSERT INTO ingest.told_rows (telling_id, part, feed, key_time, ticket_ids, lines, digests)
    SELECT telling_id, -1 - nth, %(feed)s, (head).key_time, array_agg(ticket_id), array_agg(coalesce(line, 0)),
           array_agg(jsonb_hash(ticket.raw))
    FROM placed JOIN {tickets} AS ticket USING (ticket_id)
    GROUP BY telling_id, head, nth
)
INSERT INTO tickets.versions (feed, ticket_id, until_telling, until_line, until)
SELECT %(feed)s, ticket_id, telling_id, coalesce(line, 0), coalesce((head).key_time, '-infinity')
FROM placed
ORDER BY ticket_id

-- name: end_history
DELETE FROM ingest.histories WHERE feed = %(feed)s

-- name: join_at_once
-- How many rows are in the arrays the planner cannot know; to look each up among the others would take their square.
SELECT set_config('enable_nestloop', 'off', true)

-- name: join_as_always
SELECT set_config('enable_nestloop', 'on', true)

-- name: put_late
-- What of the staged rows is not its ticket's newest, the newest first. The next row that tells of the same ticket,
-- whatever that said, is looked for among all that were told since the earliest of these. Whatever is told of many
-- tickets is read once for all of them. Nothing is put where a ticket that was never another says the same.
WITH late AS MATERIALIZED (
    SELECT staging.ticket_id, telling_id, staging.line, staging.ctid AS at
    FROM staging
    JOIN unnest(%(tellings)s::bigint[]) WITH ORDINALITY AS given (telling_id, place) USING (place)
    LEFT JOIN moved USING (place, line)
    WHERE reject_reason IS NULL AND moved.line IS NULL
), known AS MATERIALIZED (
    SELECT ticket_id, is_there,
           CASE WHEN is_there THEN ingest.first_written_at(%(feed)s, ticket_id) ELSE ingested_at END AS written_at
    FROM (SELECT DISTINCT ticket_id FROM late) AS late
    CROSS JOIN LATERAL (SELECT ingested_at FROM {tickets} AS row WHERE row.ticket_id = late.ticket_id OFFSET 0)
        AS ticket
    LEFT JOIN LATERAL (SELECT true AS is_there FROM tickets.versions AS version
                       WHERE version.ticket_id = late.ticket_id AND feed = %(feed)s LIMIT 1) AS version ON true
), begun AS MATERIALIZED (
    SELECT DISTINCT ON (ticket_id) ticket_id, telling_id, row.line, head
    FROM (SELECT * FROM ingest.told_rows
          WHERE telling_id = ANY (ARRAY(
              SELECT telling_id FROM ingest.tellings
              WHERE feed = %(feed)s AND told_at = ANY (ARRAY(SELECT DISTINCT written_at FROM known))))) AS part
    CROSS JOIN LATERAL unnest(ticket_ids, lines) AS row (ticket_id, line)
    JOIN known USING (ticket_id)
    JOIN (SELECT telling_id, told_at, head FROM ingest.tellings
          WHERE feed = %(feed)s AND told_at = ANY (ARRAY(SELECT DISTINCT written_at FROM known))) AS writing
        USING (telling_id)
    WHERE known.written_at = told_at
    ORDER BY ticket_id, head DESC, row.line DESC
), since AS MATERIALIZED (
    SELECT telling_id, head FROM ingest.tellings
    WHERE feed = %(feed)s
      AND head >= (SELECT head FROM ingest.tellings WHERE telling_id = ANY (ARRAY(SELECT telling_id FROM late))
                   ORDER BY head LIMIT 1)
), told AS (
    SELECT DISTINCT row.ticket_id, head, telling_id, row.line
    FROM (SELECT * FROM ingest.told_rows WHERE telling_id = ANY (ARRAY(SELECT telling_id FROM since))) AS part
    CROSS JOIN LATERAL unnest(ticket_ids, lines) AS row (ticket_id, line)
    JOIN since USING (telling_id)
    WHERE row.ticket_id IN (SELECT ticket_id FROM late)
), in_order AS MATERIALIZED (
    SELECT ticket_id, head, telling_id, line, lead(telling_id) OVER following AS next_telling,
           lead(line) OVER following AS next_line
    FROM told
    WINDOW following AS (PARTITION BY ticket_id ORDER BY head, line)
), ordered AS MATERIALIZED (
    SELECT late.ticket_id, late.telling_id, late.line, at, next_telling, next_line, in_order.head, known.is_there,
           begun.telling_id AS begun_telling, begun.line AS begun_line, begun.head AS begun_head
    FROM late
    JOIN in_order USING (ticket_id, telling_id, line)
    JOIN known USING (ticket_id)
    LEFT JOIN begun USING (ticket_id)
    ORDER BY late.ticket_id, in_order.head DESC, late.line DESC
)
SELECT count(*) FILTER (WHERE ingest.put_in_its_place(%(feed)s, ticket_id, telling_id, line, said.raw, next_telling,
                                                      next_line, begun_telling, begun_line, ticket.raw)) AS changed
FROM ordered
CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = ordered.at OFFSET 0) AS said
CROSS JOIN LATERAL (SELECT raw FROM {tickets} AS row WHERE row.ticket_id = ordered.ticket_id OFFSET 0) AS ticket
WHERE is_there OR said.raw <> ticket.raw OR begun_telling IS NULL OR (head, line) < (begun_head, begun_line)

-- name: lock_positions
-- Of the staged tickets, in the order in which merges take them: whoever has a ticket's position may write of it.
SELECT count(*) AS locked
FROM (SELECT FROM {positions} AS known
      WHERE ticket_id IN (SELECT ticket_id FROM staging WHERE reject_reason IS NULL)
      ORDER BY ticket_id
      FOR UPDATE) AS taken

-- name: prune
-- So many of those that ended before the bound. The last of them in a ticket stays without its content, as where what
-- is known begins.
WITH old AS MATERIALIZED (
    SELECT ticket_id, until_telling, until_line
    FROM tickets.versions
    WHERE feed = %(feed)s AND raw IS NOT NULL AND until < %(bound)s
    ORDER BY until
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), last_ones AS MATERIALIZED (
    SELECT DISTINCT ON (ticket_id) ticket_id, until_telling, until_line
    FROM old JOIN ingest.tellings ON telling_id = until_telling
    ORDER BY ticket_id, head DESC, until_line DESC
), emptied AS (
    UPDATE tickets.versions AS version SET raw = NULL, written_at = NULL
    FROM last_ones
    WHERE version.feed = %(feed)s
      AND (version.ticket_id, version.until_telling, version.until_line)
          = (last_ones.ticket_id, last_ones.until_telling, last_ones.until_line)
), dropped AS (
    DELETE FROM tickets.versions AS version USING last_ones AS kept
    WHERE version.feed = %(feed)s AND version.ticket_id = kept.ticket_id
      AND (version.until_telling, version.until_line) <> (kept.until_telling, kept.until_line)
      AND (version.raw IS NULL
           OR EXISTS (SELECT FROM old WHERE old.ticket_id = version.ticket_id
                        AND (old.until_telling, old.until_line) = (version.until_telling, version.until_line)))
), untold AS (
    DELETE FROM ingest.told_rows
    WHERE (telling_id, part) IN (SELECT telling_id, part FROM ingest.told_rows
                                 WHERE feed = %(feed)s AND key_time < %(bound)s
                                 LIMIT %(limit)s)
    RETURNING telling_id
), marked AS (
    UPDATE ingest.tellings SET is_whole = false WHERE telling_id IN (SELECT telling_id FROM untold)
)
UPDATE ingest.histories SET since = %(bound)s
WHERE feed = %(feed)s AND since < %(bound)s AND (EXISTS (SELECT FROM old) OR EXISTS (SELECT FROM untold))

-- name: count_untold
SELECT count(*) AS files
FROM ingest.ledger AS file
WHERE feed = %(feed)s AND bucket = %(bucket)s AND applied_at IS NOT NULL AND archive_key IS NOT NULL
  AND key_time >= %(bound)s
  AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                  WHERE told.file_id = file.file_id AND told.is_whole AND told.head = ingest.position_of(file, 0))

-- name: untold
-- Archived files that were applied and not told of, the newest first, behind the one before.
SELECT file_id, key, key_time, archive_key
FROM ingest.ledger AS file
WHERE feed = %(feed)s AND bucket = %(bucket)s AND applied_at IS NOT NULL AND archive_key IS NOT NULL
  AND key_time >= %(bound)s AND (key_time, file_id) < (%(before_time)s, %(before_id)s)
  AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                  WHERE told.file_id = file.file_id AND told.is_whole AND told.head = ingest.position_of(file, 0))
ORDER BY key_time DESC, file_id DESC
LIMIT 1000

-- name: untold_one
-- The digest of a file that is still one of them, now that nobody else has its key.
SELECT sha256
FROM ingest.ledger AS file
WHERE file_id = %(file_id)s AND applied_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                  WHERE told.file_id = file.file_id AND told.is_whole AND told.head = ingest.position_of(file, 0))

-- name: settle_since
-- Nothing is missing behind the newest file that was applied and not told of, and none is looked for before the bound.
UPDATE ingest.histories AS history
SET since = least(since, greatest('-infinity', missing.newest, missing.bound, adopted_key_time))
FROM (SELECT max(key_time) FILTER (WHERE key_time >= %(bound)s) AS newest,
             CASE WHEN count(*) FILTER (WHERE key_time < %(bound)s) > 0 THEN %(bound)s::timestamptz END AS bound
      FROM ingest.ledger AS file
      WHERE feed = %(feed)s AND applied_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                        WHERE told.file_id = file.file_id AND told.is_whole
                          AND told.head = ingest.position_of(file, 0))) AS missing
JOIN ingest.epochs AS first_epoch ON first_epoch.feed = %(feed)s AND first_epoch.epoch = 1
WHERE history.feed = %(feed)s
RETURNING nullif(since, '-infinity') AS since
