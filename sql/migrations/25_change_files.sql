-- Change files as they are really exported: each line of a file is accounted for, what its header was is told, and a
-- date that means "never" is none.
ALTER TABLE ingest.ledger
    ADD COLUMN lines_read bigint,
    ADD COLUMN lines_blank bigint,
    ADD COLUMN lines_header bigint,
    ADD COLUMN lines_rejected bigint,
    ADD COLUMN lines_of_rows bigint,
    ADD COLUMN dates_never bigint NOT NULL DEFAULT 0,
    ADD COLUMN notes jsonb;
-- Rows of before have no lines, which a check takes for true.
ALTER TABLE ingest.ledger ADD CONSTRAINT lines_add_up
    CHECK (lines_read = lines_blank + lines_header + lines_rejected + lines_of_rows) NOT VALID;
ALTER TABLE ingest.ledger VALIDATE CONSTRAINT lines_add_up;
COMMENT ON COLUMN ingest.ledger.lines_read IS
    'Lines of the file; null of a file from before they were counted. The other lines_* add up to it.';
COMMENT ON COLUMN ingest.ledger.lines_header IS 
    'Of the header, of each that came again, and of one that says what parts the columns.';
COMMENT ON COLUMN ingest.ledger.lines_of_rows IS 'Of rows that are no rejects, each on one line or several.';
COMMENT ON COLUMN ingest.ledger.dates_never IS 'Dates outside the years 1990 to 2099, which are null in typed columns.';
COMMENT ON COLUMN ingest.ledger.notes IS
    'What a person has to know of the file: columns renamed, missing, undeclared, new, twice; of one that was refused '
    'for its rejects, how many there were of each kind.';

ALTER TABLE ingest.rejects
    ADD COLUMN lines integer NOT NULL DEFAULT 1,
    ADD COLUMN ticket_id text,
    ADD COLUMN reason_group text;
COMMENT ON COLUMN ingest.rejects.lines IS 'Lines of the file that it takes.';
COMMENT ON COLUMN ingest.rejects.ticket_id IS 'The id that stands where the id belongs, if one does.';
COMMENT ON COLUMN ingest.rejects.reason_group IS
    'The reason without what is this row''s alone; null of a row from before, whose reason stands for it.';

-- Columns that files have and the declaration does not, told once each.
CREATE TABLE ingest.undeclared_columns (
    feed          text NOT NULL,
    name          text NOT NULL,
    file_id       bigint NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feed, name)
);
COMMENT ON TABLE ingest.undeclared_columns IS 'Columns that are kept in raw alone, and the file that had each first.';

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
    IF clock NOT BETWEEN 19900000000000 AND 20999999999999  -- what programs write for "never" is of other years
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
    '(+03) where there is none, of the years 1990 to 2099. Cut to microseconds. NULL for anything else, never an '
    'error.';

-- What is there already has its dates from before: written once more, each row gets what it would have got.
DO $$
DECLARE
    dated record;
BEGIN
    FOR dated IN
        SELECT attrelid::regclass AS relation,
               -- Some rows too many: which year is meant, the zone in the text decides.
               string_agg(format('%I NOT BETWEEN %L AND %L', attname, '1990-01-02Z', '2099-12-30Z'), ' OR ') AS is_odd
        FROM pg_attribute
        JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attgenerated = 's' AND NOT attisdropped
          AND pg_get_expr(adbin, adrelid) LIKE 'tickets.eat_ts(%'
          AND EXISTS (SELECT FROM pg_attribute AS other
                      WHERE other.attrelid = pg_attribute.attrelid AND other.attname = 'raw' AND NOT other.attisdropped)
        GROUP BY attrelid
    LOOP
        EXECUTE format('UPDATE %s SET raw = raw WHERE %s', dated.relation, dated.is_odd);
    END LOOP;
END
$$;
DELETE FROM tickets.closure_events
WHERE closed_at < '1990-01-01 00:00+15' OR closed_at >= '2100-01-01 00:00-15';
UPDATE tickets.closure_events SET created_at_service = NULL
WHERE created_at_service < '1990-01-01 00:00+15' OR created_at_service >= '2100-01-01 00:00-15';

-- A word for nothing is no place. Such rows get what a file would bring now, an empty value.
DO $$
DECLARE
    placed record;
BEGIN
    FOR placed IN
        SELECT attrelid::regclass AS relation, attname::text AS name
        FROM pg_attribute
        WHERE attrelid IN (SELECT to_regclass(format('tickets.%I', feed)) FROM ingest.feeds
                           UNION SELECT 'tickets.inc'::regclass)
          AND attname IN ('cluster', 'location_name') AND NOT attisdropped
    LOOP
        EXECUTE format(
            'UPDATE %s SET raw = raw || jsonb_build_object(%L, NULL) WHERE raw ->> %L = ANY (%L)',
            placed.relation, placed.name, placed.name,
            ARRAY['NULL', 'null', 'Null', '\N', 'nan', 'NaN', 'None', 'none', 'N/A', 'n/a', '-', '--', '#N/A']);
    END LOOP;
END
$$;
