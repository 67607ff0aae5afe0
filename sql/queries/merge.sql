-- name: create_staging
-- Once per connection; each transaction finds it empty.
CREATE TEMPORARY TABLE staging (
    line          bigint NOT NULL,
    ticket_id     text,
    raw           jsonb,
    closed_at     timestamptz,
    reject_reason text,
    reject_raw    text,
    reject_group  text,
    reject_lines  integer
) ON COMMIT DELETE ROWS

-- name: empty_staging
DELETE FROM staging

-- name: look_at_staging
SELECT FROM staging LIMIT 0

-- name: copy_to_staging
COPY staging (line, ticket_id, raw, closed_at, reject_reason, reject_raw, reject_group, reject_lines) FROM STDIN

-- name: merge_tickets
-- Rows are taken in the order of their ids everywhere, so that two files merged at once cannot deadlock. The guard
-- is the positions table: only tickets whose position moved forward are written, and only if their content differs.
-- What is sorted and held on the way has no more than it needs: the nulls that all rows of a file have in common come
-- last, and of an id and a line nothing is made before they are in order.
WITH last_rows AS (
    SELECT DISTINCT ON (ticket_id) ticket_id, line
    FROM staging
    WHERE reject_reason IS NULL
    ORDER BY ticket_id, line DESC
), moved AS (
    INSERT INTO {positions} AS known (ticket_id, position, file_id)
    SELECT ticket_id,
           ROW(%(epoch)s, %(key_time)s, %(key)s, %(object_time)s, %(etag)s, line)::ingest.position,
           %(file_id)s
    FROM (SELECT ticket_id, line FROM last_rows ORDER BY ticket_id) AS in_order
    ON CONFLICT (ticket_id) DO UPDATE SET position = excluded.position, file_id = excluded.file_id
    WHERE known.position < excluded.position
    RETURNING (position).line AS line
), written AS (
    INSERT INTO {tickets} AS ticket (ticket_id, raw)
    SELECT ticket_id, %(blanks)s::jsonb || raw
    FROM (SELECT ticket_id, raw FROM staging JOIN moved USING (line) ORDER BY ticket_id) AS in_order
    ON CONFLICT (ticket_id) DO UPDATE
    SET raw = excluded.raw, ingested_at = now(),
        -- What the row says of its place decides where it is: a place that is said no more, or another one, is
        -- looked up anew by the trigger. Without that the order of files would show.
        geom = CASE WHEN ingest.place(ticket.raw) IS NOT DISTINCT FROM ingest.place(excluded.raw)
                    THEN ticket.geom END,
        geo_source = CASE WHEN ingest.place(ticket.raw) IS NOT DISTINCT FROM ingest.place(excluded.raw)
                          THEN ticket.geo_source END
    WHERE ticket.raw IS DISTINCT FROM excluded.raw
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM staging WHERE reject_reason IS NULL)                          AS accepted,
       (SELECT count(*) FROM last_rows)                                                    AS tickets,
       (SELECT count(*) FROM moved)                                                        AS moved,
       (SELECT count(*) FILTER (WHERE is_new) FROM written)                                AS inserted,
       (SELECT count(*) FILTER (WHERE NOT is_new) FROM written)                            AS updated

-- name: merge_closures
-- From every row read, also from those that an older or a later row outranks: the set must not depend on order.
INSERT INTO tickets.closure_events AS known
    (ticket_id, closed_at, cluster, region, location_name, assigned_team, owner, sla_status, mttr,
     created_at_service, position)
SELECT DISTINCT ON (ticket_id, closed_at)
       ticket_id, closed_at, raw->>'cluster', raw->>'region', raw->>'location_name', raw->>'assigned_team',
       raw->>'owner', raw->>'sla_status', round((raw->>'mttr')::numeric)::integer,
       tickets.eat_ts(raw->>'created_at_service'),
       ROW(%(epoch)s, %(key_time)s, %(key)s, %(object_time)s, %(etag)s, line)::ingest.position
FROM staging
WHERE closed_at IS NOT NULL
ORDER BY ticket_id, closed_at, line DESC
ON CONFLICT (ticket_id, closed_at) DO UPDATE
SET cluster = excluded.cluster, region = excluded.region, location_name = excluded.location_name,
    assigned_team = excluded.assigned_team, owner = excluded.owner, sla_status = excluded.sla_status,
    mttr = excluded.mttr, created_at_service = excluded.created_at_service, position = excluded.position
WHERE known.position IS NULL OR known.position < excluded.position

-- name: request_follow_ons
-- One that is asked anew is another request, with a number of its own: who has read the former marks that alone.
INSERT INTO ingest.outbox (kind, file_id)
SELECT kind, %(file_id)s FROM unnest(%(kinds)s::text[]) AS kind
ON CONFLICT (file_id, kind) DO UPDATE
SET request_id = DEFAULT, sent_at = NULL, handled_at = NULL, created_at = now()

-- name: fire_deferred
-- What others have put off to the COMMIT is met here, where it can still be told of this file alone.
SET CONSTRAINTS ALL IMMEDIATE

-- name: move_watermark
-- Last before the commit: every file takes this row, so it is held for no longer than the commit itself.
INSERT INTO tickets.import_meta AS meta (source, snapshot_at, imported_at, row_count, metadata)
VALUES (%(feed)s, %(key_time)s, clock_timestamp(), %(inserted)s,
        jsonb_build_object('source_max_key', %(key)s::text, 'source_max_key_time', %(key_time)s::timestamptz,
                           'source_bucket', %(bucket)s::text, 'source_prefix', %(prefix)s::text,
                           'epoch', %(epoch)s::integer))
ON CONFLICT (source) DO UPDATE
SET imported_at = excluded.imported_at,
    row_count = coalesce(meta.row_count, 0) + excluded.row_count,
    snapshot_at = CASE WHEN ingest.is_ahead(excluded.metadata, meta.metadata)
                       THEN excluded.snapshot_at ELSE meta.snapshot_at END,
    metadata = CASE WHEN ingest.is_ahead(excluded.metadata, meta.metadata)
                    THEN meta.metadata || excluded.metadata ELSE meta.metadata END

-- name: count_import
-- A local file is no part of the bucket's stream and leaves its watermark where it is.
INSERT INTO tickets.import_meta AS meta (source, imported_at, row_count)
VALUES (%(feed)s, clock_timestamp(), %(inserted)s)
ON CONFLICT (source) DO UPDATE
SET imported_at = excluded.imported_at, row_count = coalesce(meta.row_count, 0) + excluded.row_count
