-- The file of a position is taken from the ledger in the statement that writes it, and the ledger forgets none: a
-- foreign key looked each of them up again, which was a third of what positions cost.
DO $$
DECLARE
    checked record;
BEGIN
    FOR checked IN
        SELECT conrelid::regclass AS positions, conname AS name
        FROM pg_constraint
        WHERE contype = 'f' AND confrelid = 'ingest.ledger'::regclass
          AND conrelid IN (SELECT to_regclass(format('ingest.%I', feed || '_positions')) FROM ingest.feeds
                           UNION SELECT 'ingest.inc_positions'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', checked.positions, checked.name);
    END LOOP;
END
$$;
