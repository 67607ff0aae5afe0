"""tickets.inc and tickets.crq: typed columns from raw, and where a ticket is placed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

REALISTIC: dict[str, str | None] = {
    "ticket_id": "INC0012345",
    "normalized_status": "closed",
    "raw_status": "RESOLVED",
    "bucket": "field",
    "is_actionable": "TRUE",
    "cluster": "KASARANI",
    "region": "nairobi east",
    "location_name": "NBO-FTTH-Mwiki Phase 2",
    "assigned_team": "Field Team 7",
    "owner": "Jane Wanjiru",
    "sla_status": "Within SLA",
    "mttr": "412.5",
    "created_at_service": "2026-06-20 08:15:00",
    "scheduled_at": "2026-06-20 14:00",
    "closed_at": "2026-06-20T15:07:30+03:00",
    "first_seen_at": "2026-06-20 08:20:01.123456",
    "last_seen_at": "2026-06-22T09:00:00Z",
    "source_created_at": "2026-06-20",
    "source_updated_at": None,
    "latitude": "-1.2195",
    "longitude": "36.8967",
    "service_type": "FTTH",
    "is_alarm": "false",
    "is_auto_created": "f",
    "is_auto_closed": "0",
    "department": None,
}


class Database(Protocol):
    @property
    def url(self) -> str: ...


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def put(connection: psycopg.Connection[dict[str, Any]], **raw: str | None) -> dict[str, Any]:
    """Upsert a ticket as the ingest does; gives its row with the geometry as text."""
    raw = {"ticket_id": "INC1", **raw}
    row = connection.execute(
        "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)"
        " ON CONFLICT (ticket_id) DO UPDATE SET raw = excluded.raw"
        " RETURNING inc.*, ST_AsText(geom) AS place, ST_AsText(geog) AS place_on_earth",
        [raw["ticket_id"], Jsonb(raw)],
    ).fetchone()
    assert row is not None
    return row


def know_cluster(connection: psycopg.Connection[dict[str, Any]], cluster: str, status: str = "hit") -> None:
    place = (None, None) if status == "miss" else (-1.0, 37.0)
    connection.execute(
        "INSERT INTO tickets.geo_clusters (cluster, latitude, longitude, status) VALUES (%s, %s, %s, %s)",
        [cluster, *place, status],
    )


def know_location(
    connection: psycopg.Connection[dict[str, Any]], cluster: str, location: str, status: str = "hit"
) -> None:
    place = (None, None) if status == "miss" else (-2.0, 38.0)
    connection.execute(
        "INSERT INTO tickets.geo_locations (cluster, location_name, latitude, longitude, status)"
        " VALUES (%s, %s, %s, %s, %s)",
        [cluster, location, *place, status],
    )


def test_a_realistic_row_fills_its_typed_columns(connection: psycopg.Connection[dict[str, Any]]) -> None:
    row = put(connection, **REALISTIC)
    assert row["raw"] == REALISTIC
    dropped = {"service_type", "is_alarm", "is_auto_created", "is_auto_closed", "department"}
    assert not dropped & row.keys()
    typed = {
        "is_actionable": True,
        "mttr": 413,
        "created_at_service": datetime(2026, 6, 20, 5, 15, tzinfo=UTC),
        "scheduled_at": datetime(2026, 6, 20, 11, 0, tzinfo=UTC),
        "closed_at": datetime(2026, 6, 20, 12, 7, 30, tzinfo=UTC),
        "first_seen_at": datetime(2026, 6, 20, 5, 20, 1, 123456, tzinfo=UTC),
        "last_seen_at": datetime(2026, 6, 22, 9, 0, tzinfo=UTC),
        "source_created_at": datetime(2026, 6, 19, 21, 0, tzinfo=UTC),
        "source_updated_at": None,
        "latitude": -1.2195,
        "longitude": 36.8967,
    }
    expected: dict[str, Any] = {**REALISTIC, **typed}
    assert {name: row[name] for name in REALISTIC.keys() - dropped} == {
        name: value for name, value in expected.items() if name not in dropped
    }
    assert row["place"] == row["place_on_earth"] == "POINT(36.8967 -1.2195)"
    assert row["geo_source"] == "feed"


def test_a_row_with_an_id_only_is_a_ticket(connection: psycopg.Connection[dict[str, Any]]) -> None:
    row = put(connection, ticket_id="INC7")
    filled = {name for name, value in row.items() if value is not None}
    assert filled == {"ticket_id", "raw", "ingested_at"}


def test_a_value_its_column_cannot_take_is_null_and_stays_in_raw(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    odd: dict[str, str | None] = {
        "is_actionable": "maybe",
        "mttr": "soon",
        "created_at_service": "2026-02-30 10:00",
        "closed_at": "yesterday",
        "latitude": "NaN",
        "longitude": "Infinity",
    }
    row = put(connection, **odd)
    assert {name: row[name] for name in odd} == dict.fromkeys(odd)
    assert row["raw"] == {"ticket_id": "INC1", **odd}


def test_mttr_is_whole_minutes_or_null(connection: psycopg.Connection[dict[str, Any]]) -> None:
    minutes = {
        "0": 0, "90": 90, " 90 ": 90, "90.4": 90, "90.5": 91, "+7": 7, "-3.5": -4, ".5": 1, "7.": 7,
        "1e3": 1000, "1E-3": 0, "2147483647": 2147483647, "2147483647.5": None, "2147483648": None,
        "-2147483649": None, "9" * 40: None, "9" * 400: None, "1e99": None, "1e999999": None, "NaN": None,
        "nan": None, "Infinity": None, "-inf": None, "": None, "1,5": None, "0x10": None, "5 min": None,
        "٣": None, ".": None, "1_000": None, None: None,
    }  # fmt: skip
    assert {text: put(connection, mttr=text)["mttr"] for text in minutes} == minutes


def test_a_flag_is_lenient_about_case_and_nothing_else(connection: psycopg.Connection[dict[str, Any]]) -> None:
    flags = {
        "true": True, "TRUE": True, "t": True, "T": True, "1": True, " True ": True,
        "false": False, "False": False, "f": False, "F": False, "0": False,
        "yes": None, "no": None, "2": None, "": None, "truee": None, None: None,
    }  # fmt: skip
    assert {text: put(connection, is_actionable=text)["is_actionable"] for text in flags} == flags


def test_a_ticket_that_is_read_again_keeps_no_value_of_before(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, **REALISTIC | {"ticket_id": "INC1"})
    row = put(connection, normalized_status="open")
    assert (row["normalized_status"], row["closed_at"], row["mttr"], row["cluster"]) == ("open", None, None, None)


def test_coordinates_outside_kenya_place_nothing(connection: psycopg.Connection[dict[str, Any]]) -> None:
    for latitude, longitude in [
        ("0", "0"), ("0", None), (None, "36.8"), ("36.8", "-1.2"), ("-5.0001", "36.8"), ("5.5001", "36.8"),
        ("-1.2", "33.4999"), ("-1.2", "42.0001"), ("51.5", "0.1"), ("", ""), ("x", "36.8"), ("NaN", "36.8"),
        ("1e999", "36.8"), ("9" * 400, "36.8"), ("0." + "0" * 400 + "1", "36.8"),
    ]:  # fmt: skip
        row = put(connection, latitude=latitude, longitude=longitude, cluster="UNKNOWN")
        found = (row["geom"], row["geog"], row["geo_source"], row["latitude"], row["longitude"])
        assert found == (None,) * 5, (latitude, longitude)


def test_coordinates_within_kenya_place_the_ticket(connection: psycopg.Connection[dict[str, Any]]) -> None:
    for latitude, longitude in [("-5", "33.5"), ("5.5", "42"), ("1e-05", "36.8"), ("+0.5", " 36.8 ")]:
        row = put(connection, latitude=latitude, longitude=longitude)
        assert (row["latitude"], row["longitude"], row["geo_source"]) == (float(latitude), float(longitude), "feed")


def test_the_feed_goes_before_the_location_and_the_location_before_the_cluster(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    know_cluster(connection, "A")
    know_location(connection, "A", "HERE")
    feed = put(connection, ticket_id="1", cluster="A", location_name="HERE", latitude="-1.5", longitude="36.5")
    location = put(connection, ticket_id="2", cluster="A", location_name="HERE")
    cluster = put(connection, ticket_id="3", cluster="A", location_name="ELSEWHERE")
    assert (feed["geo_source"], feed["place"]) == ("feed", "POINT(36.5 -1.5)")
    assert (location["geo_source"], location["place"]) == ("location", "POINT(38 -2)")
    assert (cluster["geo_source"], cluster["place"]) == ("cluster", "POINT(37 -1)")
    assert (cluster["latitude"], cluster["longitude"]) == (-1.0, 37.0)


def test_a_location_counts_within_its_cluster_only(connection: psycopg.Connection[dict[str, Any]]) -> None:
    know_location(connection, "A", "STAGE")
    assert put(connection, cluster="B", location_name="STAGE")["geom"] is None
    assert put(connection, cluster=None, location_name="STAGE")["geom"] is None


@pytest.mark.parametrize("status", ["miss", "rejected"])
def test_a_miss_or_a_rejected_answer_places_nothing(
    connection: psycopg.Connection[dict[str, Any]], status: str
) -> None:
    know_location(connection, "A", "HERE", status)
    know_cluster(connection, "A", status)
    assert put(connection, cluster="A", location_name="HERE")["geom"] is None


def test_a_lookup_that_finds_nothing_leaves_the_place_that_is_there(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    know_cluster(connection, "A")
    put(connection, cluster="A")
    connection.execute("DELETE FROM tickets.geo_clusters")
    row = put(connection, cluster="A", normalized_status="open")
    assert (row["geo_source"], row["place"], row["latitude"]) == ("cluster", "POINT(37 -1)", -1.0)


def test_a_writer_that_clears_the_place_gets_it_resolved_anew(connection: psycopg.Connection[dict[str, Any]]) -> None:
    know_cluster(connection, "A")
    put(connection, cluster="A")
    connection.execute(
        "UPDATE tickets.inc SET raw = raw || %s, geom = NULL, geo_source = NULL", [Jsonb({"cluster": "B"})]
    )
    row = connection.execute("SELECT geom, geog, latitude, geo_source FROM tickets.inc").fetchone()
    assert row == {"geom": None, "geog": None, "latitude": None, "geo_source": None}


def test_a_ticket_is_placed_when_the_gazetteer_has_grown(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, cluster="A", location_name="HERE")
    know_location(connection, "A", "HERE")
    connection.execute("UPDATE tickets.inc SET raw = raw WHERE cluster = 'A' AND location_name = 'HERE'")
    row = connection.execute("SELECT ST_AsText(geog) AS place, geo_source FROM tickets.inc").fetchone()
    assert row == {"place": "POINT(38 -2)", "geo_source": "location"}


def test_a_hit_without_a_point_is_refused(connection: psycopg.Connection[dict[str, Any]]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO tickets.geo_clusters (cluster, status) VALUES ('A', 'hit')")


def test_change_requests_are_placed_by_the_same_rules(connection: psycopg.Connection[dict[str, Any]]) -> None:
    know_cluster(connection, "A")
    row = connection.execute(
        "INSERT INTO tickets.crq (ticket_id, raw) VALUES ('CRQ1', %s) RETURNING ST_AsText(geom) AS place, geo_source",
        [Jsonb({"cluster": "A"})],
    ).fetchone()
    assert row == {"place": "POINT(37 -1)", "geo_source": "cluster"}


def test_tickets_can_be_written_without_any_search_path(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """As a restore does it."""
    know_cluster(connection, "A")
    connection.execute("SET search_path = ''")
    connection.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES ('1', %s)", [Jsonb(REALISTIC)])
    connection.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES ('2', %s)", [Jsonb({"cluster": "A"})])
    connection.execute("SELECT reporting.fn_tickets_for_map(), reporting.fn_inc_dashboard(), tickets.capture_history()")
    rows = connection.execute("SELECT geo_source FROM tickets.inc ORDER BY ticket_id").fetchall()
    assert [row["geo_source"] for row in rows] == ["feed", "cluster"]
