-- Behind a row that comes late, the next one of its ticket is mostly near, and all files behind it may be many. So they
-- are looked through from there on, each time for twice as many, until it is found.
CREATE FUNCTION ingest.told_from(
    of_feed text,
    from_head ingest.position,
    of_tickets text[],
    of_last ingest.position[],
    of_end ingest.position[]
) RETURNS TABLE (ticket_id text, telling_id bigint, head ingest.position, line bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off -- how many are in an array the planner cannot know
AS $$
#variable_conflict use_column
DECLARE
    behind ingest.position;
    at_once bigint := 16;
    tellings bigint[];
    found_tickets text[];
    found_tellings bigint[];
    found_lines bigint[];
BEGIN
    WHILE cardinality(of_tickets) > 0 LOOP
        SELECT array_agg(next.telling_id) INTO tellings
        FROM (
            SELECT known.telling_id
            FROM ingest.tellings AS known
            WHERE feed = of_feed AND known.head >= from_head AND (behind IS NULL OR known.head > behind)
            ORDER BY known.head
            LIMIT at_once
        ) AS next;
        EXIT WHEN tellings IS NULL;
        at_once := 2 * at_once;
        behind := (
            SELECT known.head FROM ingest.tellings AS known
            WHERE known.telling_id = ANY (tellings) ORDER BY known.head DESC LIMIT 1
        );

        SELECT array_agg(told.ticket_id), array_agg(part.telling_id), array_agg(told.line)
        INTO found_tickets, found_tellings, found_lines
        FROM ingest.told_rows AS part
        CROSS JOIN LATERAL unnest(ticket_ids, lines) AS told (ticket_id, line)
        WHERE part.telling_id = ANY (tellings) AND told.ticket_id IN (SELECT unnest(of_tickets));

        RETURN QUERY
        SELECT found.ticket_id, found.telling_id, known.head, found.line
        FROM unnest(found_tickets, found_tellings, found_lines) AS found (ticket_id, telling_id, line)
        JOIN (SELECT * FROM ingest.tellings AS one WHERE one.telling_id = ANY (tellings)) AS known USING (telling_id);

        SELECT array_agg(of_tickets[nth]), array_agg(of_last[nth]), array_agg(of_end[nth])
        INTO of_tickets, of_last, of_end
        FROM generate_subscripts(of_tickets, 1) AS nth
        LEFT JOIN (
            SELECT found.ticket_id, (array_agg(known.head ORDER BY known.head DESC))[1] AS newest
            FROM unnest(found_tickets, found_tellings) AS found (ticket_id, telling_id)
            JOIN (SELECT * FROM ingest.tellings AS one WHERE one.telling_id = ANY (tellings)) AS known
                USING (telling_id)
            GROUP BY found.ticket_id
        ) AS seen ON seen.ticket_id = of_tickets[nth]
        WHERE (seen.newest > of_last[nth]) IS NOT TRUE AND (of_end[nth] <= behind) IS NOT TRUE;
    END LOOP;
END
$$;
COMMENT ON FUNCTION ingest.told_from(text, ingest.position, text[], ingest.position[], ingest.position[]) IS
    'Rows of some tickets in the order of files, from one on: of each ticket at least those up to the first one behind '
    'its of_last, or to its of_end, behind which there is none; NULL where that is not known.';
