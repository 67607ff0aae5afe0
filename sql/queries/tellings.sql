-- name: tell
-- What the staged rows are about, before any of them is merged. Gives no row while the feed has no history, which ends
-- with a transaction that has applied a file of the feed and not done this.
WITH files AS (
    SELECT place, file.file_id, file.key_time, ingest.position_of(file, 0) AS head
    FROM unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place)
    JOIN ingest.ledger AS file USING (file_id)
    WHERE file_id = ANY(%(file_ids)s) AND EXISTS (SELECT FROM ingest.histories WHERE feed = %(feed)s)
), told AS (
    INSERT INTO ingest.tellings AS known (feed, file_id, head, told_at, is_whole)
    SELECT %(feed)s, file_id, head, CASE WHEN %(is_live)s THEN now() END, true FROM files
    ON CONFLICT (feed, head) DO UPDATE SET is_whole = true
    RETURNING telling_id, head
), given AS (
    -- By themselves, since a head is long to compare, and so not of each row.
    SELECT place, telling_id, key_time FROM files JOIN told USING (head)
), parts AS (
    -- A file of any size is told in parts that fit into memory.
    INSERT INTO ingest.told_rows (telling_id, part, feed, key_time, ticket_ids, lines, digests)
    -- What is gathered is no more than that: rows with all that they say would not.
    SELECT telling_id, line / 16384, %(feed)s, key_time, array_agg(ticket_id), array_agg(line), array_agg(digest)
    FROM (SELECT place, line, ticket_id, jsonb_hash(raw) AS digest FROM staging WHERE reject_reason IS NULL OFFSET 0)
        AS row
    JOIN given USING (place)
    GROUP BY telling_id, key_time, line / 16384
    ON CONFLICT (telling_id, part) DO NOTHING
)
SELECT place, telling_id, set_config('fleettickets.told', %(feed)s, true) AS kept FROM given ORDER BY place

-- name: begin_history
-- One that is begun already gives no row; one that somebody is beginning is waited for.
INSERT INTO ingest.histories (feed, since) VALUES (%(feed)s, 'infinity') ON CONFLICT (feed) DO NOTHING RETURNING feed

-- name: let_others_pass
-- Who has applied a file and not committed it has to pass the row of its feed, and meets the history that is begun.
SELECT FROM tickets.import_meta WHERE source = %(feed)s FOR UPDATE

-- name: begin_since
-- Of what was applied before, the last row of each ticket is known; rebuild-history reads the others.
UPDATE ingest.histories
SET since = greatest((SELECT max(key_time) FROM ingest.ledger WHERE feed = %(feed)s AND applied_at IS NOT NULL),
                     (SELECT adopted_key_time FROM ingest.epochs WHERE feed = %(feed)s AND epoch = 1),
                     '-infinity')
WHERE feed = %(feed)s

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
-- Staged rows that are not in `moved`, nor before a row that is, take their places among what is known of their
-- tickets, of which the caller has the positions locked. Where one interrupts a content, that is back with the next
-- row that tells of the ticket, which is looked for among all that were told since the earliest of these. What is
-- there afterwards depends on which rows were put, and not on when. Nothing is put where a ticket that was never
-- another says the same.
WITH late AS MATERIALIZED (
    SELECT staging.ticket_id, telling_id, head, staging.line, staging.ctid AS at
    FROM staging
    JOIN (SELECT place, telling_id, head
          FROM unnest(%(tellings)s::bigint[]) WITH ORDINALITY AS given (telling_id, place)
          CROSS JOIN LATERAL (SELECT head FROM ingest.tellings AS known WHERE known.telling_id = given.telling_id
                              OFFSET 0) AS telling) AS given USING (place)
    LEFT JOIN (SELECT since, place, ticket_id FROM moved JOIN staging USING (place, line)) AS in_order
        ON in_order.ticket_id = staging.ticket_id AND staging.place BETWEEN since AND in_order.place
    WHERE reject_reason IS NULL AND in_order.place IS NULL
), asked AS MATERIALIZED (
    SELECT ticket_id, ticket.raw, ingested_at
    FROM (SELECT DISTINCT ticket_id FROM late) AS late
    CROSS JOIN LATERAL (SELECT raw, ingested_at FROM {tickets} AS row WHERE row.ticket_id = late.ticket_id OFFSET 0)
        AS ticket
), boundaries AS MATERIALIZED (
    -- Each with the content before it and behind it.
    SELECT asked.ticket_id, version.*, head, row_number() OVER in_order AS nth,
           lead(before, 1, asked.raw) OVER in_order AS raw
    FROM asked
    CROSS JOIN LATERAL (
        SELECT until_telling AS telling_id, until_line AS line, raw AS before, written_at, ctid AS at
        FROM tickets.versions WHERE versions.ticket_id = asked.ticket_id AND feed = %(feed)s OFFSET 0
        FOR UPDATE -- of who forgets some
    ) AS version
    CROSS JOIN LATERAL (SELECT head FROM ingest.tellings WHERE tellings.telling_id = version.telling_id OFFSET 0)
        AS telling
    WINDOW in_order AS (PARTITION BY asked.ticket_id ORDER BY head, version.line)
), known AS MATERIALIZED (
    SELECT asked.ticket_id, asked.raw AS now_has, nth IS NOT NULL AS is_there, before AS first_content,
           CASE WHEN nth IS NULL THEN ingested_at ELSE written_at END AS written_at
    FROM asked LEFT JOIN boundaries AS first ON first.ticket_id = asked.ticket_id AND nth = 1
), writing AS MATERIALIZED (
    SELECT telling_id, told_at, head
    FROM (SELECT DISTINCT written_at FROM known) AS moment
    CROSS JOIN LATERAL (
        SELECT telling_id, told_at, head FROM ingest.tellings WHERE feed = %(feed)s AND told_at = written_at OFFSET 0
    ) AS telling
), begun AS MATERIALIZED (
    SELECT DISTINCT ON (ticket_id) ticket_id, telling_id, row.line, head
    FROM (SELECT * FROM ingest.told_rows WHERE telling_id = ANY (ARRAY(SELECT telling_id FROM writing))) AS part
    CROSS JOIN LATERAL unnest(ticket_ids, lines) AS row (ticket_id, line)
    JOIN known USING (ticket_id)
    JOIN writing USING (telling_id)
    WHERE known.written_at = told_at
    ORDER BY ticket_id, head DESC, row.line DESC
), asking AS MATERIALIZED (
    SELECT late.ticket_id, late.telling_id, late.line, late.head, given.raw
    FROM late
    JOIN known USING (ticket_id)
    LEFT JOIN begun USING (ticket_id)
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = late.at OFFSET 0) AS given
    WHERE (is_there OR given.raw <> now_has OR begun.head IS NULL OR (late.head, late.line) < (begun.head, begun.line))
      -- What others told around it may be forgotten; and what is known of its very place stands.
      AND (late.head).key_time >= (SELECT pruned FROM ingest.histories WHERE feed = %(feed)s)
      AND (late.telling_id, late.line) IS DISTINCT FROM (begun.telling_id, begun.line)
      AND NOT EXISTS (SELECT FROM boundaries AS boundary
                      WHERE boundary.ticket_id = late.ticket_id
                        AND (boundary.telling_id, boundary.line) = (late.telling_id, late.line))
), told AS (
    SELECT DISTINCT told.*
    FROM (SELECT (SELECT head FROM asking ORDER BY head LIMIT 1) AS first, array_agg(ticket_id) AS tickets,
                 array_agg(last) AS last, array_agg(ROW((position).epoch, (position).key_time, (position).key,
                                                        (position).object_time, (position).etag, 0)::ingest.position)
                     AS ends
          FROM (SELECT DISTINCT ON (ticket_id) ticket_id, head AS last FROM asking ORDER BY ticket_id, head DESC)
              AS ticket
          LEFT JOIN {positions} USING (ticket_id)) AS wanted
    CROSS JOIN LATERAL ingest.told_from(%(feed)s, first, tickets, last, ends) AS told
), in_order AS MATERIALIZED (
    SELECT ticket_id, telling_id, line, lead(telling_id) OVER following AS next_telling,
           lead(head) OVER following AS next_head, lead(line) OVER following AS next_line
    FROM told
    WINDOW following AS (PARTITION BY ticket_id ORDER BY head, line)
), said AS MATERIALIZED (
    -- As the last row of all, the ticket itself says it.
    SELECT asking.*, next_telling, next_head, next_line
    FROM asking
    JOIN in_order USING (ticket_id, telling_id, line)
    WHERE next_telling IS NOT NULL
       OR EXISTS (SELECT FROM boundaries AS boundary
                  WHERE boundary.ticket_id = asking.ticket_id
                    AND (boundary.head, boundary.line) > (asking.head, asking.line))
), points AS (
    -- Where a content is known to begin: the first one with a row without `before`, or where it was written. That of
    -- which nothing tells where has no place, and was before all others.
    SELECT ticket_id, head, line, telling_id, 'known' AS kind, raw
    FROM boundaries WHERE ticket_id IN (SELECT ticket_id FROM said)
    UNION ALL
    SELECT ticket_id, begun.head, begun.line, begun.telling_id, 'known', coalesce(first_content, now_has)
    FROM known LEFT JOIN begun USING (ticket_id)
    WHERE (first_content IS NOT NULL OR NOT is_there) AND ticket_id IN (SELECT ticket_id FROM said)
    UNION ALL
    SELECT ticket_id, head, line, telling_id, 'said', raw FROM said
    UNION ALL
    SELECT ticket_id, next_head, next_line, next_telling, 'the next', NULL
    FROM said
    WHERE next_telling IS NOT NULL
      AND NOT EXISTS (SELECT FROM said AS other
                      WHERE other.ticket_id = said.ticket_id
                        AND (other.telling_id, other.line) = (said.next_telling, said.next_line))
), contents AS MATERIALIZED (
    -- Each with the content that was known for its place, which is none before all of them.
    SELECT counted.*,
           CASE WHEN nth > 0 THEN first_value(raw) OVER (
               PARTITION BY ticket_id, nth ORDER BY head NULLS FIRST, line, kind) END AS had
    FROM (
        SELECT points.*, count(*) FILTER (WHERE kind = 'known') OVER (
                   PARTITION BY ticket_id ORDER BY head NULLS FIRST, line, kind ROWS UNBOUNDED PRECEDING) AS nth
        FROM points
    ) AS counted
), changed AS MATERIALIZED (
    SELECT ticket_id, count(*) AS rows
    FROM contents
    WHERE kind = 'said' AND raw IS DISTINCT FROM had
    GROUP BY ticket_id
), folded AS MATERIALIZED (
    SELECT ticket_id, head, line, telling_id, raw, lag(raw) OVER in_order AS before, row_number() OVER in_order AS nth
    FROM (SELECT ticket_id, head, line, telling_id, kind, CASE kind WHEN 'the next' THEN had ELSE raw END AS raw
          FROM contents JOIN changed USING (ticket_id)) AS content
    WINDOW in_order AS (PARTITION BY ticket_id ORDER BY head NULLS FIRST, line, kind)
), compared AS MATERIALIZED (
    -- The boundaries as they are now, and as they were.
    SELECT ticket_id, telling_id, line, now.head, now.before, now.telling_id IS NOT NULL AS stays, was.at,
           now.written_at
    FROM (SELECT ticket_id, telling_id, line, head, before, CASE WHEN nth = 2 THEN written_at END AS written_at
          FROM folded JOIN known USING (ticket_id)
          WHERE telling_id IS NOT NULL AND (nth = 1 OR raw IS DISTINCT FROM before)) AS now
    FULL JOIN (SELECT ticket_id, telling_id, line, at, before
               FROM boundaries JOIN changed USING (ticket_id)) AS was USING (ticket_id, telling_id, line)
    WHERE now.telling_id IS NULL OR was.at IS NULL OR now.before IS DISTINCT FROM was.before
), dropped AS (
    DELETE FROM tickets.versions WHERE ctid = ANY (ARRAY(SELECT at FROM compared WHERE at IS NOT NULL))
), put AS (
    INSERT INTO tickets.versions (feed, ticket_id, until_telling, until_line, until, raw, written_at)
    SELECT %(feed)s, ticket_id, telling_id, line, coalesce((head).key_time, '-infinity'), before, written_at
    FROM compared
    WHERE stays
)
SELECT coalesce(sum(rows), 0) AS changed FROM changed

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
    SELECT ctid AS at, ticket_id, until_telling, until_line
    FROM tickets.versions
    WHERE feed = %(feed)s AND raw IS NOT NULL AND until < %(bound)s
    ORDER BY until
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), last_ones AS MATERIALIZED (
    SELECT DISTINCT ON (ticket_id) at, ticket_id, until_line, head
    FROM old
    CROSS JOIN LATERAL (SELECT head FROM ingest.tellings WHERE telling_id = until_telling OFFSET 0) AS telling
    ORDER BY ticket_id, head DESC, until_line DESC
), emptied AS (
    UPDATE tickets.versions SET raw = NULL, written_at = NULL WHERE ctid = ANY (ARRAY(SELECT at FROM last_ones))
), begun_before AS MATERIALIZED (
    -- Where what was known until now began.
    SELECT version.at
    FROM last_ones AS kept
    CROSS JOIN LATERAL (
        SELECT ctid AS at, until_telling, until_line FROM tickets.versions
        WHERE versions.ticket_id = kept.ticket_id AND feed = %(feed)s AND raw IS NULL OFFSET 0
    ) AS version
    CROSS JOIN LATERAL (SELECT head FROM ingest.tellings WHERE telling_id = until_telling OFFSET 0) AS telling
    WHERE (telling.head, version.until_line) < (kept.head, kept.until_line)
), dropped AS (
    DELETE FROM tickets.versions
    WHERE ctid = ANY (ARRAY(SELECT at FROM begun_before
                            UNION ALL (SELECT at FROM old EXCEPT SELECT at FROM last_ones)))
), untold AS (
    DELETE FROM ingest.told_rows
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM ingest.told_rows
                            WHERE feed = %(feed)s AND key_time < %(bound)s
                            LIMIT %(limit)s))
    RETURNING telling_id
), marked AS (
    UPDATE ingest.tellings SET is_whole = false WHERE telling_id = ANY (ARRAY(SELECT telling_id FROM untold))
), noted AS (
    UPDATE ingest.histories SET since = greatest(since, %(bound)s), pruned = %(bound)s
    WHERE feed = %(feed)s AND pruned < %(bound)s AND (EXISTS (SELECT FROM old) OR EXISTS (SELECT FROM untold))
)
SELECT (SELECT count(*) FROM old) AS contents, (SELECT count(*) FROM untold) AS told

-- name: count_untold
SELECT count(*) AS files
FROM ingest.ledger AS file
WHERE feed = %(feed)s AND bucket = %(bucket)s AND applied_at IS NOT NULL AND archive_key IS NOT NULL
  AND key_time >= %(bound)s
  AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                  WHERE told.file_id = file.file_id AND told.is_whole AND told.head = ingest.position_of(file, 0))

-- name: untold
-- Archived files that were applied and not told of, the newest first, behind the one before: as many as have so many
-- rows, and at least one.
SELECT file_id, key, key_time, archive_key
FROM (SELECT file_id, key, key_time, archive_key, row_number() OVER newest_first AS nth,
             sum(rows_read) OVER newest_first AS rows
      FROM (SELECT file_id, key, key_time, archive_key, rows_read
            FROM ingest.ledger AS file
            WHERE feed = %(feed)s AND bucket = %(bucket)s AND applied_at IS NOT NULL AND archive_key IS NOT NULL
              AND key_time >= %(bound)s AND (key_time, file_id) < (%(before_time)s, %(before_id)s)
              AND NOT EXISTS (SELECT FROM ingest.tellings AS told
                              WHERE told.file_id = file.file_id AND told.is_whole
                                AND told.head = ingest.position_of(file, 0))
            ORDER BY key_time DESC, file_id DESC
            LIMIT %(most_files)s) AS newest
      WINDOW newest_first AS (ORDER BY key_time DESC, file_id DESC)) AS counted
WHERE nth = 1 OR rows <= %(most_rows)s
ORDER BY nth

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
SET since = least(since, greatest(pruned, missing.newest, missing.bound, adopted_key_time))
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
