-- name: stamp
-- What an answer is known by: nothing in it depends on more of the time than its minute.
SELECT coalesce(max(data_version), 0) AS version, date_trunc('minute', now()) AS minute
FROM tickets.import_meta
WHERE source = %(feed)s

-- name: dashboard
SELECT reporting.fn_inc_dashboard(%(cluster)s::text, %(status)s::text, %(window)s::text, %(from)s::timestamptz,
                                  %(to)s::timestamptz)::text AS body

-- name: map
SELECT reporting.fn_tickets_for_map()::text AS body

-- name: freshness
SELECT reporting.fn_import_freshness(%(feed)s)::text AS body

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
           'properties', to_jsonb(ticket) - '{{raw,geom,geog,latitude,longitude}}'::text[]
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
           'properties', to_jsonb(ticket) - '{{raw,geom,geog,latitude,longitude}}'::text[]
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
           'properties', to_jsonb(ticket) - '{{raw,geom,geog,latitude,longitude}}'::text[]
       )::text AS feature
FROM {tickets} AS ticket
WHERE true
  AND ticket_id > %(after)s
  AND (%(only)s::text IS NULL OR ticket_id = %(only)s)
  AND (%(west)s::float8 IS NULL
       OR geom && ST_MakeEnvelope(%(west)s, %(south)s, %(until)s, %(north)s, 4326)
       OR geom && ST_MakeEnvelope(%(from)s, %(south)s, %(east)s, %(north)s, 4326))
ORDER BY ticket_id
LIMIT %(limit)s
