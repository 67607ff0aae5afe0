-- What each process that runs for long says of itself four times a minute: that it lives, what it has in hand, what
-- keeps it. Who looks then knows a consumer that stands still from one that has nothing to do.
CREATE TABLE ingest.heartbeats (
    process_id    text PRIMARY KEY,
    login         name NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('consumer', 'poller', 'webhook', 'sqs', 'serve')),
    host          text NOT NULL,
    pid           integer NOT NULL,
    version       text NOT NULL,
    feeds         text[] NOT NULL,
    queues        text[] NOT NULL,
    started_at    timestamptz NOT NULL,
    beat_at       timestamptz NOT NULL,
    in_hand       text,
    in_hand_since timestamptz,
    paused_by     text CHECK (paused_by IN ('everything fails', 'lock', 'away')),
    paused_why    text,
    paused_since  timestamptz,
    settled_at    timestamptz
);
COMMENT ON TABLE ingest.heartbeats IS
    'Processes that run for long. A row ends with its process; of one that died it ages, and goes after a day.';
COMMENT ON COLUMN ingest.heartbeats.process_id IS
    'Random: two containers have the same pid, and one host name at times.';
COMMENT ON COLUMN ingest.heartbeats.in_hand IS
    'What it has worked on for longest: a key, or in other words what it does. None when it waits for work.';
COMMENT ON COLUMN ingest.heartbeats.paused_by IS
    'Why it gets nowhere: everything fails, a lock of the database, a dependency that is away. None when it does.';
COMMENT ON COLUMN ingest.heartbeats.settled_at IS 'When it was last done with something, whatever was decided of it.';

-- With the rights of its owner: whoever only reads beats as well, and may write nothing else. All ages come in seconds,
-- so that every time here is one of this server's clock. A row is its login's alone, and each login has few.
CREATE FUNCTION ingest.beat(process text, told jsonb) RETURNS void
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
                         WHERE old.login = session_user AND old.process_id <> process
                         ORDER BY old.beat_at DESC, old.process_id OFFSET 199
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
COMMENT ON FUNCTION ingest.beat(text, jsonb) IS
    'A process says that it lives. A row is moved by the login that made it; those of the dead go after a day.';

CREATE FUNCTION ingest.end_beats(process text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM ingest.heartbeats WHERE process_id = process AND login = session_user;
END
$$;
COMMENT ON FUNCTION ingest.end_beats(text) IS 'A process ends as it should, and is missed by nobody.';

-- `migrate` lets this database's roles call them, and no others are to.
REVOKE EXECUTE ON FUNCTION ingest.beat(text, jsonb), ingest.end_beats(text) FROM PUBLIC;
