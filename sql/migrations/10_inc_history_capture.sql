-- adopted when: SELECT to_regclass('tickets.closure_events') IS NOT NULL AND to_regclass('tickets.inc_daily_snapshot') IS NOT NULL AND EXISTS (SELECT FROM pg_proc WHERE pronamespace = to_regnamespace('tickets') AND proname = 'capture_history')

-- No foreign key to tickets.inc: an event that was observed stays true whatever becomes of the ticket.
CREATE TABLE IF NOT EXISTS tickets.closure_events (
    ticket_id text,
    closed_at timestamptz,
    cluster text,
    region text,
    location_name text,
    assigned_team text,
    owner text,
    sla_status text,
    mttr integer,
    created_at_service timestamptz,
    observed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ticket_id, closed_at)
);

COMMENT ON TABLE tickets.closure_events IS
    'Every closure observed, only ever added to. A ticket that was reopened and closed again has a row for each.';
COMMENT ON COLUMN tickets.closure_events.mttr IS 'Minutes, as the source counted them at this closure.';
COMMENT ON COLUMN tickets.closure_events.observed_at IS 'When it was recorded here; the closure itself is closed_at.';

CREATE INDEX IF NOT EXISTS closure_events_closed_at_idx ON tickets.closure_events (closed_at);

CREATE TABLE IF NOT EXISTS tickets.inc_daily_snapshot (
    snapshot_date date,
    cluster text,
    open_total integer NOT NULL,
    open_actionable integer NOT NULL,
    open_breached integer NOT NULL,
    open_at_risk integer NOT NULL,
    open_unknown_age integer NOT NULL,
    created_count integer NOT NULL,
    closed_count integer NOT NULL,
    captured_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (snapshot_date, cluster)
);

COMMENT ON TABLE tickets.inc_daily_snapshot IS
    'Backlog and flow for each East African day and cluster, as the last capture of that day saw them. Begins with the '
    'first capture; tickets.inc holds the present only, so earlier days cannot be had.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.snapshot_date IS 'Day in East Africa Time.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.cluster IS '(none) for the tickets that have no cluster.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.open_total IS 'Open at captured_at.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.open_unknown_age IS 'Open with neither created_at_service nor first_seen_at.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.created_count IS 'created_at_service within the day; undated tickets are in none.';
COMMENT ON COLUMN tickets.inc_daily_snapshot.closed_count IS 'Closure events with closed_at within the day.';

CREATE OR REPLACE FUNCTION tickets.capture_history() RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    today date := (now() AT TIME ZONE 'Africa/Nairobi')::date;
    day_start timestamptz := today::timestamp AT TIME ZONE 'Africa/Nairobi';
    day_end timestamptz := day_start + interval '24 hours';
    closures_added bigint;
    clusters bigint;
BEGIN
    -- One capture at a time. Every statement below sees what the one before it committed.
    PERFORM pg_advisory_xact_lock(hashtextextended('tickets.capture_history', 0));

    -- In key order, so that two writers of the same closures wait for each other instead of deadlocking.
    INSERT INTO tickets.closure_events (
        ticket_id, closed_at, cluster, region, location_name, assigned_team, owner, sla_status, mttr, created_at_service
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
        now()
    FROM (
        SELECT
            COALESCE(cluster, '(none)') AS cluster,
            count(*) AS open_total,
            count(*) FILTER (WHERE is_actionable) AS open_actionable,
            count(*) FILTER (WHERE sla_state = 'breached') AS open_breached,
            count(*) FILTER (WHERE sla_state = 'at_risk') AS open_at_risk,
            count(*) FILTER (WHERE sla_state = 'unknown') AS open_unknown_age,
            0 AS created_count,
            0 AS closed_count
        FROM tickets.inc_open_sla
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

    RETURN jsonb_build_object(
        'closures_added', closures_added, 'snapshot_date', today, 'clusters', clusters
    );
END;
$$;

COMMENT ON FUNCTION tickets.capture_history() IS
    'Adds the closures not recorded yet and writes today''s (East Africa Time) snapshot; can be called any number of times. '
    'Returns {closures_added, snapshot_date, clusters}.';
