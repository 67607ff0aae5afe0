-- What one alone may do at a time. Rows, and not advisory locks: those any login of the server can take, a reader's too.
CREATE TABLE ingest.locks (
    name text PRIMARY KEY
);
COMMENT ON TABLE ingest.locks IS 'Whoever has a row FOR UPDATE keeps the others from it to the end of the transaction. The rows never change.';
INSERT INTO ingest.locks (name) VALUES ('history'), ('geocoder requests');

-- What goes on for longer than a transaction, such as a batch of lookups. It needs no session, and ends by itself when its
-- holder has died.
CREATE TABLE ingest.leases (
    name   text PRIMARY KEY,
    holder text NOT NULL DEFAULT '',
    since  timestamptz NOT NULL DEFAULT '-infinity',
    until  timestamptz NOT NULL DEFAULT '-infinity'
);
COMMENT ON COLUMN ingest.leases.until IS 'From then on it is anybody''s, unless its holder renews it before.';
INSERT INTO ingest.leases (name) VALUES ('lookups');

GRANT SELECT ON ingest.locks, ingest.leases TO fleettickets_ingest, fleettickets_read;
GRANT UPDATE ON ingest.locks, ingest.leases TO fleettickets_ingest;

-- A request can be for later: what a file has no share of the day's quota left for.
ALTER TABLE ingest.outbox ADD COLUMN due_at timestamptz NOT NULL DEFAULT '-infinity';
COMMENT ON COLUMN ingest.outbox.due_at IS 'Not sent before.';

-- The snapshot of one moment: its day, and the rows as they are when the function is called.
CREATE FUNCTION ingest.snapshot_day(moment timestamptz) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    today date := (moment AT TIME ZONE 'Africa/Nairobi')::date;
    day_start timestamptz := today::timestamp AT TIME ZONE 'Africa/Nairobi';
    day_end timestamptz := day_start + interval '24 hours';
    clusters bigint;
BEGIN
    -- The clusters that today's snapshot has already are in the list with nothing, so that one which has emptied since
    -- the last capture goes to zero instead of keeping its old figures.
    INSERT INTO tickets.inc_daily_snapshot AS snapshot (
        snapshot_date, cluster, open_total, open_actionable, open_breached, open_at_risk, open_unknown_age,
        created_count, closed_count, captured_at
    )
    SELECT
        today,
        cluster,
        sum(open_total),
        sum(open_actionable),
        sum(open_breached),
        sum(open_at_risk),
        sum(open_unknown_age),
        sum(created_count),
        sum(closed_count),
        moment
    FROM (
        SELECT
            COALESCE(cluster, '(none)') AS cluster,
            count(*) AS open_total,
            count(*) FILTER (WHERE is_actionable) AS open_actionable,
            count(*) FILTER (WHERE level = 'breached') AS open_breached,
            count(*) FILTER (WHERE level = 'at_risk') AS open_at_risk,
            count(*) FILTER (WHERE level = 'unknown') AS open_unknown_age,
            0 AS created_count,
            0 AS closed_count
        FROM tickets.inc_open_sla
        -- The view's own age is that at the beginning of the transaction, which may have waited since.
        CROSS JOIN LATERAL tickets.sla_state(moment - COALESCE(created_at_service, first_seen_at)) AS level
        GROUP BY 1
        UNION ALL
        SELECT COALESCE(cluster, '(none)'), 0, 0, 0, 0, 0, count(*), 0
        FROM tickets.inc
        WHERE created_at_service >= day_start AND created_at_service < day_end
        GROUP BY 1
        UNION ALL
        SELECT COALESCE(cluster, '(none)'), 0, 0, 0, 0, 0, 0, count(*)
        FROM tickets.closure_events
        WHERE closed_at >= day_start AND closed_at < day_end
        GROUP BY 1
        UNION ALL
        SELECT cluster, 0, 0, 0, 0, 0, 0, 0
        FROM tickets.inc_daily_snapshot
        WHERE snapshot_date = today
    ) AS part
    GROUP BY cluster
    ON CONFLICT (snapshot_date, cluster) DO UPDATE SET
        open_total = excluded.open_total,
        open_actionable = excluded.open_actionable,
        open_breached = excluded.open_breached,
        open_at_risk = excluded.open_at_risk,
        open_unknown_age = excluded.open_unknown_age,
        created_count = excluded.created_count,
        closed_count = excluded.closed_count,
        captured_at = excluded.captured_at;
    GET DIAGNOSTICS clusters = ROW_COUNT;
    RETURN clusters;
END;
$$;

-- Ours alone is replaced: where 10 was adopted, the function is the batch import's, and so are the tables it writes.
DO $$
BEGIN
    IF EXISTS (SELECT FROM public.fleettickets_migrations WHERE name = '10_inc_history_capture' AND how = 'adopted') THEN
        RETURN;
    END IF;
    CREATE OR REPLACE FUNCTION tickets.capture_history() RETURNS jsonb
    LANGUAGE plpgsql AS $capture$
    DECLARE
        closures_added bigint;
        moment timestamptz;
        clusters bigint;
    BEGIN
        -- One capture at a time. Every statement below sees what the one before it committed.
        PERFORM FROM ingest.locks WHERE name = 'history' FOR UPDATE;

        -- In key order, so that two writers of the same closures wait for each other instead of deadlocking.
        INSERT INTO tickets.closure_events (
            ticket_id, closed_at, cluster, region, location_name, assigned_team, owner, sla_status, mttr,
            created_at_service
        )
        SELECT
            inc.ticket_id, inc.closed_at, inc.cluster, inc.region, inc.location_name, inc.assigned_team, inc.owner,
            inc.sla_status, inc.mttr, inc.created_at_service
        FROM tickets.inc
        WHERE inc.closed_at IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM tickets.closure_events AS known
                WHERE known.ticket_id = inc.ticket_id AND known.closed_at = inc.closed_at
            )
        ORDER BY inc.ticket_id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS closures_added = ROW_COUNT;

        -- Whatever was waited for, by now it is over: the snapshot is of the day that its rows are of.
        moment := clock_timestamp();
        clusters := ingest.snapshot_day(moment);

        RETURN jsonb_build_object(
            'closures_added', closures_added,
            'snapshot_date', (moment AT TIME ZONE 'Africa/Nairobi')::date,
            'clusters', clusters
        );
    END;
    $capture$;
END
$$;
