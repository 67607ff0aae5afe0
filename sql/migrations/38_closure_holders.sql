-- Who held a ticket when it closed, the row that first told of the closure knows: afterwards the ticket may be handed
-- on while its closure stays. What is reckoned up later, its minutes and the verdict on them, the last row knows.
ALTER TABLE tickets.closure_events ADD COLUMN first_position ingest.position;
COMMENT ON COLUMN tickets.closure_events.first_position IS
    'The first row that told of the closure, from which team, owner and place are; NULL where that is the last one, '
    'whose position stands beside it.';
COMMENT ON COLUMN tickets.closure_events.position IS
    'The last row that told of the closure, from which mttr, sla_status and created_at_service are; NULL where none '
    'did.';
