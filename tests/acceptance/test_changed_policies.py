"""A key that comes again with other bytes, under each policy: one rule, one visible result, and every byte kept."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pika import BasicProperties

from publisher.arrivals import messages
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import PROCESSED

KEY, BETWEEN = key_at(0), key_at(10)
COLUMNS = ("ticket_id", "owner")
FIRST = csv([ticket("A", owner="first"), ticket("B", owner="first"), ticket("GONE", owner="first")], COLUMNS)
# B was written by a later file in the meantime; a rule that looked at arrival alone would set it back.
LATER = csv([ticket("B", owner="later")], COLUMNS)
OTHER = csv([ticket("A", owner="other"), ticket("B", owner="other"), ticket("C", owner="other")], COLUMNS)
THIRD = csv([ticket("A", owner="third")], COLUMNS)

BEFORE = {"A": "first", "B": "later", "GONE": "first"}
AFTER = {"A": "other", "B": "later", "C": "other", "GONE": "first"}


def owners(stage: Stage) -> dict[str, str]:
    return {row["ticket_id"]: row["owner"] for row in stage.query("SELECT ticket_id, owner FROM tickets.inc")}


def versions(stage: Stage) -> list[tuple[str, str]]:
    rows = stage.query("SELECT decision, state FROM ingest.ledger WHERE key = %s ORDER BY file_id", KEY)
    return [(row["decision"], row["state"]) for row in rows]


def kept(stage: Stage) -> list[bytes]:
    """Every body of the key that the bucket still has, wherever."""
    return sorted(stage.bucket.read(key) for key in [*stage.waiting(), *stage.bucket.keys(PROCESSED)])


@pytest.mark.promise("No silent decision")
@pytest.mark.parametrize(
    ("policy", "decided", "waiting", "result"),
    [
        ("reapply", ("changed", "done"), [], AFTER),
        ("quarantine", ("rejected", "failed"), [KEY], BEFORE),
        ("ignore", ("changed", "done"), [KEY], BEFORE),
    ],
)
def test_other_bytes_under_a_known_key(
    stage: Stage, policy: str, decided: tuple[str, str], waiting: list[str], result: dict[str, str]
) -> None:
    dead = policy == "quarantine"
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY=policy)
    for key, body in ((KEY, FIRST), (BETWEEN, LATER)):
        stage.bucket.put(key, body)
        stage.announce(key)
        stage.wait_for("done", key)
    stage.bucket.put(KEY, OTHER)
    stage.announce(KEY)
    wait_until(lambda: versions(stage) == [("new", "done"), decided], "the other bytes have their decision")
    wait_until(lambda: stage.broker.held(FILES) == 0, "the delivery is settled")
    assert owners(stage) == result
    assert stage.waiting() == waiting
    assert kept(stage) == sorted([FIRST, LATER, OTHER])
    assert len(stage.ask("dead-letters", "list", "--each")) == dead
    backlog = stage.ask("status")["database"]["backlog"]
    assert (backlog["files"], sum(backlog["set_aside"].values())) == (0, len(waiting))

    # Polled again it stays decided; only a replay, on purpose, lets the quarantined version in.
    stage.run("poll")
    stage.run("dead-letters", "replay", "--wait", "0", "--all")
    if dead:
        wait_until(lambda: versions(stage) == [("new", "done"), ("changed", "done")], "the replay is applied")
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    assert owners(stage) == (AFTER if dead else result)
    assert kept(stage) == sorted([FIRST, LATER, OTHER])
    consumer.stop()


@contextmanager
def nothing_can_be_claimed(stage: Stage) -> Iterator[None]:
    """A table is away, which nobody foresaw: every file fails at its claim, to be tried again."""
    stage.connection.execute("ALTER TABLE tickets.import_meta RENAME TO import_meta_away")
    try:
        yield
    finally:
        stage.connection.execute("ALTER TABLE tickets.import_meta_away RENAME TO import_meta")


def waits(stage: Stage, delay: int) -> bool:
    return stage.broker.ready(f"fleettickets.retry.{delay}s") == 1


def hurry(stage: Stage, delay: int) -> None:
    """Do now what the wait queue does after its delay."""
    with stage.broker.channel() as channel:
        method, properties, body = channel.basic_get(f"fleettickets.retry.{delay}s", auto_ack=True)
        if method is not None and body is not None:
            channel.basic_publish("fleettickets", "files", body, properties)


@pytest.fixture
def quarantining(stage: Stage) -> Iterator[Stage]:
    """The key is applied, and other bytes are put under it, which nobody announces yet."""
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="quarantine")
    stage.bucket.put(KEY, FIRST)
    stage.announce(KEY)
    stage.wait_for("done", KEY)
    wait_until(lambda: stage.waiting() == [], "the first version is archived")
    stage.bucket.put(KEY, OTHER)
    yield stage
    consumer.stop()


def test_a_replay_stays_one_through_its_retries(quarantining: Stage) -> None:
    stage = quarantining
    stage.announce(KEY)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the other bytes are quarantined")
    with nothing_can_be_claimed(stage):
        assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--key", KEY)["replayed"]) == 1
        wait_until(lambda: waits(stage, 30), "it failed for another reason, the second time in all")
    hurry(stage, 30)
    wait_until(lambda: versions(stage) == [("new", "done"), ("changed", "done")], "what was released is applied")
    assert stage.broker.ready(DEAD_FILES) == 0


def test_a_replay_releases_the_version_that_its_letter_is_about_and_no_other(quarantining: Stage) -> None:
    stage = quarantining
    stage.announce(KEY)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the other bytes are quarantined")
    (letter,) = stage.ask("dead-letters", "list", "--each")
    stage.bucket.put(KEY, THIRD)  # which nobody has looked at
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--id", letter["id"])["replayed"]) == 1
    wait_until(lambda: stage.broker.held(FILES) == 0 and stage.broker.ready(FILES) == 0, "the replay is settled")
    assert owners(stage)["A"] == "first"
    (third,) = stage.ask("dead-letters", "list", "--each")
    assert (third["reason"], third["attempts"]) == ("changed", 1)
    # Neither does one replay make a second letter of it: this one is about other bytes again.
    with stage.broker.channel() as channel:
        again = {messages.AGAIN: "replay", messages.ETAG: hashlib.md5(OTHER, usedforsecurity=False).hexdigest()}
        channel.basic_publish("fleettickets", "files", stage.bucket.event(KEY, OTHER), BasicProperties(headers=again))
    wait_until(lambda: stage.broker.held(FILES) == 0 and stage.broker.ready(FILES) == 0, "that is settled")
    assert stage.broker.ready(DEAD_FILES) == 1
    assert owners(stage)["A"] == "first"
    assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--id", third["id"])["replayed"]) == 1
    wait_until(lambda: owners(stage)["A"] == "third", "its own letter releases it")


def test_the_retry_of_a_version_makes_no_second_letter_of_another(stage: Stage) -> None:
    stage.connection.execute(
        b"""
        CREATE FUNCTION tickets.fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'broken'; RETURN NEW; END$$;
        CREATE TRIGGER fail BEFORE INSERT ON tickets.inc FOR EACH ROW EXECUTE FUNCTION tickets.fail();
        """
    )
    consumer = stage.start("consume")
    stage.bucket.put(KEY, FIRST)
    stage.announce(KEY)
    wait_until(lambda: waits(stage, 5), "the first one waits for its retry")
    stage.bucket.put(KEY, b"no,such\n1,2\n")
    stage.announce(KEY)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "the second one is a dead letter")
    dead = stage.one("SELECT file_id FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL")
    tried_again = "SELECT duplicates + attempts > 1 FROM ingest.ledger WHERE file_id = %s"
    wait_until(lambda: stage.one(tried_again, dead), "the retry has found it")
    wait_until(lambda: stage.broker.held(FILES) == 0, "every delivery is settled")
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 1
    assert stage.one("SELECT attempts FROM ingest.ledger WHERE file_id = %s", dead) == 1


def test_a_retry_that_nobody_asked_for_releases_nothing(quarantining: Stage) -> None:
    stage = quarantining
    with nothing_can_be_claimed(stage):
        stage.announce(KEY)
        wait_until(lambda: waits(stage, 5), "it failed before anybody looked at its bytes")
    hurry(stage, 5)
    decided = [("new", "done"), ("rejected", "failed")]
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1 or versions(stage) != decided, "the retry is decided")
    assert versions(stage) == decided
    (letter,) = stage.ask("dead-letters", "list", "--each")
    assert (letter["key"], letter["reason"], letter["attempts"]) == (KEY, "changed", 2)
    assert owners(stage) == {"A": "first", "B": "first", "GONE": "first"}


def delivered(stage: Stage, body: bytes, *, until: str, what: str) -> None:
    """The key gets this body, and it is announced."""
    stage.bucket.put(KEY, body)
    stage.announce(KEY)
    wait_until(lambda: stage.one(until), what)


APPLIED = "SELECT count(*) = {} FROM ingest.ledger WHERE state = 'done' AND applied_at IS NOT NULL"
A_IS = "SELECT count(*) = 1 FROM tickets.inc WHERE ticket_id = 'A' AND owner = '{}'"
SETTLED = "SELECT count(*) = 0 FROM ingest.ledger WHERE state <> 'done'"


def test_bytes_that_return_are_quarantined_like_any_others(stage: Stage) -> None:
    consumer = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="quarantine")
    delivered(stage, FIRST, until=A_IS.format("first"), what="the first is applied")
    for body, owner in ((OTHER, "other"), (FIRST, "first")):
        wait_until(lambda: stage.one(SETTLED), "the one before is archived")
        delivered(stage, body, until="SELECT count(*) = 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL",
                  what="it is a dead letter")  # fmt: skip
        assert stage.broker.ready(DEAD_FILES) == 1
        assert owners(stage)["A"] != owner
        assert stage.run("verify", "--old", "0").returncode == 0
        assert len(stage.ask("dead-letters", "replay", "--wait", "0", "--all")["replayed"]) == 1
        wait_until(lambda owner=owner: stage.one(A_IS.format(owner)), "the replay is applied")  # type: ignore[misc]
    consumer.stop()


def test_bytes_that_return_are_passed_over_like_any_others(stage: Stage) -> None:
    consumer = stage.start("consume")
    delivered(stage, FIRST, until=APPLIED.format(1), what="the first is done")
    delivered(stage, OTHER, until=APPLIED.format(2), what="the second is done")
    consumer.stop()
    ignoring = stage.start("consume", FLEETTICKETS_CHANGED_POLICY="ignore")
    returned = "SELECT duplicates > 0 FROM ingest.ledger ORDER BY file_id LIMIT 1"
    delivered(stage, FIRST, until=returned, what="it is known")
    ignoring.stop()
    assert (owners(stage)["A"], stage.waiting()) == ("other", [KEY])
    assert stage.run("verify", "--old", "0").returncode == 0


def test_bytes_that_return_are_tried_again_when_they_fail(stage: Stage) -> None:
    consumer = stage.start("consume")
    delivered(stage, FIRST, until=APPLIED.format(1), what="the first is done")
    delivered(stage, OTHER, until=APPLIED.format(2), what="the second is done")
    stage.connection.execute("""
        CREATE FUNCTION tickets.break_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'broken'; END$$;
        CREATE TRIGGER break_it BEFORE UPDATE ON tickets.inc FOR EACH ROW EXECUTE FUNCTION tickets.break_it()
    """)
    failed = "SELECT count(*) = 1 FROM ingest.ledger WHERE state = 'failed' AND retry_at IS NOT NULL AND attempts = 1"
    delivered(stage, FIRST, until=failed, what="it waits for its retry")
    assert stage.ask("status")["database"]["unfinished_files"] == {"failed": 1}
    stage.connection.execute("DROP TRIGGER break_it ON tickets.inc")
    wait_until(lambda: stage.one(A_IS.format("first")), "the retry is applied")
    wait_until(lambda: stage.one(SETTLED), "and archived")
    consumer.stop()


def test_bytes_that_failed_and_return_after_others_are_taken_up(stage: Stage) -> None:
    """Their letter was replayed meanwhile, and found the others."""
    bad = FIRST + b"NOT-ENOUGH-FIELDS\n" * 9
    strict = stage.start("consume", FLEETTICKETS_MAX_REJECT_SHARE="0")
    dead = "SELECT count(*) = 1 FROM ingest.ledger WHERE state = 'failed' AND dead_lettered_at IS NOT NULL"
    delivered(stage, bad, until=dead, what="it is a dead letter")
    delivered(stage, OTHER, until=APPLIED.format(1), what="the mended one is done")
    stage.ask("dead-letters", "replay", "--wait", "0", "--all")
    wait_until(lambda: stage.broker.held(FILES) == 0 and stage.broker.ready(DEAD_FILES) == 0, "the replay is settled")
    assert stage.ask("status")["database"]["unfinished_files"] == {}
    again = """SELECT count(*) = 1 FROM ingest.ledger WHERE state = 'failed'
               AND object_time > (SELECT object_time FROM ingest.ledger WHERE applied_at IS NOT NULL)"""
    delivered(stage, bad, until=again, what="it failed again")
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == 1, "it is a dead letter again")
    assert stage.ask("status")["database"]["unfinished_files"] == {"failed": 1}
    strict.stop()
    lenient = stage.start("consume", FLEETTICKETS_MAX_REJECT_SHARE="1")
    stage.ask("dead-letters", "replay", "--wait", "0", "--all")
    wait_until(lambda: stage.one(A_IS.format("first")), "the replay is applied")
    wait_until(lambda: stage.one(SETTLED), "and archived")
    lenient.stop()
    assert stage.run("verify", "--old", "0").returncode == 0
