-- adopted when: SELECT to_regclass('tickets.inc') IS NOT NULL AND to_regclass('tickets.crq') IS NOT NULL AND to_regclass('tickets.geo_clusters') IS NOT NULL AND to_regclass('tickets.geo_locations') IS NOT NULL AND EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('reporting') AND proname = 'fn_tickets_for_map')

CREATE EXTENSION IF NOT EXISTS postgis;

CREATE SCHEMA IF NOT EXISTS tickets;
CREATE SCHEMA IF NOT EXISTS reporting;

COMMENT ON SCHEMA tickets IS 'Trouble tickets as the change files bring them, their gazetteers and their history.';
COMMENT ON SCHEMA reporting IS 'Read functions for maps and dashboards; nothing here is written to.';

-- The feed is text. A helper that raised would fail a whole file for one odd value, so each of them answers NULL
-- for what it cannot read. The length and the two digits of the exponent are what keeps the casts within their range
-- (counted repetitions in the pattern would do it too, at several times the cost).
CREATE OR REPLACE FUNCTION tickets.feed_number(value text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN length(value) <= 70 AND value ~ '^[ \t\r\n\f\v]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9][0-9]?)?[ \t\r\n\f\v]*$'
    THEN value::numeric
END;

COMMENT ON FUNCTION tickets.feed_number(text) IS
    'A number of the feed; NULL for anything that is none, NaN and Infinity included.';

CREATE OR REPLACE FUNCTION tickets.feed_degrees(value text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN length(value) <= 70 AND value ~ '^[ \t\r\n\f\v]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9][0-9]?)?[ \t\r\n\f\v]*$'
    THEN value::double precision
END;

COMMENT ON FUNCTION tickets.feed_degrees(text) IS
    'A latitude or longitude of the feed in decimal degrees; NULL for anything that is none.';

CREATE OR REPLACE FUNCTION tickets.kenya_point(latitude double precision, longitude double precision)
RETURNS geometry
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN latitude BETWEEN -5 AND 5.5 AND longitude BETWEEN 33.5 AND 42
    THEN ST_SetSRID(ST_MakePoint(longitude, latitude), 4326)
END;

COMMENT ON FUNCTION tickets.kenya_point(double precision, double precision) IS
    'The point (WGS 84) if it lies within the bounds of Kenya, else NULL: swapped, zero and foreign coordinates are '
    'mistakes of the feed.';

CREATE OR REPLACE FUNCTION tickets.point_geojson(point geometry) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ST_AsGeoJSON(point, 6)::jsonb;

COMMENT ON FUNCTION tickets.point_geojson(geometry) IS
    'A GeoJSON geometry with six decimals, which is a tenth of a metre.';

CREATE TABLE IF NOT EXISTS tickets.inc (
    ticket_id text PRIMARY KEY,
    raw jsonb NOT NULL CHECK (jsonb_typeof(raw) = 'object'),
    geom geometry(Point, 4326),
    geo_source text,
    ingested_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE tickets.inc IS
    'Incident tickets, one row each in its current state; raw is the source of truth and rows are never deleted.';
COMMENT ON COLUMN tickets.inc.raw IS
    'Every column of the change file as a JSON string or null (empty is null); region lower-case, raw_status upper-case.';
COMMENT ON COLUMN tickets.inc.geom IS 'Where the ticket is, resolved on write; geo_source tells from what.';
COMMENT ON COLUMN tickets.inc.geo_source IS
    'feed (coordinates in the file), location or cluster (gazetteer); NULL while nothing is known.';
COMMENT ON COLUMN tickets.inc.ingested_at IS 'When a row of this ticket was last written here; not a time of the ticket.';

CREATE TABLE IF NOT EXISTS tickets.crq (
    ticket_id text PRIMARY KEY,
    raw jsonb NOT NULL CHECK (jsonb_typeof(raw) = 'object'),
    geom geometry(Point, 4326),
    geo_source text,
    ingested_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE tickets.crq IS
    'Change requests in the shape of tickets.inc; empty until their own feed (automations/crq/) is taken in.';

-- Misses and rejected answers are kept as well: asking the provider again for what it does not know costs quota.
-- Only a hit has a geom, so whoever joins on geom cannot place a ticket on a rejected answer.
CREATE TABLE IF NOT EXISTS tickets.geo_clusters (
    cluster text PRIMARY KEY,
    latitude double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude double precision CHECK (longitude BETWEEN -180 AND 180),
    geom geometry(Point, 4326) GENERATED ALWAYS AS (
        CASE WHEN status = 'hit' THEN ST_SetSRID(ST_MakePoint(longitude, latitude), 4326) END
    ) STORED,
    query text,
    provider text,
    quality text,
    answer jsonb,
    status text NOT NULL CHECK (status IN ('hit', 'miss', 'rejected')),
    geocoded_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK (status <> 'hit' OR latitude IS NOT NULL)
);

COMMENT ON TABLE tickets.geo_clusters IS 'Gazetteer, coarse: one point for each cluster, misses included.';
COMMENT ON COLUMN tickets.geo_clusters.latitude IS 'Degrees north as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.longitude IS 'Degrees east as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.geom IS 'The point of a hit; NULL for a miss and for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.query IS 'The text that the provider was asked.';
COMMENT ON COLUMN tickets.geo_clusters.quality IS 'How exact the provider calls its answer.';
COMMENT ON COLUMN tickets.geo_clusters.answer IS 'The provider''s answer as received.';
COMMENT ON COLUMN tickets.geo_clusters.status IS 'hit, miss (the provider knows no such place) or rejected (by our guards).';

CREATE TABLE IF NOT EXISTS tickets.geo_locations (
    cluster text,
    location_name text,
    cleaned_query text,
    latitude double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude double precision CHECK (longitude BETWEEN -180 AND 180),
    geom geometry(Point, 4326) GENERATED ALWAYS AS (
        CASE WHEN status = 'hit' THEN ST_SetSRID(ST_MakePoint(longitude, latitude), 4326) END
    ) STORED,
    query text,
    provider text,
    quality text,
    answer jsonb,
    status text NOT NULL CHECK (status IN ('hit', 'miss', 'rejected')),
    geocoded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, location_name),
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK (status <> 'hit' OR latitude IS NOT NULL)
);

COMMENT ON TABLE tickets.geo_locations IS
    'Gazetteer, precise: one point for each location name within its cluster, misses included.';
COMMENT ON COLUMN tickets.geo_locations.cleaned_query IS 'The location name without its network codes.';
COMMENT ON COLUMN tickets.geo_locations.latitude IS 'Degrees north as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_locations.longitude IS 'Degrees east as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_locations.geom IS 'The point of a hit; NULL for a miss and for a rejected answer.';
COMMENT ON COLUMN tickets.geo_locations.query IS 'The text that the provider was asked.';
COMMENT ON COLUMN tickets.geo_locations.quality IS 'How exact the provider calls its answer.';
COMMENT ON COLUMN tickets.geo_locations.answer IS 'The provider''s answer as received.';
COMMENT ON COLUMN tickets.geo_locations.status IS
    'hit, miss (the provider knows no such place) or rejected (by our guards, as too far from the cluster).';

-- Generated columns are not filled yet in a BEFORE trigger, so everything is read from NEW.raw.
CREATE OR REPLACE FUNCTION tickets.resolve_geom() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    place_cluster text;
    place_name text;
    -- %TYPE and not geometry, which would be looked up along the caller's search_path.
    place tickets.geo_clusters.geom%TYPE := tickets.kenya_point(
        tickets.feed_degrees(NEW.raw ->> 'latitude'), tickets.feed_degrees(NEW.raw ->> 'longitude')
    );
BEGIN
    IF place IS NOT NULL THEN
        NEW.geom := place;
        NEW.geo_source := 'feed';
        RETURN NEW;
    END IF;

    place_cluster := NEW.raw ->> 'cluster';
    IF place_cluster IS NULL THEN
        RETURN NEW;
    END IF;

    place_name := NEW.raw ->> 'location_name';
    IF place_name IS NOT NULL THEN
        SELECT known.geom INTO place
        FROM tickets.geo_locations AS known
        WHERE known.cluster = place_cluster AND known.location_name = place_name;
        IF place IS NOT NULL THEN
            NEW.geom := place;
            NEW.geo_source := 'location';
            RETURN NEW;
        END IF;
    END IF;

    SELECT known.geom INTO place FROM tickets.geo_clusters AS known WHERE known.cluster = place_cluster;
    IF place IS NOT NULL THEN
        NEW.geom := place;
        NEW.geo_source := 'cluster';
    END IF;
    -- Nothing found: what the row has stays. A gap in the gazetteer must not take a ticket off the map.
    RETURN NEW;
END;
$$;

COMMENT ON FUNCTION tickets.resolve_geom() IS
    'Places a ticket: coordinates of the feed within Kenya, else the location''s point, else the cluster''s, else as it '
    'was. UPDATE … SET raw = raw places rows again after the gazetteer has grown.';

CREATE OR REPLACE TRIGGER resolve_geom BEFORE INSERT OR UPDATE OF raw ON tickets.inc
FOR EACH ROW EXECUTE FUNCTION tickets.resolve_geom();

CREATE OR REPLACE TRIGGER resolve_geom BEFORE INSERT OR UPDATE OF raw ON tickets.crq
FOR EACH ROW EXECUTE FUNCTION tickets.resolve_geom();

CREATE INDEX IF NOT EXISTS inc_geom_idx ON tickets.inc USING gist (geom);
CREATE INDEX IF NOT EXISTS crq_geom_idx ON tickets.crq USING gist (geom);

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
        )
    )
);
$$;
