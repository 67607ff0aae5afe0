-- adopted when: SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'geog' AND udt_name = 'geography')

ALTER TABLE tickets.inc
    ADD COLUMN IF NOT EXISTS geog geography(Point, 4326) GENERATED ALWAYS AS (geom::geography) STORED;

COMMENT ON COLUMN tickets.inc.geog IS 'geom for distances in metres (nearest ticket, routing).';

CREATE INDEX IF NOT EXISTS inc_geog_idx ON tickets.inc USING gist (geog);
