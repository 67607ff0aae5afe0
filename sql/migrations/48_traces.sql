-- What a file's log lines, and those of what follows on, are found by: it comes with the event and goes on with the
-- requests that the file leaves.
ALTER TABLE ingest.ledger ADD COLUMN trace text;
COMMENT ON COLUMN ingest.ledger.trace IS
    'W3C traceparent, and behind a space tracestate, of the last delivery by which this version was decided.';
