"""Promise 7: what fails for one file while others are applied is that file's own fault, and holds up nobody."""

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

BAD = [key_at(minute) for minute in range(4)]  # as many as one consumer has in hand
GOOD = [key_at(minute) for minute in range(10, 15)]
COLUMNS = ("ticket_id", "owner")
FIRST, OTHER = (csv([ticket("BAD-T", owner=owner)], COLUMNS) for owner in ("first", "other"))


def fail_bad_tickets(stage: Stage, how: str, before: str = "INSERT") -> None:
    """Make the database fail in the middle of every file that has a ticket whose id begins with BAD."""
    stage.connection.execute(
        f"""
        CREATE FUNCTION tickets.fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {how}; RETURN NEW; END$$;
        CREATE TRIGGER fail BEFORE {before} ON tickets.inc
        FOR EACH ROW WHEN (NEW.ticket_id LIKE 'BAD%') EXECUTE FUNCTION tickets.fail();
        """.encode()
    )


def fail_bad_tickets_at_commit(stage: Stage) -> None:
    """The same as late as a database can: somebody else's check that is put off to the COMMIT."""
    stage.connection.execute(
        b"""
        CREATE FUNCTION tickets.fail() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE 'no space left' USING ERRCODE = '53100'; RETURN NEW; END$$;
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON tickets.inc DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.ticket_id LIKE 'BAD%') EXECUTE FUNCTION tickets.fail();
        """
    )


def put(stage: Stage, keys: list[str], prefix: str) -> None:
    stage.bucket.put_all({key: csv([ticket(f"{prefix}{n}")], COLUMNS) for n, key in enumerate(keys)})


def announce_bad_then_good(stage: Stage) -> None:
    put(stage, BAD, "BAD")
    put(stage, GOOD, "GOOD")
    stage.announce(*BAD)
    wait_until(lambda: stage.broker.ready(FILES) == 0, "all of the bad ones are in hand")
    stage.announce(*GOOD)


def go_on_with_others(stage: Stage) -> None:
    """One more good file, which is applied."""
    number = stage.one("SELECT count(*) FROM ingest.ledger")
    key = key_at(1000 + number)
    put(stage, [key], f"MORE{number}-")
    stage.announce(key)
    stage.wait_for("done", key)


def others_go_on_until_it_is_their_own(stage: Stage, *keys: str) -> None:
    """Only beside others that are applied is it known whose fault it is: then each has an attempt and its row."""
    spent = "SELECT count(*) = %s FROM ingest.ledger WHERE key = ANY(%s) AND state = 'failed' AND attempts > 0"

    def others_go_on() -> bool:
        go_on_with_others(stage)
        return bool(stage.one(spent, len(keys), list(keys)))

    wait_until(others_go_on, "each has an attempt and its row", timeout=180)


@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.parametrize(
    "how",
    [
        "PERFORM pg_sleep(2)",
        "RAISE 'too much' USING ERRCODE = '53400'",
        "RAISE 'no space left' USING ERRCODE = '53100'",
        "RAISE 'no memory left' USING ERRCODE = '53200'",
        "RAISE 'i/o error' USING ERRCODE = '58030'",
        "RAISE 'deadlock' USING ERRCODE = '40P01'",
        "PERFORM pg_terminate_backend(pg_backend_pid())",
    ],
    ids=["too slow", "temporary files", "disk full", "memory", "input and output", "deadlock", "crash"],
)
def test_files_that_the_database_fails_alone_hold_up_no_others(stage: Stage, how: str) -> None:
    name = stage.connection.info.dbname
    stage.connection.execute(f'ALTER DATABASE "{name}" SET statement_timeout = 1000'.encode())
    fail_bad_tickets(stage, how)
    consumer = stage.start("consume")
    announce_bad_then_good(stage)
    stage.wait_for("done", *GOOD)
    others_go_on_until_it_is_their_own(stage, *BAD)
    assert stage.one("SELECT bool_and(last_error IS NOT NULL) FROM ingest.ledger WHERE key = ANY(%s)", BAD)
    assert stage.ask("status")["database"]["unfinished_files"]["failed"] == 4
    assert consumer.running
    consumer.stop()
    assert '"event": "back"' not in consumer.output(), "the database was never away"


def test_files_that_fail_at_their_commit_hold_up_no_others(stage: Stage) -> None:
    fail_bad_tickets_at_commit(stage)
    consumer = stage.start("consume")
    announce_bad_then_good(stage)
    stage.wait_for("done", *GOOD, timeout=45)
    others_go_on_until_it_is_their_own(stage, *BAD)
    consumer.stop()


def test_what_was_applied_between_two_outages_blames_nobody_for_the_second(stage: Stage) -> None:
    """Each of the files met the first one; then one was applied, and the database is away for all once more."""
    stage.connection.execute(
        b"""
        CREATE TABLE public.away (gone boolean);
        INSERT INTO public.away VALUES (true);
        GRANT SELECT ON public.away TO PUBLIC;
        """
    )
    away = "UPDATE public.away SET gone = %s RETURNING 1"
    how = "IF (SELECT gone FROM public.away) THEN RAISE 'no space left' USING ERRCODE = '53100'; END IF"
    fail_bad_tickets(stage, how)
    consumer = stage.start("consume")
    put(stage, BAD, "BAD")
    stage.announce(*BAD)
    wait_until(lambda: stage.broker.ready("fleettickets.retry.30s") == 4, "they are put aside")
    stage.query(away, False)
    between, *others = GOOD
    put(stage, [between], "BAD-BETWEEN")
    stage.announce(between)
    stage.wait_for("done", between)
    stage.query(away, True)
    aside = consumer.output().count("not now")
    wait_until(lambda: consumer.output().count("not now") >= aside + 4, "each is tried again and put aside")
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.ask("status")["database"]["unfinished_files"] == {"held": 4}
    stage.query(away, False)
    put(stage, others, "GOOD")
    stage.announce(*others)
    stage.wait_for("done", *BAD, *others)
    consumer.stop()


def test_what_fails_for_every_file_spends_no_attempt_and_is_told(stage: Stage) -> None:
    fail_bad_tickets(stage, "RAISE 'no space left' USING ERRCODE = '53100'")
    consumer = stage.start("consume")
    put(stage, BAD, "BAD")
    stage.announce(*BAD)
    held = "SELECT count(*) = 4 FROM ingest.ledger WHERE key = ANY(%s) AND state = 'seen' AND held_since IS NOT NULL"
    wait_until(lambda: stage.one(held, BAD), "each has its row")
    aside = "fleettickets.retry.30s"
    wait_until(lambda: stage.broker.ready(aside) == 4, "they are put aside")
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    found = stage.ask("status")["database"]
    assert found["unfinished_files"] == {"held": 4}
    assert "no space left" in found["last_error"]["last_error"]
    assert "it is applied with the next delivery" in stage.run("explain", BAD[0]).stdout
    consumer.stop()
    stage.connection.execute("DROP TRIGGER fail ON tickets.inc")
    assert stage.run("drain", "--apply").returncode == 0
    assert stage.one("SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL AND held_since IS NULL") == 4


def test_objects_that_the_store_never_gives_are_on_record_and_hold_no_thread_for_long(stage: Stage) -> None:
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        for key in BAD:
            store.fault("GET", key.rpartition("/")[2], 500)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        announce_bad_then_good(stage)
        stage.wait_for("done", *GOOD)
        others_go_on_until_it_is_their_own(stage, *BAD)
        store.heal()
        assert stage.run("poll").returncode == 0
        stage.wait_for("done", *BAD)
        consumer.stop()


def test_a_version_that_was_held_back_and_withdrawn_is_applied_once_it_is_back(stage: Stage) -> None:
    """The store breaks off; the exporter withdraws the file, and puts it there again."""
    key = BAD[0]
    body = csv([ticket(f"T{number}") for number in range(2000)], COLUMNS)
    stage.bucket.put(key, body)
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("GET", key.rpartition("/")[2], "cut")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.announce(key)
        wait_until(lambda: stage.one("SELECT count(*) = 1 FROM ingest.ledger WHERE held_since IS NOT NULL"), "held")
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=key)
        store.heal()
        wait_until(lambda: stage.one("SELECT bool_and(state = 'done') FROM ingest.ledger"), "it is missing")
        wait_until(lambda: stage.broker.held(FILES) == 0, "its delivery is settled")
        stage.bucket.put(key, body)
        stage.announce(key)
        wait_until(lambda: stage.one("SELECT count(*) = 2000 FROM tickets.inc"), "it is applied", timeout=20)
        wait_until(lambda: stage.waiting() == [], "and archived")
        consumer.stop()
    assert stage.run("verify", "--old", "0").returncode == 0


def test_a_key_that_was_missing_once_and_is_not_given_then_is_on_record(stage: Stage) -> None:
    """Announced too early; and then by an event that names no version."""
    key = BAD[0]
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.broker.publish([stage.bucket.event(key)])
        wait_until(lambda: stage.one("SELECT count(*) = 1 FROM ingest.ledger WHERE decision = 'missing'"), "missing")
        store.fault("GET", key.rpartition("/")[2], 403)
        put(stage, [key], "BAD")
        event = json.loads(stage.bucket.event(key))
        del event["Records"][0]["s3"]["object"]["eTag"]
        stage.broker.publish([json.dumps(event).encode()])
        failed = "SELECT count(*) = 1 FROM ingest.ledger WHERE state = 'failed' AND attempts = 1"
        wait_until(lambda: stage.one(failed), "it has failed", timeout=20)
        store.heal()
        stage.wait_for("done", key)
        consumer.stop()
    assert stage.one("SELECT count(*) FROM tickets.inc") == 1


def test_repetitions_of_a_slow_file_hold_up_no_others(stage: Stage) -> None:
    """A poller repeats itself about a file that takes minutes: each repetition would wait for its key's lock."""
    slow = BAD[0]
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        fault = store.fault("GET", slow.rpartition("/")[2], "slow")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        put(stage, [slow], "SLOW")
        put(stage, GOOD, "GOOD")
        stage.announce(slow)
        assert fault.met.wait(30)
        stage.announce(*[slow] * 12, *GOOD)
        stage.wait_for("done", *GOOD)
        assert stage.query("SELECT 1 FROM ingest.ledger WHERE key = %s AND applied_at IS NOT NULL", slow) == []
        store.heal()
        stage.wait_for("done", slow)
        consumer.stop()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.broker.ready(DEAD_FILES) == 0


def test_a_dead_letter_of_an_object_that_is_not_given_stays_the_only_one(stage: Stage) -> None:
    """Every poll comes upon it again, and every other message that names it."""
    key = BAD[0]
    put(stage, [key], "BAD")
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("GET", key.rpartition("/")[2], 403)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.announce(key)
        wait_until(lambda: stage.one("SELECT count(*) = 1 FROM ingest.ledger WHERE attempts = 1"), "it has failed")
        with stage.broker.channel() as channel:
            channel.queue_purge("fleettickets.retry.5s")  # nothing but repetitions comes from here on
        stage.announce(*[key] * 3)
        counted = "SELECT duplicates >= 3 FROM ingest.ledger"
        wait_until(lambda: stage.one(counted), "each repetition is a duplicate")
        assert stage.one("SELECT attempts FROM ingest.ledger") == 1
        stage.query("UPDATE ingest.ledger SET retry_at = NULL, dead_lettered_at = now() RETURNING 1")
        stage.announce(*[key] * 3)
        wait_until(lambda: stage.one("SELECT duplicates >= 6 FROM ingest.ledger"), "and once it is dead as well")
        consumer.stop()
    assert stage.one("SELECT attempts FROM ingest.ledger") == 1
    assert stage.broker.ready(DEAD_FILES) == 0


def test_a_death_right_after_a_setback_was_recorded_changes_nothing(stage: Stage) -> None:
    key = BAD[0]
    put(stage, [key], "BAD")
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("GET", key.rpartition("/")[2], 500)
        doomed = stage.start("consume", RUSTFS_ENDPOINT=store.url, FLEETTICKETS_FAIL_POINT="held back, not put aside")
        stage.announce(key)
        assert doomed.wait() == -signal.SIGKILL, doomed.output()
        assert stage.one("SELECT held_since IS NOT NULL FROM ingest.ledger")
        store.heal()
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.wait_for("done", key)
        consumer.stop()
    row = stage.ledger(key)
    assert (row["attempts"], row["held_since"], row["rows_inserted"], row["decision"]) == (0, None, 1, "new")


@pytest.mark.promise("No silent decision")
def test_a_version_is_in_the_ledger_at_first_sight(stage: Stage) -> None:
    key = GOOD[0]
    stage.bucket.put(key, csv(ticket(f"T{row}") for row in range(50)))
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT="seen, before claim")
        stage.announce(key)
        assert doomed.wait() == -signal.SIGKILL, doomed.output()
        assert (stage.ledger(key)["state"], stage.ledger(key)["decision"]) == ("seen", "undecided")
        fault = store.fault("GET", key.rpartition("/")[2], "slow")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        assert fault.met.wait(30)
        assert stage.ask("status")["database"]["unfinished_files"] == {"seen": 1}
        store.heal()
        stage.wait_for("done", key)
        consumer.stop()
    row = stage.ledger(key)
    assert (row["attempts"], row["duplicates"], row["rows_inserted"], row["decision"]) == (0, 0, 50, "new")


@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.parametrize("rows", [50, 12_000])
def test_bodies_that_trickle_hold_no_thread_for_good(stage: Stage, rows: int) -> None:
    """A byte now and then keeps the connection from being silent, and would keep its reader for good.

    The half of a large one comes at once, so on the whole it is fast for minutes.
    """
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        for key in BAD:
            store.fault("GET", key.rpartition("/")[2], "trickle")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.bucket.put_all({key: csv(ticket(f"S{key}-{row}") for row in range(rows)) for key in BAD})
        put(stage, GOOD, "GOOD")
        stage.announce(*BAD)
        wait_until(lambda: stage.broker.ready(FILES) == 0, "all that trickle are in hand")
        stage.announce(*GOOD)
        stage.wait_for("done", *GOOD)
        held = "SELECT count(*) = 4 FROM ingest.ledger WHERE key = ANY(%s) AND last_error LIKE '%%too slow%%'"
        wait_until(lambda: stage.one(held, BAD), "each has its row, with the reason")
        store.heal()
        assert stage.run("drain", "--apply").returncode == 0
        assert stage.one("SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL AND key = ANY(%s)", BAD) == 4
        consumer.stop()


@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.parametrize("pace", [1_500, 20_000])
def test_slow_bodies_hold_up_no_others_and_no_end(stage: Stage, pace: int) -> None:
    """At the slower pace they are given up, at the faster one they may take as many places as leave one free."""
    body = csv(ticket(f"S{row}", owner="o" * 900) for row in range(6000))
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        for key in BAD:
            store.fault("GET", key.rpartition("/")[2], "paced", pace)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.bucket.put_all(dict.fromkeys(BAD, body))
        put(stage, GOOD, "GOOD")
        stage.announce(*BAD)
        wait_until(lambda: stage.broker.ready(FILES) == 0, "all that are slow are in hand")
        if pace > 16_384:
            wait_until(lambda: "slow body" in consumer.output(), "they are known to be slow")
        stage.announce(*GOOD)
        stage.wait_for("done", *GOOD, timeout=60)
        if pace > 16_384:
            wait_until(lambda: '"not now"' in consumer.output(), "one leaves its thread to others")
        consumer.terminate()
        assert consumer.ends_within(25), "a slow body is given up"
    assert consumer.wait() == 0
    assert stage.one("SELECT count(*) FROM ingest.ledger WHERE key = ANY(%s) AND applied_at IS NOT NULL", BAD) == 0
    if pace > 16_384:
        lines = [json.loads(line) for line in consumer.output().splitlines()]
        assert Counter(line["key"] for line in lines if line["event"] == "slow body").most_common(1)[0][1] == 1
        aside = [line["level"] for line in lines if line["event"] == "not now" and "slow" in line["detail"]]
        assert aside == ["warning"] * len(aside) != []
        assert stage.one("SELECT coalesce(sum(attempts), 0) FROM ingest.ledger") == 0
        assert stage.broker.ready(DEAD_FILES) == 0


@pytest.mark.promise("No silent decision")
def test_what_was_held_and_is_gone_or_replaced_meanwhile_is_decided(stage: Stage) -> None:
    gone, replaced = BAD[:2]
    put(stage, [gone, replaced], "FIRST")
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        for key in (gone, replaced):
            store.fault("GET", key.rpartition("/")[2], 500)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.announce(gone, replaced)
        held = "SELECT count(*) = 2 FROM ingest.ledger WHERE state = 'seen' AND held_since IS NOT NULL"
        wait_until(lambda: stage.one(held), "both are held")
        stage.bucket.s3.delete_object(Bucket=stage.bucket.name, Key=gone)
        put(stage, [replaced], "SECOND")
        store.heal()
        stage.query("UPDATE ingest.ledger SET etag = 'of-those-before' WHERE key = %s RETURNING 1", replaced)
        stage.announce(replaced)
        stage.broker.publish([stage.bucket.event(gone, b"x")])
        wait_until(lambda: stage.one("SELECT count(*) = 0 FROM ingest.ledger WHERE state <> 'done'"), "all is decided")
        consumer.stop()
    assert stage.ask("status")["database"]["unfinished_files"] == {}
    assert stage.run("verify", "--old", "0").returncode == 0


@pytest.mark.parametrize("how", ["not given", "not merged"])
def test_bytes_that_return_and_are_failed_alone_are_on_record_too(stage: Stage, how: str) -> None:
    key = BAD[0]
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        for body in (FIRST, OTHER):
            stage.bucket.put(key, body)
            stage.announce(key)
            wait_until(lambda: stage.waiting() == [], "it is archived")
        if how == "not given":
            store.fault("GET", key.rpartition("/")[2], 500)
        else:
            fail_bad_tickets(stage, "RAISE 'no space left' USING ERRCODE = '53100'", before="UPDATE")
        stage.bucket.put(key, FIRST)
        stage.announce(key)
        others_go_on_until_it_is_their_own(stage, key)
        consumer.stop()


def test_what_is_refused_around_the_files_is_nobodys_failure(stage: Stage) -> None:
    """As while a database is restored: a table is away for a while."""
    consumer = stage.start("consume")
    go_on_with_others(stage)
    stage.wait_for_history()  # which looks for dry runs by that table
    stage.connection.execute("ALTER TABLE ingest.key_slots RENAME TO elsewhere")
    put(stage, GOOD, "GOOD")
    stage.announce(*GOOD)
    wait_until(lambda: consumer.output().count('"waiting"') > 8, "they wait")
    assert stage.broker.ready("fleettickets.retry.5s") == stage.broker.ready(DEAD_FILES) == 0
    stage.connection.execute("ALTER TABLE ingest.elsewhere RENAME TO key_slots")
    stage.wait_for("done", *GOOD)
    consumer.stop()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0


def test_a_servers_limit_of_idle_transactions_is_not_met_while_the_store_is_slow(stage: Stage) -> None:
    name = stage.connection.info.dbname
    stage.connection.execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 500'.encode())
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        fault = store.fault("PUT", "processed/", "late")
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        put(stage, GOOD[:1], "GOOD")
        stage.announce(GOOD[0])
        assert fault.met.wait(30)
        time.sleep(2)
        store.heal()
        stage.wait_for("done", GOOD[0])
        consumer.stop()
    assert "idle" not in consumer.output()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0


def test_what_is_imported_blames_no_file_that_waits_for_the_store(stage: Stage, tmp_path: Path) -> None:
    local = tmp_path / "2026-06-01T000000.csv"
    local.write_bytes(csv([ticket("LOCAL")]))
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("GET", "changes/2026", 500)  # every object; it can be listed
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        put(stage, GOOD, "GOOD")
        stage.announce(*GOOD)
        held = "SELECT count(*) = 5 FROM ingest.ledger WHERE held_since < clock_timestamp() - interval '5 s'"
        wait_until(lambda: stage.one(held), "each is held")
        assert stage.run("import-csv", "--feed", "inc", str(local), "--apply").returncode == 0
        stage.announce(*GOOD)
        time.sleep(5)
        store.heal()
        stage.announce(*GOOD)
        stage.wait_for("done", *GOOD)
        consumer.stop()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0


def test_a_drain_goes_on_past_a_file_that_the_database_fails_alone(stage: Stage) -> None:
    fail_bad_tickets(stage, "RAISE 'no space left' USING ERRCODE = '53100'")
    put(stage, BAD[:1], "BAD")
    put(stage, GOOD, "GOOD")
    drained = stage.run("drain", "--apply", "--json")
    assert drained.returncode == 1
    assert stage.json(drained)["failed"] == 1
    assert stage.one("SELECT count(*) FROM tickets.inc") == len(GOOD)
    assert stage.ledger(BAD[0])["state"] == "failed"
    put(stage, BAD, "BAD")
    ended = stage.run("drain", "--apply")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), "two in a row are no files' own failure"
