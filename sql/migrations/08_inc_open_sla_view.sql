-- adopted when: SELECT to_regclass('tickets.inc_open_sla') IS NOT NULL

CREATE OR REPLACE FUNCTION tickets.sla_state(age interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN age >= interval '48 hours' THEN 'breached'
    WHEN age >= interval '36 hours' THEN 'at_risk'
    WHEN age IS NOT NULL THEN 'within'
    ELSE 'unknown'
END;

COMMENT ON FUNCTION tickets.sla_state(interval) IS
    'The service level of an open ticket of this age: breached from 48 hours, at_risk from 36 hours, else within; '
    'unknown without an age. The only place that holds the thresholds.';

-- The source's sla_status and mttr say nothing before the closure, so neither is used nor passed on.
CREATE OR REPLACE VIEW tickets.inc_open_sla AS
SELECT
    inc.ticket_id,
    inc.normalized_status,
    inc.raw_status,
    inc.bucket,
    inc.is_actionable,
    inc.cluster,
    inc.region,
    inc.location_name,
    inc.assigned_team,
    inc.owner,
    inc.created_at_service,
    inc.scheduled_at,
    inc.first_seen_at,
    inc.last_seen_at,
    inc.latitude,
    inc.longitude,
    inc.geom,
    inc.geog,
    inc.geo_source,
    inc.ingested_at,
    CASE
        WHEN inc.created_at_service IS NOT NULL THEN 'created_at_service'
        WHEN inc.first_seen_at IS NOT NULL THEN 'first_seen_at'
    END AS age_basis,
    floor(extract(epoch FROM age.value) / 60)::bigint AS age_minutes,
    tickets.sla_state(age.value) AS sla_state
FROM tickets.inc
CROSS JOIN LATERAL (SELECT now() - COALESCE(inc.created_at_service, inc.first_seen_at) AS value) AS age
WHERE inc.closed_at IS NULL AND lower(inc.normalized_status) IS DISTINCT FROM 'closed';

COMMENT ON VIEW tickets.inc_open_sla IS
    'Open incidents with a service level derived from their age now; nothing in it comes from the source''s verdict.';
COMMENT ON COLUMN tickets.inc_open_sla.age_basis IS
    'What the age counts from: created_at_service, else first_seen_at (the true age can be higher), else NULL.';
COMMENT ON COLUMN tickets.inc_open_sla.age_minutes IS
    'Whole minutes from the basis to now; negative if the source dates the ticket ahead.';
COMMENT ON COLUMN tickets.inc_open_sla.sla_state IS 'breached, at_risk, within or unknown; see tickets.sla_state().';

CREATE OR REPLACE FUNCTION reporting.fn_tickets_for_map() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi' AS $$
WITH open AS MATERIALIZED (
    SELECT * FROM tickets.inc_open_sla
)
SELECT jsonb_build_object(
    'type', 'FeatureCollection',
    'features', (
        SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'type', 'Feature',
            'id', ticket_id,
            'geometry', tickets.point_geojson(geom),
            'properties', jsonb_build_object(
                'ticket_id', ticket_id,
                'status', normalized_status,
                'raw_status', raw_status,
                'bucket', bucket,
                'is_actionable', is_actionable,
                'cluster', cluster,
                'region', region,
                'location_name', location_name,
                'team', assigned_team,
                'owner', owner,
                'created_at_service', created_at_service,
                'scheduled_at', scheduled_at,
                'sla_state', sla_state,
                'age_minutes', age_minutes,
                'age_basis', age_basis,
                'geo_source', geo_source
            )
        ) ORDER BY ticket_id), '[]')
        FROM open
        WHERE geom IS NOT NULL
    ),
    'summary', jsonb_build_object(
        'total', (SELECT count(*) FROM tickets.inc),
        'open', (SELECT count(*) FROM open),
        'open_with_geom', (SELECT count(geom) FROM open),
        'open_without_geom', (SELECT count(*) - count(geom) FROM open),
        'by_cluster', (
            SELECT COALESCE(jsonb_object_agg(cluster, tickets), '{}')
            FROM (
                SELECT COALESCE(cluster, '(none)') AS cluster, count(*) AS tickets FROM open GROUP BY 1
            ) AS counted
        ),
        'by_sla_state', (
            SELECT jsonb_object_agg(state, (SELECT count(*) FROM open WHERE sla_state = state))
            FROM unnest(ARRAY['breached', 'at_risk', 'within', 'unknown']) AS state
        ),
        'freshness', reporting.fn_import_freshness('inc')
    )
);
$$;

COMMENT ON FUNCTION reporting.fn_tickets_for_map() IS
    'GeoJSON of the open incidents that have a place; summary counts all of them and tells how fresh they are. Times '
    'carry the offset +03:00.';
