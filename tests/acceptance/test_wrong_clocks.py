"""Whose clock is wrong, when every file seems to be one of the future."""

from datetime import UTC, datetime, timedelta

from tests.stage.broker import DEAD_FILES
from tests.stage.feeds import csv, ticket
from tests.stage.program import CLOCK_BEHIND
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES

TWO_DAYS = str(2 * 24 * 3600)


def put(stage: Stage, first: datetime, count: int) -> list[str]:
    """Files whose names say that they are a minute apart."""
    names = [first + timedelta(minutes=number) for number in range(count)]
    files = {f"{CHANGES}{name:%Y-%m-%dT%H%M%SZ}.csv": csv([ticket(f"INC{name:%d%H%M}")]) for name in names}
    stage.bucket.put_all(files)
    stage.announce(*files)
    return list(files)


def test_a_consumer_whose_clock_is_behind_applies_files_all_the_same(stage: Stage) -> None:
    keys = put(stage, datetime.now(UTC) - timedelta(minutes=30), 40)
    consumer = stage.start("consume", **{CLOCK_BEHIND: TWO_DAYS})
    stage.wait_for("done", *keys)
    consumer.stop()
    assert stage.broker.ready(DEAD_FILES) == 0
    seen = stage.one("SELECT max(first_seen_at) FROM ingest.ledger")
    assert seen < datetime.now(UTC) - timedelta(days=1), "its clock was behind indeed"


def test_an_exporter_whose_clock_is_ahead_makes_few_dead_letters_and_stops_nobody(stage: Stage) -> None:
    limit = {"FLEETTICKETS_MAX_FAILURES_IN_A_ROW": "5"}
    future = datetime.now(UTC) + timedelta(days=3)
    consumer = stage.start("consume", **limit)
    keys = put(stage, future, 20)
    stage.wait_for("failed", *keys)
    consumer.stop()
    letters = stage.broker.ready(DEAD_FILES)
    assert 5 <= letters < 5 + 4, "four files are in hand at a time"
    assert "one after the other" in consumer.output()
    consumer = stage.start("consume", **limit)
    more = put(stage, future + timedelta(hours=1), 10)
    stage.wait_for("failed", *more)
    assert stage.broker.ready(DEAD_FILES) == letters, "a start is no new run"
    (good,) = put(stage, datetime.now(UTC), 1)
    stage.wait_for("done", good)
    held = stage.query(
        "SELECT reason, last_error FROM ingest.ledger"
        " WHERE state = 'failed' AND retry_at IS NOT NULL AND dead_lettered_at IS NULL"
    )
    assert len(held) == 30 - letters
    assert {row["reason"] for row in held} == {"from the future"}
    one = put(stage, future + timedelta(hours=2), 1)
    wait_until(lambda: stage.broker.ready(DEAD_FILES) == letters + 1, "after a success it is a file's own failure")
    assert stage.ledger(one[0])["dead_lettered_at"] is not None
    consumer.stop()
