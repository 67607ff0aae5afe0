-- name: create_staging
-- Once per connection; each transaction finds them empty. `place` is that of the file among those of the transaction,
-- the newest last; in `moved` is each ticket's last row, where no position outranks it, and of how many in the files
-- from the place `since` on, of which none is outranked; in `changed` are the tickets that were written, 500 in a row.
CREATE TEMPORARY TABLE staging (
    place         bigint NOT NULL,
    line          bigint NOT NULL,
    ticket_id     text,
    raw           jsonb,
    closed_at     timestamptz,
    reject_reason text,
    reject_raw    text,
    reject_group  text,
    reject_lines  integer
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE moved (
    place bigint NOT NULL,
    line  bigint NOT NULL,
    rows  bigint NOT NULL,
    since bigint NOT NULL
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE changed (
    ticket_ids text[] NOT NULL
) ON COMMIT DELETE ROWS

-- name: empty_staging
WITH moves AS (DELETE FROM moved), changes AS (DELETE FROM changed) DELETE FROM staging

-- name: look_at_staging
SELECT FROM staging, moved, changed LIMIT 0

-- name: copy_to_staging
COPY staging (place, line, ticket_id, raw, closed_at, reject_reason, reject_raw, reject_group, reject_lines) FROM STDIN

-- name: move_positions
-- Rows are taken in the order of their ids everywhere, so that two merges at once cannot deadlock, and whoever has a
-- ticket's position may write the ticket. What is sorted and held on the way has no more than it needs: the nulls that
-- all rows of a file have in common come last, and of an id and a line nothing is made before they are in order.
-- Of several files the oldest that has the ticket is looked at: where it is ahead so are the others.
WITH last_rows AS MATERIALIZED (
    SELECT ticket_id, place, max(line) AS line, count(*) AS rows
    FROM staging
    WHERE reject_reason IS NULL
    GROUP BY ticket_id, place
), files AS (
    SELECT place, file.*
    FROM unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place)
    JOIN ingest.ledger AS file USING (file_id)
    WHERE file_id = ANY(%(file_ids)s)
), ahead AS (
    INSERT INTO {positions} AS known (ticket_id, position, file_id)
    SELECT ticket_id, ROW(epoch, key_time, key, object_time, etag, line)::ingest.position, file_id
    FROM (SELECT DISTINCT ON (ticket_id) ticket_id, place, line FROM last_rows ORDER BY ticket_id, place) AS oldest
    JOIN files USING (place)
    ORDER BY ticket_id
    ON CONFLICT (ticket_id) DO UPDATE SET position = excluded.position, file_id = excluded.file_id
    WHERE known.position < excluded.position
    RETURNING file_id, (position).line AS line
), kept AS (
    INSERT INTO moved (place, line, rows, since)
    SELECT place, line, coalesce(rows, 1), place
    FROM ahead
    JOIN files USING (file_id)
    LEFT JOIN (SELECT place, line, rows FROM last_rows WHERE rows > 1) AS several USING (place, line)
    RETURNING place, rows
)
SELECT place, tickets, coalesce(moved, 0) AS moved, coalesce(in_order, 0) AS in_order
FROM (SELECT place, count(*) AS tickets FROM last_rows GROUP BY place) AS counted
LEFT JOIN (SELECT place, count(*) AS moved, sum(rows)::bigint AS in_order FROM kept GROUP BY place) AS ahead
    USING (place)

-- name: move_on
-- From the oldest of several files that have a ticket to the newest, whose row counts. The position is locked by now.
WITH last_rows AS (
    SELECT ticket_id, place, max(line) AS line, count(*) AS rows
    FROM staging
    WHERE reject_reason IS NULL
    GROUP BY ticket_id, place
), newest AS MATERIALIZED (
    SELECT *
    FROM (SELECT ticket_id, place, line, rows, sum(rows) OVER in_order AS all_rows,
                 first_value(place) OVER in_order AS first_place, first_value(line) OVER in_order AS first_line,
                 first_value(rows) OVER in_order AS first_rows, lead(place) OVER in_order IS NULL AS is_newest
          FROM last_rows
          WINDOW in_order AS (PARTITION BY ticket_id ORDER BY place)) AS told
    WHERE is_newest AND place > first_place
), files AS (
    SELECT place, file.*
    FROM unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place)
    JOIN ingest.ledger AS file USING (file_id)
    WHERE file_id = ANY(%(file_ids)s)
), ahead AS (
    UPDATE {positions} AS known
    SET position = ROW(epoch, key_time, key, object_time, etag, line)::ingest.position, file_id = files.file_id
    FROM newest JOIN files USING (place)
    WHERE known.ticket_id = newest.ticket_id
      AND known.position < ROW(epoch, key_time, key, object_time, etag, line)::ingest.position
    RETURNING newest.*
), in_order AS (
    UPDATE moved
    SET place = ahead.place, line = ahead.line, rows = all_rows
    FROM ahead
    WHERE moved.place = first_place AND moved.line = first_line
    RETURNING ahead.*
), outranked AS (
    -- Some of the older files; the newest one is not.
    INSERT INTO moved (place, line, rows, since)
    SELECT place, line, rows, place FROM ahead WHERE ticket_id NOT IN (SELECT ticket_id FROM in_order)
    RETURNING place, rows
)
SELECT place, sum(moved)::bigint AS moved, sum(in_order)::bigint AS in_order
FROM (SELECT first_place AS place, -1 AS moved, -first_rows AS in_order FROM in_order
      UNION ALL SELECT place, 1, all_rows FROM in_order
      UNION ALL SELECT place, 1, rows FROM outranked) AS counted
GROUP BY place

-- name: write_tickets
-- A statement of its own, so that it sees what those have written who had a position before. A row whose content is the
-- same is not touched; one that is known is updated, since an upsert makes a whole row first, generated columns,
-- trigger and all. Without its position nobody of ours writes a ticket: a row that somebody else adds meanwhile is an
-- error, and a row like others at the next try.
-- In the order of their ids, in which the geocoder locks tickets as well, which has no positions. Only ids are sorted
-- and held: of a ticket each step fetches what it needs by where that is, since a look is cheaper than to carry it.
WITH told AS MATERIALIZED (
    -- Before the first row, until the transaction ends: that each comes with its place, so that the trigger leaves it
    -- alone; and whether `merge_closures` records the closures, or each would be noted for the capture.
    SELECT set_config('tickets.are_placed', 'yes', true), set_config('fleettickets.closures', %(closures)s, true)
), wanted AS MATERIALIZED (
    SELECT place, line, rows, since, ticket_id, staging.ctid AS at FROM moved JOIN staging USING (place, line)
    ORDER BY ticket_id
), differing AS MATERIALIZED (
    SELECT wanted.*, known.raw IS NOT NULL AS is_known, known.at AS known_at,
           ingest.place(known.raw) IS NOT DISTINCT FROM ingest.place(given.raw) AS is_where_it_was
    FROM told
    CROSS JOIN wanted
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = wanted.at OFFSET 0) AS given
    LEFT JOIN LATERAL (
        SELECT raw, ctid AS at FROM {tickets} AS ticket WHERE ticket.ticket_id = wanted.ticket_id OFFSET 0
    ) AS known ON true
    WHERE known.raw IS DISTINCT FROM given.raw
), updated AS (
    -- What the row says of its place decides where it is, or the order of files would show. Where it says what it said,
    -- and the gazetteer has a gap, that takes no ticket off the map.
    UPDATE {tickets} AS ticket
    SET raw = given.raw, ingested_at = now(),
        geom = CASE WHEN place.geom IS NULL AND is_where_it_was THEN ticket.geom ELSE place.geom END,
        geo_source = CASE WHEN place.geom IS NULL AND is_where_it_was THEN ticket.geo_source ELSE place.geo_source END
    FROM differing
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = differing.at OFFSET 0) AS given
    CROSS JOIN LATERAL tickets.place_of(given.raw) AS place
    WHERE is_known AND ticket.ticket_id = differing.ticket_id
), inserted AS (
    INSERT INTO {tickets} (ticket_id, raw, geom, geo_source)
    SELECT ticket_id, given.raw, place.geom, place.geo_source
    FROM differing
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = differing.at OFFSET 0) AS given
    CROSS JOIN LATERAL tickets.place_of(given.raw) AS place
    WHERE NOT is_known
), told_of AS (
    INSERT INTO changed (ticket_ids)
    SELECT array_agg(ticket_id)
    FROM (SELECT ticket_id, (row_number() OVER () - 1) / 500 AS nth FROM differing) AS counted
    GROUP BY nth
), several AS (
    -- All that its file says of a ticket that moved is behind what was known of it, since a file is ahead of another
    -- one with all its rows, and so is all that the files say `since` when it did. Where a new ticket has its first row
    -- is told as well, by a row without a content before.
    SELECT place, ticket_id, line, given.raw,
           lag(given.raw) OVER (PARTITION BY ticket_id ORDER BY place, line) AS before
    FROM (SELECT row.place, ticket_id, row.line, row.ctid AS at
          FROM wanted JOIN staging AS row USING (ticket_id)
          WHERE rows > 1 AND row.place BETWEEN since AND wanted.place AND cardinality(%(tellings)s::bigint[]) > 0
            AND EXISTS (SELECT FROM wanted WHERE rows > 1) -- or all rows are sorted to find none
            AND row.raw IS NOT NULL -- as no reject has; how many have a reason the planner takes for few
          ORDER BY ticket_id, place, line
          OFFSET 0) AS row
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = row.at OFFSET 0) AS given
), replaced AS (
    -- Where its feed has a history, each content that a ticket has had until then. Of when one was written, only that
    -- of a ticket's first one is ever asked.
    INSERT INTO tickets.versions (feed, ticket_id, until_telling, until_line, until, raw, written_at)
    SELECT feed, ticket_id, (%(tellings)s::bigint[])[place], line, untils[place], before, written_at
    FROM (
        SELECT place, differing.ticket_id, line, former.raw AS before, former.ingested_at AS written_at
        FROM differing
        CROSS JOIN LATERAL (
            SELECT raw, ingested_at FROM {tickets} AS ticket WHERE ticket.ctid = differing.known_at OFFSET 0
        ) AS former
        WHERE is_known AND rows = 1 AND cardinality(%(tellings)s::bigint[]) > 0
        UNION ALL
        SELECT place, ticket_id, line, coalesce(before, former.raw), former.ingested_at
        FROM several
        LEFT JOIN LATERAL (
            SELECT raw, ingested_at FROM {tickets} AS ticket WHERE ticket.ticket_id = several.ticket_id OFFSET 0
        ) AS former ON true
        WHERE several.raw IS DISTINCT FROM coalesce(before, former.raw)
    ) AS replaced
    CROSS JOIN (
        SELECT min(feed) AS feed, array_agg(coalesce((head).key_time, '-infinity') ORDER BY nth) AS untils
        FROM unnest(%(tellings)s::bigint[]) WITH ORDINALITY AS given (telling_id, nth)
        JOIN ingest.tellings USING (telling_id)
    ) AS telling
)
SELECT place, count(*) FILTER (WHERE NOT is_known) AS inserted, count(*) FILTER (WHERE is_known) AS updated
FROM differing
GROUP BY place

-- name: merge_closures
-- From every row read, also from those that an older or a later row outranks: the set must not depend on order. Who
-- held the ticket the first row of a closure tells, since later ones tell who has it by then; the rest the last one.
WITH files AS (
    SELECT place, file.*
    FROM unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place)
    JOIN ingest.ledger AS file USING (file_id)
    WHERE file_id = ANY(%(file_ids)s)
), closures AS MATERIALIZED (
    SELECT ticket_id, closed_at, place, line, at, first_place, first_line, first_at
    FROM (SELECT ticket_id, closed_at, place, line, staging.ctid AS at,
                 first_value(place) OVER in_order AS first_place, first_value(line) OVER in_order AS first_line,
                 first_value(staging.ctid) OVER in_order AS first_at, lead(line) OVER in_order IS NULL AS is_last
          FROM staging
          WHERE closed_at IS NOT NULL
          WINDOW in_order AS (PARTITION BY ticket_id, closed_at ORDER BY place, line)) AS told
    WHERE is_last
), written AS (
    INSERT INTO tickets.closure_events AS known
        (ticket_id, closed_at, cluster, region, location_name, assigned_team, owner, sla_status, mttr,
         created_at_service, position, first_position)
    SELECT ticket_id, closed_at, first.raw->>'cluster', first.raw->>'region', first.raw->>'location_name',
           first.raw->>'assigned_team', first.raw->>'owner', last.raw->>'sla_status',
           round((last.raw->>'mttr')::numeric)::integer, tickets.eat_ts(last.raw->>'created_at_service'),
           ROW(file.epoch, file.key_time, file.key, file.object_time, file.etag, closures.line)::ingest.position,
           CASE WHEN first_at <> at
                THEN ROW(begun.epoch, begun.key_time, begun.key, begun.object_time, begun.etag,
                         first_line)::ingest.position END
    FROM closures
    JOIN files AS file ON file.place = closures.place
    JOIN files AS begun ON begun.place = first_place
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = closures.at OFFSET 0) AS last
    CROSS JOIN LATERAL (SELECT raw FROM staging WHERE staging.ctid = closures.first_at OFFSET 0) AS first
    ORDER BY ticket_id, closed_at
    ON CONFLICT (ticket_id, closed_at) DO UPDATE
    SET (cluster, region, location_name, assigned_team, owner, first_position) = (
            SELECT cluster, region, location_name, assigned_team, owner,
                   nullif(at, greatest(known.position, excluded.position))
            FROM (VALUES (known.cluster, known.region, known.location_name, known.assigned_team, known.owner,
                          coalesce(known.first_position, known.position)),
                         (excluded.cluster, excluded.region, excluded.location_name, excluded.assigned_team,
                          excluded.owner, coalesce(excluded.first_position, excluded.position)))
                 AS held (cluster, region, location_name, assigned_team, owner, at)
            ORDER BY at LIMIT 1),
        (sla_status, mttr, created_at_service, position) = (
            SELECT sla_status, mttr, created_at_service, at
            FROM (VALUES (known.sla_status, known.mttr, known.created_at_service, known.position),
                         (excluded.sla_status, excluded.mttr, excluded.created_at_service, excluded.position))
                 AS reckoned (sla_status, mttr, created_at_service, at)
            ORDER BY at DESC NULLS LAST LIMIT 1)
    WHERE known.position IS NULL OR known.position < excluded.position
       OR coalesce(excluded.first_position, excluded.position) < coalesce(known.first_position, known.position)
    RETURNING ticket_id, closed_at
)
SELECT place, count(*) AS closures FROM written JOIN closures USING (ticket_id, closed_at) GROUP BY place

-- name: keep_rejects
-- Some may be there from when the file was refused for them.
INSERT INTO ingest.rejects (file_id, line, reason, raw, reason_group, lines, ticket_id)
SELECT file_id, line, reject_reason, reject_raw, reject_group, reject_lines, ticket_id
FROM staging
JOIN unnest(%(file_ids)s::bigint[]) WITH ORDINALITY AS given (file_id, place) USING (place)
WHERE reject_reason IS NOT NULL
ON CONFLICT (file_id, line) DO NOTHING

-- name: request_follow_ons
-- One that is asked anew is another request, with a number of its own: who has read the former marks that alone.
INSERT INTO ingest.outbox (kind, file_id)
SELECT kind, file_id FROM unnest(%(file_ids)s::bigint[], %(kinds)s::text[]) AS asked (file_id, kind)
ON CONFLICT (file_id, kind) DO UPDATE
SET request_id = DEFAULT, sent_at = NULL, handled_at = NULL, created_at = now()

-- name: fire_deferred
-- What others have put off to the COMMIT is met here, where it can still be told of this file alone.
SET CONSTRAINTS ALL IMMEDIATE

-- name: move_watermark
-- Last before the commit: every file takes this row, so it is held for no longer than the commit itself. With it comes
-- what `changed` has, a version for each of its rows; where somebody has set the version back, in the place of others.
WITH moved_to AS (
    INSERT INTO tickets.import_meta AS meta (source, data_version, snapshot_at, imported_at, row_count, metadata)
    VALUES (%(feed)s, greatest(1, (SELECT count(*) FROM changed)), %(key_time)s, clock_timestamp(), %(inserted)s,
            jsonb_build_object('source_max_key', %(key)s::text, 'source_max_key_time', %(key_time)s::timestamptz,
                               'source_bucket', %(bucket)s::text, 'source_prefix', %(prefix)s::text,
                               'epoch', %(epoch)s::integer))
    ON CONFLICT (source) DO UPDATE
    SET imported_at = excluded.imported_at,
        data_version = meta.data_version + excluded.data_version,
        row_count = coalesce(meta.row_count, 0) + excluded.row_count,
        snapshot_at = CASE WHEN ingest.is_ahead(excluded.metadata, meta.metadata)
                           THEN excluded.snapshot_at ELSE meta.snapshot_at END,
        metadata = CASE WHEN ingest.is_ahead(excluded.metadata, meta.metadata)
                        THEN meta.metadata || excluded.metadata ELSE meta.metadata END
    RETURNING source, data_version
)
INSERT INTO ingest.changes (feed, data_version, ticket_ids)
SELECT source, data_version - coalesce(nth, 0), coalesce(ticket_ids, '{}')
FROM moved_to
LEFT JOIN (SELECT ticket_ids, row_number() OVER () - 1 AS nth FROM changed) AS chunk ON true
ON CONFLICT (feed, data_version) DO UPDATE SET ticket_ids = excluded.ticket_ids, at = excluded.at

-- name: count_import
-- A local file is no part of the bucket's stream and leaves its watermark where it is.
WITH moved_to AS (
    INSERT INTO tickets.import_meta AS meta (source, data_version, imported_at, row_count)
    VALUES (%(feed)s, greatest(1, (SELECT count(*) FROM changed)), clock_timestamp(), %(inserted)s)
    ON CONFLICT (source) DO UPDATE
    SET imported_at = excluded.imported_at, data_version = meta.data_version + excluded.data_version,
        row_count = coalesce(meta.row_count, 0) + excluded.row_count
    RETURNING source, data_version
)
INSERT INTO ingest.changes (feed, data_version, ticket_ids)
SELECT source, data_version - coalesce(nth, 0), coalesce(ticket_ids, '{}')
FROM moved_to
LEFT JOIN (SELECT ticket_ids, row_number() OVER () - 1 AS nth FROM changed) AS chunk ON true
ON CONFLICT (feed, data_version) DO UPDATE SET ticket_ids = excluded.ticket_ids, at = excluded.at
