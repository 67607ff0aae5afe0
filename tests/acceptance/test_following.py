"""Whoever follows the data has every change once, whatever else happens: real processes, as a map would follow them."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from tests.acceptance.test_api import TOKEN, Api, apply, problem, served
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.following import LiveClient
from tests.stage.stage import Stage, wait_until

ODD = 'two\nlines\r\nand\u2028more\r\ndata: {"type": "x"}\n\nid: inc:999\n<script>'


@pytest.fixture
def api(stage: Stage) -> Iterator[Api]:
    with served(stage, FLEETTICKETS_API_TOKENS=TOKEN, FLEETTICKETS_API_RATE="1000") as api:
        yield api


def follower(api: Api, query: str = "", takes: str = "gzip") -> LiveClient:
    client = LiveClient(api.url, TOKEN, query, takes=takes).start()
    wait_until(lambda: client.seen, "it follows")
    return client


def version(stage: Stage) -> int:
    return int(stage.one("SELECT coalesce(max(data_version), 0) FROM tickets.import_meta WHERE source = 'inc'"))


def test_a_map_goes_on_from_its_version(stage: Stage, api: Api) -> None:
    placed = {"latitude": "-1.2676", "longitude": "36.8108"}
    apply(stage, key_at(1), [ticket("INC1", **placed), ticket("INC2", **placed)])
    loaded = api.get("/api/inc/map")
    assert loaded.headers["Data-Version"] == str(version(stage))
    since = int(loaded.headers["Data-Version"])
    nothing = api.get(f"/api/inc/changes?since={since}").json()
    assert (nothing["features"], nothing["next"], nothing["version"]) == ([], since, since)
    apply(stage, key_at(2), [ticket("INC2", owner="somebody", **placed), ticket("INC3")])
    answer = api.get(f"/api/inc/changes?since={since}")
    assert answer.headers["Content-Type"] == "application/geo+json"
    changed = answer.json()
    assert [feature["id"] for feature in changed["features"]] == ["INC2", "INC3"]
    first, second = changed["features"]
    assert first["geometry"] == {"type": "Point", "coordinates": [36.8108, -1.2676]}
    assert (first["properties"]["owner"], second["geometry"]) == ("somebody", None)
    assert (changed["since"], changed["next"]) == (since, version(stage))
    for path in ("dashboard", "freshness", "nearest?lat=-1.27&lon=36.81", "history/who_closed"):
        assert api.get(f"/api/inc/{path}").headers["Data-Version"] == str(version(stage))


def test_what_has_not_changed_is_304_also_on_the_pages_of_the_standard(stage: Stage, api: Api) -> None:
    apply(stage, key_at(1), [ticket("INC1")])

    def known(path: str) -> bool:
        answer = api.get(path)
        again = api.get(path, **{"If-None-Match": answer.headers["ETag"]})
        return (again.status_code, again.content, again.headers["Data-Version"]) == (
            304, b"", answer.headers["Data-Version"],
        )  # fmt: skip

    paths = (
        "/ogc/collections/inc-open/items?limit=1", "/ogc/collections/inc-open/items/INC1",
        "/api/inc/changes?since=0", "/api/inc/history/backlog_by_day",
    )  # fmt: skip
    for path in paths:
        assert known(path) or known(path), f"{path}, also in the next minute"
    tags = {api.get(path).headers["ETag"] for path in paths} | {api.get(paths[0], Host="map.example").headers["ETag"]}
    assert len(tags) == 5, "the links of a page are those of the host that was asked"
    before = api.get(paths[2]).headers["ETag"]
    apply(stage, key_at(2), [ticket("INC2")])
    assert api.get(paths[2], **{"If-None-Match": before}).status_code == 200


def test_what_cannot_be_followed_any_more_is_410(stage: Stage, api: Api) -> None:
    for minutes in (1, 2):
        apply(stage, key_at(minutes), [ticket(f"INC{minutes}")])
    stage.connection.execute("DELETE FROM ingest.changes WHERE data_version = 1")
    for path in (
        "/api/inc/changes?since=0", "/api/inc/changes?since=9", "/api/events?since=inc:0", "/api/events?since=inc:9",
    ):  # fmt: skip
        status, detail = problem(api.get(path))
        assert status == 410
        assert "load the map or the dashboard anew" in detail
    assert problem(api.get("/api/events", **{"Last-Event-ID": "inc:0"}))[0] == 410
    for path, word in (("inc/changes", "since"), ("inc/changes?since=-1", "since"), ("events?since=inc", "since")):
        status, detail = problem(api.get(f"/api/{path}"))
        assert (status, word in detail) == (400, True)
    assert problem(api.get("/api/events", **{"Last-Event-ID": "x"}))[0] == 400
    for path in ("none/changes?since=0", "events?feed=none", "events?since=none:1"):
        assert problem(api.get(f"/api/{path}"))[0] == 404


@pytest.mark.parametrize("takes", ["gzip", "identity"])
def test_changes_come_as_events_to_whom_they_concern(stage: Stage, api: Api, takes: str) -> None:
    all_feeds, of_crq = follower(api, takes=takes), follower(api, "?feed=crq", takes)
    assert [each.answer.headers.get("Content-Encoding", "identity") for each in (all_feeds, of_crq)] == [takes] * 2
    assert (all_feeds.id, of_crq.id) == ("crq:0,inc:0", "crq:0")
    apply(stage, key_at(1), [ticket("INC1", owner=ODD)])
    apply(stage, key_at(2).replace("/inc/", "/crq/"), [ticket("CRQ1")])
    wait_until(lambda: all_feeds.ids() == ["INC1"] and all_feeds.ids("crq") == ["CRQ1"], "both feeds")
    wait_until(lambda: of_crq.ids("crq") == ["CRQ1"], "one feed")
    assert of_crq.ids() == []
    assert all_feeds.id == "crq:1,inc:1"
    (event,) = (event for event in all_feeds.seen if event.told.get("feed") == "inc")
    assert event.told["features"][0]["properties"]["owner"] == ODD.strip()
    assert all_feeds.answer.headers["Content-Type"].startswith("text/event-stream")
    assert all_feeds.answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.promise("Nothing lost")
def test_who_was_away_goes_on_behind_the_last_event(stage: Stage, api: Api) -> None:
    client = follower(api)
    apply(stage, key_at(1), [ticket("INC1")])
    wait_until(lambda: client.ids() == ["INC1"], "the first one")
    client.close()
    apply(stage, key_at(2), [ticket("INC2")])
    apply(stage, key_at(3), [ticket(f"INC{number}") for number in range(3, 1203)])
    back = LiveClient(api.url, TOKEN, id=client.id, seen=client.seen).start()
    wait_until(lambda: len(back.ids()) == 1202, "what came meanwhile")
    assert len(set(back.ids())) == 1202
    assert back.is_whole()
    assert max(len(page["features"]) for page in back.pages) <= 500, "a large file is several events"
    assert json.loads(api.get("/api/inc/changes?since=0&limit=10000").text)["next"] == version(stage)


@pytest.mark.promise("Exactly once")
def test_consumers_that_are_killed_amid_commits_leave_no_gap_and_tell_nothing_twice(stage: Stage, api: Api) -> None:
    client = follower(api)
    keys = [key_at(minutes) for minutes in range(1, 61)]
    for number, key in enumerate(keys):
        stage.bucket.put(key, csv([ticket(f"INC{number}"), ticket("INC-SHARED", owner=f"owner {number}")]))
    stage.announce(*keys)
    applied = "SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL"
    for share in (10, 20, 30, 40):
        consumer = stage.start("consume", "--queue", "files")
        wait_until(lambda share=share: stage.one(applied) >= share, f"{share} files")  # type: ignore[misc]
        consumer.kill()
    consumer = stage.start("consume", "--queue", "files")
    stage.wait_for("done", *keys)
    wait_until(lambda: client.pages[-1]["next"] == version(stage), "the last one")
    consumer.stop()
    assert client.is_whole()
    ids = [name for name in client.ids() if name != "INC-SHARED"]
    assert (len(ids), len(set(ids))) == (60, 60)
    latest = [
        feature["properties"]["owner"] for page in client.pages for feature in page["features"]
        if feature["id"] == "INC-SHARED"
    ]  # fmt: skip
    assert latest[-1] == "owner 59"


def test_who_reads_nothing_is_ended_and_holds_up_nobody(stage: Stage, api: Api) -> None:
    where = urlsplit(api.url)
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect((where.hostname, where.port))
        idle.sendall(f"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        client = follower(api)
        for minutes in range(1, 13):
            apply(stage, key_at(minutes), [ticket(f"INC{n}", owner=f"{minutes:02}" * 450) for n in range(500)])
        wait_until(lambda: client.pages and client.pages[-1]["next"] == version(stage), "the other one")
        process = stage.processes[0]
        wait_until(lambda: "its answer was not read" in process.output(), "it is ended", timeout=120)
        told = requests.get(f"{api.url}/metrics", timeout=30).text
        assert 'fleettickets_api_ended_total{reason="slow"} 1.0' in told
        wait_until(
            lambda: "fleettickets_api_followers 1.0" in requests.get(f"{api.url}/metrics", timeout=30).text,
            "one is left",
        )
    assert len(client.ids()) >= 500
    assert client.is_whole()


def test_the_end_of_the_server_ends_the_events(stage: Stage) -> None:
    with served(stage, FLEETTICKETS_API_TOKENS=TOKEN) as api:
        client = follower(api)
    wait_until(lambda: client.ended, "it is ended")


def test_all_connections_at_work_is_said_soon_and_health_still_answers(stage: Stage) -> None:
    apply(stage, key_at(1), [ticket("INC1")])
    with (
        served(stage, FLEETTICKETS_API_TOKENS=TOKEN, FLEETTICKETS_API_CONNECTIONS="1") as api,
        ThreadPoolExecutor(1) as threads,
    ):
        client = follower(api)
        with stage.connection.transaction():
            stage.connection.execute("LOCK TABLE tickets.inc")
            waiting = threads.submit(lambda: api.get("/api/inc/map").status_code)
            wait_until(
                lambda: stage.one("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, "the connection is at work"
            )
            answer = api.get("/api/inc/dashboard")
            status, detail = problem(answer)
            assert (status, answer.headers["Retry-After"]) == (503, "2")
            assert "FLEETTICKETS_API_CONNECTIONS" in detail
            assert requests.get(f"{api.url}/readyz", timeout=30).text == "ok\n"
        assert waiting.result(60) == 200
        assert api.get("/api/inc/dashboard").status_code == 200
        apply(stage, key_at(2), [ticket("INC2")])
        wait_until(lambda: client.ids() == ["INC2"], "who follows has a connection for all of them")


def test_one_who_asks_too_often_is_told_so(stage: Stage) -> None:
    with served(stage, FLEETTICKETS_API_TOKENS=f"{TOKEN},another-token-of-it", FLEETTICKETS_API_RATE="0.01") as api:
        assert api.get("/api/inc/freshness").status_code == 200
        answer = api.get("/api/inc/freshness")
        status, detail = problem(answer)
        assert (status, answer.headers["Retry-After"]) == (429, "1")
        assert "FLEETTICKETS_API_RATE" in detail
        assert Api(api.url, "another-token-of-it").get("/api/inc/freshness").status_code == 200
        assert requests.get(f"{api.url}/readyz", timeout=30).status_code == 200


def test_the_head_of_the_events_ends(api: Api) -> None:
    answer = api.session.head(f"{api.url}/api/events", timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "text/event-stream")
