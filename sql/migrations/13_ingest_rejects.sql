-- Rows that could not be tickets, kept with their place and their text.
CREATE TABLE ingest.rejects (
    file_id bigint NOT NULL REFERENCES ingest.ledger,
    line    bigint NOT NULL,
    reason  text NOT NULL,
    raw     text NOT NULL,
    PRIMARY KEY (file_id, line)
);
COMMENT ON COLUMN ingest.rejects.line IS 'Line of the file on which the row begins, from 1.';
COMMENT ON COLUMN ingest.rejects.raw IS 'The row as it stands in the file, cut at 10,000 characters; NUL shown as U+2400.';
