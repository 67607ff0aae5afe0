-- The same for a file that has each ticket once.
INSERT INTO tickets.inc AS ticket (ticket_id, raw)
SELECT ticket_id, to_jsonb(staging) FROM staging
ON CONFLICT (ticket_id) DO UPDATE SET raw = excluded.raw, ingested_at = now();
