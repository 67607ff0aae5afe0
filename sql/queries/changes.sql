-- name: versions
SELECT source AS feed, data_version AS version FROM tickets.import_meta

-- name: page
-- Of the versions behind one that a reader has as many as have room, up to another; `next` is the last of them. Behind
-- one that is missing there is none, since what it changed is not known; NULL is none at all. A ticket is told as it is
-- now, and once, however often it has changed; one that somebody has deleted has neither place nor properties.
WITH behind AS (
    SELECT data_version, row_number() OVER (ORDER BY data_version) AS nth,
           sum(tickets) OVER (ORDER BY data_version) AS tickets
    FROM (SELECT data_version, tickets FROM ingest.changes
          WHERE feed = %(feed)s AND data_version > %(since)s AND data_version <= %(until)s
          ORDER BY data_version
          LIMIT %(limit)s) AS first_ones
), page AS (
    SELECT max(data_version) AS next FROM behind
    WHERE data_version = %(since)s + nth AND (nth = 1 OR tickets <= %(limit)s)
), changed AS (
    SELECT DISTINCT unnest(ticket_ids) AS ticket_id
    FROM ingest.changes, page
    WHERE feed = %(feed)s AND data_version > %(since)s AND data_version <= page.next
)
SELECT page.next, told.features
FROM page
CROSS JOIN LATERAL (
    SELECT coalesce(string_agg(json_build_object(
               'type', 'Feature', 'id', changed.ticket_id, 'geometry', ST_AsGeoJSON(ticket.geom, 6)::json,
               'properties', (SELECT row_to_json(shown) FROM (SELECT {columns}) AS shown
                              WHERE ticket.ticket_id IS NOT NULL)
           )::text, ',' ORDER BY changed.ticket_id COLLATE "C"), '') AS features
    FROM changed LEFT JOIN {tickets} AS ticket USING (ticket_id)
) AS told

-- name: forget
-- What is older than anybody is away who follows the changes; so many at once. The first ones of a feed are the oldest,
-- and the last one stays, which the data are at.
DELETE FROM ingest.changes
WHERE ctid = ANY (ARRAY(
    SELECT place
    FROM tickets.import_meta AS meta
    CROSS JOIN LATERAL (
        SELECT ctid AS place, data_version, at
        FROM ingest.changes
        WHERE feed = meta.source
        ORDER BY data_version
        LIMIT 10000
    ) AS oldest
    WHERE oldest.data_version < meta.data_version AND oldest.at < clock_timestamp() - interval '3 days'
      -- Nearly always none is, and the others need not be read to see that.
      AND (SELECT first.at FROM ingest.changes AS first WHERE first.feed = meta.source ORDER BY data_version LIMIT 1)
          < clock_timestamp() - interval '3 days'))
