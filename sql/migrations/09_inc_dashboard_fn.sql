-- adopted when: SELECT EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('reporting') AND proname = 'fn_inc_dashboard')

-- Takes the present as an argument, so that a window can be looked at around any midnight. Rolling windows are
-- whole hours: an interval of days would follow the connection's time zone through its summer time.
CREATE OR REPLACE FUNCTION reporting.fn_inc_window(
    p_window text,
    p_from timestamptz,
    p_to timestamptz,
    p_now timestamptz,
    OUT name text,
    OUT from_at timestamptz,
    OUT to_at timestamptz
)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    name := COALESCE(lower(btrim(p_window)), '7d');
    IF name NOT IN ('today', '24h', '7d', '30d', '90d', 'all', 'custom') THEN
        RAISE EXCEPTION 'unknown window %', quote_literal(p_window)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Allowed are today, 24h, 7d, 30d, 90d, all and custom.';
    END IF;

    IF p_from IS NOT NULL OR p_to IS NOT NULL THEN
        IF p_from > p_to THEN
            RAISE EXCEPTION 'the window begins after its end: from % is later than to %', p_from, p_to
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        name := 'custom';
        from_at := p_from;
        to_at := p_to;
        RETURN;
    END IF;

    CASE name
        WHEN 'custom' THEN
            RAISE EXCEPTION 'the window custom needs from, to or both'
                USING ERRCODE = 'invalid_parameter_value';
        WHEN 'all' THEN
            from_at := NULL;
            to_at := NULL;
        WHEN 'today' THEN
            from_at := date_trunc('day', p_now, 'Africa/Nairobi');
            to_at := from_at + interval '24 hours';
        ELSE
            from_at := p_now - CASE name
                WHEN '24h' THEN interval '24 hours'
                WHEN '7d' THEN interval '168 hours'
                WHEN '30d' THEN interval '720 hours'
                WHEN '90d' THEN interval '2160 hours'
            END;
            to_at := p_now;
    END CASE;
END;
$$;

COMMENT ON FUNCTION reporting.fn_inc_window(text, timestamptz, timestamptz, timestamptz) IS
    'A dashboard window as a half-open interval [from_at, to_at); NULL is no bound. today is the East African day; from '
    'and to, if given, go before the name.';

CREATE OR REPLACE FUNCTION reporting.fn_inc_dashboard(
    p_cluster text DEFAULT NULL,
    p_status text DEFAULT NULL,
    p_window text DEFAULT '7d',
    p_from timestamptz DEFAULT NULL,
    p_to timestamptz DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi' AS $$
DECLARE
    span record;
    only_cluster text := lower(NULLIF(btrim(p_cluster), ''));
    only_status text := lower(NULLIF(btrim(p_status), ''));
    payload jsonb;
BEGIN
    SELECT * INTO span FROM reporting.fn_inc_window(p_window, p_from, p_to, now());

    WITH open AS MATERIALIZED (
        SELECT *
        FROM tickets.inc_open_sla
        WHERE (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
            AND (only_status IS NULL OR lower(normalized_status) = only_status)
    ),
    closed AS MATERIALIZED (
        SELECT *
        FROM tickets.inc
        WHERE closed_at IS NOT NULL
            AND (span.from_at IS NULL OR closed_at >= span.from_at)
            AND (span.to_at IS NULL OR closed_at < span.to_at)
            AND (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
            AND (only_status IS NULL OR lower(normalized_status) = only_status)
    ),
    opened AS (
        SELECT
            count(*) FILTER (
                WHERE created_at_service IS NOT NULL
                    AND (span.from_at IS NULL OR created_at_service >= span.from_at)
                    AND (span.to_at IS NULL OR created_at_service < span.to_at)
            ) AS in_window,
            count(*) FILTER (WHERE created_at_service IS NULL) AS undated,
            count(*) FILTER (WHERE closed_at IS NULL AND lower(normalized_status) = 'closed') AS closed_undated
        FROM tickets.inc
        WHERE (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
            AND (only_status IS NULL OR lower(normalized_status) = only_status)
    ),
    open_features AS (
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
        ) ORDER BY ticket_id), '[]') AS list
        FROM open
        WHERE geom IS NOT NULL
    ),
    closed_features AS (
        SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'type', 'Feature',
            'id', ticket_id,
            'geometry', tickets.point_geojson(geom),
            'properties', jsonb_build_object(
                'ticket_id', ticket_id,
                'status', normalized_status,
                'raw_status', raw_status,
                'bucket', bucket,
                'cluster', cluster,
                'region', region,
                'location_name', location_name,
                'team', assigned_team,
                'owner', owner,
                'created_at_service', created_at_service,
                'closed_at', closed_at,
                'mttr_minutes', mttr,
                'sla_status', sla_status,
                'geo_source', geo_source
            )
        ) ORDER BY ticket_id), '[]') AS list
        FROM closed
        WHERE geom IS NOT NULL
    ),
    open_metrics AS (
        SELECT jsonb_build_object(
            'total', count(*),
            'actionable', count(*) FILTER (WHERE is_actionable),
            'with_geom', count(geom),
            'without_geom', count(*) - count(geom),
            'geom_share', round(count(geom)::numeric / NULLIF(count(*), 0), 4),
            'by_sla_state', jsonb_build_object(
                'breached', count(*) FILTER (WHERE sla_state = 'breached'),
                'at_risk', count(*) FILTER (WHERE sla_state = 'at_risk'),
                'within', count(*) FILTER (WHERE sla_state = 'within'),
                'unknown', count(*) FILTER (WHERE sla_state = 'unknown')
            ),
            'by_age_basis', jsonb_build_object(
                'created_at_service', count(*) FILTER (WHERE age_basis = 'created_at_service'),
                'first_seen_at', count(*) FILTER (WHERE age_basis = 'first_seen_at'),
                'none', count(*) FILTER (WHERE age_basis IS NULL)
            ),
            'by_cluster', (
                SELECT COALESCE(jsonb_object_agg(name, tickets), '{}')
                FROM (SELECT COALESCE(cluster, '(none)') AS name, count(*) AS tickets FROM open GROUP BY 1) AS counted
            ),
            'by_team', (
                SELECT COALESCE(jsonb_object_agg(name, tickets), '{}')
                FROM (
                    SELECT COALESCE(assigned_team, '(none)') AS name, count(*) AS tickets FROM open GROUP BY 1
                ) AS counted
            )
        ) AS block
        FROM open
    ),
    closed_metrics AS (
        SELECT jsonb_build_object(
            'total', count(*),
            'undated', (SELECT closed_undated FROM opened),
            'with_geom', count(geom),
            'without_geom', count(*) - count(geom),
            'geom_share', round(count(geom)::numeric / NULLIF(count(*), 0), 4),
            'by_sla_status', (
                SELECT COALESCE(jsonb_object_agg(name, tickets), '{}')
                FROM (
                    SELECT COALESCE(sla_status, '(none)') AS name, count(*) AS tickets FROM closed GROUP BY 1
                ) AS counted
            ),
            'mttr_minutes', jsonb_build_object(
                'tickets', count(mttr),
                'average', round(avg(mttr), 1),
                'median', round(percentile_cont(0.5) WITHIN GROUP (ORDER BY mttr)::numeric, 1),
                'p90', round(percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr)::numeric, 1)
            )
        ) AS block
        FROM closed
    )
    SELECT jsonb_build_object(
        'filters', jsonb_build_object(
            'cluster', NULLIF(btrim(p_cluster), ''),
            'status', NULLIF(btrim(p_status), ''),
            'window', span.name,
            'from', span.from_at,
            'to', span.to_at
        ),
        'open', jsonb_build_object('type', 'FeatureCollection', 'features', open_features.list),
        'closed', jsonb_build_object('type', 'FeatureCollection', 'features', closed_features.list),
        'metrics', jsonb_build_object(
            'open', open_metrics.block,
            'closed', closed_metrics.block,
            'created', jsonb_build_object('total', opened.in_window, 'undated', opened.undated)
        ),
        'freshness', reporting.fn_import_freshness('inc')
    )
    INTO payload
    FROM opened, open_features, closed_features, open_metrics, closed_metrics;

    RETURN payload;
END;
$$;

COMMENT ON FUNCTION reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz) IS
    'The incident dashboard in one answer: {filters, open, closed, metrics, freshness}. open is the present, closed and '
    'created are within the window [from, to); tickets without a place are in metrics and not among the features. '
    'Times carry the offset +03:00.';
