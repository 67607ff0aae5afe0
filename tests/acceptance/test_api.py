"""The read API: a real process over real tickets, as a map and a script would ask it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.doubles.proxy import Proxy
from tests.doubles.receiver import free_port
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until

TOKEN, OTHER = "a-token-of-the-map", "another-token-of-it"
FIRST, SECOND, THIRD = (key_at(minutes) for minutes in (10, 20, 30))
MARKUP = "<script>alert('1')</script>"


class Api:
    """A process that serves, and a client of it."""

    def __init__(self, url: str, token: str | None = TOKEN) -> None:
        self.url = url
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=30)


@contextmanager
def served(stage: Stage, **environment: str) -> Iterator[Api]:
    port = free_port()
    process = stage.start("serve", "--port", str(port), **environment)
    wait_until(lambda: not process.running or "listening" in process.output(), "the API listens")
    assert process.running, process.output()
    try:
        yield Api(f"http://127.0.0.1:{port}", None if environment.get("FLEETTICKETS_API_TOKENS") == "" else TOKEN)
    finally:
        process.stop()


def apply(stage: Stage, key: str, rows: list[dict[str, str]]) -> None:
    stage.bucket.put(key, csv(rows))
    assert stage.run("drain", "--apply").returncode == 0


@pytest.fixture(scope="module")
def tickets(shared_stage: Stage) -> Stage:
    placed = {"cluster": "Westlands", "latitude": "-1.2676", "longitude": "36.8108"}
    apply(shared_stage, FIRST, [
        ticket("INC1", owner=MARKUP, **placed), ticket("INC2", cluster="Karen"),
        ticket("INC3", closed_at="2026-06-01 09:00", normalized_status="closed", **placed), ticket("INC4", mttr="soon"),
    ])  # fmt: skip
    return shared_stage


@pytest.fixture(scope="module")
def api(tickets: Stage) -> Iterator[Api]:
    tokens = f"{OTHER},{TOKEN}"
    with served(tickets, FLEETTICKETS_API_TOKENS=tokens, FLEETTICKETS_API_ORIGINS="https://map.example") as api:
        yield api


def problem(answer: requests.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == answer.status_code
    assert told["title"]
    return answer.status_code, told["detail"]


def test_the_map_is_geojson_of_the_open_tickets(api: Api) -> None:
    answer = api.get("/api/inc/map")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/geo+json")
    told = answer.json()
    assert [feature["id"] for feature in told["features"]] == ["INC1"]
    assert told["features"][0]["geometry"] == {"type": "Point", "coordinates": [36.8108, -1.2676]}
    assert told["summary"]["open_without_geom"] == 1


def test_the_dashboard_is_filtered(api: Api) -> None:
    everything = api.get("/api/inc/dashboard?window=all").json()
    assert [feature["id"] for feature in everything["closed"]["features"]] == ["INC3"]
    karen = api.get("/api/inc/dashboard?window=all&cluster=karen").json()
    assert karen["metrics"]["open"]["total"] == 1
    assert karen["closed"]["features"] == []
    of_may = api.get("/api/inc/dashboard?from=2026-05-01T00:00:00%2B03:00&to=2026-06-01T00:00:00%2B03:00").json()
    assert of_may["filters"]["window"] == "custom"
    assert of_may["closed"]["features"] == []


def test_the_nearest_open_tickets_are_told_by_metres(api: Api) -> None:
    (nearest,) = api.get("/api/inc/nearest?lat=-1.27&lon=36.81").json()
    assert (nearest["ticket_id"], 200 < nearest["distance_metres"] < 400) == ("INC1", True)
    assert api.get("/api/inc/nearest?lat=-1.27&lon=36.81&within=100").json() == []
    assert api.get("/api/inc/nearest?lat=-1.27&lon=36.81&cluster=karen&limit=1").json() == []
    status, detail = problem(api.get("/api/inc/nearest?lat=91"))
    assert status == 400
    assert "lat is '91': Input should be less than or equal to 90" in detail
    assert "lon" in detail


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("window=year", "window is 'year': Input should be 'today', '24h', '7d', '30d', '90d', 'all' or 'custom'"),
        ("window=custom", "the window custom needs from, to or both"),
        ("from=2026-06-02T00:00Z&to=2026-06-01T00:00Z", "from is later than to"),
        ("from=2026", "from is '2026': Value error, a time is as in 2026-06-25T00:00:00+03:00"),
        ("from=2026-06-02T00:00", "from is '2026-06-02T00:00': Input should have timezone info"),
        ("claster=Karen", "claster: there is no such parameter"),
        ("cluster=" + "x" * 401, "String should have at most 400 characters"),
        ("cluster=%00", "String should match pattern"),
    ],
)
def test_a_filter_that_cannot_be_says_what_can(api: Api, query: str, told: str) -> None:
    status, detail = problem(api.get(f"/api/inc/dashboard?{query}"))
    assert status == 400
    assert told in detail


def test_a_ticket_is_told_with_the_line_that_it_is_from(api: Api) -> None:
    told = api.get("/api/inc/tickets/INC1").json()
    assert told["values"]["cluster"] == told["values"]["raw"]["cluster"] == "Westlands"
    assert told["geometry"] == {"type": "Point", "coordinates": [36.8108, -1.2676]}
    assert (told["writer"]["key"], told["writer"]["line"]) == (FIRST, 2)
    assert (told["writer"]["first_seen_by"], told["writer"]["event_time"]) == ("drain", None)
    rejected = api.get("/api/inc/tickets/INC4").json()
    assert (rejected["values"], rejected["rejects"][0]["line"]) == (None, 5)


def test_a_ticket_has_its_history_where_that_is_asked_for(api: Api) -> None:
    assert api.get("/api/inc/tickets/INC2").json()["history"] is None
    history = api.get("/api/inc/tickets/INC2?history=true").json()["history"]
    assert (history["is_kept"], history["since"]) == (True, None)
    assert [(change["key"], change["line"], change["is_first"]) for change in history["changes"]] == [(FIRST, 3, True)]
    assert {"column": "cluster", "old": None, "new": "Karen"} in history["changes"][0]["values"]
    assert history["changes"][0]["first_seen_by"] == "drain"


def test_the_open_tickets_of_an_instant(tickets: Stage, api: Api) -> None:
    found = api.get("/api/inc/as-of?at=2099-01-01T00:00:00Z")
    assert found.headers["Content-Type"] == "application/geo+json"
    features = {feature["id"]: feature for feature in found.json()["features"]}
    assert features["INC1"]["geometry"] == {"type": "Point", "coordinates": [36.8108, -1.2676]}
    assert features["INC2"]["properties"]["cluster"] == "Karen"
    assert "INC3" not in features
    assert api.get("/api/inc/as-of?at=2020-01-01T00:00:00Z").json()["features"] == []
    assert "no history of crq is kept" in problem(api.get("/api/crq/as-of?at=2020-01-01T00:00:00Z"))[1]
    apply(tickets, key_at(10).replace("/inc/", "/crq/"), [ticket("CRQ1"), ticket("CRQ2", normalized_status="closed")])
    found = api.get("/api/crq/as-of?at=2099-01-01T00:00:00Z").json()
    assert [feature["id"] for feature in found["features"]] == ["CRQ1"]
    tickets.connection.execute("UPDATE ingest.histories SET since = '2021-01-01Z' WHERE feed = 'inc'")
    status, detail = problem(api.get("/api/inc/as-of?at=2020-02-02T00:00:00Z"))
    tickets.connection.execute("UPDATE ingest.histories SET since = '-infinity' WHERE feed = 'inc'")
    assert status == 400
    assert "the history of inc is whole from 2021-01-01" in detail
    assert "rebuild-history" in detail


@pytest.mark.parametrize("path", ["inc/tickets/INC9", "none/tickets/INC1", "none/freshness", "crq/map", "x"])
def test_what_is_not_there_is_404(api: Api, path: str) -> None:
    assert problem(api.get(f"/api/{path}"))[0] == 404


def test_who_asks_for_a_path_that_is_none_is_told_where_they_stand(api: Api) -> None:
    for path in ("/", "/api/inc/history", "/collections"):
        status, detail = problem(api.get(path))
        assert (status, "/openapi.json" in detail, path in detail) == (404, True, True)
    assert problem(api.get("/api/inc/changes")) == (400, "since is missing")


def test_an_answer_stands_until_the_data_change(tickets: Stage, api: Api) -> None:
    def ask(tag: str = "") -> requests.Response:
        return api.get("/api/inc/freshness", **({"If-None-Match": tag} if tag else {}))

    def known(tag: str) -> bool:
        # A minute may begin in between, and then it is asked once more.
        return ask(tag).status_code == 304 or ask(ask().headers["ETag"]).status_code == 304

    def of_ticket() -> tuple[str, str]:
        answer = api.get("/api/inc/tickets/INC1")
        return answer.headers["ETag"], answer.headers["Data-Version"]

    tag, (of_one, version) = ask().headers["ETag"], of_ticket()
    assert known(tag)
    assert ask("*").content == b""
    assert api.get("/api/inc/tickets/INC1", **{"If-None-Match": of_one}).status_code in (200, 304)
    apply(tickets, SECOND, [ticket("INC1", owner="somebody else")])
    again = ask(tag)
    assert again.status_code == 200
    assert again.json()["source_max_key"] == SECOND
    assert (of_ticket()[0] != of_one, int(of_ticket()[1]) > int(version)) == (True, True)
    assert known(again.headers["ETag"])


def test_another_process_gives_the_same_tag(tickets: Stage, api: Api) -> None:
    with served(tickets, FLEETTICKETS_API_TOKENS=TOKEN) as other:
        wait_until(
            lambda: api.get("/api/inc/map").headers["ETag"] == other.get("/api/inc/map").headers["ETag"], "one tag"
        )


@pytest.mark.parametrize(
    ("taken", "packed"), [("gzip", True), ("br, gzip;q=0.5", True), ("identity", False), ("br, gzip;q=0", False)]
)
def test_an_answer_is_packed_for_who_takes_that(api: Api, taken: str, packed: bool) -> None:
    answer = api.get("/api/inc/map", **{"Accept-Encoding": taken})
    assert answer.headers.get("Content-Encoding") == ("gzip" if packed else None)
    assert answer.json()["type"] == "FeatureCollection"


def test_a_connection_is_kept_for_the_next_question(api: Api) -> None:
    tag = api.get("/api/inc/map").headers["ETag"]
    assert "close" not in api.get("/api/inc/map", **{"If-None-Match": tag}).headers.get("Connection", "")


def test_the_head_of_an_answer_can_be_had_alone(api: Api) -> None:
    answer = api.session.head(f"{api.url}/api/inc/map", timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["ETag"]
    assert requests.head(f"{api.url}/readyz", timeout=30).status_code == 200


def test_nobody_reads_without_a_token(api: Api) -> None:
    for header in ("", "Bearer wrong-token-of-it", TOKEN, f"Basic {TOKEN}", "Bearer \xff"):
        answer = requests.get(f"{api.url}/api/inc/map", headers={"Authorization": header.encode("latin-1")}, timeout=30)
        status, detail = problem(answer)
        assert (status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "FLEETTICKETS_API_TOKENS" in detail
    assert Api(api.url, OTHER).get("/api/inc/map").status_code == 200
    assert requests.get(f"{api.url}/readyz", timeout=30).text == "ok\n"


def test_it_describes_itself_as_it_answers(api: Api) -> None:
    paths = requests.get(f"{api.url}/openapi.json", timeout=30).json()["paths"]
    for path, query in (
        ("/api/{feed}/dashboard", ""), ("/api/{feed}/map", ""), ("/api/{feed}/nearest", "?lat=0&lon=37"),
        ("/api/{feed}/as-of", "?at=2099-01-01T00:00:00Z"), ("/api/{feed}/freshness", ""),
        ("/api/{feed}/tickets/INC1", ""), ("/api/{feed}/changes", "?since=0"), ("/api/{feed}/history/who_closed", ""),
        ("/ogc/collections", ""), ("/ogc/collections/inc-open/items", ""),
    ):  # fmt: skip
        described = paths[path.replace("INC1", "{ticket_id}").replace("who_closed", "{series}").replace(
            "inc-open", "{name}")]["get"]["responses"]  # fmt: skip
        for asked, status in ((query, "200"), ("?nothing=1", "400")):
            answer = api.get(path.replace("{feed}", "inc") + asked)
            assert str(answer.status_code) == status, answer.text
            assert list(described[status]["content"]) == [answer.headers["Content-Type"]]
        assert "422" not in described, "which is how the library would tell of what is 400 here"


def test_without_tokens_only_this_machine_is_answered(tickets: Stage) -> None:
    ended = tickets.run("serve", "--host", "0.0.0.0", "--port", str(free_port()))  # noqa: S104 - it is refused
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "FLEETTICKETS_API_TOKENS" in ended.stderr
    with served(tickets, FLEETTICKETS_API_TOKENS="") as api:
        assert api.get("/api/inc/map").status_code == 200
        # A page whose name leads here is another origin to nobody but us.
        for host in ("page.example:8090", "page.example", ""):
            assert api.get("/api/inc/map", Host=host).status_code == 400
        for host in ("[::1]:8090", "localhost", "127.0.0.1:1"):
            assert api.get("/api/inc/map", Host=host).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLEETTICKETS_API_TOKENS", "short"),
        ("FLEETTICKETS_API_ORIGINS", "*"),
        ("FLEETTICKETS_API_CONNECTIONS", "0"),
        ("DATABASE_URL", ""),
    ],
)
def test_a_setting_that_cannot_be_is_said_in_one_line(tickets: Stage, name: str, value: str) -> None:
    ended = tickets.run("serve", "--port", str(free_port()), **{name: value})
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert name in ended.stderr
    assert "short" not in ended.stderr


def test_a_page_of_another_origin_reads_where_it_may(api: Api) -> None:
    for origin, allowed in (("https://map.example", "https://map.example"), ("https://elsewhere.example", None)):
        answer = api.get("/api/inc/map", Origin=origin)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_a_value_of_the_feed_is_data_and_no_page(tickets: Stage, api: Api) -> None:
    apply(tickets, THIRD, [ticket("INC1", owner=MARKUP, latitude="-1.2676", longitude="36.8108")])
    answer = api.get("/api/inc/map")
    assert json.loads(answer.text)["features"][0]["properties"]["owner"] == MARKUP
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert problem(api.get(f"/api/inc/tickets/{MARKUP}"))[0] == 404


def test_it_reads_and_does_nothing_else(tickets: Stage, api: Api) -> None:
    api.get("/api/inc/map")
    found = tickets.query(
        "SELECT usename, application_name FROM pg_stat_activity WHERE application_name = 'fleettickets api'"
        " AND datname = current_database()"
    )
    assert 1 <= len(found) <= 7
    for method in ("POST", "PUT", "DELETE"):
        answer = api.session.request(method, f"{api.url}/api/inc/map", timeout=30)
        assert problem(answer)[0] == 405


def test_a_database_that_lacks_a_migration_is_said_at_once(tickets: Stage) -> None:
    bare = tickets.environment["DATABASE_URL"].rpartition("/")[0] + "/template1"
    ended = tickets.run("serve", "--port", str(free_port()), DATABASE_URL=bare)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("run: fleettickets migrate"), ended.stderr


def test_a_look_that_takes_too_long_is_ended(tickets: Stage) -> None:
    with served(tickets, FLEETTICKETS_API_TOKENS=TOKEN, FLEETTICKETS_API_SECONDS="0.2") as api:
        with tickets.connection.transaction():
            tickets.connection.execute("LOCK TABLE tickets.inc")
            status, detail = problem(api.get("/api/inc/map"))
        assert (status, "statement timeout" in detail) == (503, True)
        assert api.get("/api/inc/map").status_code == 200


def test_a_database_that_is_away_is_said_and_met_again(tickets: Stage) -> None:
    with (
        Proxy(tickets.environment["DATABASE_URL"]) as proxy,
        served(tickets, FLEETTICKETS_API_TOKENS=TOKEN, DATABASE_URL=proxy.url) as api,
    ):
        assert api.get("/api/inc/map").status_code == 200
        proxy.refuse()
        wait_until(lambda: api.get("/api/inc/map").status_code != 200, "the answer of a moment ago stands no more")
        answer = api.get("/api/inc/map")
        status, detail = problem(answer)
        assert (status, answer.headers["Retry-After"]) == (503, "5")
        assert "database" in detail
        health = requests.get(f"{api.url}/readyz", timeout=30)
        assert (health.status_code, "127.0.0.1" in health.text) == (503, False)
        proxy.restore()
        wait_until(lambda: api.get("/api/inc/map").status_code == 200, "the database is there again")
