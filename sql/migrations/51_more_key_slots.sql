-- Four consumers have some hundred keys in hand, and of 16,384 slots two were the same one every few seconds: who
-- waited too long for a stranger came again half a minute later. Nobody has a key now: each has one slot at all times.
LOCK TABLE ingest.key_slots IN ACCESS EXCLUSIVE MODE;
INSERT INTO ingest.key_slots (slot) SELECT generate_series(16384, 131071);

CREATE OR REPLACE FUNCTION ingest.key_slot(bucket text, key text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashtextextended(bucket || '/' || key, 0) & 131071)::integer;
