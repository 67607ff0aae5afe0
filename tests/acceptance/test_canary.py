"""A canary goes the whole way of a change file, each stage timed, and nothing of it is left; whoever dies."""

import json
import signal
import time
from typing import Any

import pytest

from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES

STAGES = ["stored", "announced", "delivered", "read", "applied", "archived", "removed"]
LEFT = """
    SELECT (SELECT count(*) FROM tickets.inc) + (SELECT count(*) FROM tickets.crq)
         + (SELECT count(*) FROM tickets.closure_events) + (SELECT count(*) FROM tickets.versions)
         + (SELECT count(*) FROM tickets.import_meta) + (SELECT count(*) FROM ingest.ledger)
         + (SELECT count(*) FROM ingest.positions) + (SELECT count(*) FROM ingest.rejects)
         + (SELECT count(*) FROM ingest.outbox) + (SELECT count(*) FROM ingest.changes)
"""


@pytest.fixture(autouse=True)
def _by_default(stage: Stage) -> None:
    del stage.environment["FLEETTICKETS_MISSING_COLUMNS"]


def sent(stage: Stage, *options: str, **environment: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Its exit status, what was found of each canary, and how far each came."""
    ended = stage.run("doctor", "--end-to-end", "--json", *options, **environment)
    told = stage.json(ended)
    found = {one["about"]: one for one in told["findings"] if one["about"].startswith("canary")}
    return ended.returncode, found, {one["feed"]: one for one in told["journeys"]}


def require_nothing_left(stage: Stage) -> None:
    assert stage.bucket.keys() == []
    assert stage.one(LEFT) == 0
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every message is settled")
    assert stage.broker.ready(DEAD_FILES) == 0


@pytest.mark.promise("Nothing lost")
def test_it_goes_the_whole_way_and_leaves_nothing(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    consumer = stage.start("consume")
    status, found, journeys = sent(stage)
    assert (status, {one["level"] for one in found.values()}) == (0, {"ok"})
    assert found.keys() == {"canary inc", "canary crq"}
    for journey in journeys.values():
        assert (list(journey["milliseconds"]), journey["seen_by"]) == (STAGES, "notification")
    shown = stage.run("doctor", "--end-to-end", "--feed", "inc").stdout
    assert "told of by the notification: stored" in shown
    require_nothing_left(stage)
    consumer.stop()


def test_where_the_poller_brings_it_that_is_said(stage: Stage) -> None:
    consumer, poller = stage.start("consume"), stage.start("poll", "--every", "0.5")
    status, found, journeys = sent(stage, "--feed", "inc", "--poller-only")
    assert (status, journeys["inc"]["seen_by"], found["canary inc"]["level"]) == (0, "poller", "ok")
    _, found, _ = sent(stage, "--feed", "inc")
    assert (found["canary inc"]["level"], "a poller brought it" in found["canary inc"]["found"]) == ("note", True)
    require_nothing_left(stage)
    poller.stop()
    consumer.stop()


def test_without_a_consumer_it_is_taken_away_again(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    status, found, _ = sent(stage, "--wait", "1", "--feed", "inc")
    assert (status, found["canary inc"]["level"]) == (1, "wrong")
    assert "no consumer has taken it within 1 s although it was announced after" in found["canary inc"]["found"]
    consumer = stage.start("consume")
    require_nothing_left(stage)
    consumer.stop()


def test_without_anybody_to_tell_of_it_that_is_said(stage: Stage) -> None:
    consumer = stage.start("consume")
    status, found, journeys = sent(stage, "--wait", "1", "--feed", "inc")
    assert (status, list(journeys["inc"]["milliseconds"])) == (1, ["stored"])
    assert found["canary inc"]["found"] == "no consumer has taken it within 1 s of being stored"
    require_nothing_left(stage)
    consumer.stop()


def test_a_slow_store_and_a_slow_consumer_are_told_apart(stage: Stage) -> None:
    def slow(seconds: float, *, announce: bool) -> dict[str, float]:
        """How long each stage took, where the store announces so late, or the consumer begins so late."""
        if announce:
            stage.bucket.notify(stage.broker)
        doctor = stage.start("doctor", "--end-to-end", "--json", "--feed", "inc")
        wait_until(lambda: stage.bucket.keys(CHANGES), "it is laid")
        time.sleep(seconds)
        if not announce:
            (key,) = stage.bucket.keys(CHANGES)
            stage.announce(key)
        consumer = stage.start("consume")
        doctor.wait()
        consumer.stop()
        told = json.loads(doctor.output()[doctor.output().index("{") :])
        took: dict[str, float] = told["journeys"][0]["milliseconds"]
        assert list(took) == STAGES
        return took

    late_event = slow(2, announce=False)
    assert late_event["announced"] > 1500
    late_consumer = slow(2, announce=True)
    assert (late_consumer["announced"] < 1500, late_consumer["delivered"] > 1500) == (True, True), late_consumer
    require_nothing_left(stage)


def test_that_of_a_doctor_who_died_is_removed_by_the_consumer(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    doctor = stage.start("doctor", "--end-to-end", "--feed", "inc")
    wait_until(lambda: stage.bucket.keys(CHANGES), "it is laid")
    doctor.signal(signal.SIGKILL)
    doctor.wait()
    assert len(stage.bucket.keys()) == 1
    consumer = stage.start("consume")
    wait_until(lambda: stage.bucket.keys() == [], "the consumer has removed it")
    require_nothing_left(stage)
    consumer.stop()


def test_that_of_a_consumer_who_died_before_it_removed_the_copy(stage: Stage) -> None:
    key = f"{CHANGES}canary-{'0' * 32}.csv"
    stage.bucket.put(key.replace("changes/", "processed/"), b"x")
    consumer = stage.start("consume")
    stage.broker.publish([stage.bucket.event(key, b"x")])
    wait_until(lambda: stage.bucket.keys() == [], "it is removed with the next delivery")
    require_nothing_left(stage)
    consumer.stop()


def test_what_fails_is_said_and_makes_no_dead_letter(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    stage.connection.execute("ALTER TABLE tickets.inc ADD CHECK (ticket_id NOT LIKE 'doctor-%')")
    consumer = stage.start("consume")
    status, found, journeys = sent(stage, "--feed", "inc")
    assert (status, found["canary inc"]["level"]) == (1, "wrong")
    assert "it cannot be applied:" in found["canary inc"]["found"]
    assert "applied" not in journeys["inc"]["milliseconds"]
    require_nothing_left(stage)
    consumer.stop()


def test_a_large_file_of_such_a_name_is_none(stage: Stage) -> None:
    key = f"{CHANGES}canary-{'0' * 32}.csv"
    stage.bucket.put(key, b"x" * 100_000)
    consumer = stage.start("consume")
    stage.announce(key)
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger WHERE decision = 'ignored'") == 1, "it is ignored")
    assert stage.bucket.keys() == [key]
    consumer.stop()
