-- Trouble that whoever is behind FLEETTICKETS_ALERT_URL is told of. What is to be told is a row before it is sent, so
-- that another process takes over from one that dies in between.
CREATE TABLE ingest.alerts (
    alert_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    bucket        text NOT NULL COLLATE "C",
    cause         text NOT NULL COLLATE "C",
    line          text NOT NULL,
    advice        text NOT NULL,
    began_at      timestamptz NOT NULL,
    noticed_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,
    after_seconds float8 NOT NULL,
    due_at        timestamptz,
    told_at       timestamptz,
    gone_at       timestamptz,
    over_at       timestamptz,
    over_line     text,
    over_told_at  timestamptz
);
CREATE UNIQUE INDEX alerts_open ON ingest.alerts (bucket, cause) WHERE over_at IS NULL;
COMMENT ON TABLE ingest.alerts IS
    'What is wrong, each cause once, and whether the receiver of alerts was told: of its beginning, and of its end.';
COMMENT ON COLUMN ingest.alerts.after_seconds IS 'For so long it has to be so, as was seen, before it is told.';
COMMENT ON COLUMN ingest.alerts.due_at IS 'Since then it is to be told; its line and advice stay as they were then.';
COMMENT ON COLUMN ingest.alerts.gone_at IS 'Since then it is not so any more. None while it is; if it comes back, too.';
COMMENT ON COLUMN ingest.alerts.over_at IS 'It was not so for long enough: what comes back is another alert.';
COMMENT ON COLUMN ingest.alerts.over_line IS 'The verdict at that time.';

-- With the rights of its owner, as beats are: a poller only reads, and it is who notices that no consumer is there.
CREATE FUNCTION ingest.watch_alerts(of_bucket text, who text, seconds float8) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    wanted text := 'alerts ' || left(of_bucket, 63);
BEGIN
    IF NOT EXISTS (SELECT FROM ingest.leases WHERE name = wanted) THEN
        IF (SELECT count(*) FROM ingest.leases) >= 200 THEN
            RAISE EXCEPTION 'too many leases' USING ERRCODE = 'configuration_limit_exceeded';
        END IF;
        INSERT INTO ingest.leases (name) VALUES (wanted) ON CONFLICT DO NOTHING;
    END IF;
    UPDATE ingest.leases AS known
    SET holder = left(who, 200), until = moment + make_interval(secs => least(seconds, 86400)),
        since = CASE WHEN known.holder = left(who, 200) AND known.until > moment THEN known.since ELSE moment END
    WHERE known.name = wanted AND (known.holder = left(who, 200) OR known.until <= moment);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION ingest.watch_alerts(text, text, float8) IS
    'One process watches a bucket: true for that one. Once its seconds are over, another may; no seconds give it back.';

CREATE FUNCTION ingest.note_alerts(
    of_bucket text, who text, seen jsonb, gone text[], now_line text, over_seconds float8
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM ingest.leases
    WHERE name = 'alerts ' || left(of_bucket, 63) AND holder = left(who, 200) AND until > moment FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- What nobody is to be told of yet was nothing.
    DELETE FROM ingest.alerts
    WHERE bucket = of_bucket AND over_at IS NULL AND due_at IS NULL AND cause = ANY(gone);
    UPDATE ingest.alerts SET gone_at = moment
    WHERE bucket = of_bucket AND over_at IS NULL AND gone_at IS NULL AND cause = ANY(gone);
    UPDATE ingest.alerts SET over_at = moment, over_line = left(now_line, 2000)
    WHERE bucket = of_bucket AND over_at IS NULL AND cause = ANY(gone)
      AND gone_at <= moment - make_interval(secs => over_seconds);
    INSERT INTO ingest.alerts AS known (bucket, cause, line, advice, began_at, noticed_at, seen_at, after_seconds)
    SELECT of_bucket, left(given.cause, 200), left(given.line, 2000), left(given.advice, 1000),
           least(coalesce(given.began_at, moment), moment), moment, moment, given.after_seconds
    FROM jsonb_to_recordset(seen) AS given (
        cause text, line text, advice text, began_at timestamptz, after_seconds float8
    )
    WHERE (SELECT count(*) FROM ingest.alerts WHERE bucket = of_bucket AND over_at IS NULL) < 1000
       OR EXISTS (SELECT FROM ingest.alerts AS old
                  WHERE old.bucket = of_bucket AND old.cause = left(given.cause, 200) AND old.over_at IS NULL)
    LIMIT 200
    ON CONFLICT (bucket, cause) WHERE over_at IS NULL DO UPDATE
    SET seen_at = moment, gone_at = NULL,
        line = CASE WHEN known.due_at IS NULL THEN EXCLUDED.line ELSE known.line END,
        advice = CASE WHEN known.due_at IS NULL THEN EXCLUDED.advice ELSE known.advice END;
    UPDATE ingest.alerts SET due_at = moment
    WHERE bucket = of_bucket AND over_at IS NULL AND due_at IS NULL AND seen_at = moment
      AND noticed_at <= moment - make_interval(secs => after_seconds);
    -- What is long over and told, and however many there are.
    DELETE FROM ingest.alerts
    WHERE over_told_at < moment - interval '90 days'
       OR alert_id IN (SELECT old.alert_id FROM ingest.alerts AS old
                       WHERE old.over_at IS NOT NULL ORDER BY old.over_at DESC, old.alert_id OFFSET 10000);
    RETURN true;
END
$$;
COMMENT ON FUNCTION ingest.note_alerts(text, text, jsonb, text[], text, float8) IS
    'What one look found, and which causes it found to be gone. False for who does not watch: then nothing is noted.';

CREATE FUNCTION ingest.alert_told(alert uuid, is_over boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF is_over THEN
        UPDATE ingest.alerts SET over_told_at = clock_timestamp() WHERE alert_id = alert AND over_told_at IS NULL;
    ELSE
        UPDATE ingest.alerts SET told_at = clock_timestamp() WHERE alert_id = alert AND told_at IS NULL;
    END IF;
END
$$;
COMMENT ON FUNCTION ingest.alert_told(uuid, boolean) IS 'The receiver has taken the alert, or its all-clear.';

-- `migrate` lets this database's roles call them, and no others are to.
REVOKE EXECUTE ON FUNCTION ingest.watch_alerts(text, text, float8), ingest.alert_told(uuid, boolean),
                           ingest.note_alerts(text, text, jsonb, text[], text, float8) FROM PUBLIC;
