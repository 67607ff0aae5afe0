-- Which tickets each version of the data changed, for who follows them. Written by the statement that moves the
-- version, under its lock: so rows come to light in the order of their versions, and one with all that it tells of.
CREATE TABLE ingest.changes (
    feed         text NOT NULL,
    data_version bigint NOT NULL,
    ticket_ids   text[] NOT NULL,
    tickets      integer NOT NULL GENERATED ALWAYS AS (cardinality(ticket_ids)) STORED,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feed, data_version)
);
COMMENT ON TABLE ingest.changes IS
    'Tickets that were inserted, updated or placed anew, by the version of the data that has them so. Kept for three '
    'days. A version without a row changed what is not known: who follows the changes loads everything anew.';
COMMENT ON COLUMN ingest.changes.ticket_ids IS
    'At most 500: a transaction that changes more moves the version by more than one.';
COMMENT ON COLUMN tickets.import_meta.data_version IS
    'Moved by each file, and by each placing of its tickets, by one for each 500 tickets; a row changed by hand moves '
    'nothing.';
