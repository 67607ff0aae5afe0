"""A consumer that dies between two durable effects leaves nothing that the next one does not put right."""

import signal
from datetime import UTC, datetime

import pytest

from tests.acceptance.broker import DEAD_FILES, FILES, GEOCODE
from tests.acceptance.feeds import csv, key_at, ticket
from tests.acceptance.stage import Stage, wait_until
from tests.acceptance.store import CHANGES, PROCESSED

KEY = key_at(10)
BODY = csv(
    [
        ticket("INC2", raw_status="Closed", closed_at="2026-06-01 09:00"),
        ticket("INC3", cluster="Nyali"),
        ticket("INC4", mttr="soon"),
    ]
)
COUNTS = ("rows_read", "rows_inserted", "rows_updated", "rows_unchanged", "rows_stale", "rows_rejected")

POINTS = (
    "before claim",
    "after claim",
    "mid copy",
    "before commit",
    "after commit, before archive",
    "after copy, before delete",
    "after delete, before state",
    "after archive, before relay",
    "relay published, not marked",
    "relay marked, before ack",
    "captured, not committed",
    "captured, before ack",
)


@pytest.mark.parametrize("point", POINTS)
def test_a_consumer_killed_at(stage: Stage, point: str) -> None:
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    stage.bucket.put(KEY, BODY)
    stage.announce(KEY)
    assert doomed.wait() == -signal.SIGKILL, doomed.output()

    healthy = stage.start("consume")
    wait_until(lambda: "consuming" in healthy.output(), "the next consumer is there")
    stage.wait_for("done", KEY)
    stage.wait_for_history()
    wait_until(lambda: stage.broker.ready(GEOCODE) >= 1, "a geocode request")
    healthy.stop()

    tickets = stage.query("SELECT ticket_id, raw_status, cluster FROM tickets.inc ORDER BY ticket_id")
    assert [tuple(row.values()) for row in tickets] == [
        ("INC2", "CLOSED", "Westlands"),
        ("INC3", "IN PROGRESS", "Nyali"),
    ]
    closures = stage.query("SELECT ticket_id, closed_at FROM tickets.closure_events")
    assert [tuple(row.values()) for row in closures] == [("INC2", datetime(2026, 6, 1, 6, tzinfo=UTC))]
    assert [row["line"] for row in stage.query("SELECT line FROM ingest.rejects")] == [4]
    row = stage.ledger(KEY)
    assert tuple(row[name] for name in COUNTS) == (3, 2, 0, 0, 0, 1)
    assert (row["decision"], row["state"], row["first_seen_by"]) == ("new", "done", "notification")
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta") == KEY
    assert stage.one("SELECT row_count FROM tickets.import_meta") == 2

    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {KEY.replace(CHANGES, PROCESSED): BODY}
    assert row["archive_key"] == KEY.replace(CHANGES, PROCESSED)
    requests = stage.query("SELECT kind, coalesce(handled_at, sent_at) IS NOT NULL AS gone FROM ingest.outbox")
    assert {tuple(request.values()) for request in requests} == {("geocode", True), ("history", True)}
    assert len(requests) == 2
    assert stage.one("SELECT sum(open_total) FROM tickets.inc_daily_snapshot") == 1
    assert stage.broker.ready(FILES) == 0
    assert stage.broker.ready(DEAD_FILES) == 0


@pytest.mark.parametrize("point", ["letter published, not recorded", "failure recorded, before ack"])
def test_a_bad_file_whose_consumer_is_killed_at(stage: Stage, point: str) -> None:
    doomed = stage.start("consume", FLEETTICKETS_FAIL_POINT=point)
    stage.bucket.put(KEY, b"ticket_id\nM\xfc\n")
    stage.announce(KEY)
    assert doomed.wait() == -signal.SIGKILL, doomed.output()

    healthy = stage.start("consume")
    wait_until(lambda: "consuming" in healthy.output(), "the next consumer is there")
    wait_until(lambda: stage.query("SELECT 1 FROM ingest.ledger WHERE dead_lettered_at IS NOT NULL"), "a dead letter")
    wait_until(lambda: stage.broker.ready(FILES) == 0, "the delivery is settled")
    row = stage.ledger(KEY)
    assert (row["state"], row["decision"], row["reason"], row["attempts"]) == ("failed", "rejected", "not UTF-8", 1)
    assert stage.query("SELECT * FROM tickets.inc") == []
    assert stage.waiting() == [KEY]
    # Published first, recorded second: a crash in between may leave a second letter, and never none.
    letters = stage.ask("dead-letters", "list", "--each")
    assert {letter["key"] for letter in letters} == {KEY}
    assert len(letters) == (2 if point == "letter published, not recorded" else 1)

    stage.bucket.put(KEY, BODY)
    assert len(stage.ask("dead-letters", "replay", "--all")["replayed"]) == len(letters)
    stage.wait_for("done", KEY)
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every letter is settled")
    healthy.stop()
    assert stage.one("SELECT count(*) FROM tickets.inc") == 2
    assert stage.broker.ready(DEAD_FILES) == 0
