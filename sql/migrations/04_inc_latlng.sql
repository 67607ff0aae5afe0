-- adopted when: SELECT count(*) = 2 FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name IN ('latitude', 'longitude') AND generation_expression LIKE '%geom%'

-- The feed's value counts only as a usable pair: half a pair, or a point outside Kenya, next to a geom from the
-- gazetteer would make a place where nobody is.
ALTER TABLE tickets.inc
    ADD COLUMN IF NOT EXISTS latitude double precision GENERATED ALWAYS AS (
        COALESCE(
            ST_Y(tickets.kenya_point(
                tickets.feed_degrees(raw ->> 'latitude'), tickets.feed_degrees(raw ->> 'longitude')
            )),
            ST_Y(geom)
        )
    ) STORED,
    ADD COLUMN IF NOT EXISTS longitude double precision GENERATED ALWAYS AS (
        COALESCE(
            ST_X(tickets.kenya_point(
                tickets.feed_degrees(raw ->> 'latitude'), tickets.feed_degrees(raw ->> 'longitude')
            )),
            ST_X(geom)
        )
    ) STORED;

COMMENT ON COLUMN tickets.inc.latitude IS 'Degrees north: of the feed where it has a usable pair, else of geom.';
COMMENT ON COLUMN tickets.inc.longitude IS 'Degrees east: of the feed where it has a usable pair, else of geom.';
