-- What an OFFSET passes over is locked as well: two processes of one login that beat at once had each other's row, and
-- waited for their own. The rows to delete are found first, and only those are locked.
CREATE OR REPLACE FUNCTION ingest.beat(process text, told jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    IF told->>'kind' = 'consumer' AND NOT has_table_privilege(session_user, 'ingest.ledger', 'INSERT') THEN
        RAISE EXCEPTION '% may not apply files, and is no consumer', session_user
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- To find it by the conflict would be to have it locked, for as long as the caller's transaction is open.
    IF EXISTS (SELECT FROM ingest.heartbeats AS known
               WHERE known.process_id = process AND (known.login <> session_user OR known.kind <> told->>'kind')) THEN
        RAISE EXCEPTION 'process % is not one of %', process, session_user USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Of the dead, whoever deletes one now, does.
    DELETE FROM ingest.heartbeats
    WHERE process_id IN (SELECT old.process_id FROM ingest.heartbeats AS old
                         WHERE old.beat_at < moment - interval '1 day' AND old.process_id <> process
                         FOR UPDATE SKIP LOCKED);
    DELETE FROM ingest.heartbeats
    WHERE process_id IN (SELECT old.process_id FROM ingest.heartbeats AS old
                         WHERE old.process_id IN (SELECT one.process_id FROM ingest.heartbeats AS one
                                                  WHERE one.login = session_user AND one.process_id <> process
                                                  ORDER BY one.beat_at DESC, one.process_id OFFSET 199)
                         FOR UPDATE SKIP LOCKED);
    INSERT INTO ingest.heartbeats AS known (process_id, login, kind, host, pid, version, feeds, queues, started_at,
                                            beat_at, in_hand, in_hand_since, paused_by, paused_why, paused_since,
                                            settled_at)
    SELECT left(process, 64), session_user, given.kind, left(given.host, 255), given.pid, left(given.version, 64),
           given.feeds[1:100], given.queues[1:10], moment - make_interval(secs => given.started_seconds), moment,
           left(given.in_hand, 2000), moment - make_interval(secs => given.in_hand_seconds),
           given.paused_by, left(given.paused_why, 1000), moment - make_interval(secs => given.paused_seconds),
           moment - make_interval(secs => given.settled_seconds)
    FROM jsonb_to_record(told) AS given (
        kind text, host text, pid integer, version text, feeds text[], queues text[], started_seconds float8,
        in_hand text, in_hand_seconds float8, paused_by text, paused_why text, paused_seconds float8,
        settled_seconds float8
    )
    ON CONFLICT (process_id) DO UPDATE
    SET beat_at = EXCLUDED.beat_at, in_hand = EXCLUDED.in_hand, in_hand_since = EXCLUDED.in_hand_since,
        paused_by = EXCLUDED.paused_by, paused_why = EXCLUDED.paused_why, paused_since = EXCLUDED.paused_since,
        settled_at = EXCLUDED.settled_at
    WHERE known.login = EXCLUDED.login AND known.kind = EXCLUDED.kind;
END
$$;
