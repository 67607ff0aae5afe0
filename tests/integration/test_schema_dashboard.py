"""reporting.fn_inc_dashboard(): one payload, and the windows it looks through."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
PLACE = {"latitude": "-1.5", "longitude": "36.5"}


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


@pytest.fixture
def as_of(now: datetime) -> datetime:
    """The end of the minute."""
    whole = now.replace(second=0, microsecond=0)
    return whole if whole == now else whole + timedelta(minutes=1)


def put(connection: psycopg.Connection[dict[str, Any]], ticket_id: str, **raw: str | None) -> None:
    connection.execute(
        "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%s, %s)", [ticket_id, Jsonb({"ticket_id": ticket_id} | raw)]
    )


def put_closed(
    connection: psycopg.Connection[dict[str, Any]], ticket_id: str, closed_at: datetime, **raw: str | None
) -> None:
    put(connection, ticket_id, **{"normalized_status": "closed", "closed_at": closed_at.isoformat()} | PLACE | raw)


def dashboard(connection: psycopg.Connection[dict[str, Any]], **filters: str | datetime | None) -> dict[str, Any]:
    given: dict[str, str | datetime | None] = {
        "cluster": None, "status": None, "window": "7d", "from": None, "to": None,
    }  # fmt: skip
    row = connection.execute(
        "SELECT reporting.fn_inc_dashboard(%(cluster)s, %(status)s, %(window)s, %(from)s, %(to)s) AS payload",
        given | filters,
    ).fetchone()
    assert row is not None
    payload: dict[str, Any] = row["payload"]
    return payload


def ids(collection: dict[str, Any]) -> list[str]:
    assert collection["type"] == "FeatureCollection"
    return [feature["properties"]["ticket_id"] for feature in collection["features"]]


def window(connection: psycopg.Connection[dict[str, Any]], name: str, now: str) -> tuple[datetime, datetime]:
    row = connection.execute(
        "SELECT from_at, to_at FROM reporting.fn_inc_window(%s, NULL, NULL, %s)", [name, now]
    ).fetchone()
    assert row is not None
    return row["from_at"].astimezone(UTC), row["to_at"].astimezone(UTC)


def test_every_argument_has_a_default(connection: psycopg.Connection[dict[str, Any]], as_of: datetime) -> None:
    row = connection.execute("SELECT reporting.fn_inc_dashboard() AS payload").fetchone()
    assert row is not None
    filters = row["payload"]["filters"]
    assert (filters["cluster"], filters["status"], filters["window"]) == (None, None, "7d")
    assert datetime.fromisoformat(filters["from"]) == as_of - 168 * HOUR
    assert datetime.fromisoformat(filters["to"]) == as_of


def test_an_empty_database_gives_the_whole_payload_with_nothing_in_it(
    connection: psycopg.Connection[dict[str, Any]], as_of: datetime
) -> None:
    payload = dashboard(connection, window="all")
    nothing = {"type": "FeatureCollection", "features": []}
    assert datetime.fromisoformat(payload.pop("as_of")) == as_of
    assert payload == {
        "sla": {"at_risk_after_minutes": 2160, "breached_after_minutes": 2880},
        "filters": {"cluster": None, "status": None, "window": "all", "from": None, "to": None},
        "open": nothing,
        "closed": nothing,
        "metrics": {
            "open": {
                "total": 0,
                "actionable": 0,
                "with_geom": 0,
                "without_geom": 0,
                "geom_share": None,
                "by_sla_state": {"breached": 0, "at_risk": 0, "within": 0, "unknown": 0},
                "by_age_basis": {"created_at_service": 0, "first_seen_at": 0, "none": 0},
                "by_cluster": {},
                "by_team": {},
            },
            "closed": {
                "total": 0,
                "undated": 0,
                "with_geom": 0,
                "without_geom": 0,
                "geom_share": None,
                "by_sla_status": {},
                "mttr_minutes": {"tickets": 0, "average": None, "median": None, "p90": None},
            },
            "created": {"total": 0, "undated": 0},
        },
        "freshness": {
            "source_max_key": None,
            "snapshot_at": None,
            "imported_at": None,
            "row_count": None,
            "age_minutes": None,
        },
    }


def test_a_ticket_without_a_place_counts_and_is_no_feature(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    put(connection, "open, placed", normalized_status="open", is_actionable="true", **PLACE)
    put(connection, "open, unplaced", normalized_status="open")
    put_closed(connection, "closed, placed", now - HOUR)
    put_closed(connection, "closed, unplaced", now - HOUR, latitude=None)
    payload = dashboard(connection)
    assert (ids(payload["open"]), ids(payload["closed"])) == (["open, placed"], ["closed, placed"])
    for metrics in (payload["metrics"]["open"], payload["metrics"]["closed"]):
        assert (metrics["total"], metrics["with_geom"], metrics["without_geom"]) == (2, 1, 1)
        assert metrics["geom_share"] == 0.5
    assert payload["metrics"]["open"]["actionable"] == 1
    assert payload["open"]["features"][0]["geometry"] == {"type": "Point", "coordinates": [36.5, -1.5]}


def test_what_a_feed_says_reaches_the_map_as_it_is(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    """Who shows it has to escape it: only he knows for what."""
    markup = (
        """<script>alert('1')</script><img src=x onerror="alert(1)"> & \N{RIGHT-TO-LEFT OVERRIDE}\x1b[2J {{7*7}} ${x}"""
    )
    fields = ("raw_status", "bucket", "cluster", "region", "location_name", "assigned_team", "owner")
    said = dict.fromkeys(fields, markup)
    put(connection, f"open {markup}", **said, **PLACE)
    put_closed(connection, f"closed {markup}", now - HOUR, **said)
    row = connection.execute("SELECT reporting.fn_tickets_for_map() AS payload").fetchone()
    assert row is not None
    payload = dashboard(connection)
    for collection, state in ((row["payload"], "open"), (payload["open"], "open"), (payload["closed"], "closed")):
        assert ids(collection) == [f"{state} {markup}"]
        shown = collection["features"][0]["properties"]
        assert {shown[name.removeprefix("assigned_")] for name in fields} == {markup}


def test_the_open_tickets_are_split_by_what_is_derived(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    put(connection, "1", cluster="A", assigned_team="T1", created_at_service=(now - 48 * HOUR).isoformat())
    put(connection, "2", cluster="A", assigned_team="T2", created_at_service=(now - 36 * HOUR).isoformat())
    put(connection, "3", cluster="B", assigned_team="T1", first_seen_at=now.isoformat(), sla_status="Breached")
    put(connection, "4")
    metrics = dashboard(connection, window="24h")["metrics"]
    assert metrics["open"]["by_sla_state"] == {"breached": 1, "at_risk": 1, "within": 1, "unknown": 1}
    assert metrics["open"]["by_age_basis"] == {"created_at_service": 2, "first_seen_at": 1, "none": 1}
    assert metrics["open"]["by_cluster"] == {"A": 2, "B": 1, "(none)": 1}
    assert metrics["open"]["by_team"] == {"T1": 2, "T2": 1, "(none)": 1}
    assert metrics["created"] == {"total": 0, "undated": 2}


def test_the_closed_tickets_bring_their_own_figures(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    for number in range(1, 11):
        put_closed(connection, f"{number:02}", now - HOUR, mttr=str(number * 10), sla_status="Within SLA")
    put_closed(connection, "11", now - HOUR, sla_status="Breached")
    put_closed(connection, "12", now - HOUR)
    put_closed(connection, "long ago", now - 200 * HOUR, mttr="9999", sla_status="Breached")
    put(connection, "undated", normalized_status="closed", mttr="9999", sla_status="Breached")
    closed = dashboard(connection)["metrics"]["closed"]
    assert (closed["total"], closed["undated"]) == (12, 1)
    assert closed["mttr_minutes"] == {"tickets": 10, "average": 55.0, "median": 55.0, "p90": 91.0}
    assert closed["by_sla_status"] == {"Within SLA": 10, "Breached": 1, "(none)": 1}


def test_a_closed_feature_has_what_is_known_of_the_closure(connection: psycopg.Connection[dict[str, Any]]) -> None:
    closed_at = datetime(2026, 6, 25, 21, 30, tzinfo=UTC)
    put_closed(connection, "1", closed_at, mttr="30", sla_status="Within SLA", created_at_service="2026-06-25 10:00")
    connection.execute("SET LOCAL TimeZone = 'America/New_York'")
    (feature,) = dashboard(connection, window="all")["closed"]["features"]
    assert (
        feature["properties"]
        | {
            "closed_at": "2026-06-26T00:30:00+03:00",
            "created_at_service": "2026-06-25T10:00:00+03:00",
            "mttr_minutes": 30,
            "sla_status": "Within SLA",
            "geo_source": "feed",
        }
        == feature["properties"]
    )


@pytest.mark.parametrize("cluster", ["Kasarani", "KASARANI", " kasarani "])
@pytest.mark.parametrize("status", [None, "", "OPEN"])
def test_the_filters_care_for_no_case(
    connection: psycopg.Connection[dict[str, Any]], now: datetime, cluster: str, status: str | None
) -> None:
    put(connection, "1", cluster="Kasarani", normalized_status="Open", **PLACE)
    put(connection, "2", cluster="Pipeline", normalized_status="Open", **PLACE)
    put_closed(connection, "3", now - HOUR, cluster="Kasarani", created_at_service=now.isoformat())
    payload = dashboard(connection, cluster=cluster, status=status)
    assert ids(payload["open"]) == ["1"]
    assert payload["metrics"]["open"]["by_cluster"] == {"Kasarani": 1}
    assert ids(payload["closed"]) == ([] if status else ["3"])
    assert payload["filters"]["cluster"] == cluster.strip()


def test_the_tickets_without_a_cluster_can_be_asked_for(connection: psycopg.Connection[dict[str, Any]]) -> None:
    put(connection, "1", **PLACE)
    put(connection, "2", cluster="A", **PLACE)
    assert ids(dashboard(connection, cluster="(none)")["open"]) == ["1"]


@pytest.mark.parametrize(("name", "hours"), [("24h", 24), ("7d", 168), ("30d", 720), ("90D", 2160), (" 7D ", 168)])
def test_a_rolling_window_has_its_beginning_and_not_its_end(
    connection: psycopg.Connection[dict[str, Any]], as_of: datetime, name: str, hours: int
) -> None:
    put_closed(connection, "before", as_of - hours * HOUR - MICROSECOND)
    put_closed(connection, "first", as_of - hours * HOUR, created_at_service=(as_of - hours * HOUR).isoformat())
    put_closed(connection, "last", as_of - MICROSECOND)
    put_closed(connection, "after", as_of, created_at_service=as_of.isoformat())
    payload = dashboard(connection, window=name)
    assert ids(payload["closed"]) == ["first", "last"]
    assert payload["metrics"]["closed"]["total"] == 2
    assert payload["metrics"]["created"] == {"total": 1, "undated": 1}
    assert payload["filters"]["window"] == name.strip().lower()


def test_all_is_without_bounds(connection: psycopg.Connection[dict[str, Any]], now: datetime) -> None:
    put_closed(connection, "ahead", now + 1000 * HOUR)
    put_closed(connection, "old", datetime(1999, 1, 1, tzinfo=UTC))
    assert ids(dashboard(connection, window="ALL")["closed"]) == ["ahead", "old"]


@pytest.mark.parametrize("zone", ["UTC", "Africa/Nairobi", "Pacific/Auckland"])
def test_today_begins_and_ends_at_midnight_in_east_africa(
    connection: psycopg.Connection[dict[str, Any]], zone: str
) -> None:
    connection.execute("SELECT set_config('TimeZone', %s, true)", [zone])
    day = (datetime(2026, 6, 25, 21, 0, tzinfo=UTC), datetime(2026, 6, 26, 21, 0, tzinfo=UTC))
    before = (day[0] - 24 * HOUR, day[0])
    assert window(connection, "today", "2026-06-26 00:00:00+03") == day
    assert window(connection, "today", "2026-06-25T20:59:59.999999Z") == before
    assert window(connection, "today", "2026-06-26T20:59:59.999999Z") == day
    assert window(connection, "today", "2026-06-26T02:00Z") == day


def test_a_closure_at_midnight_belongs_to_the_new_day(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    midnight = window(connection, "today", now.isoformat())[0]
    put_closed(connection, "yesterday", midnight - MICROSECOND)
    put_closed(connection, "midnight", midnight)
    put_closed(connection, "tonight", midnight + 24 * HOUR - MICROSECOND)
    put_closed(connection, "tomorrow", midnight + 24 * HOUR)
    assert ids(dashboard(connection, window="today")["closed"]) == ["midnight", "tonight"]


def test_a_rolling_window_is_as_long_where_the_clocks_change(
    connection: psycopg.Connection[dict[str, Any]],
) -> None:
    connection.execute("SET LOCAL TimeZone = 'Europe/Berlin'")
    begin, end = window(connection, "7d", "2026-03-31T12:00Z")
    assert end - begin == 168 * HOUR


def test_given_bounds_go_before_the_name(connection: psycopg.Connection[dict[str, Any]]) -> None:
    noon = datetime(2026, 6, 25, 12, 0, tzinfo=UTC)
    put_closed(connection, "a", noon - MICROSECOND)
    put_closed(connection, "b", noon)
    put_closed(connection, "c", noon + HOUR)
    between = {"from": noon, "to": noon + HOUR}
    assert ids(dashboard(connection, **between)["closed"]) == ["b"]
    assert ids(dashboard(connection, window="custom", **between)["closed"]) == ["b"]
    assert ids(dashboard(connection, **{"from": noon})["closed"]) == ["b", "c"]
    assert ids(dashboard(connection, to=noon)["closed"]) == ["a"]
    assert ids(dashboard(connection, **{"from": noon, "to": noon})["closed"]) == []
    assert dashboard(connection, **between)["filters"] == {
        "cluster": None,
        "status": None,
        "window": "custom",
        "from": "2026-06-25T15:00:00+03:00",
        "to": "2026-06-25T16:00:00+03:00",
    }


@pytest.mark.parametrize("name", ["yesterday", "", "7", "1d"])
def test_an_unknown_window_is_refused_with_the_known_ones(
    connection: psycopg.Connection[dict[str, Any]], name: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        dashboard(connection, window=name)
    assert f"'{name}'" in str(refused.value)
    for known in ("today", "24h", "7d", "30d", "90d", "all", "custom"):
        assert known in str(refused.value)


def test_a_window_that_ends_before_it_begins_is_refused(
    connection: psycopg.Connection[dict[str, Any]], now: datetime
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="begins after its end"):
        dashboard(connection, **{"from": now, "to": now - MICROSECOND})


def test_custom_without_bounds_is_refused(connection: psycopg.Connection[dict[str, Any]]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs from, to or both"):
        dashboard(connection, window="custom")


def test_no_window_means_the_usual_one(connection: psycopg.Connection[dict[str, Any]]) -> None:
    assert dashboard(connection, window=None)["filters"]["window"] == "7d"


def test_the_undated_are_those_of_the_answer(connection: psycopg.Connection[dict[str, Any]], now: datetime) -> None:
    """Nobody knows in which window one was created: it is told with those that are open, or closed in the window."""
    put(connection, "open")
    put(connection, "open, dated", created_at_service=now.isoformat())
    put_closed(connection, "closed", now - HOUR)
    put_closed(connection, "long ago", now - 200 * HOUR)
    put(connection, "closed on no day", normalized_status="Closed")
    created = {name: dashboard(connection, window=name)["metrics"]["created"] for name in ("7d", "all")}
    assert created == {"7d": {"total": 1, "undated": 2}, "all": {"total": 1, "undated": 3}}
    assert dashboard(connection)["metrics"]["closed"]["undated"] == 1


def test_the_age_counts_from_an_instant_that_does_not_move(
    connection: psycopg.Connection[dict[str, Any]], as_of: datetime
) -> None:
    put(connection, "1", created_at_service="2026-06-25 10:00", first_seen_at="2026-06-26 10:00", **PLACE)
    put(connection, "2", first_seen_at=(as_of - 40 * HOUR).isoformat(), **PLACE)
    put(connection, "3", **PLACE)
    payload = dashboard(connection)
    first, second, third = (feature["properties"] for feature in payload["open"]["features"])
    assert (first["age_since"], first["age_basis"]) == ("2026-06-25T10:00:00+03:00", "created_at_service")
    assert (second["age_basis"], second["age_minutes"], second["sla_state"]) == ("first_seen_at", 2400, "at_risk")
    assert (third["age_since"], third["age_basis"], third["age_minutes"]) == (None, None, None)
    age = datetime.fromisoformat(payload["as_of"]) - datetime.fromisoformat(second["age_since"])
    assert age >= timedelta(minutes=payload["sla"]["at_risk_after_minutes"])
