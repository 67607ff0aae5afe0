-- Dead letters that somebody let go of, whole, and why.
CREATE TABLE ingest.discards (
    discard_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    discarded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason       text NOT NULL,
    queue        text NOT NULL,
    key          text NOT NULL COLLATE "C",
    died_of      text NOT NULL,
    error        text NOT NULL,
    fingerprint  text NOT NULL,
    attempts     integer NOT NULL,
    dead_at      timestamptz,
    headers      jsonb NOT NULL,
    body         bytea NOT NULL
);
COMMENT ON COLUMN ingest.discards.reason IS 'What the operator said.';
COMMENT ON COLUMN ingest.discards.died_of IS 'What the letter said.';
CREATE UNIQUE INDEX discards_once ON ingest.discards (queue, coalesce(dead_at, '-infinity'), sha256(body));
CREATE INDEX discards_key ON ingest.discards (key);

ALTER TABLE ingest.ledger ADD COLUMN discarded_at timestamptz;
COMMENT ON COLUMN ingest.ledger.discarded_at IS 'When its dead letter was discarded; see ingest.discards.';
