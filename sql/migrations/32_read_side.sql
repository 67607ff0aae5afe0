-- What is read costs what it shows, not what was ever closed; and says the same to the byte until the data or the
-- minute changes. What leaves the server is built as text: jsonb sorts and stores what nobody looks into here.

-- On a database of the batch import these are not there yet, or under its own names.
CREATE INDEX IF NOT EXISTS inc_closed_at_idx ON tickets.inc (closed_at);
CREATE INDEX IF NOT EXISTS inc_created_at_service_idx ON tickets.inc (created_at_service);
CREATE INDEX IF NOT EXISTS inc_open_idx ON tickets.inc (cluster, location_name)
    WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed';
-- Of each day, whether a file of it has come.
CREATE INDEX ledger_feed_key_time ON ingest.ledger (feed, key_time) WHERE applied_at IS NOT NULL;

-- Where 10 was adopted the snapshot may lack columns; what is not written there is null.
ALTER TABLE tickets.inc_daily_snapshot
    ADD COLUMN IF NOT EXISTS open_total integer,
    ADD COLUMN IF NOT EXISTS open_actionable integer,
    ADD COLUMN IF NOT EXISTS open_breached integer,
    ADD COLUMN IF NOT EXISTS open_at_risk integer,
    ADD COLUMN IF NOT EXISTS open_unknown_age integer,
    ADD COLUMN IF NOT EXISTS captured_at timestamptz;

-- The thresholds, which travel with each answer so that a reader counts on by himself.
CREATE FUNCTION tickets.sla_at_risk_after() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '36 hours';
CREATE FUNCTION tickets.sla_breached_after() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '48 hours';

CREATE OR REPLACE FUNCTION tickets.sla_state(age interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN age >= tickets.sla_breached_after() THEN 'breached'
    WHEN age >= tickets.sla_at_risk_after() THEN 'at_risk'
    WHEN age IS NOT NULL THEN 'within'
    ELSE 'unknown'
END;
COMMENT ON FUNCTION tickets.sla_state(interval) IS
    'The service level of an open ticket of this age: breached, at_risk or within; unknown without an age. The '
    'thresholds are tickets.sla_at_risk_after() and tickets.sla_breached_after().';

CREATE FUNCTION reporting.fn_as_of(moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_timestamp(60 * ceil(extract(epoch FROM moment) / 60)::double precision);
COMMENT ON FUNCTION reporting.fn_as_of(timestamptz) IS
    'The end of the minute that a moment is in: what has happened by then is in an answer, which is the same for that '
    'minute.';

CREATE FUNCTION tickets.point_json(point geometry) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ST_AsGeoJSON(point, 6, 0)::json;
COMMENT ON FUNCTION tickets.point_json(geometry) IS
    'A GeoJSON geometry with six decimals, which is a tenth of a metre; NULL for none.';

CREATE VIEW reporting.inc_open AS
SELECT
    ticket_id, normalized_status, raw_status, bucket, is_actionable, cluster, region, location_name, assigned_team,
    owner, created_at_service, scheduled_at,
    COALESCE(created_at_service, first_seen_at) AS age_since,
    CASE
        WHEN created_at_service IS NOT NULL THEN 'created_at_service'
        WHEN first_seen_at IS NOT NULL THEN 'first_seen_at'
    END AS age_basis,
    latitude, longitude, geom, geog, geo_source, ingested_at
FROM tickets.inc
WHERE closed_at IS NULL AND lower(normalized_status) IS DISTINCT FROM 'closed';
COMMENT ON VIEW reporting.inc_open IS
    'Open incidents. Nothing in it depends on when it is asked: age_since is the instant that an age counts from.';
COMMENT ON COLUMN reporting.inc_open.age_basis IS
    'What age_since is: created_at_service, else first_seen_at (the true age can be higher), else NULL.';

CREATE OR REPLACE FUNCTION reporting.fn_inc_window(
    p_window text,
    p_from timestamptz,
    p_to timestamptz,
    p_now timestamptz,
    OUT name text,
    OUT from_at timestamptz,
    OUT to_at timestamptz
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    name := COALESCE(lower(btrim(p_window)), '7d');
    IF name NOT IN ('today', '24h', '7d', '30d', '90d', 'all', 'custom') THEN
        RAISE EXCEPTION 'unknown window %', quote_literal(p_window)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Allowed are today, 24h, 7d, 30d, 90d, all and custom.';
    END IF;

    IF p_from IS NOT NULL OR p_to IS NOT NULL THEN
        IF p_from > p_to THEN
            RAISE EXCEPTION 'the window begins after its end: from % is later than to %', p_from, p_to
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        name := 'custom';
        from_at := p_from;
        to_at := p_to;
        RETURN;
    END IF;

    CASE name
        WHEN 'custom' THEN
            RAISE EXCEPTION 'the window custom needs from, to or both'
                USING ERRCODE = 'invalid_parameter_value';
        WHEN 'all' THEN
            from_at := NULL;
            to_at := NULL;
        WHEN 'today' THEN
            from_at := date_trunc('day', p_now, 'Africa/Nairobi');
            to_at := from_at + interval '24 hours';
        ELSE
            to_at := reporting.fn_as_of(p_now);
            from_at := to_at - CASE name
                WHEN '24h' THEN interval '24 hours'
                WHEN '7d' THEN interval '168 hours'
                WHEN '30d' THEN interval '720 hours'
                WHEN '90d' THEN interval '2160 hours'
            END;
    END CASE;
END;
$$;
COMMENT ON FUNCTION reporting.fn_inc_window(text, timestamptz, timestamptz, timestamptz) IS
    'A dashboard window as a half-open interval [from_at, to_at); NULL is no bound. Rolling ones are whole hours and '
    'end with the minute, today is the East African day; from and to, if given, go before the name.';

CREATE FUNCTION reporting.freshness_json(p_source text, p_as_of timestamptz) RETURNS json
LANGUAGE sql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi'
BEGIN ATOMIC
    SELECT json_build_object(
        'source_max_key', meta.metadata ->> 'source_max_key',
        'snapshot_at', meta.snapshot_at,
        'imported_at', meta.imported_at,
        'row_count', meta.row_count,
        'age_minutes', floor(extract(epoch FROM p_as_of - meta.snapshot_at) / 60)::bigint
    )
    FROM (VALUES (p_source)) AS asked (source)
    LEFT JOIN tickets.import_meta AS meta USING (source);
END;
COMMENT ON FUNCTION reporting.freshness_json(text, timestamptz) IS
    'The freshness block of the read functions: every key is there, null before the first import. age_minutes counts '
    'from snapshot_at.';

CREATE FUNCTION reporting.sla_thresholds_json() RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN json_build_object(
    'at_risk_after_minutes', extract(epoch FROM tickets.sla_at_risk_after())::bigint / 60,
    'breached_after_minutes', extract(epoch FROM tickets.sla_breached_after())::bigint / 60
);

-- GeoJSON as rows of rows: they become text once, in the whole answer, where json inside json would be copied for
-- each object around it. What is a column here is a name in the answer.
CREATE TYPE reporting.open_properties AS (
    ticket_id text,
    status text,
    raw_status text,
    bucket text,
    is_actionable boolean,
    cluster text,
    region text,
    location_name text,
    team text,
    owner text,
    created_at_service timestamptz,
    scheduled_at timestamptz,
    age_since timestamptz,
    age_basis text,
    age_minutes bigint,
    sla_state text,
    geo_source text
);
CREATE TYPE reporting.open_feature AS (type text, id text, geometry json, properties reporting.open_properties);

CREATE TYPE reporting.closed_properties AS (
    ticket_id text,
    status text,
    raw_status text,
    bucket text,
    cluster text,
    region text,
    location_name text,
    team text,
    owner text,
    created_at_service timestamptz,
    closed_at timestamptz,
    mttr_minutes integer,
    sla_status text,
    geo_source text
);
CREATE TYPE reporting.closed_feature AS (type text, id text, geometry json, properties reporting.closed_properties);

-- The settings of these functions hold for the statements inside: a plan is made for what is asked, compiling one would
-- take longer than it saves, and a sort of some ten thousand features needs no file.
CREATE FUNCTION reporting.open_features(p_cluster text, p_status text, p_as_of timestamptz)
RETURNS reporting.open_feature[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = force_custom_plan SET work_mem = '32MB' AS $$
BEGIN
    RETURN (
        SELECT COALESCE(
            array_agg(
                ROW(
                    'Feature', ticket_id, tickets.point_json(geom),
                    ROW(
                        ticket_id, normalized_status, raw_status, bucket, is_actionable, cluster, region, location_name,
                        assigned_team, owner, created_at_service, scheduled_at, age_since, age_basis,
                        floor(extract(epoch FROM p_as_of - age_since) / 60), tickets.sla_state(p_as_of - age_since),
                        geo_source
                    )::reporting.open_properties
                )::reporting.open_feature
                ORDER BY ticket_id COLLATE "C"
            ),
            '{}'
        )
        FROM reporting.inc_open
        WHERE geom IS NOT NULL
            AND (p_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = p_cluster)
            AND (p_status IS NULL OR lower(normalized_status) = p_status)
    );
END;
$$;
COMMENT ON FUNCTION reporting.open_features(text, text, timestamptz) IS
    'The open incidents that have a place; cluster and status are in small letters, NULL is any.';

CREATE FUNCTION reporting.closed_features(p_cluster text, p_status text, p_from timestamptz, p_to timestamptz)
RETURNS reporting.closed_feature[]
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = force_custom_plan SET work_mem = '32MB' AS $$
BEGIN
    RETURN (
        SELECT COALESCE(
            array_agg(
                ROW(
                    'Feature', ticket_id, tickets.point_json(geom),
                    ROW(
                        ticket_id, normalized_status, raw_status, bucket, cluster, region, location_name, assigned_team,
                        owner, created_at_service, closed_at, mttr, sla_status, geo_source
                    )::reporting.closed_properties
                )::reporting.closed_feature
                ORDER BY ticket_id COLLATE "C"
            ),
            '{}'
        )
        FROM tickets.inc
        WHERE geom IS NOT NULL
            AND closed_at IS NOT NULL
            AND (p_from IS NULL OR closed_at >= p_from)
            AND (p_to IS NULL OR closed_at < p_to)
            AND (p_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = p_cluster)
            AND (p_status IS NULL OR lower(normalized_status) = p_status)
    );
END;
$$;
COMMENT ON FUNCTION reporting.closed_features(text, text, timestamptz, timestamptz) IS
    'The incidents closed in [from, to) that have a place; cluster and status are in small letters, NULL is any.';

CREATE FUNCTION reporting.inc_dashboard_json(
    p_cluster text, p_status text, p_window text, p_from timestamptz, p_to timestamptz
) RETURNS json
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi' SET search_path = pg_catalog, pg_temp SET jit = off
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    as_of timestamptz := reporting.fn_as_of(now());
    span record;
    only_cluster text := lower(NULLIF(btrim(p_cluster), ''));
    only_status text := lower(NULLIF(btrim(p_status), ''));
    open_metrics json;
    closed_metrics json;
    closed_on_no_day bigint;
    open_undated bigint;
    closed_undated bigint;
    created_total bigint;
BEGIN
    SELECT * INTO span FROM reporting.fn_inc_window(p_window, p_from, p_to, now());

    -- Tickets that count alike are one row, of which the figures are sums. What is closed and has no date for it, an
    -- error of the source, is found among the open ones and needs no index of its own.
    WITH not_dated AS MATERIALIZED (
        SELECT
            lower(normalized_status) IS NOT DISTINCT FROM 'closed' AS is_closed,
            COALESCE(cluster, '(none)') AS cluster,
            COALESCE(assigned_team, '(none)') AS team,
            tickets.sla_state(as_of - COALESCE(created_at_service, first_seen_at)) AS sla_state,
            CASE
                WHEN created_at_service IS NOT NULL THEN 'created_at_service'
                WHEN first_seen_at IS NOT NULL THEN 'first_seen_at'
                ELSE 'none'
            END AS age_basis,
            COALESCE(is_actionable, false) AS is_actionable,
            geom IS NOT NULL AS has_geom,
            count(*) AS tickets
        FROM tickets.inc
        WHERE closed_at IS NULL
            AND (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
            AND (only_status IS NULL OR lower(normalized_status) = only_status)
        GROUP BY 1, 2, 3, 4, 5, 6, 7
    ),
    alike AS (
        SELECT * FROM not_dated WHERE NOT is_closed
    )
    SELECT
        (SELECT COALESCE(sum(tickets), 0) FROM not_dated WHERE is_closed),
        COALESCE(sum(tickets) FILTER (WHERE age_basis <> 'created_at_service'), 0),
        json_build_object(
            'total', COALESCE(sum(tickets), 0),
            'actionable', COALESCE(sum(tickets) FILTER (WHERE is_actionable), 0),
            'with_geom', COALESCE(sum(tickets) FILTER (WHERE has_geom), 0),
            'without_geom', COALESCE(sum(tickets) FILTER (WHERE NOT has_geom), 0),
            'geom_share', round(COALESCE(sum(tickets) FILTER (WHERE has_geom), 0) / sum(tickets), 4),
            'by_sla_state', json_build_object(
                'breached', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'breached'), 0),
                'at_risk', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'at_risk'), 0),
                'within', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'within'), 0),
                'unknown', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'unknown'), 0)
            ),
            'by_age_basis', json_build_object(
                'created_at_service', COALESCE(sum(tickets) FILTER (WHERE age_basis = 'created_at_service'), 0),
                'first_seen_at', COALESCE(sum(tickets) FILTER (WHERE age_basis = 'first_seen_at'), 0),
                'none', COALESCE(sum(tickets) FILTER (WHERE age_basis = 'none'), 0)
            ),
            'by_cluster', (
                SELECT COALESCE(json_object_agg(cluster, counted ORDER BY cluster COLLATE "C"), '{}')
                FROM (SELECT cluster, sum(tickets) AS counted FROM alike GROUP BY cluster) AS clusters
            ),
            'by_team', (
                SELECT COALESCE(json_object_agg(team, counted ORDER BY team COLLATE "C"), '{}')
                FROM (SELECT team, sum(tickets) AS counted FROM alike GROUP BY team) AS teams
            )
        )
    INTO closed_on_no_day, open_undated, open_metrics
    FROM alike;

    WITH closed AS (
        SELECT geom IS NOT NULL AS has_geom, created_at_service IS NULL AS is_undated, sla_status, mttr
        FROM tickets.inc
        WHERE closed_at IS NOT NULL
            AND (span.from_at IS NULL OR closed_at >= span.from_at)
            AND (span.to_at IS NULL OR closed_at < span.to_at)
            AND (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
            AND (only_status IS NULL OR lower(normalized_status) = only_status)
    ),
    alike AS MATERIALIZED (
        SELECT has_geom, is_undated, COALESCE(sla_status, '(none)') AS sla_status, mttr, count(*) AS tickets
        FROM closed
        GROUP BY 1, 2, 3, 4
    ),
    repaired AS (
        SELECT
            count(mttr) AS tickets,
            round(avg(mttr), 1) AS average,
            percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY mttr) AS shares
        FROM alike CROSS JOIN LATERAL generate_series(1, tickets)
        WHERE mttr IS NOT NULL
    )
    SELECT
        COALESCE(sum(tickets) FILTER (WHERE is_undated), 0),
        json_build_object(
            'total', COALESCE(sum(tickets), 0),
            'undated', closed_on_no_day,
            'with_geom', COALESCE(sum(tickets) FILTER (WHERE has_geom), 0),
            'without_geom', COALESCE(sum(tickets) FILTER (WHERE NOT has_geom), 0),
            'geom_share', round(COALESCE(sum(tickets) FILTER (WHERE has_geom), 0) / sum(tickets), 4),
            'by_sla_status', (
                SELECT COALESCE(json_object_agg(sla_status, counted ORDER BY sla_status COLLATE "C"), '{}')
                FROM (SELECT sla_status, sum(tickets) AS counted FROM alike GROUP BY sla_status) AS verdicts
            ),
            'mttr_minutes', (
                SELECT json_build_object(
                    'tickets', repaired.tickets,
                    'average', average,
                    'median', round(shares[1]::numeric, 1),
                    'p90', round(shares[2]::numeric, 1)
                )
                FROM repaired
            )
        )
    INTO closed_undated, closed_metrics
    FROM alike;

    SELECT count(*)
    INTO created_total
    FROM tickets.inc
    WHERE created_at_service IS NOT NULL
        AND (span.from_at IS NULL OR created_at_service >= span.from_at)
        AND (span.to_at IS NULL OR created_at_service < span.to_at)
        AND (only_cluster IS NULL OR lower(COALESCE(cluster, '(none)')) = only_cluster)
        AND (only_status IS NULL OR lower(normalized_status) = only_status);

    RETURN json_build_object(
        'as_of', as_of,
        'filters', json_build_object(
            'cluster', NULLIF(btrim(p_cluster), ''),
            'status', NULLIF(btrim(p_status), ''),
            'window', span.name,
            'from', span.from_at,
            'to', span.to_at
        ),
        'sla', reporting.sla_thresholds_json(),
        'open', (
            SELECT collection
            FROM (
                SELECT
                    'FeatureCollection' AS type,
                    reporting.open_features(only_cluster, only_status, as_of) AS features
            ) AS collection
        ),
        'closed', (
            SELECT collection
            FROM (
                SELECT
                    'FeatureCollection' AS type,
                    reporting.closed_features(only_cluster, only_status, span.from_at, span.to_at) AS features
            ) AS collection
        ),
        'metrics', json_build_object(
            'open', open_metrics,
            'closed', closed_metrics,
            'created', json_build_object('total', created_total, 'undated', open_undated + closed_undated)
        ),
        'freshness', reporting.freshness_json('inc', as_of)
    );
END;
$$;
COMMENT ON FUNCTION reporting.inc_dashboard_json(text, text, text, timestamptz, timestamptz) IS
    'The incident dashboard in one answer: {as_of, filters, sla, open, closed, metrics, freshness}. open is the '
    'present, closed and created are within the window [from, to); tickets without a place are in metrics and not '
    'among the features. Times carry the offset +03:00. docs/dashboard-api-contract.md has the whole.';

CREATE FUNCTION reporting.inc_map_json() RETURNS json
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET TimeZone = 'Africa/Nairobi' SET search_path = pg_catalog, pg_temp SET jit = off
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    as_of timestamptz := reporting.fn_as_of(now());
BEGIN
    RETURN (
        WITH alike AS MATERIALIZED (
            SELECT
                COALESCE(cluster, '(none)') AS cluster,
                tickets.sla_state(as_of - age_since) AS sla_state,
                geom IS NOT NULL AS has_geom,
                count(*) AS tickets
            FROM reporting.inc_open
            GROUP BY 1, 2, 3
        )
        SELECT json_build_object(
            'type', 'FeatureCollection',
            'features', reporting.open_features(NULL, NULL, as_of),
            'summary', json_build_object(
                'as_of', as_of,
                'sla', reporting.sla_thresholds_json(),
                -- Kept by each merge, and compared by `verify`; before the first one, what is there is counted.
                'total', COALESCE(
                    (SELECT row_count FROM tickets.import_meta WHERE source = 'inc'), (SELECT count(*) FROM tickets.inc)
                ),
                'open', COALESCE(sum(tickets), 0),
                'open_with_geom', COALESCE(sum(tickets) FILTER (WHERE has_geom), 0),
                'open_without_geom', COALESCE(sum(tickets) FILTER (WHERE NOT has_geom), 0),
                'by_cluster', (
                    SELECT COALESCE(json_object_agg(cluster, counted ORDER BY cluster COLLATE "C"), '{}')
                    FROM (SELECT cluster, sum(tickets) AS counted FROM alike GROUP BY cluster) AS clusters
                ),
                'by_sla_state', json_build_object(
                    'breached', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'breached'), 0),
                    'at_risk', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'at_risk'), 0),
                    'within', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'within'), 0),
                    'unknown', COALESCE(sum(tickets) FILTER (WHERE sla_state = 'unknown'), 0)
                ),
                'freshness', reporting.freshness_json('inc', as_of)
            )
        )
        FROM alike
    );
END;
$$;
COMMENT ON FUNCTION reporting.inc_map_json() IS
    'GeoJSON of the open incidents that have a place; summary counts all of them and tells how fresh they are. Times '
    'carry the offset +03:00.';

-- The names that they have had. What the batch import made stays. The map stays jsonb, for those who look into it; the
-- dashboard is ten times as large, and jsonb only where a view of somebody else stands on it.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM public.fleettickets_migrations WHERE name = '08_inc_open_sla_view' AND how = 'adopted'
    ) THEN
        CREATE OR REPLACE FUNCTION reporting.fn_tickets_for_map() RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
        RETURN reporting.inc_map_json()::jsonb;
        COMMENT ON FUNCTION reporting.fn_tickets_for_map() IS
            'GeoJSON of the open incidents; see reporting.inc_map_json(), which costs half as much.';
    END IF;
    IF EXISTS (
        SELECT FROM public.fleettickets_migrations WHERE name = '09_inc_dashboard_fn' AND how = 'adopted'
    ) THEN
        RETURN;
    END IF;
    BEGIN
        DROP FUNCTION reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz);
        CREATE FUNCTION reporting.fn_inc_dashboard(
            p_cluster text DEFAULT NULL, p_status text DEFAULT NULL, p_window text DEFAULT '7d',
            p_from timestamptz DEFAULT NULL, p_to timestamptz DEFAULT NULL
        ) RETURNS json LANGUAGE sql STABLE PARALLEL SAFE
        RETURN reporting.inc_dashboard_json(p_cluster, p_status, p_window, p_from, p_to);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        CREATE OR REPLACE FUNCTION reporting.fn_inc_dashboard(
            p_cluster text DEFAULT NULL, p_status text DEFAULT NULL, p_window text DEFAULT '7d',
            p_from timestamptz DEFAULT NULL, p_to timestamptz DEFAULT NULL
        ) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
        RETURN reporting.inc_dashboard_json(p_cluster, p_status, p_window, p_from, p_to)::jsonb;
    END;
    COMMENT ON FUNCTION reporting.fn_inc_dashboard(text, text, text, timestamptz, timestamptz) IS
        'The incident dashboard in one answer; see reporting.inc_dashboard_json().';
END
$$;

-- Closures that no file brought. The merge records its own from all rows that it reads; to look for others among all
-- that ever closed takes longer with each day. So whoever else writes a closed ticket leaves a note in its transaction,
-- and the next capture that sees the ticket sees the note.
CREATE TABLE ingest.closures_noted (
    note_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticket_id text NOT NULL
);
COMMENT ON TABLE ingest.closures_noted IS
    'Tickets that something else than a merge has written with a closing time; the next capture looks at them.';

-- With the rights of its owner, since whoever writes tickets by hand need not have any on notes.
CREATE FUNCTION ingest.note_closure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO ingest.closures_noted (ticket_id) VALUES (NEW.ticket_id);
    RETURN NULL;
END;
$$;

-- Ours alone is replaced: where 10 was adopted, the function is the batch import's, and reads no notes.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM public.fleettickets_migrations WHERE name = '10_inc_history_capture' AND how = 'adopted'
    ) THEN
        RETURN;
    END IF;

    -- The lock that this takes waits for whoever is writing, so that the rows looked through below are all there are
    -- without a note.
    CREATE TRIGGER note_closure AFTER INSERT OR UPDATE OF raw ON tickets.inc FOR EACH ROW
    WHEN (NEW.closed_at IS NOT NULL AND current_setting('fleettickets.closures', true) IS DISTINCT FROM 'recorded')
    EXECUTE FUNCTION ingest.note_closure();

    INSERT INTO ingest.closures_noted (ticket_id)
    SELECT ticket_id
    FROM tickets.inc
    WHERE closed_at IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM tickets.closure_events AS known
            WHERE known.ticket_id = inc.ticket_id AND known.closed_at = inc.closed_at
        );

    CREATE OR REPLACE FUNCTION tickets.capture_history() RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $capture$
    DECLARE
        closures_added bigint := 0;
        moment timestamptz;
        clusters bigint;
    BEGIN
        -- One capture at a time. Every statement below sees what the one before it committed.
        PERFORM FROM ingest.locks WHERE name = 'history' FOR UPDATE;

        IF EXISTS (SELECT FROM ingest.closures_noted) THEN
            -- In key order, so that two writers of the same closures wait for each other instead of deadlocking. Each
            -- ticket is looked up by itself: there are few of them, whatever the planner takes a table of notes for.
            WITH noted AS (
                DELETE FROM ingest.closures_noted RETURNING ticket_id
            )
            INSERT INTO tickets.closure_events (
                ticket_id, closed_at, cluster, region, location_name, assigned_team, owner, sla_status, mttr,
                created_at_service
            )
            SELECT
                inc.ticket_id, inc.closed_at, inc.cluster, inc.region, inc.location_name, inc.assigned_team, inc.owner,
                inc.sla_status, inc.mttr, inc.created_at_service
            FROM (SELECT DISTINCT ticket_id FROM noted ORDER BY ticket_id) AS wanted
            CROSS JOIN LATERAL (
                SELECT * FROM tickets.inc AS ticket WHERE ticket.ticket_id = wanted.ticket_id OFFSET 0
            ) AS inc
            WHERE inc.closed_at IS NOT NULL
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS closures_added = ROW_COUNT;
        END IF;

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

-- The past, asked by day or week. Each of them looks up its own rows by their times, so that a view costs what is asked
-- of it; and says whether it is known at all: where no file has come, nothing is zero.
CREATE FUNCTION reporting.spans(p_step text, p_days integer)
RETURNS TABLE (first_day date, from_at timestamptz, to_at timestamptz, files bigint, is_gap boolean)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        span.first_day,
        bounds.from_at,
        bounds.to_at,
        CASE WHEN bounds.to_at > known.filed_at THEN filed.count END,
        CASE WHEN bounds.to_at > known.filed_at THEN filed.count = 0 END
    FROM (
        SELECT
            date_trunc(
                p_step, least(created_at, closed_at, filed_at, captured_at) AT TIME ZONE 'Africa/Nairobi'
            )::date AS day,
            filed_at
        FROM (
            SELECT
                (SELECT min(created_at_service) FROM tickets.inc) AS created_at,
                (SELECT min(closed_at) FROM tickets.closure_events) AS closed_at,
                (SELECT min(key_time) FROM ingest.ledger WHERE feed = 'inc' AND applied_at IS NOT NULL) AS filed_at,
                (
                    SELECT min(snapshot_date)::timestamp AT TIME ZONE 'Africa/Nairobi' FROM tickets.inc_daily_snapshot
                ) AS captured_at
        ) AS first_ones
        OFFSET 0
    ) AS known
    CROSS JOIN LATERAL generate_series(0, ((now() AT TIME ZONE 'Africa/Nairobi')::date - known.day) / p_days) AS nth
    CROSS JOIN LATERAL (SELECT known.day + p_days * nth AS first_day) AS span
    CROSS JOIN LATERAL (
        SELECT
            span.first_day::timestamp AT TIME ZONE 'Africa/Nairobi' AS from_at,
            (span.first_day + p_days)::timestamp AT TIME ZONE 'Africa/Nairobi' AS to_at
    ) AS bounds
    CROSS JOIN LATERAL (
        SELECT count(*)
        FROM ingest.ledger
        WHERE feed = 'inc' AND applied_at IS NOT NULL AND key_time >= bounds.from_at AND key_time < bounds.to_at
    ) AS filed;
END;

CREATE VIEW reporting.days AS
SELECT first_day AS day, from_at, to_at, files, is_gap FROM reporting.spans('day', 1);
COMMENT ON VIEW reporting.days IS 'Days in East Africa Time, from the first that anything is known of to today.';
COMMENT ON COLUMN reporting.days.files IS
    'Change files with a name of that day, whenever they came; NULL before the first one that is known.';
COMMENT ON COLUMN reporting.days.is_gap IS
    'No file of that day has come, so what happened on it is told by later files alone, if at all; NULL where that is '
    'not known.';

CREATE VIEW reporting.weeks AS
SELECT first_day AS week, from_at, to_at, files, is_gap FROM reporting.spans('week', 7);
COMMENT ON VIEW reporting.weeks IS 'As reporting.days, by week; each is named by its Monday.';

CREATE VIEW reporting.backlog_by_day AS
SELECT
    day,
    files,
    snapshot.count = 0 AS is_gap,
    snapshot.captured_at,
    snapshot.open_total,
    snapshot.open_actionable,
    snapshot.open_breached,
    snapshot.open_at_risk,
    snapshot.open_unknown_age
FROM reporting.days
CROSS JOIN LATERAL (
    SELECT
        count(*),
        max(captured_at) AS captured_at,
        sum(open_total) AS open_total,
        sum(open_actionable) AS open_actionable,
        sum(open_breached) AS open_breached,
        sum(open_at_risk) AS open_at_risk,
        sum(open_unknown_age) AS open_unknown_age
    FROM tickets.inc_daily_snapshot
    WHERE snapshot_date = day
) AS snapshot
WHERE day >= (SELECT min(snapshot_date) FROM tickets.inc_daily_snapshot);
COMMENT ON VIEW reporting.backlog_by_day IS
    'How many tickets were open, as the last capture of each day saw them, from the first capture on. A day without a '
    'capture is a gap, whose figures are NULL.';

CREATE VIEW reporting.backlog_by_day_and_cluster AS
SELECT
    day,
    snapshot.cluster,
    files,
    snapshot.snapshot_date IS NULL AS is_gap,
    snapshot.captured_at,
    snapshot.open_total,
    snapshot.open_actionable,
    snapshot.open_breached,
    snapshot.open_at_risk,
    snapshot.open_unknown_age
FROM reporting.days
LEFT JOIN tickets.inc_daily_snapshot AS snapshot ON snapshot.snapshot_date = day
WHERE day >= (SELECT min(snapshot_date) FROM tickets.inc_daily_snapshot);
COMMENT ON VIEW reporting.backlog_by_day_and_cluster IS
    'As reporting.backlog_by_day, for each cluster; a gap is one row without a cluster. (none) has the tickets '
    'without one.';

-- A span that no file is of has the figures that later files gave it, and otherwise none: NULL, not 0.
CREATE FUNCTION reporting.flow(p_step text, p_days integer)
RETURNS TABLE (
    first_day date, files bigint, is_gap boolean, created bigint, closed bigint, closed_again bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        span.first_day,
        span.files,
        span.is_gap,
        CASE WHEN came.count > 0 OR span.is_gap IS DISTINCT FROM true THEN came.count END,
        CASE WHEN went.count > 0 OR span.is_gap IS DISTINCT FROM true THEN went.count END,
        CASE WHEN went.count > 0 OR span.is_gap IS DISTINCT FROM true THEN went.again END
    FROM reporting.spans(p_step, p_days) AS span
    CROSS JOIN LATERAL (
        SELECT count(*)
        FROM tickets.inc
        WHERE created_at_service >= span.from_at AND created_at_service < span.to_at
    ) AS came
    CROSS JOIN LATERAL (
        SELECT
            count(*),
            count(*) FILTER (WHERE EXISTS (
                SELECT FROM tickets.closure_events AS before
                WHERE before.ticket_id = closure.ticket_id AND before.closed_at < closure.closed_at
            )) AS again
        FROM tickets.closure_events AS closure
        WHERE closure.closed_at >= span.from_at AND closure.closed_at < span.to_at
    ) AS went;
END;

CREATE VIEW reporting.created_and_closed_by_day AS
SELECT first_day AS day, files, is_gap, created, closed, closed_again FROM reporting.flow('day', 1);
COMMENT ON VIEW reporting.created_and_closed_by_day IS
    'How many tickets came and went, by their own times: a late file changes the day that it tells of. Tickets without '
    'created_at_service (about three in ten) are created on no day.';
COMMENT ON COLUMN reporting.created_and_closed_by_day.closed IS
    'Closures; a ticket that was reopened and closed again has one for each.';
COMMENT ON COLUMN reporting.created_and_closed_by_day.closed_again IS
    'Those of them that were not the first of their ticket.';

CREATE VIEW reporting.created_and_closed_by_week AS
SELECT first_day AS week, files, is_gap, created, closed, closed_again FROM reporting.flow('week', 7);
COMMENT ON VIEW reporting.created_and_closed_by_week IS 'As reporting.created_and_closed_by_day, by week.';

CREATE FUNCTION reporting.counts_of(said text[]) RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT COALESCE(json_object_agg(word, times ORDER BY word COLLATE "C"), '{}')
    FROM (SELECT word, count(*) AS times FROM unnest(said) AS word WHERE word IS NOT NULL GROUP BY word) AS counted
);
COMMENT ON FUNCTION reporting.counts_of(text[]) IS 'How often each word is among these.';

CREATE VIEW reporting.mttr_and_sla_by_week AS
SELECT
    week,
    files,
    is_gap,
    CASE WHEN is_known THEN closures END AS closures,
    CASE WHEN is_known THEN mttr_known END AS mttr_known,
    mttr_average,
    mttr_median,
    mttr_p90,
    CASE WHEN is_known THEN by_sla_status END AS by_sla_status
FROM reporting.weeks
CROSS JOIN LATERAL (
    SELECT
        count(*) AS closures,
        count(mttr) AS mttr_known,
        round(avg(mttr), 1) AS mttr_average,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_median,
        round(percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_p90,
        reporting.counts_of(array_agg(COALESCE(sla_status, '(none)'))) AS by_sla_status
    FROM tickets.closure_events
    WHERE closed_at >= from_at AND closed_at < to_at
) AS found
CROSS JOIN LATERAL (SELECT closures > 0 OR is_gap IS DISTINCT FROM true AS is_known) AS judged;
COMMENT ON VIEW reporting.mttr_and_sla_by_week IS
    'How long repairs took and what the source judged of them, by the week of the closure; each closure counts, also '
    'the second one of a ticket. A week that no file is of and that has no closure is a gap: NULL, not 0.';
COMMENT ON COLUMN reporting.mttr_and_sla_by_week.mttr_median IS
    'Minutes as the source counts them: not wall-clock, and no measure against 48 hours. NULL where it says none.';
COMMENT ON COLUMN reporting.mttr_and_sla_by_week.by_sla_status IS
    'The source''s own verdicts, each with its closures; (none) where it gave none.';

CREATE VIEW reporting.mttr_and_sla_by_cluster AS
SELECT
    week, files, is_gap, cluster,
    COALESCE(closures, CASE WHEN is_gap IS DISTINCT FROM true THEN 0 END) AS closures,
    mttr_known, mttr_average, mttr_median, mttr_p90, by_sla_status
FROM reporting.weeks
LEFT JOIN LATERAL (
    SELECT
        COALESCE(cluster, '(none)') AS cluster,
        count(*) AS closures,
        count(mttr) AS mttr_known,
        round(avg(mttr), 1) AS mttr_average,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_median,
        round(percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_p90,
        reporting.counts_of(array_agg(COALESCE(sla_status, '(none)'))) AS by_sla_status
    FROM tickets.closure_events
    WHERE closed_at >= from_at AND closed_at < to_at
    GROUP BY 1
) AS found ON true;
COMMENT ON VIEW reporting.mttr_and_sla_by_cluster IS
    'As reporting.mttr_and_sla_by_week, by the cluster of the ticket when it closed. A week without closures is one '
    'row without a cluster.';

CREATE VIEW reporting.mttr_and_sla_by_region AS
SELECT
    week, files, is_gap, region,
    COALESCE(closures, CASE WHEN is_gap IS DISTINCT FROM true THEN 0 END) AS closures,
    mttr_known, mttr_average, mttr_median, mttr_p90, by_sla_status
FROM reporting.weeks
LEFT JOIN LATERAL (
    SELECT
        COALESCE(region, '(none)') AS region,
        count(*) AS closures,
        count(mttr) AS mttr_known,
        round(avg(mttr), 1) AS mttr_average,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_median,
        round(percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_p90,
        reporting.counts_of(array_agg(COALESCE(sla_status, '(none)'))) AS by_sla_status
    FROM tickets.closure_events
    WHERE closed_at >= from_at AND closed_at < to_at
    GROUP BY 1
) AS found ON true;
COMMENT ON VIEW reporting.mttr_and_sla_by_region IS 'As reporting.mttr_and_sla_by_cluster, by region.';

CREATE VIEW reporting.mttr_and_sla_by_team AS
SELECT
    week, files, is_gap, team,
    COALESCE(closures, CASE WHEN is_gap IS DISTINCT FROM true THEN 0 END) AS closures,
    mttr_known, mttr_average, mttr_median, mttr_p90, by_sla_status
FROM reporting.weeks
LEFT JOIN LATERAL (
    SELECT
        COALESCE(assigned_team, '(none)') AS team,
        count(*) AS closures,
        count(mttr) AS mttr_known,
        round(avg(mttr), 1) AS mttr_average,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_median,
        round(percentile_cont(0.9) WITHIN GROUP (ORDER BY mttr)::numeric, 1) AS mttr_p90,
        reporting.counts_of(array_agg(COALESCE(sla_status, '(none)'))) AS by_sla_status
    FROM tickets.closure_events
    WHERE closed_at >= from_at AND closed_at < to_at
    GROUP BY 1
) AS found ON true;
COMMENT ON VIEW reporting.mttr_and_sla_by_team IS
    'As reporting.mttr_and_sla_by_cluster, by the team that held the ticket when it closed.';

CREATE VIEW reporting.who_closed AS
SELECT
    closure.ticket_id,
    closure.closed_at,
    (closure.closed_at AT TIME ZONE 'Africa/Nairobi')::date AS day,
    closure.assigned_team AS team,
    closure.owner,
    closure.cluster,
    closure.region,
    closure.location_name,
    closure.mttr AS mttr_minutes,
    closure.sla_status,
    closure.created_at_service,
    nth.closure AS nth_closure,
    later.is_there OR present.ticket_id IS NOT NULL AS was_reopened
FROM tickets.closure_events AS closure
CROSS JOIN LATERAL (
    SELECT count(*) AS closure
    FROM tickets.closure_events AS up_to
    WHERE up_to.ticket_id = closure.ticket_id AND up_to.closed_at <= closure.closed_at
) AS nth
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM tickets.closure_events AS after
        WHERE after.ticket_id = closure.ticket_id AND after.closed_at > closure.closed_at
    ) AS is_there
) AS later
LEFT JOIN LATERAL (
    SELECT open.ticket_id FROM reporting.inc_open AS open WHERE open.ticket_id = closure.ticket_id OFFSET 0
) AS present ON true;
COMMENT ON VIEW reporting.who_closed IS
    'Who held each ticket when it closed: a row for each closure, with the team and the owner of that moment, whoever '
    'has the ticket now.';
COMMENT ON COLUMN reporting.who_closed.nth_closure IS '1 is the first closure of the ticket that is known.';
COMMENT ON COLUMN reporting.who_closed.was_reopened IS 'It was closed again later, or is open now.';

-- For dispatch: the index over all places gives the nearest one by one. One over the open tickets alone would pass by
-- fewer, and cost each row that is written a fifth more.
CREATE FUNCTION reporting.fn_nearest_open(
    p_latitude double precision,
    p_longitude double precision,
    p_limit integer DEFAULT 10,
    p_within_metres double precision DEFAULT NULL,
    p_cluster text DEFAULT NULL,
    p_team text DEFAULT NULL,
    p_is_actionable boolean DEFAULT NULL
) RETURNS TABLE (
    ticket_id text,
    distance_metres bigint,
    latitude double precision,
    longitude double precision,
    geo_source text,
    status text,
    bucket text,
    is_actionable boolean,
    cluster text,
    region text,
    location_name text,
    team text,
    owner text,
    scheduled_at timestamptz,
    age_since timestamptz,
    age_basis text
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    SELECT
        open.ticket_id, round(ST_Distance(open.geog, here.point))::bigint,
        round(ST_Y(open.geom)::numeric, 6)::double precision, round(ST_X(open.geom)::numeric, 6)::double precision,
        open.geo_source, open.normalized_status, open.bucket, open.is_actionable, open.cluster, open.region,
        open.location_name, open.assigned_team, open.owner, open.scheduled_at, open.age_since, open.age_basis
    FROM (
        SELECT ST_SetSRID(ST_MakePoint(p_longitude, p_latitude), 4326)::geography AS point
        WHERE p_latitude BETWEEN -90 AND 90 AND p_longitude BETWEEN -180 AND 180
    ) AS here
    CROSS JOIN LATERAL (
        SELECT *
        FROM reporting.inc_open AS ticket
        WHERE ticket.geog IS NOT NULL
            AND (p_within_metres IS NULL OR ST_DWithin(ticket.geog, here.point, p_within_metres))
            AND (p_cluster IS NULL OR lower(COALESCE(ticket.cluster, '(none)')) = lower(btrim(p_cluster)))
            AND (p_team IS NULL OR lower(COALESCE(ticket.assigned_team, '(none)')) = lower(btrim(p_team)))
            AND (p_is_actionable IS NULL OR ticket.is_actionable IS NOT DISTINCT FROM p_is_actionable)
        -- Many stand on the point of their cluster: all that are as far are looked at, and the first by id are told.
        ORDER BY ticket.geog <-> here.point
        FETCH FIRST LEAST(GREATEST(p_limit, 0), 1000) ROWS WITH TIES
    ) AS open
    ORDER BY open.geog <-> here.point, open.ticket_id
    LIMIT LEAST(GREATEST(p_limit, 0), 1000);
END;
COMMENT ON FUNCTION reporting.fn_nearest_open(
    double precision, double precision, integer, double precision, text, text, boolean
) IS
    'The open incidents nearest to a point, by metres on the ground; at most p_limit (10) and never more than 1000. '
    'Nothing for a point that is none.';
