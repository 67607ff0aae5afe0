-- adopted when: SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'mttr' AND data_type = 'integer') AND NOT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name IN ('is_alarm', 'is_auto_created', 'is_auto_closed'))

CREATE OR REPLACE FUNCTION tickets.feed_minutes(value text) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    minutes numeric := round(tickets.feed_number(value));
BEGIN
    IF minutes BETWEEN -2147483648 AND 2147483647 THEN
        RETURN minutes;
    END IF;
    RETURN NULL;
END;
$$;

COMMENT ON FUNCTION tickets.feed_minutes(text) IS
    'Minutes of the feed, decimals rounded; NULL for what is no number or does not fit an integer.';

-- A generated column takes another expression only by being made anew; done once, as it rewrites the table.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'mttr' AND data_type = 'integer'
    ) THEN
        ALTER TABLE tickets.inc
            DROP COLUMN IF EXISTS mttr,
            ADD COLUMN mttr integer GENERATED ALWAYS AS (tickets.feed_minutes(raw ->> 'mttr')) STORED;
    END IF;
END;
$$;

-- Constant in every row that is kept (alarms are dropped on the way in); raw still has them.
ALTER TABLE tickets.inc
    DROP COLUMN IF EXISTS is_alarm,
    DROP COLUMN IF EXISTS is_auto_created,
    DROP COLUMN IF EXISTS is_auto_closed;

COMMENT ON COLUMN tickets.inc.mttr IS
    'Minutes to repair as the source counts them, NULL until closed; not wall-clock and no measure against 48 hours.';
