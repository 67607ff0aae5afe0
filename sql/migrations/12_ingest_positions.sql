-- The position of the change that last wrote a ticket. Positions compare as rows do, field by field, and a change
-- with a lower one never overwrites a higher one: so any order of the same files ends the same.
CREATE TYPE ingest.position AS (
    epoch       integer,
    key_time    timestamptz,
    key         text COLLATE "C",
    object_time timestamptz,
    etag        text COLLATE "C",
    line        bigint
);
COMMENT ON TYPE ingest.position IS
    'etag decides between two versions of one key stored within a second, the precision of LastModified.';

CREATE TABLE ingest.positions (
    ticket_id text PRIMARY KEY,
    position  ingest.position NOT NULL,
    file_id   bigint REFERENCES ingest.ledger
);
COMMENT ON COLUMN ingest.positions.file_id IS 'NULL for a ticket that was there before this ledger.';

-- Two files may show the same closure with other details; the higher position keeps them, in any order.
ALTER TABLE tickets.closure_events ADD COLUMN position ingest.position;

-- All that a row says of its place.
CREATE FUNCTION ingest.place(raw jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[raw->>'cluster', raw->>'location_name', raw->>'latitude', raw->>'longitude'];
