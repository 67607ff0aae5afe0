-- The version of what a feed's tables say: what was read of them is as it was for as long as this is. It is moved by
-- each transaction that writes tickets, last, while it has the row: who sees a version sees all that came with it.
ALTER TABLE tickets.import_meta ADD COLUMN data_version bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN tickets.import_meta.data_version IS
    'Moved by each file, and by each placing of its tickets; a row changed by hand moves nothing.';
