-- adopted when: SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'created_at_service' AND is_generated = 'ALWAYS')

-- Runs seven times for each ticket row. Hence no EXCEPTION block (a subtransaction for each call), and LIKE and integer
-- arithmetic where a pattern of the whole would cost twice as much. What reaches the cast is a date that exists, in
-- ISO order with a four-digit year and an explicit zone: it is read alike under every DateStyle and TimeZone, and that
-- is why this may be called IMMUTABLE.
CREATE OR REPLACE FUNCTION tickets.eat_ts(value text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    moment text COLLATE "C" := btrim(value, E' \t\r\n\f\v');
    digits text COLLATE "C";
    rest text COLLATE "C";  -- fraction and zone
    clock bigint;           -- YYYYMMDDHHMMSS
    last_day integer;
    parts text[];
BEGIN
    IF moment LIKE '____-__-__ __:__:__%' OR moment LIKE '____-__-__T__:__:__%' THEN
        digits := left(moment, 4) || substr(moment, 6, 2) || substr(moment, 9, 2)
            || substr(moment, 12, 2) || substr(moment, 15, 2) || substr(moment, 18, 2);
        rest := substr(moment, 20);
    ELSIF moment LIKE '____-__-__ __:__%' OR moment LIKE '____-__-__T__:__%' THEN
        digits := left(moment, 4) || substr(moment, 6, 2) || substr(moment, 9, 2)
            || substr(moment, 12, 2) || substr(moment, 15, 2) || '00';
        rest := substr(moment, 17);
        IF rest LIKE '.%' THEN
            RETURN NULL;
        END IF;
    ELSIF moment LIKE '____-__-__' THEN
        digits := left(moment, 4) || substr(moment, 6, 2) || substr(moment, 9, 2) || '000000';
        rest := '';
        moment := moment || ' 00:00';
    ELSE
        RETURN NULL;
    END IF;

    IF digits ~ '[^0-9]' THEN
        RETURN NULL;
    END IF;
    clock := digits::bigint;
    IF clock < 10000000000  -- there is no year 0
        OR clock % 100 > 59
        OR clock / 100 % 100 > 59
        OR clock / 10000 % 100 > 23
        OR clock / 1000000 % 100 NOT BETWEEN 1 AND 31
        OR clock / 100000000 % 100 NOT BETWEEN 1 AND 12
    THEN
        RETURN NULL;
    END IF;
    IF clock / 1000000 % 100 > 28 THEN
        last_day := CASE clock / 100000000 % 100
            WHEN 2 THEN 28 + (
                clock / 10000000000 % 4 = 0
                AND (clock / 10000000000 % 100 <> 0 OR clock / 10000000000 % 400 = 0)
            )::integer
            WHEN 4 THEN 30
            WHEN 6 THEN 30
            WHEN 9 THEN 30
            WHEN 11 THEN 30
            ELSE 31
        END;
        IF clock / 1000000 % 100 > last_day THEN
            RETURN NULL;
        END IF;
    END IF;

    IF rest = '' THEN
        RETURN (moment || '+03')::timestamptz;
    ELSIF rest IN ('+03:00', '+03') THEN
        RETURN moment::timestamptz;
    ELSIF rest LIKE '._%' AND length(rest) <= 7 AND substr(rest, 2) !~ '[^0-9]' THEN
        RETURN (moment || '+03')::timestamptz;
    END IF;

    parts := regexp_match(rest, '^(\.[0-9]+)?[ \t\r\n\f\v]?(Z|[-+](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)?$');
    IF parts IS NULL OR length(rest) > 60 THEN
        RETURN NULL;
    END IF;
    -- Microseconds are cut off and not rounded: closures are dated in the consumer too, and both must agree.
    RETURN (
        left(moment, length(moment) - length(rest)) || COALESCE(left(parts[1], 7), '')
        || CASE parts[2] WHEN 'Z' THEN '+00' ELSE COALESCE(parts[2], '+03') END
    )::timestamptz;
END;
$$;

COMMENT ON FUNCTION tickets.eat_ts(text) IS
    'A time of the feed: YYYY-MM-DD, YYYY-MM-DD HH:MM[:SS[.f]] or ISO 8601 with or without a zone; East Africa Time '
    '(+03) where there is none. Cut to microseconds. NULL for anything else, never an error.';

CREATE OR REPLACE FUNCTION tickets.feed_flag(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN lower(btrim(value, E' \t\n\r\f\v')) IN ('true', 't', '1') THEN true
    WHEN lower(btrim(value, E' \t\n\r\f\v')) IN ('false', 'f', '0') THEN false
END;

COMMENT ON FUNCTION tickets.feed_flag(text) IS 'A boolean of the feed: true/false/t/f/1/0 in any case, else NULL.';

-- One ALTER TABLE, so the table is rewritten once. Later migrations drop or retype some of these columns, so they
-- are added all together or, where they were added before, not at all.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = 'tickets' AND table_name = 'inc' AND column_name = 'created_at_service'
    ) THEN
        RETURN;
    END IF;

    ALTER TABLE tickets.inc
        ADD COLUMN normalized_status text GENERATED ALWAYS AS (raw ->> 'normalized_status') STORED,
        ADD COLUMN raw_status text GENERATED ALWAYS AS (raw ->> 'raw_status') STORED,
        ADD COLUMN bucket text GENERATED ALWAYS AS (raw ->> 'bucket') STORED,
        ADD COLUMN service_type text GENERATED ALWAYS AS (raw ->> 'service_type') STORED,
        ADD COLUMN is_actionable boolean GENERATED ALWAYS AS (tickets.feed_flag(raw ->> 'is_actionable')) STORED,
        ADD COLUMN is_alarm boolean GENERATED ALWAYS AS (tickets.feed_flag(raw ->> 'is_alarm')) STORED,
        ADD COLUMN is_auto_created boolean
            GENERATED ALWAYS AS (tickets.feed_flag(raw ->> 'is_auto_created')) STORED,
        ADD COLUMN is_auto_closed boolean GENERATED ALWAYS AS (tickets.feed_flag(raw ->> 'is_auto_closed')) STORED,
        ADD COLUMN cluster text GENERATED ALWAYS AS (raw ->> 'cluster') STORED,
        ADD COLUMN region text GENERATED ALWAYS AS (raw ->> 'region') STORED,
        ADD COLUMN location_name text GENERATED ALWAYS AS (raw ->> 'location_name') STORED,
        ADD COLUMN assigned_team text GENERATED ALWAYS AS (raw ->> 'assigned_team') STORED,
        ADD COLUMN owner text GENERATED ALWAYS AS (raw ->> 'owner') STORED,
        ADD COLUMN sla_status text GENERATED ALWAYS AS (raw ->> 'sla_status') STORED,
        ADD COLUMN mttr numeric GENERATED ALWAYS AS (tickets.feed_number(raw ->> 'mttr')) STORED,
        ADD COLUMN created_at_service timestamptz
            GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'created_at_service')) STORED,
        ADD COLUMN scheduled_at timestamptz GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'scheduled_at')) STORED,
        ADD COLUMN closed_at timestamptz GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'closed_at')) STORED,
        ADD COLUMN first_seen_at timestamptz GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'first_seen_at')) STORED,
        ADD COLUMN last_seen_at timestamptz GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'last_seen_at')) STORED,
        ADD COLUMN source_created_at timestamptz
            GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'source_created_at')) STORED,
        ADD COLUMN source_updated_at timestamptz
            GENERATED ALWAYS AS (tickets.eat_ts(raw ->> 'source_updated_at')) STORED;
END;
$$;

COMMENT ON COLUMN tickets.inc.sla_status IS
    'The source''s verdict, meaningful only once the ticket is closed; for an open one see tickets.inc_open_sla.';
COMMENT ON COLUMN tickets.inc.created_at_service IS
    'Start of the ticket''s life; about three in ten tickets have none.';
COMMENT ON COLUMN tickets.inc.closed_at IS 'End of the ticket''s life; NULL while it is open.';
COMMENT ON COLUMN tickets.inc.first_seen_at IS
    'Bookkeeping of the export, as last_seen_at and source_*: not for the time of an opening or a closure.';

CREATE INDEX IF NOT EXISTS inc_cluster_idx ON tickets.inc (cluster);
CREATE INDEX IF NOT EXISTS inc_closed_at_idx ON tickets.inc (closed_at);
CREATE INDEX IF NOT EXISTS inc_created_at_service_idx ON tickets.inc (created_at_service);
-- The open tickets are the few that every read asks for.
CREATE INDEX IF NOT EXISTS inc_open_idx ON tickets.inc (cluster, location_name)
    WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed';
