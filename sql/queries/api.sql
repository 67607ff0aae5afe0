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

-- name: ping
SELECT 1 AS yes
