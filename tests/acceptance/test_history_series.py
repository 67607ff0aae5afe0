"""The series of the past over HTTP: what the views say, gaps and all, for the filters that each has."""

from collections.abc import Iterator

import pytest

from consumer.api.history import SERIES
from tests.acceptance.test_api import TOKEN, Api, apply, problem, served
from tests.stage.feeds import ticket
from tests.stage.stage import Stage
from tests.stage.store import CHANGES

CLOSED = {"normalized_status": "closed", "mttr": "90", "sla_status": "met"}


def key(day: str) -> str:
    return f"{CHANGES}{day}T120000.csv"


@pytest.fixture(scope="module")
def past(shared_stage: Stage) -> Stage:
    """Three tickets, of which two were closed in one week and one in the week after the next."""
    apply(shared_stage, key("2026-06-01"), [ticket("INC1"), ticket("INC2", cluster="Karen"), ticket("INC3")])
    shared_stage.query("SELECT ingest.snapshot_day('2026-06-01T10:00:00Z')")
    apply(shared_stage, key("2026-06-03"), [
        ticket("INC1", closed_at="2026-06-02 23:30", assigned_team="Team 1", **CLOSED),
        ticket("INC2", closed_at="2026-06-03 00:30", cluster="Karen", assigned_team="Team 2", **CLOSED),
    ])  # fmt: skip
    shared_stage.query("SELECT ingest.snapshot_day('2026-06-03T10:00:00Z')")
    apply(shared_stage, key("2026-06-16"), [ticket("INC3", closed_at="2026-06-16 09:00", **CLOSED)])
    return shared_stage


@pytest.fixture(scope="module")
def api(past: Stage) -> Iterator[Api]:
    with served(past, FLEETTICKETS_API_TOKENS=TOKEN) as api:
        yield api


def test_each_series_is_its_view(past: Stage, api: Api) -> None:
    views = past.query(
        "SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v'"
        " AND relname NOT IN ('inc_open', 'days', 'weeks')"
    )
    assert {view["relname"] for view in views} == set(SERIES)
    for name in SERIES:
        answer = api.get(f"/api/inc/history/{name}")
        assert answer.headers["Content-Type"] == "application/json"
        told = answer.json()
        assert told["series"] == name
        assert len(told["rows"]) == past.one(f"SELECT count(*) FROM reporting.{name}")  # noqa: S608
        columns = past.query(
            "SELECT attname FROM pg_attribute WHERE attrelid = ('reporting.' || %s)::regclass AND attnum > 0", name
        )
        assert set(told["rows"][0]) == {column["attname"] for column in columns}


def test_a_gap_is_a_gap_and_no_zero(api: Api) -> None:
    backlog = api.get("/api/inc/history/backlog_by_day?from=2026-06-01&to=2026-06-04").json()["rows"]
    assert [(row["day"], row["is_gap"], row["open_total"]) for row in backlog] == [
        ("2026-06-01", False, 3), ("2026-06-02", True, None), ("2026-06-03", False, 1),
    ]  # fmt: skip
    weeks = api.get("/api/inc/history/created_and_closed_by_week?from=2026-06-01&to=2026-06-22").json()["rows"]
    assert [(row["week"], row["is_gap"], row["closed"]) for row in weeks] == [
        ("2026-06-01", False, 2), ("2026-06-08", True, None), ("2026-06-15", False, 1),
    ]  # fmt: skip


def test_a_series_is_filtered_by_what_it_has(api: Api) -> None:
    karen = api.get("/api/inc/history/mttr_and_sla_by_cluster?cluster=KAREN&from=2026-06-01&to=2026-06-15").json()
    assert [(row["week"], row["cluster"], row["closures"]) for row in karen["rows"]] == [
        ("2026-06-01", "Karen", 1), ("2026-06-08", None, None),
    ]  # fmt: skip
    team = api.get("/api/inc/history/mttr_and_sla_by_team?team=team%202&to=2026-06-08&from=2026-06-01").json()["rows"]
    assert [(row["team"], row["mttr_median"]) for row in team] == [("Team 2", 90.0)]
    day = api.get("/api/inc/history/who_closed?from=2026-06-03&to=2026-06-04").json()["rows"]
    assert [(row["ticket_id"], row["closed_at"]) for row in day] == [("INC2", "2026-06-03T00:30:00+03:00")]
    assert api.get("/api/inc/history/who_closed?team=(none)").json()["rows"][0]["ticket_id"] == "INC3"


def test_closures_come_page_by_page(api: Api) -> None:
    seen, after = [], ""
    while True:
        told = api.get(f"/api/inc/history/who_closed?limit=1{after}").json()
        seen += [row["ticket_id"] for row in told["rows"]]
        if told["next"] is None:
            break
        after = "&after=" + told["next"].replace("+", "%2B")
    assert seen == ["INC1", "INC2", "INC3"]


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("inc/history/none", 404, "there are backlog_by_day, "),
        ("crq/history/who_closed", 404, "crq has no history"),
        ("inc/history/backlog_by_day?cluster=Karen", 400, "cluster: backlog_by_day has from, to"),
        ("inc/history/backlog_by_day?limit=1", 400, "limit: backlog_by_day has from, to"),
        ("inc/history/who_closed?from=2026-06-02&to=2026-06-01", 400, "from is later than to"),
        ("inc/history/who_closed?from=yesterday", 400, "from is 'yesterday'"),
        ("inc/history/who_closed?from=0", 400, "a day is as in 2026-06-25"),
        ("inc/history/who_closed?to=1782345600", 400, "a day is as in 2026-06-25"),
        ("inc/history/who_closed?after=INC1", 400, "is not from `next` of a page"),
        ("inc/history/who_closed?limit=10001", 400, "less than or equal to 10000"),
        ("inc/history/who_closed?owner=x", 400, "there is no such parameter"),
    ],
)
def test_what_cannot_be_asked_says_what_can(api: Api, path: str, status: int, told: str) -> None:
    found, detail = problem(api.get(f"/api/{path}"))
    assert (found, told in detail) == (status, True), detail
