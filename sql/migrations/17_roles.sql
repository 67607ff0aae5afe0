-- What the commands may do, and what a reader may: two roles to be a member of. Roles belong to the whole server, so
-- another database of it may have made them.
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['fleettickets_ingest', 'fleettickets_read'] LOOP
        IF to_regrole(wanted::text) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL;  -- somebody else's migration was faster
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'this user may not create roles: have an administrator run '
            'CREATE ROLE fleettickets_ingest NOLOGIN; CREATE ROLE fleettickets_read NOLOGIN; then migrate again'
            USING ERRCODE = 'insufficient_privilege';
END
$$;

GRANT USAGE ON SCHEMA tickets, reporting, ingest TO fleettickets_ingest, fleettickets_read;
GRANT SELECT ON ALL TABLES IN SCHEMA tickets, reporting, ingest TO fleettickets_ingest, fleettickets_read;
GRANT SELECT ON public.fleettickets_migrations TO fleettickets_ingest, fleettickets_read;
ALTER DEFAULT PRIVILEGES IN SCHEMA tickets, reporting, ingest
    GRANT SELECT ON TABLES TO fleettickets_ingest, fleettickets_read;

-- Nothing is ever deleted, and rows of the past are not rewritten.
GRANT INSERT, UPDATE ON tickets.inc, tickets.closure_events, tickets.inc_daily_snapshot, tickets.import_meta
    TO fleettickets_ingest;
GRANT INSERT, UPDATE ON ingest.ledger, ingest.positions, ingest.ignored_events, ingest.outbox TO fleettickets_ingest;
GRANT INSERT ON ingest.epochs, ingest.rejects, ingest.discards TO fleettickets_ingest;
