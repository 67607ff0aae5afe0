-- name: check_adoption
-- What the batch import can have made otherwise than the migrations need it, all of it in one line. Tables and columns
-- can be missing here: what is asked of them is only read where they are there.
DO $$
DECLARE
    said text[] := '{}';
    found record;
BEGIN
    SELECT string_agg(format('ALTER TABLE %%s ALTER COLUMN %%I TYPE text', attrelid::regclass, attname), '; '
                      ORDER BY attrelid::regclass::text, attnum) AS statements INTO found
    FROM pg_attribute
    WHERE attrelid IN (to_regclass('tickets.inc'), to_regclass('tickets.closure_events'),
                       to_regclass('tickets.inc_daily_snapshot'), to_regclass('tickets.import_meta'))
      AND attnum > 0 AND NOT attisdropped
      AND (atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod >= 0
           OR attname = 'ticket_id' AND atttypid NOT IN ('text'::regtype, 'varchar'::regtype));
    IF found.statements IS NOT NULL THEN
        said := said || format('columns that cannot hold any text (drop the views on them, and make those anew after): '
                               '%%s',
                               found.statements);
    END IF;

    IF 2 = (SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('tickets.closure_events')
                                                AND attname IN ('ticket_id', 'closed_at') AND NOT attisdropped) THEN
        SELECT count(*) AS closures,
               string_agg(format('%%s at %%s', ticket_id, closed_at), ', ' ORDER BY ticket_id, closed_at)
                   FILTER (WHERE number <= 5) AS first_ones
        INTO found
        FROM (SELECT ticket_id, closed_at, row_number() OVER (ORDER BY ticket_id, closed_at) AS number
              FROM tickets.closure_events
              WHERE ticket_id IS NOT NULL AND closed_at IS NOT NULL
              GROUP BY ticket_id, closed_at HAVING count(*) > 1) AS repeated;
        IF found.closures > 0 THEN
            said := said || format(
                'tickets.closure_events has %%s closures more than once, such as %%s; to keep the last row of each: '
                'DELETE FROM tickets.closure_events AS former USING tickets.closure_events AS latter '
                'WHERE former.ticket_id = latter.ticket_id AND former.closed_at = latter.closed_at '
                'AND former.ctid < latter.ctid', found.closures, found.first_ones);
        END IF;
    END IF;

    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('tickets.import_meta') AND attname = 'source'
                                          AND NOT attisdropped) THEN
        SELECT string_agg(quote_literal(source), ', ' ORDER BY source) AS sources INTO found
        FROM (SELECT source FROM tickets.import_meta WHERE source IS NOT NULL
              GROUP BY source HAVING count(*) > 1) AS repeated;
        IF found.sources IS NOT NULL THEN
            said := said || format('tickets.import_meta has more than one row of source %%s: keep the right one',
                                   found.sources);
        END IF;
    END IF;

    IF said <> '{}' THEN
        RAISE EXCEPTION '%%', array_to_string(said, '; and ');
    END IF;
END
$$

-- name: set_other_watermarks_aside
-- Migration 15 takes the newest watermark for INC's where no row says whose it is. Only one whose key can be INC's is
-- left to it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('tickets.import_meta') AND attname = 'metadata'
                                          AND NOT attisdropped) THEN
        UPDATE tickets.import_meta AS meta
        SET metadata = metadata - 'source_max_key' || jsonb_build_object('others_max_key', metadata -> 'source_max_key')
        WHERE metadata ->> 'source_max_key' !~ '(^|/)inc/changes/[^/]+$'
          AND coalesce(to_jsonb(meta) ->> 'source', '') <> 'inc';
    END IF;
END
$$

-- name: put_other_watermarks_back
DO $$
BEGIN
    UPDATE tickets.import_meta
    SET metadata = metadata - 'others_max_key' || jsonb_build_object('source_max_key', metadata -> 'others_max_key')
    WHERE metadata ? 'others_max_key';
    IF FOUND AND NOT EXISTS (SELECT FROM tickets.import_meta WHERE source = 'inc') THEN
        RAISE WARNING 'tickets.import_meta has no row inc and no watermark of the form …/inc/changes/…: every '
            'change file outranks the tickets that are there';
    END IF;
END
$$

-- name: old_watermark
SELECT metadata->>'source_max_key' AS key
FROM tickets.import_meta
WHERE source = 'inc' AND metadata->>'source_max_key' IS NOT NULL AND metadata->>'source_max_key_time' IS NULL

-- name: complete_old_watermark
UPDATE tickets.import_meta
SET metadata = metadata || jsonb_build_object('source_max_key_time', %(key_time)s::timestamptz),
    row_count = (SELECT count(*) FROM tickets.inc)
WHERE source = 'inc'

-- name: position_old_rows
-- Rows that were there before count as written by the file at the old watermark, whichever it was.
INSERT INTO ingest.inc_positions (ticket_id, position)
SELECT ticket_id, ROW(1, %(key_time)s::timestamptz, %(key)s::text, 'infinity'::timestamptz, '', 0)::ingest.position
FROM tickets.inc
ON CONFLICT (ticket_id) DO NOTHING

-- name: keep_adoption
-- The first adoption counts: what a batch import that was started again has read since is named, and applied again.
UPDATE ingest.epochs
SET adopted_key = %(key)s, adopted_key_time = %(key_time)s, adopted_rows = (SELECT count(*) FROM tickets.inc)
WHERE feed = 'inc' AND epoch = 1 AND adopted_key IS NULL
