-- adopted when: SELECT to_regclass('tickets.import_meta') IS NOT NULL

CREATE TABLE IF NOT EXISTS tickets.import_meta (
    source text PRIMARY KEY,
    snapshot_at timestamptz,
    imported_at timestamptz,
    row_count bigint,
    metadata jsonb NOT NULL DEFAULT '{}'
);

COMMENT ON TABLE tickets.import_meta IS 'How fresh each feed is: one row for each source that has been taken in.';
COMMENT ON COLUMN tickets.import_meta.source IS 'inc or crq.';
COMMENT ON COLUMN tickets.import_meta.snapshot_at IS
    'The time in the key of the newest change file applied. The content of a file is about two days older still.';
COMMENT ON COLUMN tickets.import_meta.imported_at IS 'When that file was applied.';
COMMENT ON COLUMN tickets.import_meta.row_count IS 'Rows of the ticket table after that file.';
COMMENT ON COLUMN tickets.import_meta.metadata IS
    'source_max_key is the watermark: the key of the newest change file applied.';

CREATE OR REPLACE FUNCTION reporting.fn_import_freshness(p_source text) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi' AS $$
SELECT jsonb_build_object(
    'source_max_key', meta.metadata ->> 'source_max_key',
    'snapshot_at', meta.snapshot_at,
    'imported_at', meta.imported_at,
    'row_count', meta.row_count,
    'age_minutes', floor(extract(epoch FROM now() - meta.snapshot_at) / 60)::bigint
)
FROM (VALUES (p_source)) AS asked (source)
LEFT JOIN tickets.import_meta AS meta USING (source);
$$;

COMMENT ON FUNCTION reporting.fn_import_freshness(text) IS
    'The freshness block of the read functions: every key is there, null before the first import. age_minutes counts '
    'from snapshot_at.';

-- Reads raw, because the typed columns come later; 08 puts the version in place that stays.
CREATE OR REPLACE FUNCTION reporting.fn_tickets_for_map() RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
WITH open AS (
    SELECT ticket_id, raw, geom, geo_source, COALESCE(raw ->> 'cluster', '(none)') AS cluster
    FROM tickets.inc
    WHERE raw ->> 'closed_at' IS NULL AND lower(raw ->> 'normalized_status') IS DISTINCT FROM 'closed'
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
                'status', raw ->> 'normalized_status',
                'raw_status', raw ->> 'raw_status',
                'bucket', raw ->> 'bucket',
                'cluster', raw ->> 'cluster',
                'region', raw ->> 'region',
                'location_name', raw ->> 'location_name',
                'team', raw ->> 'assigned_team',
                'owner', raw ->> 'owner',
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
            FROM (SELECT cluster, count(*) AS tickets FROM open GROUP BY cluster) AS counted
        ),
        'freshness', reporting.fn_import_freshness('inc')
    )
);
$$;
