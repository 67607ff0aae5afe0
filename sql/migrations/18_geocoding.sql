-- Looking places up: aliases that an operator extends, what our guards found, points set by hand, and the provider's
-- limits, which all consumers share.
CREATE TABLE tickets.cluster_aliases (
    cluster text NOT NULL,
    place   text NOT NULL CHECK (place <> '')
);
-- A code is the same in capitals and in small letters.
CREATE UNIQUE INDEX cluster_aliases_key ON tickets.cluster_aliases (lower(cluster));
COMMENT ON TABLE tickets.cluster_aliases IS
    'What the provider is asked for a cluster whose own name it cannot know, such as a code of the network. A cluster that '
    'was asked under another name is asked once more.';
INSERT INTO tickets.cluster_aliases (cluster, place) VALUES ('QOA', 'Quarry Road'), ('PTMP', 'Pipeline');

-- The batch import may have made its gazetteer with other columns and constraints than 01 does. So it is made anew, and
-- what the former one knew is copied whatever its columns were called; that one stays, unless it is empty.
ALTER TABLE tickets.geo_clusters RENAME TO geo_clusters_former;
ALTER TABLE tickets.geo_locations RENAME TO geo_locations_former;

CREATE TABLE tickets.geo_clusters (
    cluster text CONSTRAINT geo_clusters_key PRIMARY KEY,
    asked_as text,
    found_as text,
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
    unanswered smallint NOT NULL DEFAULT 0,
    is_due boolean NOT NULL DEFAULT false,
    is_manual boolean NOT NULL DEFAULT false,
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK (status <> 'hit' OR latitude IS NOT NULL)
);
COMMENT ON TABLE tickets.geo_clusters IS 'Gazetteer, coarse: one point for each cluster, misses included.';
COMMENT ON COLUMN tickets.geo_clusters.asked_as IS 'The cluster''s name or its alias, when the provider was asked.';
COMMENT ON COLUMN tickets.geo_clusters.found_as IS 'What it was asked as when it gave this point.';
COMMENT ON COLUMN tickets.geo_clusters.latitude IS 'Degrees north as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.longitude IS 'Degrees east as answered; also kept for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.geom IS 'The point of a hit; NULL for a miss and for a rejected answer.';
COMMENT ON COLUMN tickets.geo_clusters.query IS 'The text that the provider was asked.';
COMMENT ON COLUMN tickets.geo_clusters.quality IS 'How exact the provider calls its answer.';
COMMENT ON COLUMN tickets.geo_clusters.answer IS 'The provider''s answer as received.';
COMMENT ON COLUMN tickets.geo_clusters.status IS
    'hit, miss (the provider knows no such place, or says nothing of use) or rejected (by our guards).';
COMMENT ON COLUMN tickets.geo_clusters.unanswered IS 'Times in a row that others were answered and this one was not.';
COMMENT ON COLUMN tickets.geo_clusters.is_due IS 'To be asked for again, whatever the age of its answer.';
COMMENT ON COLUMN tickets.geo_clusters.is_manual IS 'Set by hand: no answer of a provider overwrites it.';

CREATE TABLE tickets.geo_locations (
    cluster text,
    location_name text,
    cleaned_query text,
    latitude double precision CHECK (latitude BETWEEN -90 AND 90),
    longitude double precision CHECK (longitude BETWEEN -180 AND 180),
    geom geometry(Point, 4326) GENERATED ALWAYS AS (
        CASE WHEN status = 'hit' THEN ST_SetSRID(ST_MakePoint(longitude, latitude), 4326) END
    ) STORED,
    distance_m double precision,
    query text,
    provider text,
    quality text,
    answer jsonb,
    status text NOT NULL CHECK (status IN ('hit', 'miss', 'rejected')),
    geocoded_at timestamptz NOT NULL DEFAULT now(),
    unanswered smallint NOT NULL DEFAULT 0,
    is_due boolean NOT NULL DEFAULT false,
    is_manual boolean NOT NULL DEFAULT false,
    CONSTRAINT geo_locations_key PRIMARY KEY (cluster, location_name),
    CHECK ((latitude IS NULL) = (longitude IS NULL)),
    CHECK (status <> 'hit' OR latitude IS NOT NULL)
);
COMMENT ON TABLE tickets.geo_locations IS
    'Gazetteer, precise: one point for each location name within its cluster, misses included. Columns as in geo_clusters.';
COMMENT ON COLUMN tickets.geo_locations.cleaned_query IS 'The location name without its network codes.';
COMMENT ON COLUMN tickets.geo_locations.distance_m IS 'Metres from the cluster''s point to the point answered.';
COMMENT ON COLUMN tickets.geo_locations.status IS
    'hit, miss (the provider knows no such place, or says nothing of use) or rejected (by our guards, as too far from the cluster).';

-- A former point, wherever it was kept. Outside Kenya, and in half, it is none.
CREATE FUNCTION pg_temp.former_point(former jsonb) RETURNS geometry
LANGUAGE sql AS $$
    SELECT coalesce(
        tickets.kenya_point(ST_Y((former ->> 'geom')::geometry), ST_X((former ->> 'geom')::geometry)),
        tickets.kenya_point(tickets.feed_degrees(coalesce(former ->> 'latitude', former ->> 'lat')),
                            tickets.feed_degrees(coalesce(former ->> 'longitude', former ->> 'lon', former ->> 'lng')))
    )
$$;

INSERT INTO tickets.geo_clusters
    (cluster, asked_as, found_as, latitude, longitude, query, provider, quality, answer, status)
SELECT DISTINCT ON (known ->> 'cluster')
       known ->> 'cluster', coalesce(alias.place, known ->> 'cluster'), coalesce(alias.place, known ->> 'cluster'), ST_Y(point), ST_X(point), known ->> 'query',
       known ->> 'provider', known ->> 'quality',
       nullif(known -> 'answer', 'null'),
       CASE WHEN point IS NULL THEN 'miss' WHEN known ->> 'status' = 'rejected' THEN 'rejected' ELSE 'hit' END
FROM (SELECT to_jsonb(former) AS known FROM tickets.geo_clusters_former AS former) AS clusters
CROSS JOIN LATERAL pg_temp.former_point(known) AS point
LEFT JOIN tickets.cluster_aliases AS alias ON lower(alias.cluster) = lower(known ->> 'cluster')
WHERE known ->> 'cluster' IS NOT NULL
ORDER BY known ->> 'cluster', point IS NULL;

-- A name without its cluster becomes a place of each cluster that has tickets there.
INSERT INTO tickets.geo_locations (cluster, location_name, latitude, longitude, query, provider, quality, answer, status)
SELECT DISTINCT ON (coalesce(known ->> 'cluster', there.cluster), known ->> 'location_name')
       coalesce(known ->> 'cluster', there.cluster), known ->> 'location_name', ST_Y(point), ST_X(point), known ->> 'query',
       known ->> 'provider', known ->> 'quality',
       nullif(known -> 'answer', 'null'),
       CASE WHEN point IS NULL THEN 'miss' WHEN known ->> 'status' = 'rejected' THEN 'rejected' ELSE 'hit' END
FROM (SELECT to_jsonb(former) AS known FROM tickets.geo_locations_former AS former) AS locations
CROSS JOIN LATERAL pg_temp.former_point(known) AS point
LEFT JOIN (SELECT DISTINCT raw ->> 'cluster' AS cluster, raw ->> 'location_name' AS location_name FROM tickets.inc) AS there
    ON there.location_name = known ->> 'location_name' AND NOT known ? 'cluster'
WHERE coalesce(known ->> 'cluster', there.cluster) IS NOT NULL AND known ->> 'location_name' IS NOT NULL
ORDER BY coalesce(known ->> 'cluster', there.cluster), known ->> 'location_name', point IS NULL;

DROP FUNCTION pg_temp.former_point(jsonb);
DO $$
DECLARE
    former text;
    is_empty boolean;
BEGIN
    FOREACH former IN ARRAY ARRAY['geo_clusters_former', 'geo_locations_former'] LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM tickets.%I)', former) INTO is_empty;
        IF is_empty THEN
            BEGIN
                EXECUTE format('DROP TABLE tickets.%I', former);
            EXCEPTION WHEN dependent_objects_still_exist THEN
                RAISE WARNING 'tickets.% is empty and stays, for something is built on it', former;
            END;
        END IF;
    END LOOP;
END
$$;

-- Who read the former tables reads the new ones. What was built on the former ones, such as a view, stays with them.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT made.oid::regclass AS made, grants.privilege_type AS privilege,
               CASE grants.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grants.grantee)) END AS reader
        FROM pg_class AS former
        JOIN pg_class AS made ON made.relnamespace = former.relnamespace AND made.relname || '_former' = former.relname
        CROSS JOIN LATERAL aclexplode(former.relacl) AS grants
        WHERE former.relnamespace = 'tickets'::regnamespace AND made.relname IN ('geo_clusters', 'geo_locations')
          AND grants.grantee <> former.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s', found.privilege, found.made, found.reader);
    END LOOP;
    FOR found IN
        SELECT DISTINCT rule.ev_class::regclass AS reader, needed.refobjid::regclass AS former
        FROM pg_depend AS needed JOIN pg_rewrite AS rule ON rule.oid = needed.objid
        WHERE needed.classid = 'pg_rewrite'::regclass AND needed.refclassid = 'pg_class'::regclass
          AND needed.refobjid IN (to_regclass('tickets.geo_clusters_former'), to_regclass('tickets.geo_locations_former'))
    LOOP
        RAISE WARNING 'view % goes on reading %, which changes no more: create it anew', found.reader, found.former;
    END LOOP;
END
$$;

-- The batch import's own trigger knew its own names of columns and of sources. Ours takes its place, whatever it was
-- called. One that only reads the place, such as an audit, stays.
DO $$
DECLARE
    owned record;
BEGIN
    FOR owned IN
        SELECT known.tgname AS name, known.tgrelid::regclass AS placed
        FROM pg_trigger AS known JOIN pg_proc AS called ON called.oid = known.tgfoid
        WHERE known.tgrelid IN ('tickets.inc'::regclass, 'tickets.crq'::regclass) AND NOT known.tgisinternal
          AND (known.tgtype & 3) = 3 -- for each row, before it is written
          AND called.prosrc ~* 'new\.(geom|geo_source)\M'
          AND NOT (known.tgname = 'resolve_geom' AND called.oid = to_regproc('tickets.resolve_geom')) -- 01's, replaced below
    LOOP
        RAISE WARNING 'trigger % on % is replaced by ours', owned.name, owned.placed;
        EXECUTE format('DROP TRIGGER %I ON %s', owned.name, owned.placed);
    END LOOP;
END
$$;
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

-- The batch import may have had another word for it, and what is not the feed's is placed by the gazetteer.
UPDATE tickets.inc AS ticket SET geom = fed.place, geo_source = 'feed'
FROM (SELECT ticket_id, tickets.kenya_point(tickets.feed_degrees(raw ->> 'latitude'),
                                            tickets.feed_degrees(raw ->> 'longitude')) AS place
      FROM tickets.inc) AS fed
WHERE ticket.ticket_id = fed.ticket_id AND fed.place IS NOT NULL AND ticket.geo_source IS DISTINCT FROM 'feed';

-- Names that differ in nothing but network codes share one answer.
CREATE INDEX geo_locations_cleaned_query ON tickets.geo_locations (cluster, cleaned_query);

-- A request of a provider that is still ours to count. It is booked before it is sent, so a crash in between spends
-- one request of the quota and never one too many.
CREATE TABLE ingest.geocoder_requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account    text NOT NULL,
    booked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    is_free    boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN ingest.geocoder_requests.account IS 'A hash of address and key: each key has its own limits.';
COMMENT ON COLUMN ingest.geocoder_requests.is_free IS
    'It failed, and the provider does not charge the day for that; its limits per second and minute count it.';
COMMENT ON COLUMN ingest.geocoder_requests.ended_at IS
    'When its answer was there: only from then on is it sure that the provider has counted it.';
CREATE INDEX geocoder_requests_booked_at ON ingest.geocoder_requests (booked_at);

CREATE TABLE ingest.geocoder_pause (
    account text PRIMARY KEY,
    until   timestamptz NOT NULL,
    reason  text NOT NULL
);
COMMENT ON TABLE ingest.geocoder_pause IS 'What the provider made everybody wait for who asks it with the same key.';
COMMENT ON COLUMN ingest.geocoder_pause.account IS 'As in geocoder_requests: another key is not held up by it.';

-- The rest of a batch is a request of no file.
ALTER TABLE ingest.outbox ALTER COLUMN file_id DROP NOT NULL;
ALTER TABLE ingest.outbox ADD CHECK (file_id IS NOT NULL OR kind = 'geocode');

GRANT SELECT ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest, fleettickets_read;
GRANT INSERT, UPDATE ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest;
-- Only what the limits no longer ask about is removed.
GRANT DELETE ON ingest.geocoder_requests TO fleettickets_ingest;
