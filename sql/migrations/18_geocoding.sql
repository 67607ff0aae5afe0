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

ALTER TABLE tickets.geo_clusters ADD COLUMN is_manual boolean NOT NULL DEFAULT false;
ALTER TABLE tickets.geo_locations
    ADD COLUMN is_manual boolean NOT NULL DEFAULT false,
    ADD COLUMN distance_m double precision;
COMMENT ON COLUMN tickets.geo_clusters.is_manual IS 'Set by hand: no answer of a provider overwrites it.';
COMMENT ON COLUMN tickets.geo_locations.is_manual IS 'Set by hand: no answer of a provider overwrites it.';
COMMENT ON COLUMN tickets.geo_locations.distance_m IS 'Metres from the cluster''s point to the point answered.';

-- Names that differ in nothing but network codes share one answer.
CREATE INDEX geo_locations_cleaned_query ON tickets.geo_locations (cluster, cleaned_query);

-- A request of a provider that is still ours to count. It is booked before it is sent, so a crash in between spends
-- one request of the quota and never one too many.
CREATE TABLE ingest.geocoder_requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    booked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz
);
COMMENT ON COLUMN ingest.geocoder_requests.ended_at IS
    'When its answer was there: only from then on is it sure that the provider has counted it.';
CREATE INDEX geocoder_requests_booked_at ON ingest.geocoder_requests (booked_at);

CREATE TABLE ingest.geocoder_pause (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    until     timestamptz NOT NULL,
    reason    text NOT NULL
);
COMMENT ON TABLE ingest.geocoder_pause IS 'What the provider, or its quota, made all consumers wait for.';

-- The rest of a batch is a request of no file.
ALTER TABLE ingest.outbox ALTER COLUMN file_id DROP NOT NULL;
ALTER TABLE ingest.outbox ADD CHECK (file_id IS NOT NULL OR kind = 'geocode');

GRANT SELECT ON tickets.cluster_aliases, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest, fleettickets_read;
GRANT INSERT, UPDATE ON tickets.cluster_aliases, tickets.geo_clusters, tickets.geo_locations, ingest.geocoder_requests, ingest.geocoder_pause
    TO fleettickets_ingest;
-- Only what the limits no longer ask about is removed.
GRANT DELETE ON ingest.geocoder_requests TO fleettickets_ingest;
