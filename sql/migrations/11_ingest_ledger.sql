-- The ledger: one row for every version of every key ever seen, with what was decided and how far it got.
CREATE SCHEMA IF NOT EXISTS ingest;
COMMENT ON SCHEMA ingest IS 'How change files became rows: ledger, positions, rejects, outbox.';

-- A cut-over to a new bucket begins a new epoch; files claimed in it outrank everything from before.
CREATE TABLE ingest.epochs (
    epoch    integer PRIMARY KEY,
    reason   text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO ingest.epochs (epoch, reason) VALUES (1, 'first');

CREATE TABLE ingest.ledger (
    file_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket            text NOT NULL,
    prefix            text NOT NULL,
    key               text NOT NULL COLLATE "C",
    etag              text NOT NULL COLLATE "C",
    size              bigint,
    sha256            text,
    epoch             integer NOT NULL REFERENCES ingest.epochs,
    key_time          timestamptz,
    object_time       timestamptz,
    event_time        timestamptz,
    first_seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    first_seen_by     text NOT NULL CHECK (first_seen_by IN ('notification', 'poller', 'drain', 'import')),
    decision          text NOT NULL
                      CHECK (decision IN ('new', 'late', 'changed', 'missing', 'rejected', 'ignored')),
    reason            text,
    state             text NOT NULL CHECK (state IN ('seen', 'applied', 'archived', 'done', 'failed')),
    duplicates        integer NOT NULL DEFAULT 0,
    attempts          integer NOT NULL DEFAULT 0,
    retry_at          timestamptz,
    last_error        text,
    error_fingerprint text,
    dead_lettered_at  timestamptz,
    applied_at        timestamptz,
    archived_at       timestamptz,
    archive_key       text,
    done_at           timestamptz,
    rows_read         bigint NOT NULL DEFAULT 0,
    rows_inserted     bigint NOT NULL DEFAULT 0,
    rows_updated      bigint NOT NULL DEFAULT 0,
    rows_unchanged    bigint NOT NULL DEFAULT 0,
    rows_stale        bigint NOT NULL DEFAULT 0,
    rows_superseded   bigint NOT NULL DEFAULT 0,
    rows_rejected     bigint NOT NULL DEFAULT 0,
    alarms_dropped    bigint NOT NULL DEFAULT 0,
    sentinels_dropped bigint NOT NULL DEFAULT 0,
    UNIQUE (bucket, key, etag)
);
COMMENT ON COLUMN ingest.ledger.etag IS 'As read by the GET; empty where nothing could be read.';
COMMENT ON COLUMN ingest.ledger.key_time IS 'The instant that the key names.';
COMMENT ON COLUMN ingest.ledger.object_time IS 'LastModified of the version read; never a cursor.';
COMMENT ON COLUMN ingest.ledger.event_time IS 'When the store says that the object arrived.';
COMMENT ON COLUMN ingest.ledger.duplicates IS 'Deliveries after the one that was applied.';
COMMENT ON COLUMN ingest.ledger.rows_superseded IS 'Rows followed by a later row of the same ticket in the file.';

CREATE INDEX ledger_unfinished ON ingest.ledger (file_id) WHERE state IN ('applied', 'archived');
CREATE INDEX ledger_failed ON ingest.ledger (file_id) WHERE state = 'failed';
CREATE INDEX ledger_applied_at ON ingest.ledger (applied_at DESC NULLS LAST);

-- The watermark (tickets.import_meta.metadata) is epoch, instant and key. One that the batch script left has only
-- the key: its instant is filled in when its database is adopted.
CREATE FUNCTION ingest.is_ahead(candidate jsonb, watermark jsonb) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT ((candidate->>'epoch')::integer,
            (candidate->>'source_max_key_time')::timestamptz,
            candidate->>'source_max_key' COLLATE "C")
         > (coalesce((watermark->>'epoch')::integer, 1),
            coalesce((watermark->>'source_max_key_time')::timestamptz, '-infinity'),
            coalesce(watermark->>'source_max_key', '') COLLATE "C")
$$;

-- Events that name no change file of ours (removals, test events, other folders) have no key to keep.
CREATE TABLE ingest.ignored_events (
    day    date NOT NULL,
    reason text NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (day, reason)
);
