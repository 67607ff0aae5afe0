-- Looking places up: aliases that an operator extends, what our guards found, points set by hand, and the provider's
-- limits, which all consumers share.
CREATE TABLE tickets.cluster_aliases (
    cluster    text PRIMARY KEY,
    place      text NOT NULL CHECK (place <> ''),
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN tickets.cluster_aliases.changed_at IS 'A cluster that was asked before is asked once more.';
COMMENT ON TABLE tickets.cluster_aliases IS
    'What the provider is asked for a cluster whose own name it cannot know, such as a code of the network.';
INSERT INTO tickets.cluster_aliases (cluster, place) VALUES ('QOA', 'Quarry Road'), ('PTMP', 'Pipeline');
-- A gazetteer that is there already was filled with these.
UPDATE tickets.cluster_aliases SET changed_at = '-infinity';

-- The batch import may have made its gazetteer with other or fewer columns than 01 gives it, with points that were
-- written and not derived, and places known by their name alone. On a database that was not adopted this block only adds
-- is_manual.
DO $$
DECLARE
    gazetteer text;
    former text;
    ours text;
BEGIN
    FOREACH gazetteer IN ARRAY ARRAY['geo_clusters', 'geo_locations'] LOOP
        FOREACH former IN ARRAY ARRAY['lat', 'lon', 'lng'] LOOP
            ours := CASE former WHEN 'lat' THEN 'latitude' ELSE 'longitude' END;
            IF ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = format('tickets.%I', gazetteer)::regclass
                     AND attname IN (former, ours) AND NOT attisdropped) = ARRAY[former] THEN
                EXECUTE format('ALTER TABLE tickets.%I RENAME %I TO %I', gazetteer, former, ours);
            END IF;
        END LOOP;
    END LOOP;
    FOREACH gazetteer IN ARRAY ARRAY['geo_clusters', 'geo_locations'] LOOP
        EXECUTE format(
            'ALTER TABLE tickets.%I
                 ADD COLUMN IF NOT EXISTS latitude double precision,
                 ADD COLUMN IF NOT EXISTS longitude double precision,
                 ADD COLUMN IF NOT EXISTS query text,
                 ADD COLUMN IF NOT EXISTS provider text,
                 ADD COLUMN IF NOT EXISTS quality text,
                 ADD COLUMN IF NOT EXISTS answer jsonb,
                 ADD COLUMN IF NOT EXISTS status text,
                 ADD COLUMN IF NOT EXISTS geocoded_at timestamptz NOT NULL DEFAULT now()', gazetteer);
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = format('tickets.%I', gazetteer)::regclass
                   AND attname = 'geom' AND attgenerated = '' AND NOT attisdropped) THEN
            EXECUTE format(
                'UPDATE tickets.%I SET latitude = coalesce(ST_Y(geom), latitude), longitude = coalesce(ST_X(geom), longitude)',
                gazetteer);
            EXECUTE format('ALTER TABLE tickets.%I DROP COLUMN geom', gazetteer);
        END IF;
        EXECUTE format(
            $status$UPDATE tickets.%I
                    SET status = CASE WHEN latitude IS NULL OR longitude IS NULL THEN 'miss' ELSE 'hit' END
                    WHERE status IS NULL$status$, gazetteer);
        EXECUTE format('ALTER TABLE tickets.%I ALTER COLUMN status SET NOT NULL', gazetteer);
        EXECUTE format(
            $geom$ALTER TABLE tickets.%I ADD COLUMN IF NOT EXISTS geom geometry(Point, 4326) GENERATED ALWAYS AS (
                CASE WHEN status = 'hit' THEN ST_SetSRID(ST_MakePoint(longitude, latitude), 4326) END
            ) STORED$geom$, gazetteer);
        EXECUTE format('ALTER TABLE tickets.%I ADD COLUMN IF NOT EXISTS is_manual boolean NOT NULL DEFAULT false', gazetteer);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'tickets.geo_locations'::regclass
                   AND attname = 'cluster' AND NOT attisdropped) THEN
        -- One name can be a place of several clusters. Which ones, the tickets tell.
        ALTER TABLE tickets.geo_locations RENAME TO geo_locations_former;
        CREATE TABLE tickets.geo_locations (LIKE tickets.geo_locations_former INCLUDING DEFAULTS INCLUDING GENERATED);
        ALTER TABLE tickets.geo_locations ADD COLUMN cluster text;
        INSERT INTO tickets.geo_locations (cluster, location_name, latitude, longitude, query, provider, quality, answer,
                                           status, geocoded_at)
        SELECT DISTINCT ticket.raw ->> 'cluster', known.location_name, known.latitude, known.longitude, known.query,
               known.provider, known.quality, known.answer, known.status, known.geocoded_at
        FROM tickets.geo_locations_former AS known
        JOIN tickets.inc AS ticket ON ticket.raw ->> 'location_name' = known.location_name
        WHERE ticket.raw ->> 'cluster' IS NOT NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'tickets.geo_clusters'::regclass AND indisunique
                   AND pg_get_indexdef(indexrelid) LIKE '%(cluster)') THEN
        CREATE UNIQUE INDEX geo_clusters_cluster_key ON tickets.geo_clusters (cluster);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'tickets.geo_locations'::regclass AND indisunique
                   AND pg_get_indexdef(indexrelid) LIKE '%(cluster, location_name)') THEN
        CREATE UNIQUE INDEX geo_locations_cluster_location_name_key ON tickets.geo_locations (cluster, location_name);
    END IF;
END
$$;
ALTER TABLE tickets.geo_locations
    ADD COLUMN IF NOT EXISTS cleaned_query text,
    ADD COLUMN IF NOT EXISTS distance_m double precision;
COMMENT ON COLUMN tickets.geo_clusters.is_manual IS 'Set by hand: no answer of a provider overwrites it.';
COMMENT ON COLUMN tickets.geo_locations.is_manual IS 'Set by hand: no answer of a provider overwrites it.';
COMMENT ON COLUMN tickets.geo_locations.distance_m IS 'Metres from the cluster''s point to the point answered.';

-- The batch import's own trigger knew its own names of columns and of sources. Ours takes its place, whatever it was called.
DO $$
DECLARE
    owned record;
BEGIN
    FOR owned IN
        SELECT known.tgname AS name, known.tgrelid::regclass AS placed
        FROM pg_trigger AS known JOIN pg_proc AS called ON called.oid = known.tgfoid
        WHERE known.tgrelid IN ('tickets.inc'::regclass, 'tickets.crq'::regclass) AND NOT known.tgisinternal
          AND called.prosrc ~ 'geo_(source|clusters|locations)'
    LOOP
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

-- Names that differ in nothing but network codes share one answer.
CREATE INDEX geo_locations_cleaned_query ON tickets.geo_locations (cluster, cleaned_query);

-- A request of a provider that is still ours to count. It is booked before it is sent, so a crash in between spends
-- one request of the quota and never one too many.
CREATE TABLE ingest.geocoder_requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    booked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    is_free    boolean NOT NULL DEFAULT false
);
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
COMMENT ON COLUMN ingest.geocoder_pause.account IS 'A hash of address and key: another key is not held up by it.';

-- The rest of a batch is a request of no file.
ALTER TABLE ingest.outbox ALTER COLUMN file_id DROP NOT NULL;
ALTER TABLE ingest.outbox ADD CHECK (file_id IS NOT NULL OR kind = 'geocode');

GRANT SELECT ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest, fleettickets_read;
GRANT INSERT, UPDATE ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest;
-- Only what the limits no longer ask about is removed.
GRANT DELETE ON ingest.geocoder_requests TO fleettickets_ingest;
