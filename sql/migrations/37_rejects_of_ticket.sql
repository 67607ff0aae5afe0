-- `explain --ticket` and the API tell of a ticket's rejects, of which there may be very many of others; those of before
-- ids were kept are looked through.
CREATE INDEX rejects_ticket_id ON ingest.rejects (ticket_id) WHERE ticket_id IS NOT NULL;
CREATE INDEX rejects_without_id ON ingest.rejects (file_id) WHERE reason_group IS NULL;
