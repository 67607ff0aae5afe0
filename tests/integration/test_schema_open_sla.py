"""tickets.inc_open_sla and reporting.fn_tickets_for_map(): what is open, how old it is, and where."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class Database(Protocol):
    @property
    def url(self) -> str: ...


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """In one transaction for the whole test, which holds now() still."""
    with psycopg.connect(database.url, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def now(connection: psycopg.Connection[dict[str, Any]]) -> datetime:
    row = connection.execute("SELECT now()").fetchone()
    assert row is not None
    moment: datetime = row["now"]
    return moment


def put(connection: psycopg.Connection[dict[str, Any]], ticket_id: str, **raw: str | None) -> None:
    connection.execute(
        "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)", [ticket_id, Jsonb({"ticket_id": ticket_id} | raw)]
    )


def open_ids(connection: psycopg.Connection[dict[str, Any]]) -> set[str]:
    return {row["ticket_id"] for row in connection.execute("SELECT ticket_id FROM tickets.inc_open_sla")}


def map_of(connection: psycopg.Connection[dict[str, Any]]) -> dict[str, Any]:
    row = connection.execute("SELECT reporting.fn_tickets_for_map() AS map").fetchone()
    assert row is not None
    collection: dict[str, Any] = row["map"]
    return collection


def test_a_ticket_is_open_until_it_has_a_closing_time_or_the_status(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    put(connection, "open", normalized_status="open")
    put(connection, "without status")
    put(connection, "with an unreadable closing time", normalized_status="open", closed_at="soon")
    put(connection, "closed", normalized_status="closed", closed_at="2026-06-25 10:00")
    put(connection, "closed, undated", normalized_status="Closed")
    put(connection, "closed by its time", normalized_status="open", closed_at="2026-06-25 10:00")
    assert open_ids(connection) == {"open", "without status", "with an unreadable closing time"}


@pytest.mark.parametrize(
    ("age", "state", "minutes"),
    [
        (timedelta(), "within", 0),
        (36 * HOUR - MICROSECOND, "within", 2159),
        (36 * HOUR, "at_risk", 2160),
        (48 * HOUR - MICROSECOND, "at_risk", 2879),
        (48 * HOUR, "breached", 2880),
        (1000 * HOUR, "breached", 60000),
        (-2 * HOUR, "within", -120),
    ],
)
def test_the_service_level_follows_the_age(
    connection: psycopg.Connection[dict[str, Any]], now: datetime, age: timedelta, state: str, minutes: int
) -> None:
    put(connection, "INC1", created_at_service=(now - age).isoformat())
    row = connection.execute("SELECT sla_state, age_minutes, age_basis FROM tickets.inc_open_sla").fetchone()
    assert row == {"sla_state": state, "age_minutes": minutes, "age_basis": "created_at_service"}


def test_the_age_counts_from_the_first_sight_where_the_creation_is_unknown(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    put(connection, "INC1", first_seen_at=(now - 40 * HOUR).isoformat())
    row = connection.execute("SELECT sla_state, age_minutes, age_basis FROM tickets.inc_open_sla").fetchone()
    assert row == {"sla_state": "at_risk", "age_minutes": 2400, "age_basis": "first_seen_at"}


def test_the_creation_goes_before_the_first_sight(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    put(
        connection,
        "INC1",
        created_at_service=(now - 50 * HOUR).isoformat(),
        first_seen_at=(now - HOUR).isoformat(),
    )
    row = connection.execute("SELECT sla_state, age_basis FROM tickets.inc_open_sla").fetchone()
    assert row == {"sla_state": "breached", "age_basis": "created_at_service"}


def test_a_ticket_without_any_beginning_is_unknown(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "INC1", source_created_at="2020-01-01", last_seen_at="2020-01-01")
    row = connection.execute("SELECT sla_state, age_minutes, age_basis FROM tickets.inc_open_sla").fetchone()
    assert row == {"sla_state": "unknown", "age_minutes": None, "age_basis": None}


def test_the_verdict_of_the_source_has_no_say(connection: psycopg.Connection[dict[str, Any]], now: datetime) -> None:
    put(connection, "INC1", created_at_service=now.isoformat(), sla_status="Breached", mttr="99999")
    row = connection.execute("SELECT * FROM tickets.inc_open_sla").fetchone()
    assert row is not None
    assert row["sla_state"] == "within"
    assert not {"sla_status", "mttr"} & row.keys()


def test_the_map_of_an_empty_database_is_an_empty_collection(connection: psycopg.Connection[dict[str, Any]]) -> None:
    collection = map_of(connection)
    assert datetime.fromisoformat(collection["summary"].pop("as_of")).second == 0
    assert collection == {
        "type": "FeatureCollection",
        "features": [],
        "summary": {
            "sla": {"at_risk_after_minutes": 2160, "breached_after_minutes": 2880},
            "total": 0,
            "open": 0,
            "open_with_geom": 0,
            "open_without_geom": 0,
            "by_cluster": {},
            "by_sla_state": {"breached": 0, "at_risk": 0, "within": 0, "unknown": 0},
            "freshness": {
                "source_max_key": None,
                "snapshot_at": None,
                "imported_at": None,
                "row_count": None,
                "age_minutes": None,
            },
        },
    }


def test_the_map_shows_the_open_tickets_that_have_a_place_and_counts_all(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    put(
        connection,
        "INC1",
        cluster="A",
        latitude="-1.23456789",
        longitude="36.87654321",
        normalized_status="open",
        assigned_team="Team 7",
        is_actionable="true",
        created_at_service=(now - 50 * HOUR).isoformat(),
    )
    put(connection, "INC2", cluster="A", created_at_service=(now - HOUR).isoformat())
    put(connection, "INC3", latitude="-1.5", longitude="36.5")
    put(connection, "INC4", cluster="A", latitude="-1.5", longitude="36.5", closed_at="2026-06-25 10:00")
    collection = map_of(connection)

    first, second = collection["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [36.876543, -1.234568]}
    assert (
        first["properties"]
        | {
            "ticket_id": "INC1",
            "cluster": "A",
            "team": "Team 7",
            "status": "open",
            "is_actionable": True,
            "sla_state": "breached",
            "age_minutes": 3000,
            "age_since": first["properties"]["age_since"],
            "age_basis": "created_at_service",
            "geo_source": "feed",
        }
        == first["properties"]
    )
    assert first["properties"]["age_since"].endswith("+03:00")
    assert datetime.fromisoformat(first["properties"]["age_since"]) == now - 50 * HOUR
    assert second["properties"]["ticket_id"] == "INC3"

    summary = collection["summary"]
    assert (summary["total"], summary["open"]) == (4, 3)
    assert (summary["open_with_geom"], summary["open_without_geom"]) == (2, 1)
    assert summary["by_cluster"] == {"A": 2, "(none)": 1}
    assert summary["by_sla_state"] == {"breached": 1, "at_risk": 0, "within": 1, "unknown": 1}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_map_tells_how_fresh_it_is(
    connection: psycopg.Connection[dict[str, Any]], now: datetime, zone: str
) -> None:
    connection.execute("SELECT set_config('TimeZone', %s, true)", [zone])
    connection.execute(
        "INSERT INTO tickets.import_meta (source, snapshot_at, imported_at, row_count, metadata)"
        " VALUES ('inc', %s, '2026-06-25T10:00Z', 21312, %s), ('crq', now(), now(), 1, '{}')",
        [now - 90 * HOUR, Jsonb({"source_max_key": "automations/inc/changes/2026-06-25T142000.csv"})],
    )
    freshness = map_of(connection)["summary"]["freshness"]
    assert datetime.fromisoformat(freshness.pop("snapshot_at")) == now - 90 * HOUR
    assert freshness == {
        "source_max_key": "automations/inc/changes/2026-06-25T142000.csv",
        "imported_at": "2026-06-25T13:00:00+03:00",
        "row_count": 21312,
        "age_minutes": 5400,
    }


def test_the_map_takes_its_total_from_what_the_merge_counts(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "INC1")
    assert map_of(connection)["summary"]["total"] == 1
    connection.execute("INSERT INTO tickets.import_meta (source, row_count) VALUES ('inc', 21312)")
    assert map_of(connection)["summary"]["total"] == 21312
