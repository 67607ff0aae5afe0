"""tickets.capture_history(): closures that are only added to, and the snapshot of the day."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from tests.integration.change_files import ChangeFile
from tests.stage.feeds import csv, ticket

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class Database(Protocol):
    @property
    def url(self) -> str: ...


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def put(connection: psycopg.Connection[dict[str, Any]], ticket_id: str, **raw: str | None) -> None:
    connection.execute(
        "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)"
        " ON CONFLICT (ticket_id) DO UPDATE SET raw = excluded.raw",
        [ticket_id, Jsonb({"ticket_id": ticket_id} | raw)],
    )


def capture(connection: psycopg.Connection[dict[str, Any]]) -> dict[str, Any]:
    row = connection.execute("SELECT tickets.capture_history() AS captured").fetchone()
    assert row is not None
    captured: dict[str, Any] = row["captured"]
    return captured


def moments(connection: psycopg.Connection[dict[str, Any]]) -> tuple[datetime, datetime, str]:
    """Now, the last midnight in East Africa, and the day."""
    row = connection.execute(
        "SELECT now(), date_trunc('day', now(), 'Africa/Nairobi') AS midnight,"
        " (now() AT TIME ZONE 'Africa/Nairobi')::date::text AS day"
    ).fetchone()
    assert row is not None
    return row["now"], row["midnight"], row["day"]


def wait_for_a_waiter(observer: psycopg.Connection[dict[str, Any]]) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while not observer.execute(waits).fetchone():
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.01)


def snapshot(connection: psycopg.Connection[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Today's figures by cluster, without the zeros."""
    rows = connection.execute(
        "SELECT cluster, to_jsonb(daily) - '{snapshot_date,cluster,captured_at}'::text[] AS figures"
        " FROM tickets.inc_daily_snapshot AS daily WHERE snapshot_date = (now() AT TIME ZONE 'Africa/Nairobi')::date"
    ).fetchall()
    return {row["cluster"]: {name: n for name, n in row["figures"].items() if n} for row in rows}


def closures(connection: psycopg.Connection[dict[str, Any]]) -> list[tuple[str, str]]:
    rows = connection.execute(
        "SELECT ticket_id, (closed_at AT TIME ZONE 'Africa/Nairobi')::text AS closed_at"
        " FROM tickets.closure_events ORDER BY 1, 2"
    ).fetchall()
    return [(row["ticket_id"], row["closed_at"]) for row in rows]


def test_an_empty_database_has_an_empty_capture(connection: psycopg.Connection[dict[str, Any]]) -> None:
    with connection.transaction():
        assert capture(connection) == {
            "closures_added": 0,
            "snapshot_date": moments(connection)[2],
            "clusters": 0,
        }


def test_a_closure_is_kept_as_it_was_observed(connection: psycopg.Connection[dict[str, Any]]) -> None:
    closure: dict[str, str | None] = {
        "cluster": "A",
        "region": "nairobi",
        "location_name": "HERE",
        "assigned_team": "Team 7",
        "owner": "Jane",
        "sla_status": "Within SLA",
    }
    put(connection, "1", **closure, mttr="12.5", closed_at="2026-06-25 10:00", created_at_service="2026-06-24 10:00")
    assert capture(connection)["closures_added"] == 1
    put(connection, "1", cluster="B", mttr="99", closed_at="2026-06-25 10:00")
    assert capture(connection)["closures_added"] == 0
    row = connection.execute("SELECT * FROM tickets.closure_events").fetchone()
    assert row is not None
    assert {name: row[name] for name in closure} == closure
    assert row["mttr"] == 13
    assert row["created_at_service"] == datetime.fromisoformat("2026-06-24T10:00+03:00")
    assert row["observed_at"] is not None


def test_capturing_twice_changes_nothing(connection: psycopg.Connection[dict[str, Any]]) -> None:
    now, _, _ = moments(connection)
    put(connection, "1", cluster="A", closed_at=now.isoformat())
    put(connection, "2", cluster="B", created_at_service=now.isoformat())
    first = capture(connection)
    before = (closures(connection), snapshot(connection))
    assert capture(connection) == first | {"closures_added": 0}
    assert (closures(connection), snapshot(connection)) == before


def test_a_reopened_ticket_has_two_closures(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", closed_at="2026-06-25 10:00")
    capture(connection)
    put(connection, "1", normalized_status="open")
    assert capture(connection)["closures_added"] == 0
    put(connection, "1", closed_at="2026-06-27 18:30")
    assert capture(connection)["closures_added"] == 1
    assert closures(connection) == [("1", "2026-06-25 10:00:00"), ("1", "2026-06-27 18:30:00")]


def test_a_closure_outlives_its_ticket(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", closed_at="2026-06-25 10:00")
    capture(connection)
    connection.execute("DELETE FROM tickets.inc")
    capture(connection)
    assert closures(connection) == [("1", "2026-06-25 10:00:00")]


def test_the_snapshot_counts_the_backlog_by_cluster(connection: psycopg.Connection[dict[str, Any]]) -> None:
    now, _, _ = moments(connection)
    old = (now - 100 * HOUR).isoformat()
    put(connection, "1", cluster="A", is_actionable="true", created_at_service=old)
    put(connection, "2", cluster="A", is_actionable="false", created_at_service=(now - 40 * HOUR).isoformat())
    put(connection, "3", cluster="A", first_seen_at=old)
    put(connection, "4", is_actionable="1")
    put(connection, "5", cluster="B", created_at_service=old, closed_at=old)
    assert capture(connection)["clusters"] == 2
    assert snapshot(connection) == {
        "A": {"open_total": 3, "open_actionable": 1, "open_breached": 2, "open_at_risk": 1},
        "(none)": {"open_total": 1, "open_actionable": 1, "open_unknown_age": 1},
    }


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_the_flow_is_that_of_the_day_in_east_africa(connection: psycopg.Connection[dict[str, Any]], zone: str) -> None:
    connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    with connection.transaction():
        _, midnight, day = moments(connection)
        for ticket_id, moment in {
            "yesterday": midnight - MICROSECOND,
            "midnight": midnight,
            "tonight": midnight + 24 * HOUR - MICROSECOND,
            "tomorrow": midnight + 24 * HOUR,
        }.items():
            put(connection, f"created {ticket_id}", cluster="A", created_at_service=moment.isoformat(), closed_at=None)
            put(connection, f"closed {ticket_id}", cluster="B", closed_at=moment.isoformat())
        captured = capture(connection)
        found = snapshot(connection)
    assert (captured["snapshot_date"], captured["closures_added"]) == (day, 4)
    assert found["A"]["created_count"] == 2
    assert found["B"] == {"closed_count": 2}


def test_a_ticket_closed_twice_in_a_day_counts_twice(connection: psycopg.Connection[dict[str, Any]]) -> None:
    with connection.transaction():
        _, midnight, _ = moments(connection)
        for closed_at in (midnight, midnight + HOUR):
            put(connection, "1", cluster="A", closed_at=closed_at.isoformat())
            capture(connection)
        assert snapshot(connection)["A"] == {"closed_count": 2}


def test_a_cluster_that_has_emptied_goes_to_zero(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", cluster="A")
    put(connection, "2", cluster="B")
    capture(connection)
    put(connection, "1", cluster="A", closed_at="2026-01-01 10:00")
    assert capture(connection)["clusters"] == 2
    assert snapshot(connection) == {"A": {}, "B": {"open_total": 1, "open_unknown_age": 1}}


def test_other_days_are_left_alone(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", cluster="A")
    capture(connection)
    connection.execute("UPDATE tickets.inc_daily_snapshot SET snapshot_date = snapshot_date - 1, open_total = 77")
    capture(connection)
    rows = connection.execute("SELECT open_total FROM tickets.inc_daily_snapshot ORDER BY snapshot_date").fetchall()
    assert [row["open_total"] for row in rows] == [77, 1]


def test_a_second_capture_waits_for_the_first(
    connection: psycopg.Connection[dict[str, Any]], database: Database
) -> None:
    put(connection, "1", cluster="A", closed_at="2026-06-25 10:00")
    put(connection, "2", cluster="A")
    second: list[dict[str, Any]] = []

    def capture_again() -> None:
        with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as other:
            second.append(capture(other))

    thread = threading.Thread(target=capture_again)
    with (
        psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as observer,
        connection.transaction(),
    ):
        first = capture(connection)
        thread.start()
        wait_for_a_waiter(observer)
        assert second == []
    thread.join(timeout=30)
    assert first["closures_added"] == 1
    assert second == [first | {"closures_added": 0}]
    assert snapshot(connection) == {"A": {"open_total": 1, "open_unknown_age": 1}}


def test_many_captures_at_once_agree(connection: psycopg.Connection[dict[str, Any]], database: Database) -> None:
    for number in range(200):
        put(connection, str(number), cluster=f"C{number % 7}", closed_at="2026-06-25 10:00" if number % 2 else None)
    added: list[int] = []

    def capture_some() -> None:
        with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as other:
            added.extend(capture(other)["closures_added"] for _ in range(5))

    threads = [threading.Thread(target=capture_some) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(added) == 30
    assert sum(added) == len(closures(connection)) == 100
    assert sum(figures["open_total"] for figures in snapshot(connection).values()) == 100


def test_a_capture_that_waited_is_of_the_moment_of_its_rows(
    connection: psycopg.Connection[dict[str, Any]], database: Database
) -> None:
    """It waits for another one, and midnight can pass meanwhile: the day is that in which its rows were read."""
    put(connection, "1", cluster="A", closed_at="2026-06-25 10:00")

    def capture_in_a_transaction() -> None:
        with psycopg.connect(database.url, row_factory=dict_row) as other:
            capture(other)

    thread = threading.Thread(target=capture_in_a_transaction)
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as observer:
        with connection.transaction():
            capture(connection)
            thread.start()
            wait_for_a_waiter(observer)
            put(observer, "2", cluster="A")
            moment = observer.execute("SELECT clock_timestamp() AS now").fetchone()
        thread.join(timeout=30)
    row = connection.execute("SELECT * FROM tickets.inc_daily_snapshot").fetchone()
    assert row is not None
    assert moment is not None
    assert row["open_total"] == 1, "it has read what came while it waited"
    assert row["captured_at"] > moment["now"]


@pytest.mark.parametrize(
    ("moment", "day", "created", "breached"),
    [
        ("2026-06-25T20:59:59.999999Z", "2026-06-25", 1, 0),
        ("2026-06-25T21:00:00Z", "2026-06-26", 0, 1),
    ],
)
def test_day_flow_and_service_levels_of_a_snapshot_are_those_of_its_moment(
    connection: psycopg.Connection[dict[str, Any]], moment: str, day: str, created: int, breached: int
) -> None:
    put(connection, "1", cluster="A", created_at_service="2026-06-24T00:00")
    put(connection, "2", cluster="A", created_at_service="2026-06-25T10:00")
    connection.execute("SELECT ingest.snapshot_day(%s::timestamptz)", [moment])
    row = connection.execute("SELECT * FROM tickets.inc_daily_snapshot").fetchone()
    assert row is not None
    assert str(row["snapshot_date"]) == day
    assert row["captured_at"] == datetime.fromisoformat(moment)
    assert (row["open_total"], row["created_count"], row["open_breached"]) == (2, created, breached)


def notes(connection: psycopg.Connection[dict[str, Any]]) -> list[str]:
    rows = connection.execute("SELECT ticket_id FROM ingest.closures_noted ORDER BY note_id").fetchall()
    return [row["ticket_id"] for row in rows]


def test_a_closure_written_by_hand_is_noted_until_a_capture_has_seen_it(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    put(connection, "1")
    put(connection, "2", closed_at="2026-06-25 10:00")
    assert notes(connection) == ["2"]
    connection.execute("""UPDATE tickets.inc SET raw = raw || '{"closed_at": "2026-06-26 10:00"}'""")
    assert capture(connection)["closures_added"] == 2
    assert notes(connection) == []
    assert closures(connection) == [("1", "2026-06-26 10:00:00"), ("2", "2026-06-26 10:00:00")]
    connection.execute("UPDATE tickets.inc SET geo_source = 'feed'")
    assert notes(connection) == []


@pytest.mark.promise("Nothing lost")
def test_a_closure_is_found_however_long_its_transaction_took(
    connection: psycopg.Connection[dict[str, Any]], database: Database
) -> None:
    """Captures before and after it began see nothing of it, and the first one after its end sees it."""
    with psycopg.connect(database.url, row_factory=dict_row) as slow:
        put(slow, "1", closed_at="2026-06-25 10:00")
        put(connection, "2", closed_at="2026-06-25 10:00")
        assert capture(connection)["closures_added"] == 1
    assert capture(connection)["closures_added"] == 1
    assert closures(connection) == [("1", "2026-06-25 10:00:00"), ("2", "2026-06-25 10:00:00")]


def test_a_capture_that_is_rolled_back_leaves_the_notes(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", closed_at="2026-06-25 10:00")
    with connection.transaction(force_rollback=True):
        assert capture(connection)["closures_added"] == 1
    assert notes(connection) == ["1"]
    assert capture(connection)["closures_added"] == 1


def test_who_may_write_tickets_alone_may_close_them(connection: psycopg.Connection[dict[str, Any]]) -> None:
    connection.execute("""
        CREATE ROLE by_hand_only NOLOGIN;
        GRANT USAGE ON SCHEMA tickets TO by_hand_only;
        GRANT INSERT, SELECT, UPDATE ON tickets.inc TO by_hand_only;
        GRANT SELECT ON tickets.geo_clusters, tickets.geo_locations TO by_hand_only;
        SET ROLE by_hand_only
    """)
    try:
        put(connection, "1", closed_at="2026-06-25 10:00")
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY by_hand_only; DROP ROLE by_hand_only")
    assert notes(connection) == ["1"]


def test_a_merge_leaves_no_notes(
    connection: psycopg.Connection[dict[str, Any]], apply: Callable[..., Applied | AlreadyApplied | Duplicate]
) -> None:
    row = ticket("1", normalized_status="closed", closed_at="2026-06-25 10:00")
    apply(ChangeFile("2026-06-25T140000", csv([row])))
    apply(ChangeFile("2026-06-25T150000", csv([row | {"closed_at": "2026-06-25 12:00"}, row | {"ticket_id": "2"}])))
    assert notes(connection) == []
    assert len(closures(connection)) == 3
    assert capture(connection)["closures_added"] == 0
