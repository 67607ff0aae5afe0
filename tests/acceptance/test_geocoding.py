"""Tickets get their place from the gazetteer, and the gazetteer from the provider, within the provider's limits."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests

from consumer.geocoding.gazetteer import MANY
from consumer.geocoding.locationiq import ATTEMPTS
from tests.doubles.geocoder import INVALID_REQUEST, KEY, LIMITED, UNKNOWN, Fault, Known, LocationIQ, error
from tests.doubles.receiver import free_port
from tests.stage.broker import GEOCODE
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

WESTLANDS, QUARRY_ROAD, GATE, FAR = (-1.2676, 36.8108), (-1.2622, 36.8519), (-1.2650, 36.8020), (-4.0435, 39.6682)
KNOWN: dict[str, Known] = {
    "Westlands": WESTLANDS,
    "Quarry Road": QUARRY_ROAD,
    "Sarit Centre": GATE,
    "Nyali Centre": FAR,
    # The best known first.
    "Moi Avenue": [FAR, (-1.2833, 36.8219)],
}
# A turn at the lookups is over some seconds after its holder was killed, by how long a request may take.
FAST = {"GEOCODER_PER_SECOND": "50", "GEOCODER_PER_MINUTE": "1000", "GEOCODER_TIMEOUT": "2"}


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    names = {name: where for known, where in KNOWN.items() for name in (known, f"{known}, nairobi")}
    with LocationIQ(names, per_second=None, per_minute=None) as server:
        yield server


def consume(stage: Stage, provider: LocationIQ, *arguments: str, **environment: str) -> Process:
    given = {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    return stage.start("consume", *arguments, **(given | environment))


def apply(stage: Stage, *rows: dict[str, str], minutes: float = 1) -> None:
    key = key_at(minutes)
    stage.bucket.put(key, csv(rows, [*rows[0]]))
    stage.announce(key)
    stage.wait_for("done", key)


def drain(stage: Stage, *rows: dict[str, str]) -> None:
    """The same without a consumer."""
    stage.bucket.put(key_at(1), csv(rows, [*rows[0]]))
    assert stage.run("drain", "--apply").returncode == 0


def settle(stage: Stage) -> None:
    open_requests = "SELECT count(*) FROM ingest.outbox WHERE kind = 'geocode' AND handled_at IS NULL"
    wait_until(lambda: stage.one(open_requests) == 0, "every geocode request handled")


def put_aside(stage: Stage) -> int:
    """Messages in the wait queues: before the end of a day, a short one is enough."""
    return sum(stage.broker.ready(f"fleettickets.retry.{delay}s") for delay in (5, 30, 120, 600))


def places(stage: Stage) -> dict[str, tuple[float | None, float | None, str | None]]:
    rows = stage.query(
        "SELECT ticket_id, latitude, longitude, geo_source, geom IS NULL = (geog IS NULL) AS agree FROM tickets.inc"
    )
    assert all(row["agree"] for row in rows)
    return {row["ticket_id"]: (row["latitude"], row["longitude"], row["geo_source"]) for row in rows}


def actionable(name: str, **values: str) -> dict[str, str]:
    return ticket(name, latitude="", longitude="") | {"location_name": "", "latitude": "", "longitude": ""} | values


def test_tickets_get_the_place_of_their_location_else_of_their_cluster(stage: Stage, provider: LocationIQ) -> None:
    consume(stage, provider)
    apply(
        stage,
        actionable("PRECISE", location_name="WSTL-OLT-03 Sarit Centre FAT 12"),
        actionable("SAME", location_name="Sarit Centre FAT 14"),
        actionable("COARSE"),
        actionable("NOT", location_name="Sarit Centre", is_actionable="false"),
        actionable("CODES", location_name="NBO-123 GPON 0/1/3"),
        actionable("UNKNOWN", location_name="Atlantis Gardens"),
        actionable("WRONG CITY", location_name="Nyali Centre"),
        actionable("BOTH CITIES", location_name="FAT-12 Moi Avenue"),
        actionable("ALIAS", cluster="QOA"),
        actionable("FED", latitude="-1.3", longitude="36.9"),
        actionable("ZERO", latitude="0", longitude="0"),
        actionable("SWAPPED", latitude="36.9", longitude="-1.3"),
        actionable("NOWHERE", cluster="Shangri-La"),
    )
    settle(stage)
    coarse = (*WESTLANDS, "cluster")
    assert places(stage) == {
        "PRECISE": (*GATE, "location"),
        "SAME": (*GATE, "location"),
        "COARSE": coarse,
        "NOT": coarse,
        "CODES": coarse,
        "UNKNOWN": coarse,
        "WRONG CITY": coarse,
        "BOTH CITIES": (-1.2833, 36.8219, "location"),
        "ALIAS": (*QUARRY_ROAD, "cluster"),
        "FED": (-1.3, 36.9, "feed"),
        "ZERO": coarse,
        "SWAPPED": coarse,
        "NOWHERE": (None, None, None),
    }
    (guarded,) = stage.query("SELECT * FROM tickets.geo_locations WHERE status = 'rejected'")
    assert (guarded["location_name"], guarded["geom"]) == ("Nyali Centre", None)
    assert 430_000 < guarded["distance_m"] < 450_000
    assert (guarded["latitude"], guarded["longitude"]) == FAR
    asked = [search.query for search in provider.searches]
    assert len(asked) == len(set(asked)), "no place is asked for twice"
    assert not any("OLT" in query or "FAT" in query or "GPON" in query for query in asked)


def test_what_is_known_is_not_asked_again_and_a_later_file_finds_it_there(stage: Stage, provider: LocationIQ) -> None:
    consume(stage, provider)
    apply(stage, actionable("FIRST", location_name="Sarit Centre"), actionable("MISS", location_name="Atlantis"))
    settle(stage)
    before = len(provider.searches)
    apply(stage, actionable("LATER", location_name="Sarit Centre"), minutes=2)
    settle(stage)
    assert places(stage)["LATER"] == (*GATE, "location")
    assert len(provider.searches) == before


def test_limits_hold_over_all_consumers(stage: Stage, provider: LocationIQ) -> None:
    """A server that counts, and three consumers that have 30 places to ask for."""
    for _ in range(3):
        consume(stage, provider, GEOCODER_PER_SECOND="5", GEOCODER_PER_MINUTE="1000")
    rows = [actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(30)]
    for n in range(0, 30, 10):
        apply(stage, *rows[n : n + 10], minutes=n)
    settle(stage)
    assert len(provider.searches) == 30
    assert provider.busiest(1.0) <= 5


def test_a_spent_day_is_waited_out_by_everybody_and_over_restarts(stage: Stage, provider: LocationIQ) -> None:
    first = consume(stage, provider, GEOCODER_PER_DAY="3")
    apply(stage, *(actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(5)))
    wait_until(lambda: "asked nothing before" in first.output(), "it is put aside")
    first.kill()
    second = consume(stage, provider, GEOCODER_PER_DAY="3")
    apply(stage, actionable("LATER"), minutes=2)
    wait_until(lambda: "asked nothing before" in second.output(), "it is put aside again")
    assert len(provider.searches) == 3
    assert stage.broker.ready("fleettickets.geocode.dead") == 0
    # The next day: nothing was sent in it.
    stage.query("UPDATE ingest.geocoder_requests SET booked_at = '2020-01-01', ended_at = '2020-01-01' RETURNING 1")
    second.stop()
    consume(stage, provider)
    apply(stage, actionable("NEXT DAY"), minutes=3)
    settle(stage)
    assert stage.one("SELECT count(*) FROM tickets.geo_clusters") == 6


@pytest.mark.parametrize(("window", "again"), [("Second", True), ("Day", False)])
def test_the_providers_own_count_is_believed(stage: Stage, provider: LocationIQ, window: str, again: bool) -> None:
    provider.fault(Fault(*error(LIMITED[window])))
    consumer = consume(stage, provider)
    apply(stage, actionable("INC"))
    if again:
        settle(stage)
        assert places(stage)["INC"] == (*WESTLANDS, "cluster")
    else:
        wait_until(lambda: "asked nothing before" in consumer.output(), "it is put aside")
        assert stage.one("SELECT until - date_trunc('day', now(), 'UTC') FROM ingest.geocoder_pause") in {
            timedelta(minutes=15), timedelta(days=1),
        }  # fmt: skip
        assert len(provider.searches) == 1


def test_a_key_that_is_refused_stops_the_lookups_and_no_file(stage: Stage, provider: LocationIQ) -> None:
    consumer = consume(stage, provider, GEOCODER_API_KEY="wrong")
    apply(stage, actionable("INC"))
    told = "see GEOCODER_API_KEY"
    wait_until(lambda: told in consumer.output(), "it says which setting")
    for n in range(3):
        apply(stage, actionable(f"MORE{n}"), minutes=n + 2)
    wait_until(lambda: put_aside(stage) == 4, "all requests are put aside")
    assert len(provider.searches) == 1
    assert consumer.output().count(told) == 1, "one line tells"
    assert "wrong" not in consumer.output()
    # Another key is not held up by what was said of this one, nor is anybody after a run by hand.
    wrong = {"GEOCODER_API_KEY": "wrong", "GEOCODER_URL": provider.url}
    mended = wrong | {"GEOCODER_API_KEY": KEY}
    assert "HTTP 401" in stage.run("status", "--json", **wrong).stdout
    assert "HTTP 401" not in stage.run("status", "--json", **mended).stdout
    refused = stage.run("geocode", "clusters", "--apply", **wrong)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "GEOCODER_API_KEY" in refused.stderr
    assert stage.run("geocode", "clusters", "--apply", **mended).returncode == 0


def test_one_query_that_is_refused_holds_up_no_other(stage: Stage, provider: LocationIQ) -> None:
    consumer = consume(stage, provider)
    apply(stage, actionable("INC"))
    settle(stage)
    provider.fault(Fault(*error(INVALID_REQUEST)))
    apply(
        stage, actionable("ODD", location_name="Atlantis"), actionable("GOOD", location_name="Sarit Centre"), minutes=2
    )
    settle(stage)
    assert sorted(place[2] or "" for place in places(stage).values()) == ["cluster", "cluster", "location"]
    assert "no answer" in consumer.output()


def test_a_provider_that_is_away_is_waited_for_and_spends_no_attempt(stage: Stage, provider: LocationIQ) -> None:
    # One search, and one to find out whether it is the query's fault.
    provider.fault(Fault(*error(UNKNOWN)), times=2 * ATTEMPTS)
    consumer = consume(stage, provider)
    apply(stage, actionable("INC"))
    settle(stage)
    assert places(stage)["INC"] == (*WESTLANDS, "cluster")
    assert '"waiting"' in consumer.output()
    assert len(provider.searches) == 2 * ATTEMPTS + 1
    booked = stage.query("SELECT is_free FROM ingest.geocoder_requests ORDER BY request_id")
    assert [row["is_free"] for row in booked] == [True] * (2 * ATTEMPTS) + [False], (
        "each is booked, and the day pays for one"
    )
    given = {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, "GEOCODER_PER_DAY": "2"}
    assert Stage.json(stage.run("status", "--json", **given))["database"]["geocoding"]["requests_left_today"] == 1
    assert Stage.json(stage.run("geocode", "clusters", "--json", **given))["left"] == 1


def test_sigterm_ends_a_batch_that_waits_for_its_turn(stage: Stage, provider: LocationIQ) -> None:
    consumer = consume(stage, provider, GEOCODER_PER_MINUTE="2")
    apply(stage, *(actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(5)))
    wait_until(lambda: len(provider.searches) == 2, "the minute is spent")
    consumer.stop()
    assert stage.one("SELECT count(*) FROM tickets.geo_clusters") == 2
    consume(stage, provider)
    settle(stage)
    assert stage.one("SELECT count(*) FROM tickets.geo_clusters") == 5


def test_sigterm_ends_a_batch_whose_provider_hangs(stage: Stage, provider: LocationIQ) -> None:
    provider.fault(Fault(delay=60), times=9)
    consumer = consume(stage, provider, GEOCODER_TIMEOUT="1")
    apply(stage, actionable("INC"))
    wait_until(lambda: len(provider.searches) == 1, "it is asked")
    consumer.stop()
    assert len(provider.searches) == 1, "and not again"
    assert stage.broker.ready(GEOCODE) == 1
    shown = Stage.json(stage.run("status", "--json", GEOCODER_API_KEY=KEY, GEOCODER_URL="nowhere"))
    assert shown["database"]["geocoding"]["places"] == {"clusters": {}, "locations": {}}, (
        "a wrong address hides nothing"
    )


def test_without_a_key_one_request_waits_for_all_and_files_do_not(stage: Stage, provider: LocationIQ) -> None:
    keyless = stage.start("consume")
    for number in range(5):
        apply(stage, actionable(f"INC{number}", cluster="Westlands"), minutes=number)
    assert stage.broker.ready(GEOCODE) == 1
    ended = stage.run("consume", "--queue", "geocode")
    assert ended.returncode == 2
    assert "GEOCODER_API_KEY" in ended.stderr
    consume(stage, provider, "--queue", "geocode")
    settle(stage)
    assert {source for _, _, source in places(stage).values()} == {"cluster"}
    # The one before is in nobody's queue any more, and the broker tells of none that is.
    apply(stage, actionable("LATER", location_name="Sarit Centre"), minutes=9)
    settle(stage)
    keyless.stop()


def test_a_point_set_by_hand_outlives_every_answer(stage: Stage, provider: LocationIQ) -> None:
    consume(stage, provider, FLEETTICKETS_KEEP_PLACES_DAYS="0.000001")
    apply(stage, actionable("INC"))
    settle(stage)
    stage.query("UPDATE tickets.geo_clusters SET latitude = -1.2, longitude = 36.7, is_manual = true RETURNING 1")
    apply(stage, actionable("LATER"), minutes=2)
    settle(stage)
    assert set(places(stage).values()) == {(-1.2, 36.7, "cluster")}


def test_a_big_file_is_looked_up_in_batches_and_keeps_no_other_waiting(stage: Stage, provider: LocationIQ) -> None:
    consume(stage, provider)
    apply(stage, *(actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(50)))
    apply(stage, actionable("LATER"), minutes=2)
    settle(stage)
    assert stage.one("SELECT count(*) FROM tickets.geo_clusters") == 51
    rests: Any = stage.one("SELECT count(*) FROM ingest.outbox WHERE file_id IS NULL")
    assert rests >= 2


@pytest.mark.parametrize(
    "point", ["answered, not kept", "kept, not placed", "geocoded, not committed", "geocoded, before relay"]
)
def test_killed_anywhere_the_places_are_found_in_the_end(stage: Stage, provider: LocationIQ, point: str) -> None:
    first = consume(stage, provider, FLEETTICKETS_FAIL_POINT=point)
    rows = [actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(25)] + [actionable("INC")]
    key = key_at(1)
    stage.bucket.put(key, csv(rows, [*rows[0]]))
    stage.announce(key)
    assert first.wait() == -9
    consume(stage, provider)
    stage.wait_for("done", key)
    settle(stage)
    wait_until(lambda: stage.one("SELECT count(*) FROM tickets.geo_clusters") == 26, "every place is asked for")
    assert places(stage)["INC"] == (*WESTLANDS, "cluster")


def test_killed_when_the_rest_is_put_off_it_is_asked_for_once(stage: Stage, provider: LocationIQ) -> None:
    """What a file of many places leaves for the next day is one request, however often its batch is done."""
    day = {"GEOCODER_PER_DAY": "20"}
    doomed = consume(stage, provider, FLEETTICKETS_FAIL_POINT="geocoded, not committed", **day)
    rows = [actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(2 * MANY)]
    key = key_at(1)
    stage.bucket.put(key, csv(rows, [*rows[0]]))
    stage.announce(key)
    assert doomed.wait() == -9
    put_off = "SELECT count(*) FROM ingest.outbox WHERE handled_at IS NULL AND due_at > now()"
    assert stage.one(put_off) == 0
    consume(stage, provider, **day)
    stage.wait_for("done", key)
    wait_until(lambda: stage.one(put_off) == 1, "the rest waits for the next day")
    due = "SELECT count(*) FROM ingest.outbox WHERE kind = 'geocode' AND handled_at IS NULL AND due_at <= now()"
    wait_until(lambda: stage.one(due) == 0, "and nothing else does")
    assert stage.one(put_off) == 1
    assert len(provider.searches) == 10, "what was answered is asked once, and half of the day is left to others"


@pytest.mark.parametrize("point", ["answered, not kept", "kept, not placed"])
def test_by_hand_a_run_that_is_killed_is_followed_by_a_consumer(stage: Stage, provider: LocationIQ, point: str) -> None:
    drain(stage, actionable("INC"))
    # What the file asked for was handled long ago, by a consumer whose provider did not know the place.
    stage.query("UPDATE ingest.outbox SET sent_at = now(), handled_at = now() RETURNING 1")
    by_hand = {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    killed = stage.run("geocode", "clusters", "--apply", FLEETTICKETS_FAIL_POINT=point, **by_hand)
    assert killed.returncode == -9
    assert places(stage)["INC"] == (None, None, None)
    assert stage.one("SELECT count(*) FROM tickets.geo_clusters") == (point == "kept, not placed")
    consume(stage, provider)
    settle(stage)
    assert places(stage)["INC"] == (*WESTLANDS, "cluster")


def test_by_hand_a_run_beside_another_says_what_to_do(stage: Stage, provider: LocationIQ) -> None:
    drain(stage, actionable("INC"))
    by_hand = {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    taken = "UPDATE ingest.leases SET holder = 'another', since = now(), until = now() + %s::interval RETURNING 1"
    stage.query(taken, "1 hour")
    held = stage.run("geocode", "clusters", "--apply", **by_hand)
    assert (held.returncode, len(held.stderr.splitlines())) == (1, 1)
    assert "another is at it since" in held.stderr
    assert "let it, or end it and try again" in held.stderr
    assert provider.searches == []
    assert Stage.json(stage.run("status", "--json"))["database"]["geocoding"]["looked_up_by"] == "another"
    stage.query(taken, "-1 second")
    assert stage.run("geocode", "clusters", "--apply", **by_hand).returncode == 0


def test_by_hand_a_dry_run_needs_no_key(stage: Stage) -> None:
    drain(stage, actionable("INC", location_name="Sarit Centre"))
    told = stage.run("geocode", "clusters")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("1 clusters to look up, 2 requests at the most; no GEOCODER_API_KEY is set")
    asked = stage.ask("geocode", "locations")
    assert (asked["to_ask"], asked["waiting"], asked["left"], asked["paused_until"]) == (0, 1, None, None)
    refused = stage.run("geocode", "clusters", "--apply")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "GEOCODER_API_KEY is not set" in refused.stderr


def test_by_hand_a_cluster_that_is_unset_leaves_its_tickets_nowhere(stage: Stage, provider: LocationIQ) -> None:
    drain(stage, actionable("THERE", location_name="Sarit Centre"), actionable("HERE"))
    stage.environment |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    assert stage.run("geocode", "set", "--cluster", "Westlands", "--", "-1.25", "36.81").returncode == 0
    assert stage.ask("geocode", "locations", "--apply")["hit"] == 1
    assert places(stage) == {"THERE": (*GATE, "location"), "HERE": (-1.25, 36.81, "cluster")}
    assert stage.ask("geocode", "unset", "--cluster", "Westlands")["unplaced"] == 2
    assert places(stage) == dict.fromkeys(["THERE", "HERE"], (None, None, None))
    assert stage.ask("geocode", "clusters", "--apply")["placed"] == 2
    assert places(stage) == {"THERE": (*GATE, "location"), "HERE": (*WESTLANDS, "cluster")}
    assert stage.ask("geocode", "locations")["to_ask"] == 1, "near the new point, but chosen by the one that went"
    assert stage.ask("geocode", "locations", "--apply")["hit"] == 1
    assert stage.ask("geocode", "locations")["to_ask"] == 0


def test_by_hand_a_dry_run_says_what_would_be_asked_and_a_run_does_it(stage: Stage, provider: LocationIQ) -> None:
    stage.environment |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    drain(
        stage,
        actionable("PRECISE", location_name="OLT-03 Sarit Centre"),
        actionable("SAME", location_name="Sarit Centre FAT 14"),
        actionable("CODES", location_name="GPON 0/1/3"),
        actionable("ALIAS", cluster="QOA"),
    )
    asked = stage.ask("geocode", "clusters")
    assert (asked["to_ask"], asked["requests_at_most"], asked["left"]) == (2, 4, 5000)
    assert asked["places"][1] == {"cluster": "QOA", "queries": ["Quarry Road, nairobi", "Quarry Road"]}
    waiting = stage.ask("geocode", "locations")
    assert (waiting["to_ask"], waiting["waiting"]) == (0, 3), "they wait for their cluster's point"
    assert provider.searches == []

    done = stage.run("geocode", "clusters", "--apply")
    assert (done.returncode, done.stdout) == (0, "2 of 2 clusters looked up: 2 hit; 4 tickets placed\n")
    asked = stage.ask("geocode", "locations")
    assert (asked["to_ask"], asked["requests_at_most"]) == (3, 1)
    assert stage.ask("geocode", "locations", "--apply") == {
        "asked": 3, "hit": 2, "miss": 1, "placed": 2, "ended": "",
    }  # fmt: skip
    assert places(stage)["SAME"] == (*GATE, "location")
    shown = stage.ask("status")["database"]["geocoding"]
    assert shown["tickets_by_source"] == {"location": 2, "cluster": 2}
    assert shown["places"] == {"clusters": {"hit": 2}, "locations": {"hit": 2, "miss": 1}}
    assert (shown["share_with_place"], shown["requests_today"], shown["requests_left_today"]) == (1, 3, 4997)
    assert "100.00% of the tickets" in stage.run("status").stdout
    stage.query("UPDATE tickets.inc SET geom = NULL, geo_source = NULL WHERE ticket_id = 'CODES' RETURNING 1")
    assert "75.00% of the tickets: 2 by location, 1 by cluster, 1 nowhere" in stage.run("status").stdout


def test_by_hand_a_run_that_meets_the_end_of_the_day_keeps_what_it_has(stage: Stage, provider: LocationIQ) -> None:
    stage.environment |= {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url, **FAST}
    drain(stage, *(actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(5)))
    ended = stage.run("geocode", "clusters", "--apply", GEOCODER_PER_DAY="3")
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (
        1,
        "3 of 5 clusters looked up: 3 miss; 0 tickets placed",
    )
    assert "3 requests were sent today" in ended.stderr
    assert stage.run("geocode", "clusters", "--apply", "--limit", "1").stdout.startswith("1 of 1")
    assert stage.ask("geocode", "clusters")["to_ask"] == 1


def test_by_hand_a_point_or_another_name_is_told(stage: Stage, provider: LocationIQ) -> None:
    consumer = consume(stage, provider)
    apply(stage, actionable("CODE", cluster="KSR"), actionable("THERE", location_name="Atlantis"))
    settle(stage)
    assert places(stage)["CODE"] == (None, None, None)
    consumer.stop()
    assert stage.ask("geocode", "alias", "ksr", "Quarry Road") == {"cluster": "ksr", "place": "Quarry Road"}
    consumer = consume(stage, provider)  # it sweeps at its start, and takes up what was asked for without a file
    settle(stage)
    consumer.stop()
    assert places(stage)["CODE"] == (*QUARRY_ROAD, "cluster")

    set_ = ("geocode", "set", "--cluster", "Westlands", "--location", "Atlantis")
    assert stage.run(*set_, "--", "-1.25", "36.81").stdout == "set; 1 tickets are placed anew\n"
    assert places(stage)["THERE"] == (-1.25, 36.81, "location")
    unset = ("geocode", "unset", "--cluster", "Westlands", "--location", "Atlantis")
    assert stage.run(*unset).stdout == "unset; 1 tickets are placed anew, 0 have no place for now\n"
    assert places(stage)["THERE"] == (*WESTLANDS, "cluster")
    assert stage.run("geocode", "set", "--cluster", "KSR", "--", "-1.2", "36.8").returncode == 0
    told = stage.run("geocode", "alias", "KSR", "Kasarani")
    assert (told.returncode, "set by hand" in told.stderr) == (0, True)
    assert stage.ask("geocode", "unset", "--cluster", "KSR")["unplaced"] == 1
    assert places(stage)["CODE"] == (None, None, None)
    again = stage.run(*unset)
    assert (again.returncode, again.stderr) == (2, "fleettickets: no point of Atlantis was set by hand\n")
    swapped = stage.run(*set_, "--", "36.81", "-1.25")
    assert (swapped.returncode, swapped.stdout, len(swapped.stderr.splitlines())) == (2, "", 1)
    assert "not in Kenya" in swapped.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["alias", "KSR", "\udcff"], "not UTF-8"),
        (["alias", " ", "Kasarani"], "blank"),
        (["set", "--cluster", "", "--", "-1.25", "36.81"], "blank"),
        (["set", "--cluster", "A", "--location", "\udcff", "--", "-1.25", "36.81"], "not UTF-8"),
        (["set", "--cluster", "x" * 501, "--", "-1.25", "36.81"], "500 characters"),
        (["unset", "--cluster", "KSR"], "no point of KSR was set by hand"),
    ],
)
def test_by_hand_a_name_that_no_ticket_can_have_is_refused(stage: Stage, arguments: list[str], why: str) -> None:
    refused = stage.run("geocode", *arguments)
    assert refused.returncode == 2
    assert why in refused.stderr
    assert "Traceback" not in refused.stderr


def test_by_hand_a_name_that_no_ticket_has_is_told(stage: Stage) -> None:
    told = stage.run("geocode", "set", "--cluster", "Westlnads", "--", "-1.25", "36.81")
    assert (told.returncode, told.stderr) == (0, "note: no ticket has Westlnads so far\n")


def metrics(port: int) -> dict[str, float]:
    lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
    values = (line.removeprefix("fleettickets_").rsplit(" ", 1) for line in lines if line.startswith("fleettickets_"))
    return {name: float(value) for name, value in values if not name.endswith("_created")}


def test_metrics_count_a_batch_that_the_end_of_the_day_ends(stage: Stage, provider: LocationIQ) -> None:
    port = free_port()
    consume(stage, provider, "--metrics", str(port), GEOCODER_PER_DAY="2")
    apply(stage, actionable("INC"), *(actionable(f"INC{n}", cluster=f"Cluster {n}", region="") for n in range(3)))
    wait_until(lambda: put_aside(stage) == 1, "it is put aside")
    found = metrics(port)
    assert found['geocode_lookups_total{outcome="miss"}'] == 2
    assert found["geocoder_quota_left"] == 0
    assert found['tickets{source="nowhere"}'] == 4


def test_metrics_count_what_was_looked_up(stage: Stage, provider: LocationIQ) -> None:
    port = free_port()
    consume(stage, provider, "--metrics", str(port))
    apply(stage, actionable("PRECISE", location_name="Sarit Centre"), actionable("WRONG", location_name="Nyali Centre"))
    settle(stage)

    wait_until(lambda: metrics(port)["tickets_placed_total"], "the batch is counted")
    found = metrics(port)
    assert found['files_total{decision="new"}'] == 1
    assert (found['geocode_lookups_total{outcome="hit"}'], found['geocode_lookups_total{outcome="rejected"}']) == (2, 1)
    assert (found["geocoder_requests_total"], found["geocoder_quota_left"]) == (3, 4997)
    assert (found['tickets{source="location"}'], found['tickets{source="cluster"}']) == (1, 1)
    taken = stage.run("consume", "--metrics", str(port), GEOCODER_API_KEY="")
    assert (taken.returncode, len(taken.stderr.splitlines())) == (2, 1)


def test_what_a_run_by_hand_logs_is_not_in_its_answer(stage: Stage, provider: LocationIQ) -> None:
    local = stage.folder / "2026-06-25T142000.csv"
    local.write_bytes(csv([actionable("INC")]))
    assert stage.run("import-csv", "--feed", "inc", str(local), "--apply").returncode == 0
    provider.fault(Fault(*error(LIMITED["Second"])))
    given = {"GEOCODER_API_KEY": KEY, "GEOCODER_URL": provider.url}
    ended = stage.run("geocode", "clusters", "--apply", "--json", **given)
    assert "rate limited" in ended.stderr
    assert Stage.json(ended)["hit"] == 1
