"""The views of the past: days and weeks in East Africa, gaps, reopenings, late files, and who held what."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from tests.conftest import Database
from tests.integration.change_files import ChangeFile
from tests.stage.feeds import csv, ticket
from tests.stage.logins import logged_in, role_of

Connection = psycopg.Connection[dict[str, Any]]
Apply = Callable[..., Applied | AlreadyApplied | Duplicate]
CLOSED = {"normalized_status": "closed", "sla_status": "within", "mttr": "30"}


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with psycopg.connect(database.url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def by_day(connection: Connection) -> dict[str, tuple[int | None, bool | None, int | None, int | None, int | None]]:
    rows = connection.execute(
        "SELECT * FROM reporting.created_and_closed_by_day WHERE day BETWEEN '2026-06-20' AND '2026-06-30' ORDER BY day"
    ).fetchall()
    return {
        str(row["day"]): (row["files"], row["is_gap"], row["created"], row["closed"], row["closed_again"])
        for row in rows
    }


def test_a_day_without_files_is_a_gap_and_not_a_zero(connection: Connection, apply: Apply) -> None:
    apply(ChangeFile("2026-06-24T120000", csv([ticket("1", created_at_service="2026-06-24 09:00")])))
    apply(ChangeFile("2026-06-25T120000", csv([ticket("2", created_at_service="2026-06-24 10:00")])))
    apply(ChangeFile("2026-06-27T120000", csv([ticket("3", created_at_service="2026-06-27 10:00")])))
    found = by_day(connection)
    assert found["2026-06-24"] == (1, False, 2, 0, 0)
    assert found["2026-06-25"] == (1, False, 0, 0, 0)
    assert found["2026-06-26"] == (0, True, None, None, None)
    assert found["2026-06-27"] == (1, False, 1, 0, 0)
    assert found["2026-06-28"] == (0, True, None, None, None)


def test_a_late_file_fills_its_day_and_the_days_that_it_tells_of(connection: Connection, apply: Apply) -> None:
    apply(ChangeFile("2026-06-24T120000", csv([ticket("1", created_at_service="2026-06-24 09:00")])))
    apply(ChangeFile("2026-06-27T120000", csv([ticket("2", created_at_service="2026-06-27 09:00")])))
    assert by_day(connection)["2026-06-26"] == (0, True, None, None, None)
    late = ticket("1", created_at_service="2026-06-24 09:00", closed_at="2026-06-25 09:00", **CLOSED)
    apply(ChangeFile("2026-06-26T120000", csv([late])))
    found = by_day(connection)
    assert found["2026-06-26"] == (1, False, 0, 0, 0)
    assert found["2026-06-25"] == (0, True, None, 1, 0), "what is known of it, and that no file of it has come"


def test_before_the_first_file_nobody_knows_of_gaps(connection: Connection, apply: Apply) -> None:
    apply(ChangeFile("2026-06-24T120000", csv([ticket("1", created_at_service="2026-06-22 09:00")])))
    found = by_day(connection)
    assert found["2026-06-22"] == (None, None, 1, 0, 0)
    assert found["2026-06-23"] == (None, None, 0, 0, 0)
    assert found["2026-06-24"] == (1, False, 0, 0, 0)
    assert "2026-06-21" not in found


@pytest.mark.parametrize("zone", ["UTC", "Africa/Nairobi", "America/New_York"])
def test_days_and_weeks_are_those_of_east_africa(connection: Connection, apply: Apply, zone: str) -> None:
    """The midnight of 2026-06-21 to the 22nd is one of a Sunday to a Monday."""
    rows = [
        ticket("1", created_at_service="2026-06-21 23:59:59", closed_at="2026-06-21T20:59:59.999999Z", **CLOSED),
        ticket("2", created_at_service="2026-06-22 00:00:00", closed_at="2026-06-21T21:00:00Z", **CLOSED),
    ]
    apply(ChangeFile("2026-06-22T000000", csv(rows)))
    connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    found = by_day(connection)
    assert found["2026-06-21"][2:] == (1, 1, 0)
    assert found["2026-06-22"] == (1, False, 1, 1, 0)
    weeks = connection.execute(
        "SELECT week, files, created, closed FROM reporting.created_and_closed_by_week ORDER BY week LIMIT 2"
    ).fetchall()
    assert [tuple(row.values()) for row in weeks] == [
        (date(2026, 6, 15), None, 1, 1),
        (date(2026, 6, 22), 1, 1, 1),
    ]


def test_a_reopened_ticket_counts_with_each_closure_and_whoever_held_it_then(
    connection: Connection, apply: Apply
) -> None:
    first = ticket("1", assigned_team="Team 1", owner="Ann", closed_at="2026-06-23 10:00", **CLOSED)
    again = ticket("1", assigned_team="Team 2", owner="Ben", closed_at="2026-06-25 10:00", **CLOSED | {"mttr": "90"})
    apply(ChangeFile("2026-06-23T120000", csv([first])))
    apply(ChangeFile("2026-06-24T120000", csv([ticket("1", assigned_team="Team 3")])))
    held = "SELECT team, owner, nth_closure, was_reopened FROM reporting.who_closed ORDER BY closed_at"
    assert [tuple(row.values()) for row in connection.execute(held)] == [("Team 1", "Ann", 1, True)]
    apply(ChangeFile("2026-06-25T120000", csv([again])))
    assert [tuple(row.values()) for row in connection.execute(held)] == [
        ("Team 1", "Ann", 1, True),
        ("Team 2", "Ben", 2, False),
    ]
    found = by_day(connection)
    assert (found["2026-06-23"][3:], found["2026-06-24"][3:], found["2026-06-25"][3:]) == ((1, 0), (0, 0), (1, 1))
    teams = connection.execute(
        "SELECT team, closures, mttr_median::float8 FROM reporting.mttr_and_sla_by_team"
    ).fetchall()
    assert {tuple(row.values()) for row in teams if row["team"]} == {("Team 1", 1, 30.0), ("Team 2", 1, 90.0)}


CLOSING = ticket("1", assigned_team="Team 1", owner="Ann", closed_at="2026-06-23 10:00", **CLOSED)
HANDED_ON = CLOSING | {"assigned_team": "Team 2", "owner": "Ben", "mttr": "45"}
RECKONED = HANDED_ON | {"assigned_team": "Team 3", "owner": "Cyn", "mttr": "60", "sla_status": "breached"}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_who_held_a_ticket_is_who_had_it_when_it_closed_and_not_who_got_it_since(
    connection: Connection, apply: Apply, order: tuple[int, ...]
) -> None:
    files = [
        ChangeFile("2026-06-23T120000", csv([CLOSING])),
        ChangeFile("2026-06-24T120000", csv([HANDED_ON, HANDED_ON | {"mttr": "50"}])),
        ChangeFile("2026-06-25T120000", csv([RECKONED])),
    ]
    applied = [apply(files[place]) for place in order]
    found = connection.execute("SELECT team, owner, mttr_minutes, sla_status FROM reporting.who_closed").fetchall()
    assert [tuple(row.values()) for row in found] == [("Team 1", "Ann", 60, "breached")]
    wrote = [each.counts.closures for each in applied if isinstance(each, Applied)]
    assert wrote == [1, 1, 0 if order[2] == 1 else 1], "between the first and the last row there is nothing to write"


def figures(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(float(value) if hasattr(value, "quantize") else value for value in row.values())


@pytest.mark.parametrize(("view", "column"), [("cluster", "cluster"), ("region", "region"), ("team", "assigned_team")])
def test_repairs_are_told_by_cluster_region_and_team(
    connection: Connection, apply: Apply, view: str, column: str
) -> None:
    base = CLOSED | {"closed_at": "2026-06-24 10:00"}
    rows = [ticket(f"a{number}", **base | {column: "a", "mttr": str(10 * number)}) for number in range(1, 11)]
    rows += [ticket("b", **base | {column: "b", "mttr": "", "sla_status": "breached"})]
    rows += [ticket("c", **base | {column: "", "sla_status": ""})]
    apply(ChangeFile("2026-06-24T120000", csv(rows)))
    apply(ChangeFile("2026-06-30T120000", csv([ticket("open")])))
    found = connection.execute(
        f"""SELECT {view}, closures, mttr_known, mttr_average, mttr_median, mttr_p90, by_sla_status, is_gap
            FROM reporting.mttr_and_sla_by_{view} WHERE week = '2026-06-22' ORDER BY 1""".encode()  # noqa: S608
    ).fetchall()
    assert [figures(row) for row in found] == [
        ("(none)", 1, 1, 30.0, 30.0, 30.0, {"(none)": 1}, False),
        ("a", 10, 10, 55.0, 55.0, 91.0, {"within": 10}, False),
        ("b", 1, 0, None, None, None, {"breached": 1}, False),
    ]
    later = connection.execute(
        f"""SELECT {view}, closures, is_gap FROM reporting.mttr_and_sla_by_{view}
            WHERE week > '2026-06-22' ORDER BY week LIMIT 2""".encode()  # noqa: S608
    ).fetchall()
    assert [figures(row) for row in later] == [(None, 0, False), (None, None, True)]
    weeks = connection.execute(
        "SELECT closures, mttr_known, by_sla_status FROM reporting.mttr_and_sla_by_week"
        " WHERE week >= '2026-06-22' ORDER BY week LIMIT 3"
    ).fetchall()
    assert [figures(row) for row in weeks] == [
        (12, 11, {"(none)": 1, "breached": 1, "within": 10}), (0, 0, {}), (None, None, None),
    ]  # fmt: skip


def test_the_backlog_has_a_gap_where_no_capture_was(connection: Connection, apply: Apply) -> None:
    apply(ChangeFile("2026-06-24T120000", csv([ticket("1"), ticket("2", cluster="Kasarani")])))
    connection.execute("SELECT ingest.snapshot_day('2026-06-24T20:59:59Z')")
    apply(ChangeFile("2026-06-24T235000", csv([ticket("1", closed_at="2026-06-24 23:30", **CLOSED)])))
    connection.execute("SELECT ingest.snapshot_day('2026-06-24T21:00:00Z')")
    connection.execute("SELECT ingest.snapshot_day('2026-06-27T10:00:00Z')")
    rows = connection.execute(
        "SELECT day, files, is_gap, open_total FROM reporting.backlog_by_day WHERE day < '2026-06-29' ORDER BY day"
    ).fetchall()
    assert [(str(row["day"]), *figures(row)[1:]) for row in rows] == [
        ("2026-06-24", 2, False, 2),
        ("2026-06-25", 0, False, 1),
        ("2026-06-26", 0, True, None),
        ("2026-06-27", 0, False, 1),
        ("2026-06-28", 0, True, None),
    ]
    clusters = connection.execute(
        "SELECT day, cluster, open_total FROM reporting.backlog_by_day_and_cluster"
        " WHERE day < '2026-06-27' ORDER BY day, cluster"
    ).fetchall()
    assert [(str(row["day"]), *figures(row)[1:]) for row in clusters] == [
        ("2026-06-24", "Kasarani", 1),
        ("2026-06-24", "Westlands", 1),
        ("2026-06-25", "Kasarani", 1),
        ("2026-06-26", None, None),
    ]


def test_nothing_known_is_no_rows(connection: Connection) -> None:
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v'"
    ).fetchall()
    assert len(names) > 8
    for row in names:
        every = f"SELECT * FROM reporting.{row['relname']}".encode()  # noqa: S608
        assert connection.execute(every).fetchall() == []


def nearest(connection: Connection, *arguments: float | str | bool | None, **named: Any) -> list[tuple[str, int]]:
    given = [*arguments, *named.values()]
    placeholders = ", ".join(["%s"] * len(arguments) + [f"{name} => %s" for name in named])
    rows = connection.execute(
        f"SELECT ticket_id, distance_metres FROM reporting.fn_nearest_open({placeholders})".encode(),  # noqa: S608
        given,
    ).fetchall()
    return [(row["ticket_id"], row["distance_metres"]) for row in rows]


def test_the_nearest_open_tickets_come_first(connection: Connection, apply: Apply) -> None:
    here = {"latitude": "-1.3", "longitude": "36.8"}
    rows = [
        ticket("north", latitude="-1.29", longitude="36.8"),
        ticket("b", **here, assigned_team="Team 2", is_actionable="false"),
        ticket("a", **here, cluster="Kasarani"),
        ticket("c", **here),
        ticket("closed", **here, closed_at="2026-06-24 10:00", **CLOSED),
        ticket("nowhere", cluster="", location_name=""),
    ]
    apply(ChangeFile("2026-06-24T120000", csv(rows)))
    assert nearest(connection, -1.3, 36.8) == [("a", 0), ("b", 0), ("c", 0), ("north", 1106)]
    assert nearest(connection, -1.3, 36.8, 2) == [("a", 0), ("b", 0)], "of those as far, the first by id"
    assert nearest(connection, -1.29, 36.8, 1) == [("north", 0)]
    assert nearest(connection, -1.3, 36.8, p_within_metres=1000, p_is_actionable=True) == [("a", 0), ("c", 0)]
    assert nearest(connection, -1.3, 36.8, p_cluster=" KASARANI ") == [("a", 0)]
    assert nearest(connection, -1.3, 36.8, p_team="team 2") == [("b", 0)]
    assert nearest(connection, -1.3, 36.8, 0) == nearest(connection, -1.3, 36.8, -1) == []
    assert nearest(connection, 91.0, 36.8) == nearest(connection, None, None) == []


def test_a_reader_may_ask_all_of_it(connection: Connection, database: Database) -> None:
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v'"
    ).fetchall()
    with (
        logged_in(connection, database.url, role_of(connection, "read")) as login,
        psycopg.connect(login.url, autocommit=True) as reader,
    ):
        for row in names:
            reader.execute(f"SELECT * FROM reporting.{row['relname']}".encode())  # noqa: S608
        reader.execute("SELECT reporting.fn_inc_dashboard(), reporting.fn_tickets_for_map(), reporting.inc_map_json()")
        reader.execute("SELECT * FROM reporting.fn_nearest_open(-1.3, 36.8)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("INSERT INTO ingest.closures_noted (ticket_id) VALUES ('x')")


def test_a_snapshot_is_of_its_day_on_both_sides_of_midnight(connection: Connection, apply: Apply) -> None:
    """A reopening before midnight is in the backlog of the day, one after it in that of the next."""
    closing = datetime.fromisoformat("2026-06-24T22:00+03:00")
    apply(ChangeFile("2026-06-24T221000", csv([ticket("1", closed_at=closing.isoformat(), **CLOSED)])))
    connection.execute("SELECT ingest.snapshot_day(%s::timestamptz)", [closing + timedelta(minutes=30)])
    apply(ChangeFile("2026-06-25T000000", csv([ticket("1")])))
    connection.execute("SELECT ingest.snapshot_day(%s::timestamptz)", [closing + timedelta(hours=2)])
    rows = connection.execute(
        "SELECT snapshot_date::text AS day, sum(open_total) AS open, sum(closed_count) AS closed"
        " FROM tickets.inc_daily_snapshot GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [figures(row) for row in rows] == [("2026-06-24", 0, 1), ("2026-06-25", 1, 0)]
