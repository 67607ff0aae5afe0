-- Where the time of a file goes: its stages, of which the ledger had the first and the last ones.
ALTER TABLE ingest.ledger
    ADD COLUMN opened_at timestamptz,
    ADD COLUMN staged_at timestamptz;
COMMENT ON COLUMN ingest.ledger.opened_at IS
    'When the store had begun to give the version that was applied, by the clock of the consumer, as first_seen_at.';
COMMENT ON COLUMN ingest.ledger.staged_at IS
    'When all of its rows were in the database and none merged, by the same clock.';
COMMENT ON COLUMN ingest.ledger.applied_at IS 'Just before its COMMIT, by the database''s clock.';
