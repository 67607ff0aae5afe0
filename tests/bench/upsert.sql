-- What somebody writes who has a ticket to put and a table to put it in. The last row of a ticket in a file counts.
INSERT INTO tickets.inc AS ticket (ticket_id, raw)
SELECT DISTINCT ON (ticket_id) ticket_id, to_jsonb(staging)
FROM staging
ORDER BY ticket_id, ctid DESC
ON CONFLICT (ticket_id) DO UPDATE SET raw = excluded.raw, ingested_at = now();
