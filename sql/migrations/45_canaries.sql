-- How far a canary of `doctor --end-to-end` has come. What it is applied as is rolled back, so this is all that tells
-- of it; the next canary removes what is older than an hour.
CREATE TABLE ingest.canaries (
    key          text PRIMARY KEY,
    seen_by      text NOT NULL CHECK (seen_by IN ('notification', 'poller')),
    delivered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    opened_at    timestamptz,
    applied_at   timestamptz,
    archived_at  timestamptz,
    removed_at   timestamptz,
    trouble      text
);
COMMENT ON TABLE ingest.canaries IS
    'Files that doctor sends the way of a change file, and when a consumer was through with each stage of it.';
COMMENT ON COLUMN ingest.canaries.applied_at IS
    'When its rows had been applied and rolled back. None where that failed: trouble says why.';
