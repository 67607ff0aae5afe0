"""One file from the bucket to its rows, announced by the store or found by the poller."""

from datetime import UTC, datetime

import pytest

from consumer.demo.oracle import moment
from tests.stage.broker import GEOCODE
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES, PROCESSED

KEY = key_at(0)
ROWS = (
    ticket("INC1", mttr="12.5", latitude="-1.25", longitude="36.8", owner='Wanjikũ, "W"', service_type="FTTH"),
    ticket(
        "INC2", normalized_status="closed", raw_status="Closed", closed_at="2026-05-31T08:00:00Z", is_actionable="0"
    ),
    ticket("INC3", is_alarm="True"),
    ticket("EXPORT STOPPED: row limit reached"),
    ticket("INC4", created_at_service="31/05/2026"),
)
BODY = csv(ROWS, [*ROWS[1], *(name for name in ROWS[0] if name not in ROWS[1])])


def assert_arrived(stage: Stage, key: str, seen_by: str) -> None:
    """KEY was put with BODY; everything that has to come of it did."""
    stage.wait_for("done", key)
    stage.wait_for_history()
    tickets = {row["ticket_id"]: row for row in stage.query("SELECT * FROM tickets.inc")}
    assert tickets.keys() == {"INC1", "INC2"}
    open_one, closed_one = tickets["INC1"], tickets["INC2"]
    assert open_one["mttr"] == 13
    assert (open_one["latitude"], open_one["longitude"]) == (-1.25, 36.8)
    assert open_one["geo_source"] == "feed"
    assert open_one["owner"] == 'Wanjikũ, "W"'
    assert open_one["is_actionable"] is True
    assert open_one["region"] == "nairobi"
    assert open_one["raw_status"] == "IN PROGRESS"
    assert open_one["created_at_service"] == moment("2026-05-30 10:15")
    assert open_one["closed_at"] is None
    assert open_one["raw"]["service_type"] == "FTTH"
    assert open_one["raw"]["closed_at"] is None
    assert closed_one["is_actionable"] is False
    assert closed_one["closed_at"] == datetime(2026, 5, 31, 8, tzinfo=UTC)

    assert stage.query("SELECT ticket_id, closed_at, cluster FROM tickets.closure_events") == [
        {"ticket_id": "INC2", "closed_at": closed_one["closed_at"], "cluster": "Westlands"}
    ]
    (reject,) = stage.query("SELECT line, reason, raw FROM ingest.rejects")
    assert reject["line"] == 6
    assert "created_at_service" in reject["reason"]
    assert "31/05/2026" in reject["raw"]

    row = stage.ledger(key)
    assert (row["decision"], row["state"], row["first_seen_by"]) == ("new", "done", seen_by)
    assert (row["rows_read"], row["rows_inserted"], row["rows_rejected"]) == (5, 2, 1)
    assert (row["alarms_dropped"], row["sentinels_dropped"]) == (1, 1)
    assert row["archive_key"] == key.replace(CHANGES, PROCESSED)
    assert stage.waiting() == []
    assert stage.bucket.read_all(PROCESSED) == {row["archive_key"]: BODY}

    assert stage.query(
        """SELECT cluster, open_total FROM tickets.inc_daily_snapshot
           WHERE snapshot_date = (now() AT TIME ZONE 'Africa/Nairobi')::date"""
    ) == [{"cluster": "Westlands", "open_total": 1}]
    wait_until(lambda: stage.broker.ready(GEOCODE) == 1, "one geocode request waits")
    assert stage.one("SELECT metadata ->> 'source_max_key' FROM tickets.import_meta WHERE source = 'inc'") == key


def test_a_file_announced_by_the_store_becomes_rows_and_moves_to_processed(stage: Stage) -> None:
    stage.bucket.notify(stage.broker)
    consumer = stage.start("consume")
    stage.bucket.put(KEY, BODY)
    assert_arrived(stage, KEY, "notification")
    consumer.stop()


@pytest.mark.promise("Exactly once", "Nothing lost")
def test_a_file_that_nobody_announced_is_found_by_polling_once(stage: Stage) -> None:
    stage.bucket.put(KEY, BODY)
    assert stage.run("poll").returncode == 0
    consumer = stage.start("consume")
    assert_arrived(stage, KEY, "poller")
    consumer.stop()


def test_a_poller_in_a_loop_finds_what_arrives_after_its_start(stage: Stage) -> None:
    poller = stage.start("poll", "--every", "1")
    consumer = stage.start("consume")
    wait_until(lambda: '"waiting": 0' in poller.output() or "waiting" in poller.output(), "the first poll")
    stage.bucket.put(KEY, BODY)
    assert_arrived(stage, KEY, "poller")
    poller.stop()
    consumer.stop()


@pytest.mark.parametrize(
    "name",
    [
        "2026-06-25T142000",
        "2026-06-25T14-20-00",
        "20260625_142000",
        "2026-06-25 14:20:00+03:00",
        "2026-06-25 11:20:00.000+00:00",
    ],
)
def test_every_timestamp_form_in_a_key_arrives_unharmed(shared_stage: Stage, name: str) -> None:
    stage, key = shared_stage, f"{CHANGES}{name}.csv"
    if not stage.processes:
        stage.start("consume")
    body = csv([ticket(f"INC {name}")])
    stage.bucket.put(key, body)
    stage.announce(key)
    stage.wait_for("done", key)
    assert stage.ledger(key)["key_time"] == datetime(2026, 6, 25, 11, 20, tzinfo=UTC)
    assert stage.bucket.read(f"{PROCESSED}{name}.csv") == body
    assert stage.one("SELECT count(*) FROM tickets.inc WHERE ticket_id = %s", f"INC {name}") == 1
