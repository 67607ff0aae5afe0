-- name: begin_look
-- What tickets had before files were merged in this transaction. It ends with the transaction, which is undone.
CREATE TEMPORARY TABLE IF NOT EXISTS tickets_before (
    file_id   bigint NOT NULL,
    ticket_id text NOT NULL,
    raw       jsonb NOT NULL,
    PRIMARY KEY (file_id, ticket_id)
) ON COMMIT DROP

-- name: hold_tickets
-- Locks every ticket that the staged rows are about, new ones too, in the order in which every merge takes them: so
-- what is kept of them now is what the merge meets. A position that is made here is below all others.
INSERT INTO {positions} AS known (ticket_id, position, file_id)
SELECT ticket_id, ROW(-1, '-infinity', '', '-infinity', '', 0)::ingest.position, %(file_id)s
FROM (SELECT DISTINCT ticket_id FROM staging WHERE reject_reason IS NULL ORDER BY ticket_id) AS in_order
ON CONFLICT (ticket_id) DO UPDATE SET position = known.position WHERE false

-- name: keep_before
-- One look at the index for each: how many rows are staged, the planner cannot know.
INSERT INTO tickets_before (file_id, ticket_id, raw)
SELECT %(file_id)s, ticket_id, ticket.raw
FROM (SELECT DISTINCT ticket_id FROM staging WHERE reject_reason IS NULL) AS staged
CROSS JOIN LATERAL (SELECT raw FROM {tickets} AS known WHERE known.ticket_id = staged.ticket_id OFFSET 0) AS ticket

-- name: blanked
-- Typed columns that had a value and have none now, in how many tickets, with one of them. A word for nothing that came
-- in before it was known as one is no value.
SELECT name, count(*) AS tickets, min(ticket_id) AS example
FROM (
    SELECT before.ticket_id, before.raw AS before, ticket.raw AS now
    FROM tickets_before AS before
    CROSS JOIN LATERAL (SELECT raw FROM {tickets} AS known
                        WHERE known.ticket_id = before.ticket_id AND known.raw <> before.raw OFFSET 0) AS ticket
    WHERE before.file_id = %(file_id)s
) AS changed
CROSS JOIN LATERAL unnest(%(names)s::text[], %(forms)s::text[]) AS typed (name, form)
WHERE (before ->> name) <> ALL (%(nothing)s::text[])
  -- Of a point, either one goes with the other.
  AND (form IN ('latitude', 'longitude') OR (before ->> name) IS DISTINCT FROM (now ->> name))
  AND CASE form
          WHEN 'text' THEN now ->> name IS NULL
          WHEN 'timestamp' THEN tickets.eat_ts(before ->> name) IS NOT NULL AND tickets.eat_ts(now ->> name) IS NULL
          WHEN 'boolean' THEN tickets.feed_flag(before ->> name) IS NOT NULL AND tickets.feed_flag(now ->> name) IS NULL
          WHEN 'number' THEN tickets.feed_number(before ->> name) IS NOT NULL
                             AND tickets.feed_number(now ->> name) IS NULL
          WHEN 'minutes' THEN tickets.feed_minutes(before ->> name) IS NOT NULL
                              AND tickets.feed_minutes(now ->> name) IS NULL
          ELSE tickets.kenya_point(tickets.feed_degrees(before ->> 'latitude'),
                                   tickets.feed_degrees(before ->> 'longitude')) IS NOT NULL
               AND tickets.kenya_point(tickets.feed_degrees(now ->> 'latitude'),
                                       tickets.feed_degrees(now ->> 'longitude')) IS NULL
      END
GROUP BY name

-- name: changed_tickets
-- The first ones in the order of their lines, and of each every column with another value now.
SELECT changed.ticket_id, changed.line, difference.name AS "column",
       left(difference.before, %(chars)s) AS before, left(difference.after, %(chars)s) AS after
FROM (
    SELECT before.ticket_id, before.raw AS before, ticket.raw AS now, (written.position).line AS line
    FROM tickets_before AS before
    CROSS JOIN LATERAL (SELECT raw FROM {tickets} AS known
                        WHERE known.ticket_id = before.ticket_id
                          AND jsonb_strip_nulls(known.raw) <> jsonb_strip_nulls(before.raw) OFFSET 0) AS ticket
    CROSS JOIN LATERAL (SELECT position FROM {positions} AS known
                        WHERE known.ticket_id = before.ticket_id OFFSET 0) AS written
    WHERE before.file_id = %(file_id)s
    ORDER BY line
    LIMIT %(limit)s
) AS changed
CROSS JOIN LATERAL (
    SELECT coalesce(was.key, becomes.key) AS name, was.value AS before, becomes.value AS after
    FROM jsonb_each_text(changed.before) AS was
    FULL JOIN jsonb_each_text(changed.now) AS becomes USING (key)
    WHERE was.value IS DISTINCT FROM becomes.value
) AS difference
ORDER BY changed.line, name

-- name: rejected_rows
-- The first rows of each kind of rejects, of the kinds that are most.
SELECT reject_group AS "group", rows, line, reject_reason AS reason, left(reject_raw, %(chars)s) AS raw
FROM (
    SELECT reject_group, line, reject_reason, reject_raw, count(*) OVER kind AS rows, min(line) OVER kind AS first,
           row_number() OVER (PARTITION BY reject_group ORDER BY line) AS place
    FROM staging
    WHERE reject_reason IS NOT NULL
    WINDOW kind AS (PARTITION BY reject_group)
) AS rejected
WHERE place <= %(examples)s
ORDER BY rows DESC, first, line
LIMIT %(limit)s

-- name: lines
SELECT lines_read AS read, lines_blank AS blank, lines_header AS header, lines_rejected AS rejected,
       lines_of_rows AS rows
FROM ingest.ledger
WHERE file_id = %(file_id)s

-- name: known_undeclared
SELECT name FROM ingest.undeclared_columns WHERE feed = %(feed)s AND name = ANY (%(names)s::text[])
