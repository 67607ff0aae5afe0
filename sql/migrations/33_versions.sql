-- Every content that a ticket ever had, and from which file and line on. The newest one is the ticket's own row; a
-- content that gave way to another is kept here, with where that one was first told. So an insert writes nothing, and
-- a change what it replaces.

-- Of which feeds the contents are kept, and since when nothing is missing.
CREATE TABLE ingest.histories (
    feed     text PRIMARY KEY,
    since    timestamptz NOT NULL,
    pruned   timestamptz NOT NULL DEFAULT '-infinity',
    began_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ingest.histories IS
    'Feeds of which every content of a ticket is kept. None where FLEETTICKETS_KEEP_VERSIONS_DAYS is 0.';
COMMENT ON COLUMN ingest.histories.pruned IS
    'Of what files of before this instant told, some is forgotten; what such a file tells anew has no place any more.';
COMMENT ON COLUMN ingest.histories.since IS
    'From this instant on, by the time of files, all that was told of each ticket is known; see rebuild-history.';

-- A file that was applied, as often as it was: bytes that are back under their key are told once more.
CREATE TABLE ingest.tellings (
    telling_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed       text NOT NULL,
    file_id    bigint,
    head       ingest.position NOT NULL,
    told_at    timestamptz,
    is_whole   boolean NOT NULL,
    UNIQUE (feed, head)
);
CREATE INDEX tellings_told_at ON ingest.tellings (feed, told_at);
CREATE INDEX tellings_file_id ON ingest.tellings (file_id);
COMMENT ON TABLE ingest.tellings IS 'Which files have told of tickets, each at its position.';
COMMENT ON COLUMN ingest.tellings.head IS 'The position of its rows, with line 0.';
COMMENT ON COLUMN ingest.tellings.told_at IS
    'The beginning of the transaction that applied it, which is ingested_at of the tickets it wrote; NULL where the '
    'file was applied before its feed had a history.';
COMMENT ON COLUMN ingest.tellings.is_whole IS 'Whether all its rows are in told_rows, and not only some.';

-- Who was told of, also where that changed nothing. A content that a late file interrupts is back with the next row
-- that says it, and nothing else knows where that is. Arrays, since a row for each would cost as much as the tickets.
CREATE TABLE ingest.told_rows (
    telling_id bigint NOT NULL,
    part       bigint NOT NULL,
    feed       text NOT NULL,
    key_time   timestamptz,
    ticket_ids text[] NOT NULL,
    lines      bigint[] NOT NULL,
    digests    integer[] NOT NULL,
    PRIMARY KEY (telling_id, part)
);
CREATE INDEX told_rows_key_time ON ingest.told_rows (feed, key_time);
COMMENT ON COLUMN ingest.told_rows.digests IS
    'jsonb_hash of what each row said: a ticket that has another content was changed by something else than a file.';

CREATE TABLE tickets.versions (
    feed          text NOT NULL,
    ticket_id     text NOT NULL,
    until_telling bigint NOT NULL,
    until_line    bigint NOT NULL,
    until         timestamptz NOT NULL,
    raw           jsonb,
    written_at    timestamptz
);
CREATE INDEX versions_ticket_id ON tickets.versions (ticket_id);
CREATE INDEX versions_until ON tickets.versions (until) WHERE raw IS NOT NULL;
COMMENT ON TABLE tickets.versions IS
    'Contents that tickets had before the one they have. Each begins where the one before it ends; its order is that '
    'of positions, in which a late file is where its name says.';
COMMENT ON COLUMN tickets.versions.until_telling IS 'The file, and until_line its line, that told the next content.';
COMMENT ON COLUMN tickets.versions.until IS 'The instant that the key of that file names.';
COMMENT ON COLUMN tickets.versions.raw IS 'NULL for the time before the first content that is known.';
COMMENT ON COLUMN tickets.versions.written_at IS
    'When the ticket got this content. The first content of a ticket has no row before it, and began with the telling '
    'of that moment.';

-- Where the first content of a ticket begins, if no row tells it: with the row that the transaction wrote it from. Of
-- several that the transaction had, that was the newest.
CREATE FUNCTION ingest.told_when_written(
    of_feed text, of_ticket text, at timestamptz, OUT telling bigint, OUT line bigint
) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT telling_id, told.line
    FROM ingest.tellings
    JOIN ingest.told_rows AS part USING (telling_id)
    CROSS JOIN LATERAL unnest(ticket_ids, lines) AS told (ticket_id, line)
    WHERE tellings.feed = of_feed AND told_at = at AND of_ticket = ANY (ticket_ids) AND told.ticket_id = of_ticket
    ORDER BY head DESC, told.line DESC
    LIMIT 1;
END;

-- The rows of a ticket in the order of positions, each with where the content before it ends and its own begins.
CREATE FUNCTION ingest.boundaries(of_feed text, of_ticket text)
RETURNS TABLE (telling bigint, line bigint, head ingest.position, until timestamptz, raw jsonb, written_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT until_telling, until_line, tellings.head, version.until, version.raw, version.written_at
    FROM tickets.versions AS version JOIN ingest.tellings ON telling_id = until_telling
    WHERE version.feed = of_feed AND version.ticket_id = of_ticket
    ORDER BY tellings.head, until_line;
END;

CREATE FUNCTION ingest.is_within_history(of_feed text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept timestamptz;
BEGIN
    SELECT since INTO kept FROM ingest.histories WHERE feed = of_feed;
    IF kept IS NULL THEN
        RAISE EXCEPTION 'no history of % is kept', of_feed
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Set FLEETTICKETS_KEEP_VERSIONS_DAYS for the consumer; rebuild-history reads the archive.';
    ELSIF at < kept THEN
        RAISE EXCEPTION 'the history of % is whole from % on, and % is before that', of_feed, kept, at
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'fleettickets rebuild-history reads what is older from the archive, as far back as it is kept.';
    END IF;
    RETURN at IS NOT NULL;
END;
$$;
COMMENT ON FUNCTION ingest.is_within_history(text, timestamptz) IS
    'True; an error for an instant that is before what is known, since what would be told of it could be wrong.';

-- Whether a ticket that has no row in tickets.versions was there by then.
CREATE FUNCTION ingest.was_written_by(of_feed text, of_ticket text, written_at timestamptz, at timestamptz)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE
        WHEN count(*) = 0 THEN COALESCE(written_at <= at, true) -- from before all that is known
        WHEN max((head).key_time) <= at THEN true
        WHEN min((head).key_time) > at THEN false
        ELSE COALESCE((
            SELECT (tellings.head).key_time <= at
            FROM ingest.told_when_written(of_feed, of_ticket, written_at) AS began
            JOIN ingest.tellings ON telling_id = began.telling
        ), true)
    END
    FROM ingest.tellings
    WHERE feed = of_feed AND told_at = written_at;
END;

-- Of the tickets that have been told otherwise since: which content they had, as the last file up to then said. A later
-- epoch outranks a later time, so that can be the content that they have now.
CREATE FUNCTION ingest.contents_as_of(of_feed text, at timestamptz)
RETURNS TABLE (ticket_id text, raw jsonb, is_current boolean)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1000
BEGIN ATOMIC
    SELECT changed.ticket_id, had.raw, had.telling IS NULL
    FROM (
        SELECT DISTINCT version.ticket_id FROM tickets.versions AS version
        WHERE version.feed = of_feed AND version.until > at AND version.raw IS NOT NULL
    ) AS changed
    CROSS JOIN LATERAL (
        SELECT content.telling, content.raw, content.place, content.written_at
        FROM (
            SELECT
                boundary.telling,
                boundary.raw,
                boundary.written_at,
                row_number() OVER in_order AS place,
                lag(boundary.until, 1, '-infinity') OVER in_order AS began_at
            FROM (
                SELECT telling, line, head, until, raw, written_at
                FROM ingest.boundaries(of_feed, changed.ticket_id)
                UNION ALL
                SELECT NULL, NULL, NULL, NULL, NULL, NULL
            ) AS boundary
            WINDOW in_order AS (ORDER BY boundary.telling IS NULL, boundary.head, boundary.line)
        ) AS content
        WHERE content.began_at <= at
        ORDER BY content.place DESC
        LIMIT 1
    ) AS had
    WHERE CASE
        WHEN had.telling IS NULL THEN true
        WHEN had.raw IS NULL THEN false -- before all that is known
        WHEN had.place > 1 THEN true
        ELSE ingest.was_written_by(of_feed, changed.ticket_id, had.written_at, at)
    END;
END;
COMMENT ON FUNCTION ingest.contents_as_of(text, timestamptz) IS
    'Tickets of which a later file has changed something, as they were; raw is NULL for one that is so again.';

-- For a function of a feed, whose text is read under whatever search_path.
CREATE FUNCTION tickets.latitude_of(point geometry) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ST_Y(point);
CREATE FUNCTION tickets.longitude_of(point geometry) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ST_X(point);

-- A history has a gap as soon as a file is applied by a program that tells nothing: an older one, beside this one or
-- for a while in its place. It ends there, and begins anew with the next file that is told of. Each file takes this
-- row last, and who begins a history takes it first: so none is in between.
CREATE FUNCTION ingest.end_untold_history() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('fleettickets.told', true) IS DISTINCT FROM NEW.source THEN
        DELETE FROM ingest.histories WHERE feed = NEW.source;
    END IF;
    RETURN NULL;
END;
$$;
CREATE TRIGGER end_untold_history AFTER UPDATE OF imported_at ON tickets.import_meta
FOR EACH ROW EXECUTE FUNCTION ingest.end_untold_history();
