"""docs/dashboard-api-contract.md and its schema are what a database really answers."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from psycopg.rows import dict_row

from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from tests import contract
from tests.conftest import Database
from tests.integration.change_files import ChangeFile
from tests.stage.feeds import csv, ticket

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "dashboard.schema.json").read_text())


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(database.url, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def fed(
    connection: psycopg.Connection[dict[str, Any]], apply: Callable[..., Applied | AlreadyApplied | Duplicate]
) -> psycopg.Connection[dict[str, Any]]:
    """With two files of tickets of every kind."""
    random = Random(20260625)
    rows = [
        ticket(
            f"INC{number:04}",
            normalized_status=(status := random.choice(["open", "Open", "closed", "Closed", ""])),
            closed_at=random.choice(["", "2026-06-25 10:00:00.25"]) if status.lower() == "closed" else "",
            created_at_service=random.choice(["", "2026-06-24 10:00", "2026-06-20T10:00:00Z"]),
            first_seen_at=random.choice(["", "2026-06-24 11:00"]),
            cluster=random.choice(["", "Westlands", 'The "Old" Mill', "<b>", "(none)"]),
            assigned_team=random.choice(["", "Team 7"]),
            sla_status=random.choice(["", "within", "breached"]),
            mttr=random.choice(["", "12.5", "100000"]),
            latitude=random.choice(["", "-1.2345678901", "5.2", "0"]),
            longitude=random.choice(["", "36.9876543219", "36"]),
        )
        for number in range(300)
    ]
    apply(ChangeFile("2026-06-25T140000", csv(rows[:200])))
    apply(ChangeFile("2026-06-25T150000", csv(rows[100:])))
    return connection


def schema_of(name: str) -> Validator:
    Draft202012Validator.check_schema(SCHEMA)
    return Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{name}"})


def answer(connection: psycopg.Connection[dict[str, Any]], call: str) -> Any:
    """With decimals as they are written."""
    row = connection.execute(f"SELECT ({call})::text AS answer".encode()).fetchone()
    assert row is not None
    return json.loads(row["answer"], parse_float=Decimal)


def features(found: Any) -> Iterator[dict[str, Any]]:
    yield from found.get("features") or [*found["open"]["features"], *found["closed"]["features"]]


CALLS = {
    "reporting.fn_inc_dashboard()": "dashboard",
    "reporting.fn_inc_dashboard(p_window => 'all')": "dashboard",
    "reporting.fn_inc_dashboard('westlands', 'open', 'today')": "dashboard",
    "reporting.fn_inc_dashboard(p_from => '2026-06-25', p_to => '2026-06-26')": "dashboard",
    "reporting.fn_inc_dashboard('(none)', NULL, 'all')": "dashboard",
    "reporting.inc_dashboard_json('nowhere', NULL, '90d', NULL, NULL)": "dashboard",
    "reporting.fn_tickets_for_map()": "map",
    "reporting.inc_map_json()": "map",
}


@pytest.mark.parametrize(("call", "name"), CALLS.items())
def test_what_is_answered_is_of_the_schema(fed: psycopg.Connection[dict[str, Any]], call: str, name: str) -> None:
    found = answer(fed, call)
    assert [f"{error.json_path}: {error.message}" for error in schema_of(name).iter_errors(found)] == []


@pytest.mark.parametrize(("call", "name"), CALLS.items())
def test_of_nothing_as_well(connection: psycopg.Connection[dict[str, Any]], call: str, name: str) -> None:
    assert not list(schema_of(name).iter_errors(answer(connection, call)))


@pytest.mark.parametrize("call", CALLS)
def test_positions_have_six_decimals_and_the_longitude_first(
    fed: psycopg.Connection[dict[str, Any]], call: str
) -> None:
    for feature in features(answer(fed, call)):
        longitude, latitude = feature["geometry"]["coordinates"]
        assert all(-Decimal(number).as_tuple().exponent <= 6 for number in (longitude, latitude))  # type: ignore[operator]
        assert 33.5 <= longitude <= 42
        assert -5 <= latitude <= 5.5
        assert feature["id"] == feature["properties"]["ticket_id"]


def test_every_ticket_counts_and_those_with_a_place_are_features(fed: psycopg.Connection[dict[str, Any]]) -> None:
    found = answer(fed, "reporting.fn_inc_dashboard(p_window => 'all')")
    metrics = found["metrics"]
    counted = metrics["open"]["total"] + metrics["closed"]["total"] + metrics["closed"]["undated"]
    assert counted == answer(fed, "SELECT count(*) FROM tickets.inc") == 300
    for state in ("open", "closed"):
        assert metrics[state]["with_geom"] == len(found[state]["features"])
        assert metrics[state]["without_geom"] == metrics[state]["total"] - len(found[state]["features"])
        assert metrics[state]["without_geom"] > 0
    ids = [feature["id"] for feature in found["open"]["features"]]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    summary = answer(fed, "reporting.inc_map_json()")["summary"]
    assert summary["open"] == metrics["open"]["total"]
    assert summary["by_cluster"] == metrics["open"]["by_cluster"]
    assert summary["total"] == 300


def test_the_map_is_the_dashboards_open_part(fed: psycopg.Connection[dict[str, Any]]) -> None:
    shown = answer(fed, "reporting.fn_inc_dashboard()")
    assert answer(fed, "reporting.fn_tickets_for_map()")["features"] == shown["open"]["features"]
    assert answer(fed, "reporting.inc_map_json()") == answer(fed, "reporting.fn_tickets_for_map()")


def test_the_page_is_what_a_database_answers(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Or else: make contract."""
    assert contract.written() == contract.parts(connection)


def test_every_view_says_what_it_is_for(connection: psycopg.Connection[dict[str, Any]]) -> None:
    rows = connection.execute("""
        SELECT relname FROM pg_class
        WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v' AND obj_description(oid, 'pg_class') IS NULL
    """).fetchall()
    assert rows == []
