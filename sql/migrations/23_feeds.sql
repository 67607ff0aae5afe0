-- Several feeds in one database: ledger, epochs and positions are a feed's. Everything from before is INC's, and so
-- is what the program of before writes, which goes on running until it is replaced: its columns have their defaults,
-- and its positions a view.
CREATE TABLE ingest.feeds (
    feed        text PRIMARY KEY,
    prefix      text NOT NULL,
    declaration jsonb NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest.feeds IS
    'Feeds that have their tables here, as they were declared when `migrate` ran last. One whose declaration is gone '
    'keeps its rows.';

ALTER TABLE ingest.ledger ADD COLUMN feed text NOT NULL DEFAULT 'inc';
ALTER TABLE ingest.epochs ADD COLUMN feed text NOT NULL DEFAULT 'inc';
ALTER TABLE ingest.ledger DROP CONSTRAINT ledger_epoch_fkey;
ALTER TABLE ingest.epochs DROP CONSTRAINT epochs_pkey, ADD PRIMARY KEY (feed, epoch);
ALTER TABLE ingest.ledger
    ADD CONSTRAINT ledger_feed_epoch_fkey FOREIGN KEY (feed, epoch) REFERENCES ingest.epochs (feed, epoch);
COMMENT ON COLUMN ingest.epochs.feed IS 'Whose files: a new epoch of one feed leaves the others as they are.';

CREATE FUNCTION ingest.current_epoch(of_feed text) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT max(epoch) FROM ingest.epochs WHERE feed = of_feed);

-- Each feed has a table of its own: what is written for one does not grow the index of another.
ALTER TABLE ingest.positions RENAME TO inc_positions;
ALTER INDEX ingest.positions_pkey RENAME TO inc_positions_pkey;
CREATE VIEW ingest.positions AS SELECT ticket_id, position, file_id FROM ingest.inc_positions;
COMMENT ON VIEW ingest.positions IS 'For the program of before; nothing else reads it.';

-- By whichever feed, the newest ones first: `is_one_of_a_run`, `failures_in_a_row` and status ask for those.
CREATE INDEX ledger_feed_applied_at ON ingest.ledger (feed, applied_at DESC NULLS LAST);
