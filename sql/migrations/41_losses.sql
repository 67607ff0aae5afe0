-- Objects that are gone and that somebody has looked into: what became of them, who says so, and when. To be told apart
-- from a loss that nobody knows of.
CREATE TABLE ingest.losses (
    bucket          text NOT NULL COLLATE "C",
    key             text NOT NULL COLLATE "C",
    etag            text NOT NULL COLLATE "C",
    reason          text NOT NULL,
    acknowledged_by text NOT NULL,
    login           name NOT NULL DEFAULT session_user,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (bucket, key, etag)
);
COMMENT ON TABLE ingest.losses IS 'Versions of files whose object is gone, acknowledged by a person.';
COMMENT ON COLUMN ingest.losses.acknowledged_by IS 'The user and the host of the command.';
COMMENT ON COLUMN ingest.losses.login IS 'Of the database.';
