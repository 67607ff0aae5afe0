-- name: stamp
-- What an answer is known by: nothing in it depends on more of the time than its minute. After a restore a version is
-- reached anew, by other data, and at another time.
SELECT coalesce(max(meta.data_version), 0) AS version, max(at) AS written_at, reporting.fn_as_of(now()) AS minute
FROM tickets.import_meta AS meta
LEFT JOIN ingest.changes ON (feed, changes.data_version) = (source, meta.data_version)
WHERE source = %(feed)s

-- name: dashboard
SELECT reporting.inc_dashboard_json(%(cluster)s::text, %(status)s::text, %(window)s::text, %(from)s::timestamptz,
                                    %(to)s::timestamptz)::text AS body

-- name: map
SELECT reporting.inc_map_json()::text AS body

-- name: nearest
SELECT coalesce(json_agg(found ORDER BY distance_metres, ticket_id), '[]')::text AS body
FROM reporting.fn_nearest_open(%(latitude)s, %(longitude)s, %(limit)s, %(within)s, %(cluster)s, %(team)s) AS found

-- name: as_of
-- Those that were open then.
SELECT json_build_object(
           'type', 'FeatureCollection', 'at', %(at)s::timestamptz,
           'features', coalesce(json_agg(
               json_build_object(
                   'type', 'Feature', 'id', ticket_id, 'geometry', tickets.point_json(geom),
                   'properties', (SELECT row_to_json(shown) FROM (SELECT {columns}) AS shown))
               ORDER BY ticket_id COLLATE "C"), '[]'))::text AS body
FROM {as_of} (%(at)s) AS ticket
WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed'

-- name: freshness
SELECT reporting.freshness_json(%(feed)s, reporting.fn_as_of(now()))::text AS body

-- name: ticket
-- Each column that the feed's table has, raw among them; the point once, as GeoJSON.
SELECT to_jsonb(ticket) - 'geom' - 'geog' AS values, tickets.point_geojson(ticket.geom) AS geometry
FROM {tickets} AS ticket
WHERE ticket_id = %(ticket_id)s

-- name: open_items
-- A box that goes over the antimeridian is two: from west `until` there, and `from` there to east.
SELECT ticket_id,
       json_build_object(
           'type', 'Feature', 'id', ticket_id, 'geometry', ST_AsGeoJSON(geom, 6)::json,
           'properties', (SELECT row_to_json(shown) FROM (SELECT {columns}) AS shown)
       )::text AS feature
FROM {tickets} AS ticket
WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed'
  AND ticket_id > %(after)s
  AND (%(only)s::text IS NULL OR ticket_id = %(only)s)
  AND (%(west)s::float8 IS NULL
       OR geom && ST_MakeEnvelope(%(west)s, %(south)s, %(until)s, %(north)s, 4326)
       OR geom && ST_MakeEnvelope(%(from)s, %(south)s, %(east)s, %(north)s, 4326))
  AND (%(begin)s::timestamptz IS NULL OR created_at_service >= %(begin)s)
  AND (%(end)s::timestamptz IS NULL OR created_at_service <= %(end)s)
ORDER BY ticket_id
LIMIT %(limit)s

-- name: closed_items
SELECT ticket_id,
       json_build_object(
           'type', 'Feature', 'id', ticket_id, 'geometry', ST_AsGeoJSON(geom, 6)::json,
           'properties', (SELECT row_to_json(shown) FROM (SELECT {columns}) AS shown)
       )::text AS feature
FROM {tickets} AS ticket
WHERE closed_at IS NOT NULL
  AND ticket_id > %(after)s
  AND (%(only)s::text IS NULL OR ticket_id = %(only)s)
  AND (%(west)s::float8 IS NULL
       OR geom && ST_MakeEnvelope(%(west)s, %(south)s, %(until)s, %(north)s, 4326)
       OR geom && ST_MakeEnvelope(%(from)s, %(south)s, %(east)s, %(north)s, 4326))
  AND (%(begin)s::timestamptz IS NULL OR closed_at >= %(begin)s)
  AND (%(end)s::timestamptz IS NULL OR closed_at <= %(end)s)
ORDER BY ticket_id
LIMIT %(limit)s

-- name: items
SELECT ticket_id,
       json_build_object(
           'type', 'Feature', 'id', ticket_id, 'geometry', ST_AsGeoJSON(geom, 6)::json,
           'properties', (SELECT row_to_json(shown) FROM (SELECT {columns}) AS shown)
       )::text AS feature
FROM {tickets} AS ticket
WHERE ticket_id > %(after)s
  AND (%(only)s::text IS NULL OR ticket_id = %(only)s)
  AND (%(west)s::float8 IS NULL
       OR geom && ST_MakeEnvelope(%(west)s, %(south)s, %(until)s, %(north)s, 4326)
       OR geom && ST_MakeEnvelope(%(from)s, %(south)s, %(east)s, %(north)s, 4326))
ORDER BY ticket_id
LIMIT %(limit)s
