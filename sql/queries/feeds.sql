-- name: taken_names
-- Names of a feed's tables and of its index that have another use. A table has `ticket_id` and the column, an index
-- has none.
SELECT wanted.feed, wanted.schema, wanted.name
FROM unnest(%(feeds)s::text[], %(schemas)s::text[], %(names)s::text[], %(columns)s::text[])
     AS wanted (feed, schema, name, "column")
JOIN pg_class AS relation ON relation.oid = to_regclass(format('%%I.%%I', wanted.schema, wanted.name))
WHERE CASE WHEN wanted.column IS NULL
           THEN NOT EXISTS (SELECT FROM pg_index
                            WHERE indexrelid = relation.oid
                              AND indrelid = to_regclass(format('tickets.%%I', wanted.feed)))
           ELSE relation.relkind <> 'r'
                OR 2 > (SELECT count(*) FROM pg_attribute
                        WHERE attrelid = relation.oid AND attname IN ('ticket_id', wanted.column)
                          AND NOT attisdropped)
      END
ORDER BY wanted.feed, wanted.schema DESC, wanted.name

-- name: make_table
-- Of a feed's rows, with what every feed has.
CREATE TABLE IF NOT EXISTS {tickets} (
    ticket_id   text PRIMARY KEY,
    raw         jsonb NOT NULL CHECK (jsonb_typeof(raw) = 'object'),
    geom        geometry(Point, 4326),
    geo_source  text,
    ingested_at timestamptz NOT NULL DEFAULT now()
)

-- name: comment_table
COMMENT ON TABLE {tickets} IS {title}

-- name: make_trigger
-- A file's rows come with their places.
CREATE OR REPLACE TRIGGER resolve_geom BEFORE INSERT OR UPDATE OF raw ON {tickets}
FOR EACH ROW WHEN (current_setting('tickets.are_placed', true) IS DISTINCT FROM 'yes')
EXECUTE FUNCTION tickets.resolve_geom()

-- name: make_index
CREATE INDEX IF NOT EXISTS {index} ON {tickets} USING gist (geom)

-- name: make_columns
ALTER TABLE {tickets} {columns}

-- name: typed_text
ADD COLUMN IF NOT EXISTS {column} text GENERATED ALWAYS AS (raw ->> {name}) STORED

-- name: typed_timestamp
ADD COLUMN IF NOT EXISTS {column} timestamptz GENERATED ALWAYS AS (tickets.eat_ts(raw ->> {name})) STORED

-- name: typed_boolean
ADD COLUMN IF NOT EXISTS {column} boolean GENERATED ALWAYS AS (tickets.feed_flag(raw ->> {name})) STORED

-- name: typed_number
ADD COLUMN IF NOT EXISTS {column} numeric GENERATED ALWAYS AS (tickets.feed_number(raw ->> {name})) STORED

-- name: typed_minutes
ADD COLUMN IF NOT EXISTS {column} integer GENERATED ALWAYS AS (tickets.feed_minutes(raw ->> {name})) STORED

-- name: typed_latitude
ADD COLUMN IF NOT EXISTS {column} double precision GENERATED ALWAYS AS (
    COALESCE(
        ST_Y(tickets.kenya_point(tickets.feed_degrees(raw ->> 'latitude'), tickets.feed_degrees(raw ->> 'longitude'))),
        ST_Y(geom)
    )
) STORED

-- name: typed_longitude
ADD COLUMN IF NOT EXISTS {column} double precision GENERATED ALWAYS AS (
    COALESCE(
        ST_X(tickets.kenya_point(tickets.feed_degrees(raw ->> 'latitude'), tickets.feed_degrees(raw ->> 'longitude'))),
        ST_X(geom)
    )
) STORED

-- name: make_positions
-- What last wrote each row. `file_id` is of the ledger, from where it was taken: to check each one costs a third of the
-- statement.
CREATE TABLE IF NOT EXISTS {positions} (
    ticket_id text PRIMARY KEY,
    position  ingest.position NOT NULL,
    file_id   bigint
)

-- name: make_as_of
-- Rows of the table itself, so that it has its columns, also those that a declaration comes to want. Its text and not
-- its tree is kept, or no column could be dropped; as a literal, which no name in it can end.
CREATE OR REPLACE FUNCTION {as_of} (at timestamptz) RETURNS SETOF {tickets}
LANGUAGE sql STABLE PARALLEL SAFE AS {body}

-- name: as_of
-- A row of a content of before is made as the table would. Many tickets were written at one moment, so what was told
-- then is looked up once for all of them; whether a ticket was another is looked up by its id, since of all contents
-- there may be very many more.
SELECT ticket.*
FROM {tickets} AS ticket
CROSS JOIN LATERAL (
    SELECT count(*) > 0 AS was_another, coalesce(max(until) > $1, false) AS is_another_since
    FROM tickets.versions
    WHERE feed = {name} AND versions.ticket_id = ticket.ticket_id
) AS known
LEFT JOIN (
    SELECT told_at, max((head).key_time) <= $1 AS is_earlier, min((head).key_time) > $1 AS is_later
    FROM ingest.tellings
    WHERE feed = {name}
    GROUP BY told_at
) AS written ON told_at = ingested_at
WHERE ingest.is_within_history({name}, $1)
  AND NOT is_another_since
  AND CASE WHEN was_another OR is_earlier THEN true
           WHEN is_later THEN false
           ELSE ingest.was_written_by({name}, ticket.ticket_id, ticket.ingested_at, $1) END
UNION ALL
SELECT (once.row).*
FROM ingest.contents_as_of({name}, $1) AS past
JOIN {tickets} AS ticket USING (ticket_id)
LEFT JOIN LATERAL tickets.place_of(past.raw) AS place ON NOT past.is_current
CROSS JOIN LATERAL (
    SELECT CASE WHEN past.is_current THEN ticket
                ELSE jsonb_populate_record(NULL::{tickets}, to_jsonb(said)) END AS row
    FROM (SELECT past.ticket_id, past.raw, place.geom::text AS geom, place.geom::text AS geog, place.geo_source,
                 {columns}) AS said
    OFFSET 0
) AS once

-- name: comment_as_of
COMMENT ON FUNCTION {as_of} (timestamptz) IS
    'The tickets as the last file up to this instant left them, by the time that its name says; an error before the '
    'history is whole. They are where the gazetteer has their place now. ingested_at is NULL where a ticket was '
    'another than it is.'

-- name: past_text
past.raw ->> {name} AS {column}

-- name: past_timestamp
tickets.eat_ts(past.raw ->> {name}) AS {column}

-- name: past_boolean
tickets.feed_flag(past.raw ->> {name}) AS {column}

-- name: past_number
tickets.feed_number(past.raw ->> {name}) AS {column}

-- name: past_minutes
tickets.feed_minutes(past.raw ->> {name}) AS {column}

-- name: past_latitude
tickets.latitude_of(place.geom) AS {column}

-- name: past_longitude
tickets.longitude_of(place.geom) AS {column}

-- name: make_epoch
INSERT INTO ingest.epochs (feed, epoch, reason) VALUES ({name}, 1, 'first') ON CONFLICT (feed, epoch) DO NOTHING

-- name: record_feed
-- The declaration that its tables were made by last. Gives a row where that is new.
INSERT INTO ingest.feeds AS known (feed, prefix, declaration) VALUES (%(feed)s, %(prefix)s, %(declaration)s)
ON CONFLICT (feed) DO UPDATE SET prefix = excluded.prefix, declaration = excluded.declaration, made_at = now()
WHERE (known.prefix, known.declaration) IS DISTINCT FROM (excluded.prefix, excluded.declaration)
RETURNING feed

-- name: move_version
-- Tickets have other columns now. Which of them are others is not told: who follows the changes loads all of them anew.
UPDATE tickets.import_meta SET data_version = data_version + 1 WHERE source = %(feed)s

-- name: others
-- Feeds that have tables and are not among those declared now.
SELECT feed, prefix FROM ingest.feeds WHERE feed <> ALL(%(feeds)s::text[]) ORDER BY feed

-- name: made
-- Feeds that have tables here, whether declared now or not, with their rows; null where somebody dropped the table.
-- Up to `exactly` are counted. Of more it is estimated as the planner does, by how close they stood at the last
-- ANALYZE.
SELECT known.feed, known.prefix,
       CASE WHEN is_estimated THEN greatest(counted.rows, (density * pages)::bigint) ELSE counted.rows END AS rows,
       coalesce(is_estimated, false) AS is_estimated
FROM ingest.feeds AS known
LEFT JOIN pg_class AS relation ON relation.oid = to_regclass(format('tickets.%%I', feed))
CROSS JOIN LATERAL (
    SELECT CASE WHEN relation.reltuples > 0 AND relation.relpages > 0
                THEN relation.reltuples::float / relation.relpages END AS density,
           pg_relation_size(relation.oid) / current_setting('block_size')::bigint AS pages
) AS size
CROSS JOIN LATERAL (
    SELECT CASE WHEN relation.oid IS NOT NULL THEN
        (xpath('/row/rows/text()',
               query_to_xml(format('SELECT count(*) AS rows FROM (SELECT FROM tickets.%%I LIMIT %%s) AS first_ones',
                                   feed, CASE WHEN density IS NULL THEN 'ALL' ELSE (%(exactly)s + 1)::text END),
                            false, true, '')))[1]::text::bigint
        END AS rows
) AS counted
CROSS JOIN LATERAL (SELECT density IS NOT NULL AND counted.rows > %(exactly)s AS is_estimated) AS judged
ORDER BY known.feed

-- name: other_than_declared
-- Columns that a declaration wants and the feed's table lacks, or has of another type, and how to be rid of that.
SELECT wanted.feed, wanted.name, wanted.type, format_type(there.atttypid, there.atttypmod) AS type_there,
       format('ALTER TABLE tickets.%%I DROP COLUMN %%I', wanted.feed, wanted.name) AS statement
FROM unnest(%(feeds)s::text[], %(names)s::text[], %(types)s::text[]) AS wanted (feed, name, type)
LEFT JOIN pg_attribute AS there
    ON there.attrelid = to_regclass(format('tickets.%%I', wanted.feed)) AND there.attname = wanted.name
   AND there.attnum > 0 AND NOT there.attisdropped
WHERE there.atttypid IS NULL OR format_type(there.atttypid, there.atttypmod) <> wanted.type
ORDER BY wanted.feed, wanted.name

-- name: make_named_places
-- What tickets say of places, over all feeds whose places are looked up: the gazetteer is one for all of them.
CREATE OR REPLACE VIEW ingest.named_places AS {selects}

-- name: named_places
SELECT ticket.cluster, {region} AS region, ticket.location_name, {is_actionable} AS is_actionable, ticket.geo_source,
       written.file_id
FROM {tickets} AS ticket LEFT JOIN {positions} AS written USING (ticket_id)
