"""No wait is for ever, or silent: for a lock that somebody holds, and for the end of a sweep."""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from tests.doubles.faulty_store import FaultyStore
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.logins import logged_in, role_of
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES

KEYS = [key_at(minute) for minute in range(3)]
FORMER_LOCKS = ("ingest.dry_run", "ingest.history", "ingest.geocode", "ingest.geocoder_requests")


def put(stage: Stage, keys: list[str]) -> None:
    stage.bucket.put_all({key: csv([ticket(f"T{n}")]) for n, key in enumerate(keys)})


@contextlib.contextmanager
def dashboard(stage: Stage) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection of a login that may read, and no more."""
    owner = stage.connection
    with (
        logged_in(owner, stage.database, role_of(owner, "read")) as login,
        psycopg.connect(login.url, autocommit=True) as connection,
    ):
        yield connection


def test_a_reader_can_stop_nothing(stage: Stage) -> None:
    """He may take any advisory lock there is, and have any transaction open for as long as he likes."""
    with dashboard(stage) as reader:
        for name in FORMER_LOCKS:
            reader.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
        for key in KEYS:
            reader.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"{stage.bucket.name}/{key}",))
        reader.execute("SELECT pg_advisory_lock(hashtextextended('tickets.capture_history', 0))")
        for refused in (
            "LOCK TABLE ingest.key_slots IN ROW SHARE MODE",
            "SELECT FROM ingest.key_slots FOR UPDATE",
            "SELECT FROM ingest.ledger FOR SHARE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
                reader.execute(refused.encode())
        with reader.transaction():
            reader.execute("LOCK TABLE tickets.inc, ingest.key_slots, ingest.ledger IN ACCESS SHARE MODE")
            reader.execute("SELECT count(*) FROM tickets.inc, ingest.ledger, ingest.key_slots")
            consumer = stage.start("consume")
            put(stage, KEYS)
            stage.announce(*KEYS)
            stage.wait_for("done", *KEYS)
            stage.wait_for_history()
            assert stage.run("drain").returncode == 0
            assert stage.run("capture-history").returncode == 0
            consumer.stop()


def test_a_lock_that_somebody_holds_is_told_of_and_spends_nothing(stage: Stage) -> None:
    consumer = stage.start("consume")
    with psycopg.connect(stage.database, application_name="an admin's") as admin, admin.transaction():
        admin.execute("LOCK TABLE tickets.inc IN EXCLUSIVE MODE")
        put(stage, KEYS)
        stage.announce(*KEYS)

        def told() -> bool:
            waits = stage.ask("status")["database"]["waits"]
            return any(wait["held_by_application"] == "an admin's" and wait["relation"] for wait in waits)

        wait_until(told, "status tells who waits for whom")
        wait_until(lambda: "an admin's" in consumer.output(), "the log tells who has the lock")
        consumer.stop()  # which waits for no lock
    assert stage.one("SELECT coalesce(sum(attempts), 0) FROM ingest.ledger") == 0
    consumer = stage.start("consume")
    assert stage.run("poll").returncode == 0
    stage.wait_for("done", *KEYS)
    consumer.stop()


TAILS = 1500


def test_a_sweep_ends_when_told_and_takes_each_tail_up_less_often(stage: Stage) -> None:
    stage.query(
        """INSERT INTO ingest.ledger
               (bucket, prefix, key, etag, object_time, sha256, epoch, first_seen_by, decision, state, applied_at)
           SELECT %s, 'automations/inc/', %s || n, 'etag', now(), 'sha256', 1, 'poller', 'new', 'applied',
                  now() - interval '1 hour'
           FROM generate_series(1, %s) AS n RETURNING 1""",
        stage.bucket.name, CHANGES, TAILS,
    )  # fmt: skip
    untried = "SELECT count(*) FROM ingest.ledger WHERE archive_attempts = 0"
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        store.fault("HEAD", "", 500)
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        wait_until(lambda: stage.one(untried) < TAILS, "the sweep has begun")
        consumer.stop()
    assert stage.one(untried) > 0
    assert consumer.output().count("not archived") <= 1
    assert stage.one("SELECT bool_and(retry_at > now()) FROM ingest.ledger WHERE archive_attempts > 0")
