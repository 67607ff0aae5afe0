"""The gazetteer keeps what is known, places whatever is elsewhere, and shares the provider's limits."""

import json
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import tenacity
from psycopg.types.json import Jsonb

from consumer import metrics
from consumer.follow_ons.history import capture
from consumer.geocoding import gazetteer as gazetteer_module
from consumer.geocoding import locationiq, quota
from consumer.geocoding.gazetteer import Batch, Gazetteer, GeocodeHandler, Kind, change_cluster, places_that_wait
from consumer.geocoding.locationiq import Geocoder, GeocoderDown
from consumer.geocoding.quota import Paused, Quota, Stopped
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings, GeocoderSettings
from publisher.errors import HeldByAnother, Refused
from tests.doubles import geocoder
from tests.doubles.geocoder import (
    INVALID_REQUEST,
    KEY,
    LIMITED,
    PLACE,
    UNKNOWN,
    Asked,
    Coordinates,
    Fault,
    Known,
    LocationIQ,
    error,
)
from tests.stage.stage import wait_until

WESTLANDS = (-1.2676, 36.8108)


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as server:
        yield server


def settings(url: str = "http://127.0.0.1:1", **others: object) -> GeocoderSettings:
    fast = {"GEOCODER_PER_SECOND": 1000, "GEOCODER_PER_MINUTE": 60_000}
    return GeocoderSettings.model_validate({"GEOCODER_API_KEY": KEY, "GEOCODER_URL": url} | fast | others)


def gazetteer(pool: Pool, provider: LocationIQ, **kept: float) -> Gazetteer:
    return Gazetteer(pool, GazetteerSettings.model_validate(kept), settings(provider.url), threading.Event())


def look_up(of: Gazetteer, limit: int = 100) -> Batch:
    batch = Batch()
    of.work(Kind, limit, batch)
    return batch


def execute(pool: Pool, statement: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
    with postgres.transaction(pool) as connection:
        cursor = connection.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []


def ticket(pool: Pool, ticket_id: str, **raw: str) -> None:
    parameters = {"ticket_id": ticket_id, "raw": Jsonb({"cluster": "Westlands"} | raw)}
    execute(pool, "INSERT INTO tickets.inc (ticket_id, raw) VALUES (%(ticket_id)s, %(raw)s)", parameters)


def sources(pool: Pool) -> dict[str, str | None]:
    return {
        row["ticket_id"]: row["geo_source"] for row in execute(pool, "SELECT ticket_id, geo_source FROM tickets.inc")
    }


def test_a_ticket_that_is_merged_while_its_place_becomes_known_is_placed_by_the_next_batch(
    pool: Pool, provider: LocationIQ
) -> None:
    """Neither the trigger sees the new point nor the batch the new row; the request of the row's file is still open."""
    places = gazetteer(pool, provider)
    ticket(pool, "FIRST")
    with postgres.transaction(pool) as merging:
        merging.execute("""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('MEANWHILE', '{"cluster": "Westlands"}')""")
        assert look_up(places).outcomes == {"hit": 1}
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": None}
    again = look_up(places)
    assert (again.outcomes, again.placed) == ({}, 1)
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": "cluster"}
    assert look_up(places).placed == 0


def test_a_place_that_changes_moves_its_tickets_and_no_others(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE")
    ticket(pool, "FED", latitude="-1", longitude="37")
    places = gazetteer(pool, provider)
    look_up(places)
    before = execute(pool, "SELECT ticket_id, ingested_at FROM tickets.inc ORDER BY 1")
    execute(pool, "UPDATE tickets.geo_clusters SET latitude = -1.2, longitude = 36.9")
    assert look_up(places).placed == 1
    (fed, here) = execute(pool, "SELECT latitude, longitude FROM tickets.inc ORDER BY ticket_id")
    assert (here["latitude"], here["longitude"]) == (-1.2, 36.9)
    assert (fed["latitude"], fed["longitude"]) == (-1, 37)
    assert execute(pool, "SELECT ticket_id, ingested_at FROM tickets.inc ORDER BY 1") == before


def test_a_point_that_is_too_old_is_asked_for_again_and_stays_when_that_finds_nothing(
    pool: Pool, provider: LocationIQ
) -> None:
    ticket(pool, "HERE")
    look_up(gazetteer(pool, provider))
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '3 days'")
    assert look_up(gazetteer(pool, provider)).outcomes == {}, "kept for good"
    with LocationIQ({}, per_second=None, per_minute=None) as forgetful:
        places = gazetteer(pool, forgetful, keep_hits_days=2)
        assert look_up(places).outcomes == {"miss": 1}
        assert look_up(places).outcomes == {}, "it counts as asked"
    (kept,) = execute(pool, "SELECT status, latitude FROM tickets.geo_clusters")
    assert (kept["status"], kept["latitude"]) == ("hit", WESTLANDS[0])
    assert sources(pool) == {"HERE": "cluster"}


def test_a_miss_is_asked_for_again_after_its_days(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE", cluster="Atlantis")
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"miss": 1}
    assert look_up(places).outcomes == {}
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '31 days'")
    assert look_up(places).outcomes == {"miss": 1}


class Odd(LocationIQ):
    """A provider that has one `reply` to everything that begins with `prefix`, and good ones to all else."""

    prefix = "Odd"
    reply = error(UNKNOWN)

    def _answer(self, asked: Asked) -> tuple[int, bytes, str]:
        if asked.query.startswith(self.prefix):
            return *self.reply, "application/json"
        return super()._answer(asked)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setattr(locationiq, "_WAIT", tenacity.wait_none())
    with Odd({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as server:
        yield server


def statuses(pool: Pool) -> dict[str, str]:
    return {row["cluster"]: row["status"] for row in execute(pool, "SELECT cluster, status FROM tickets.geo_clusters")}


def tickets(pool: Pool, **clusters: int) -> None:
    """So many tickets of each cluster."""
    for cluster, count in clusters.items():
        for number in range(count):
            ticket(pool, f"{cluster}{number}", cluster=cluster.replace("_", " "))


def pass_time(pool: Pool, **of: float) -> None:
    """Make everything that is known older."""
    for table in ("geo_clusters", "geo_locations"):
        execute(pool, f"UPDATE tickets.{table} SET geocoded_at = geocoded_at - %(of)s", {"of": timedelta(**of)})  # noqa: S608


def test_a_place_that_never_gets_an_answer_is_asked_for_three_times_and_holds_up_no_other(pool: Pool, odd: Odd) -> None:
    tickets(pool, Odd_1=2, Odd_2=2, Odd_3=2, Odd_4=2, Westlands=1)
    assert look_up(gazetteer(pool, odd)).outcomes == {"unanswered": 4, "hit": 1}
    assert statuses(pool)["Westlands"] == "hit"
    assert len(odd.searches) == 4 * (locationiq.ATTEMPTS + 1) + 1, "each is tried, and the provider with another query"
    for asked in ({"unanswered": 4}, {"unanswered": 4}, {}):
        assert look_up(gazetteer(pool, odd)).outcomes == {}, "not yet"
        pass_time(pool, minutes=11)
        assert look_up(gazetteer(pool, odd)).outcomes == asked
    assert statuses(pool)["Odd 1"] == "miss"
    pass_time(pool, days=31)
    assert look_up(gazetteer(pool, odd)).outcomes == {"unanswered": 4}, "as misses are"
    odd.prefix = "nobody"
    pass_time(pool, days=31)
    assert look_up(gazetteer(pool, odd)).outcomes == {"miss": 4}
    assert execute(pool, "SELECT max(unanswered) AS most FROM tickets.geo_clusters") == [{"most": 0}]


def test_a_known_place_that_gets_no_answer_stays_known(pool: Pool, odd: Odd) -> None:
    tickets(pool, Westlands=1)
    look_up(gazetteer(pool, odd))
    odd.prefix = "Westlands"
    pass_time(pool, days=2)
    assert look_up(gazetteer(pool, odd, keep_hits_days=1)).outcomes == {"unanswered": 1}
    assert statuses(pool) == {"Westlands": "hit"}


@pytest.mark.parametrize("body", [b"<html>", b"[7]", json.dumps([PLACE | {"display_name": "\0"}]).encode()])
def test_an_answer_of_no_use_is_a_miss_when_the_provider_answers_others(pool: Pool, odd: Odd, body: bytes) -> None:
    odd.reply = (200, body)
    tickets(pool, Odd_place=1)
    assert look_up(gazetteer(pool, odd)).outcomes == {"unanswered": 1}
    assert statuses(pool) == {"Odd place": "miss"}
    pass_time(pool, minutes=11)
    assert look_up(gazetteer(pool, odd)).outcomes == {}, "it would say the same again"


def test_a_query_that_is_refused_before_anything_was_answered_is_a_miss(pool: Pool, odd: Odd) -> None:
    odd.reply = error(INVALID_REQUEST)
    tickets(pool, Odd_place=2, Westlands=1)
    assert look_up(gazetteer(pool, odd)).outcomes == {"unanswered": 1, "hit": 1}
    assert statuses(pool) == {"Odd place": "miss", "Westlands": "hit"}


def test_a_query_that_is_refused_with_its_region_is_asked_without(pool: Pool, odd: Odd) -> None:
    odd.prefix, odd.reply = "Westlands, ", error(INVALID_REQUEST)
    ticket(pool, "HERE", region="nairobi")
    assert look_up(gazetteer(pool, odd)).outcomes == {"hit": 1}


def test_where_every_query_is_refused_it_is_the_setting(pool: Pool, odd: Odd) -> None:
    odd.prefix, odd.reply = "", error(INVALID_REQUEST)
    tickets(pool, A=1, B=1)
    places = gazetteer(pool, odd)
    with pytest.raises(Refused, match="HTTP 400"):
        look_up(places)
    assert len(odd.searches) == 2
    assert statuses(pool) == {}
    with pytest.raises(Paused):
        look_up(places)
    other_key = Gazetteer(pool, GazetteerSettings(), settings(odd.url, GEOCODER_API_KEY="pk.other"), threading.Event())
    assert other_key.quota.paused() is None
    odd.prefix = "nobody"
    places.work(Kind, 100, Batch(), by_hand=True)
    assert statuses(pool) == {"A": "miss", "B": "miss"}
    assert places.quota.paused() is None


@pytest.mark.parametrize("fault", [error(UNKNOWN), (200, b"<html>maintenance")])
def test_a_provider_that_goes_away_during_a_batch_makes_no_miss(pool: Pool, odd: Odd, fault: tuple[int, bytes]) -> None:
    tickets(pool, Westlands=3, B=2, C=1)

    def go_away(_outcome: str) -> None:
        odd.prefix, odd.reply = "", fault

    with pytest.raises(GeocoderDown):
        gazetteer(pool, odd).work(Kind, 100, Batch(), told=go_away)
    assert statuses(pool) == {"Westlands": "hit"}
    odd.prefix = "nobody"
    before = len(odd.searches)
    assert look_up(gazetteer(pool, odd)).outcomes == {"miss": 2}
    assert [asked.query for asked in odd.searches[before:]] == ["B", "C"], "in their order still"


def test_a_paused_message_costs_a_look_at_the_pause(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_DAYS_BEGINNING", timedelta())  # whatever time it is
    tickets(pool, Westlands=1)
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    places = gazetteer(pool, provider)
    places.quota.limited("day", "Rate Limited Day")
    assert places.quota.left() == 0
    handler = GeocodeHandler(pool, places, lambda: 0, lambda _point: None)
    with gazetteer(pool, provider)._turn.held(), pytest.raises(Paused):  # noqa: SLF001 - whoever begins would be held by it
        handler.geocode(Batch())


def test_a_shared_answer_is_as_old_as_it_was(pool: Pool, provider: LocationIQ) -> None:
    def name(number: int) -> None:
        ticket(pool, f"{number}", location_name=f"Westlands FAT {number}", is_actionable="true")

    name(1)
    places = gazetteer(pool, provider, keep_hits_days=2)
    assert look_up(places).outcomes == {"hit": 2}
    pass_time(pool, days=1)
    name(2)
    assert look_up(places).outcomes == {"hit": 1}
    assert len(provider.searches) == 2, "the cluster and the first name"
    pass_time(pool, days=1)
    assert look_up(places).outcomes == {"hit": 3}
    assert len(provider.searches) == 4, "all three are too old; the two share again"


def test_tickets_are_counted_by_source_also_when_a_source_has_none_left(pool: Pool, provider: LocationIQ) -> None:
    def counted(source: str) -> float | None:
        return metrics.REGISTRY.get_sample_value("fleettickets_tickets", {"source": source})

    tickets(pool, Nowhere=1)
    look_up(gazetteer(pool, provider))
    assert (counted("nowhere"), counted("cluster")) == (1, 0)
    execute(pool, "UPDATE tickets.cluster_aliases SET cluster = 'Nowhere', place = 'Westlands' WHERE cluster = 'QOA'")
    look_up(gazetteer(pool, provider))
    assert (counted("nowhere"), counted("cluster")) == (0, 1)


def test_an_alias_that_is_told_while_its_cluster_is_asked_for_is_asked_for_next(
    pool: Pool, provider: LocationIQ
) -> None:
    tickets(pool, Nowhere=2, KSR=1)
    places = gazetteer(pool, provider)

    def told(_outcome: str) -> None:
        execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('KSR', 'Westlands') ON CONFLICT DO NOTHING")

    places.work(Kind, 100, Batch(), told=told)
    assert statuses(pool) == {"Nowhere": "miss", "KSR": "miss"}
    assert look_up(places).outcomes == {"hit": 1}
    assert statuses(pool)["KSR"] == "hit"
    assert look_up(places).outcomes == {}


KM = 1 / 110.574  # degrees of latitude


def move_westlands(pool: Pool, latitude: float, longitude: float) -> None:
    with postgres.transaction(pool) as connection:
        point = {"cluster": "Westlands", "latitude": latitude, "longitude": longitude}
        change_cluster(connection, ["set_cluster"], point)


def locations(pool: Pool) -> dict[str, str]:
    rows = execute(pool, "SELECT location_name, status FROM tickets.geo_locations")
    return {row["location_name"]: row["status"] for row in rows}


def test_the_guard_is_at_25_km_of_the_cluster_wherever_that_is_set(pool: Pool) -> None:
    north = {f"{km} North": (WESTLANDS[0] + km * KM, WESTLANDS[1]) for km in (24, 26)}
    for name in north:
        ticket(pool, name, location_name=name, is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS} | north, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        assert look_up(places).outcomes == {"hit": 2, "rejected": 1}
        assert locations(pool) == {"24 North": "hit", "26 North": "rejected"}
        assert sources(pool) == {"24 North": "location", "26 North": "cluster"}
        # The cluster turns out to be elsewhere: both answers are judged anew.
        move_westlands(pool, WESTLANDS[0] + 50 * KM, WESTLANDS[1])
        assert locations(pool) == {"24 North": "rejected", "26 North": "hit"}
        assert look_up(places).placed == 2
        assert sources(pool) == {"24 North": "cluster", "26 North": "location"}


def test_what_was_not_near_a_cluster_is_looked_for_near_its_new_point(pool: Pool) -> None:
    mombasa, sarit = (-4.04, 39.66), (-1.26, 36.80)
    known = {"Westlands": [mombasa], "Sarit Centre": [sarit, (-4.05, 39.67)], "Yaya Centre": [sarit]}
    for name in ("Sarit Centre", "Yaya Centre"):
        ticket(pool, name, location_name=name, is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        assert locations(pool) == {"Sarit Centre": "hit", "Yaya Centre": "rejected"}
        move_westlands(pool, WESTLANDS[0], WESTLANDS[1])
        assert locations(pool) == {"Sarit Centre": "rejected", "Yaya Centre": "hit"}
        assert look_up(places).outcomes == {"hit": 1}
        assert look_up(places).outcomes == {}
    assert set(sources(pool).values()) == {"location"}
    assert execute(pool, "SELECT DISTINCT latitude FROM tickets.inc") == [{"latitude": sarit[0]}]


def test_a_cluster_that_is_moved_away_and_back_leaves_its_answers_as_they_were(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Sarit Centre": (-1.26, 36.80), "Zed": (-1.27, 36.81)}
    ticket(pool, "SARIT", location_name="FAT-12 Sarit Centre", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        move_westlands(pool, -4.04, 39.66)
        move_westlands(pool, *WESTLANDS)
        ticket(pool, "SAME", location_name="FAT-13 Sarit Centre", is_actionable="true")
        ticket(pool, "ZED", location_name="Zed", is_actionable="true")
        assert look_up(places).outcomes == {"hit": 2}
        assert [asked.query for asked in provider.searches] == ["Westlands", "Sarit Centre", "Zed"]
    assert set(sources(pool).values()) == {"location"}


def test_an_answer_that_cannot_be_kept_is_a_miss_and_holds_up_no_other(pool: Pool) -> None:
    execute(pool, "RESET ROLE; ALTER TABLE tickets.geo_clusters ADD CHECK (query <> 'Bad')")
    tickets(pool, Bad=2, Good=1)
    with LocationIQ({"Bad": WESTLANDS, "Good": WESTLANDS}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"miss": 1, "hit": 1}
        assert look_up(gazetteer(pool, provider)).outcomes == {}
    assert statuses(pool) == {"Bad": "miss", "Good": "hit"}


def test_a_point_of_another_name_is_none_of_the_alias_that_is_not_found(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1, QOA=1)
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"hit": 1, "miss": 1}
    execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('westlands', 'Nowhere')")
    provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
    assert look_up(places).outcomes == {"unanswered": 1}
    assert statuses(pool)["Westlands"] == "hit", "no answer is no reason to forget it"
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '11 minutes'")
    assert look_up(places).outcomes == {"miss": 1}
    assert statuses(pool)["Westlands"] == "miss"
    assert set(sources(pool).values()) == {None}
    assert look_up(places).outcomes == {}


def test_an_alias_that_is_never_answered_does_not_keep_the_point_of_the_former_name(
    pool: Pool, provider: LocationIQ
) -> None:
    tickets(pool, Westlands=1)
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"hit": 1}
    execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('westlands', 'Nowhere')")
    for status in ("hit", "hit", "miss"):
        provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
        assert look_up(places).outcomes == {"unanswered": 1}
        assert statuses(pool) == {"Westlands": status}
        execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '11 minutes'")
    assert sources(pool) == {"Westlands0": None}
    assert look_up(places).outcomes == {}


def test_a_point_that_is_taken_away_takes_what_was_judged_by_it_along(pool: Pool) -> None:
    """Its answers are held against the cluster's next point, and what is not near that is asked for again."""
    near, far = (-4.05, 39.67), (-1.26, 36.80)
    known: dict[str, Known] = {
        "Westlands": MOMBASA, "Sarit Centre": [near, far], "Likoni": near, "Right Here": WESTLANDS,
    }  # fmt: skip
    for name in ("Sarit Centre", "Likoni", "By Hand", "Nowhere"):
        ticket(pool, name, location_name=name, is_actionable="true")
    ticket(pool, "FED", latitude="-1", longitude="37", location_name="Likoni")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        execute(
            pool,
            """UPDATE tickets.geo_locations SET latitude = -1.3, longitude = 36.7, status = 'hit', is_manual = true
               WHERE location_name = 'By Hand'""",
        )
        look_up(places)
        assert sources(pool) == {
            "Sarit Centre": "location", "Likoni": "location", "By Hand": "location", "Nowhere": "cluster",
            "FED": "feed",
        }  # fmt: skip
        execute(pool, "INSERT INTO tickets.cluster_aliases VALUES ('Westlands', 'Mistyped')")
        look_up(places)
        assert sources(pool) == {
            "Sarit Centre": None, "Likoni": None, "By Hand": "location", "Nowhere": None, "FED": "feed",
        }  # fmt: skip
        disowned = execute(pool, "SELECT location_name FROM tickets.geo_locations WHERE is_due AND geom IS NULL")
        assert {row["location_name"] for row in disowned} == {"Sarit Centre", "Likoni", "Nowhere"}
        assert places_that_wait(pool, GazetteerSettings()) == 3
        before = len(provider.searches)
        execute(pool, "UPDATE tickets.cluster_aliases SET place = 'Right Here' WHERE cluster = 'Westlands'")
        look_up(places)
        assert {asked.query for asked in provider.searches[before:]} == {
            "Right Here", "Sarit Centre", "Likoni", "Nowhere",
        }  # fmt: skip
        assert sources(pool) == {
            "Sarit Centre": "location", "Likoni": "cluster", "By Hand": "location", "Nowhere": "cluster", "FED": "feed",
        }  # fmt: skip
        assert locations(pool)["Likoni"] == "rejected"
        assert look_up(places).outcomes == {}


def test_what_is_set_while_its_answer_is_under_way_stays(pool: Pool) -> None:
    here = {"cluster": "Westlands", "location_name": "Sarit Centre", "cleaned_query": "Sarit Centre"}

    def find(query: str) -> Coordinates:
        if query == "Westlands":
            move_westlands(pool, *NEAR)
            return MOMBASA
        with postgres.transaction(pool) as connection:
            postgres.rows(connection, "geocoding", "set_location", here | {"latitude": -1.3, "longitude": 36.7})
        return WESTLANDS

    ticket(pool, "CLUSTER")
    ticket(pool, "LOCATION", location_name="Sarit Centre", is_actionable="true")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
        assert len(provider.searches) == 2
    for table, point in (("geo_clusters", NEAR), ("geo_locations", (-1.3, 36.7))):
        (kept,) = execute(pool, f"SELECT latitude, longitude, provider, is_manual FROM tickets.{table}")  # noqa: S608
        assert tuple(kept.values()) == (*point, "by hand", True)
    placed = execute(pool, "SELECT ticket_id, latitude FROM tickets.inc")
    assert {row["ticket_id"]: row["latitude"] for row in placed} == {"CLUSTER": NEAR[0], "LOCATION": -1.3}


def test_a_point_set_by_hand_was_found_under_no_name(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    look_up(gazetteer(pool, provider))
    assert execute(pool, "SELECT found_as FROM tickets.geo_clusters") == [{"found_as": "Westlands"}]
    move_westlands(pool, *NEAR)
    assert execute(pool, "SELECT found_as FROM tickets.geo_clusters") == [{"found_as": None}]


def test_a_name_that_is_the_same_without_codes_shares_neither_a_point_set_by_hand_nor_one_that_is_due(
    pool: Pool,
) -> None:
    known = {"Westlands": WESTLANDS, "Sarit Centre": NEAR}
    ticket(pool, "FIRST", location_name="Sarit Centre FAT 1", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places)
        execute(pool, "UPDATE tickets.geo_locations SET latitude = -1.2, is_manual = true")
        for number in range(2):
            ticket(pool, f"SECOND{number}", location_name="Sarit Centre FAT 2", is_actionable="true")
        assert look_up(places).outcomes == {"hit": 1}
        assert len(provider.searches) == 3
        found = execute(pool, "SELECT ticket_id, latitude FROM tickets.inc WHERE ticket_id <> 'SECOND1'")
        assert {row["ticket_id"]: row["latitude"] for row in found} == {"FIRST": -1.2, "SECOND0": NEAR[0]}
        # What is due is asked for although the other name, which comes later, has its answer from before.
        execute(pool, "UPDATE tickets.geo_locations SET is_manual = false, is_due = true")
        assert look_up(places).outcomes == {"hit": 2}
        assert len(provider.searches) == 4, "asked for once, and shared"


def test_places_of_the_feed_are_not_asked_for(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "FED", location_name="Sarit Centre", is_actionable="true", latitude="-1", longitude="37")
    assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1}
    assert [asked.query for asked in provider.searches] == ["Westlands"]
    assert sources(pool) == {"FED": "feed"}


def test_a_location_at_the_very_point_of_its_cluster_is_told_as_a_location(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Westlands Stage": WESTLANDS}
    ticket(pool, "HERE", location_name="Westlands Stage", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        places = gazetteer(pool, provider)
        look_up(places, limit=1)
        assert sources(pool) == {"HERE": "cluster"}
        look_up(places)
        assert sources(pool) == {"HERE": "location"}


def test_what_waits_is_what_would_be_asked_for_if_its_cluster_had_a_point(pool: Pool, provider: LocationIQ) -> None:
    def waiting() -> int:
        return places_that_wait(pool, GazetteerSettings())

    for number, name in enumerate("AAB"):
        ticket(pool, f"{number}", cluster="Nowhere", location_name=f"Gate {name}", is_actionable="true")
    ticket(pool, "CLOSED", cluster="Nowhere", location_name="Gate C", is_actionable="false")
    ticket(pool, "FED", cluster="Nowhere", location_name="Gate D", is_actionable="true", latitude="-1", longitude="37")
    ticket(pool, "KNOWN", location_name="Gate E", is_actionable="true")
    execute(pool, """INSERT INTO tickets.inc (ticket_id, raw) VALUES ('NONE', '{"location_name": "F"}')""")
    look_up(gazetteer(pool, provider))
    assert waiting() == 2
    point = {"cluster": "Nowhere", "latitude": -1.2, "longitude": 36.8, "cleaned_query": "", "location_name": "Gate A"}
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "geocoding", "set_location", point)
    assert waiting() == 1, "one was set by hand"
    execute(
        pool,
        """INSERT INTO tickets.geo_locations (cluster, location_name, status) VALUES ('Nowhere', 'Gate B', 'miss')""",
    )
    assert waiting() == 0, "one is a miss for now"
    pass_time(pool, days=31)
    assert waiting() == 1, "which is to be asked for again"
    brief = GazetteerSettings.model_validate({"FLEETTICKETS_KEEP_PLACES_DAYS": 1})
    assert places_that_wait(pool, brief) == 1, "what was set by hand does not age"


def test_a_long_run_places_what_it_has_found_before_its_end(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazetteer_module, "BATCH", 2)
    tickets(pool, Westlands=5, B=4, C=3, D=2, E=1)
    placed: list[int] = []

    def told(_outcome: str) -> None:
        placed.append(execute(pool, "SELECT count(*) AS placed FROM tickets.inc WHERE geom IS NOT NULL")[0]["placed"])

    batch = Batch()
    gazetteer(pool, provider).work(Kind, 100, batch, told=told)
    assert placed == [0, 0, 5, 5, 5]
    assert batch.placed == 5


def test_the_rest_of_a_batch_is_sent_for_at_once(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazetteer_module, "BATCH", 1)
    tickets(pool, Westlands=2, B=1)
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    relayed: list[int] = []

    def relay() -> int:
        relayed.extend(row["request_id"] for row in execute(pool, UNHANDLED))
        return len(relayed)

    handler = GeocodeHandler(pool, gazetteer(pool, provider), relay, lambda _point: None)
    handler.geocode(Batch())
    assert len(relayed) == 1, "what is asked for is there already when it is sent"
    handler.geocode(Batch())
    assert len(relayed) == 1, "nothing is left"
    assert execute(pool, UNHANDLED) == []


UNHANDLED = "SELECT request_id FROM ingest.outbox WHERE handled_at IS NULL"


def test_a_run_by_hand_has_a_request_behind_it_before_it_asks(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    asked: list[int] = []
    places = gazetteer(pool, provider)
    places.work(Kind, 100, Batch(), by_hand=True, told=lambda _outcome: asked.append(len(execute(pool, UNHANDLED))))
    assert asked == [1]


def test_a_rejected_answer_is_kept_when_there_is_no_other(pool: Pool) -> None:
    known = {"Westlands": WESTLANDS, "Bamburi": (-4.0, 39.72)}
    ticket(pool, "HERE", location_name="Bamburi", is_actionable="true")
    with LocationIQ(known, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
        before = execute(pool, "SELECT status, distance_m, answer FROM tickets.geo_locations")
        assert before[0]["status"] == "rejected"
        execute(pool, "UPDATE tickets.geo_locations SET geocoded_at = now() - interval '31 days'")
        provider.fault(Fault(*error(UNKNOWN)), locationiq.ATTEMPTS)
        assert look_up(gazetteer(pool, provider)).outcomes == {"unanswered": 1}
    assert execute(pool, "SELECT status, distance_m, answer FROM tickets.geo_locations") == before


TAKEN = "UPDATE ingest.leases SET holder = 'another', since = now(), until = now() + %(for)s"


def test_a_batch_whose_turn_somebody_else_has_taken_asks_nothing_more(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=3, B=2, C=1)

    def take(_outcome: str) -> None:
        execute(pool, TAKEN, {"for": timedelta(hours=1)})

    with pytest.raises(HeldByAnother, match="another is at it"):
        gazetteer(pool, provider).work(Kind, 100, Batch(), told=take)
    assert len(provider.searches) == 1
    execute(pool, TAKEN, {"for": timedelta(seconds=-1)})
    assert look_up(gazetteer(pool, provider)).outcomes == {"miss": 2}, "that one has died"


def test_a_wait_for_the_quota_keeps_the_turn_and_ends_with_it(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_LOOK_SECONDS", 0.1)
    tickets(pool, A=2, B=1)
    slow = settings(provider.url, GEOCODER_PER_MINUTE=1)
    places = Gazetteer(pool, GazetteerSettings(), slow, threading.Event())
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(places.work, Kind, 100, Batch())
        wait_until(lambda: len(provider.searches) == 1, "the minute is spent")
        (before,) = execute(pool, "SELECT until FROM ingest.leases")
        wait_until(
            lambda: execute(pool, "SELECT 1 FROM ingest.leases WHERE until > %(until)s", before), "it is renewed"
        )
        execute(pool, TAKEN, {"for": timedelta(hours=1)})
        with pytest.raises(HeldByAnother):
            running.result(30)
    assert len(provider.searches) == 1


def test_no_lock_that_a_reader_can_take_holds_up_lookups_or_captures(pool: Pool, provider: LocationIQ) -> None:
    """Whoever may log in can take any advisory lock; a row can only be locked by who may write it."""
    tickets(pool, Westlands=1)
    names = ["ingest.geocode", "ingest.geocoder_requests", "ingest.history"]
    execute(pool, "INSERT INTO ingest.outbox (kind) VALUES ('geocode')")
    with postgres.transaction(pool) as reading:
        reading.execute("RESET ROLE")
        reading.execute("""
            SELECT set_config('role', rolname, true) FROM pg_roles
            WHERE starts_with(rolname::text, 'fleettickets_read') AND has_schema_privilege(oid, 'ingest', 'USAGE')
        """)
        reading.execute(
            """SELECT pg_advisory_xact_lock(hashtext(name)) FROM unnest(%s::text[]) AS name
               UNION ALL SELECT pg_advisory_xact_lock(hashtextextended('tickets.capture_history', 0))""",
            [names],
        )
        for statement in (
            b"SELECT FROM ingest.locks FOR KEY SHARE",
            b"SELECT FROM ingest.locks FOR UPDATE",
            b"UPDATE ingest.leases SET until = 'infinity'",
            b"LOCK TABLE ingest.locks, ingest.leases IN ROW SHARE MODE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), reading.transaction():
                reading.execute(statement)
        reading.execute("LOCK TABLE ingest.locks, ingest.leases IN ACCESS SHARE MODE")
        with ThreadPoolExecutor(2) as threads:
            running = threads.submit(look_up, gazetteer(pool, provider)), threads.submit(capture, pool, unasked=True)
            wait_until(lambda: all(one.done() for one in running), "nothing waits for the reader")
    assert running[0].result().outcomes == {"hit": 1}


def test_a_ticket_merged_beside_an_unset_is_not_left_at_a_point_that_nobody_has(pool: Pool) -> None:
    """Its trigger has read the point that goes, and the taking back has not seen its row."""
    move_westlands(pool, *NEAR)
    here = {"cluster": "Westlands", "location_name": "Gate B", "cleaned_query": "Gate B"}
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "geocoding", "set_location", here | {"latitude": -1.3, "longitude": 36.7})
    with postgres.transaction(pool) as merging:
        merging.execute("""INSERT INTO tickets.inc (ticket_id, raw) VALUES ('CLUSTER', '{"cluster": "Westlands"}')""")
        raw = Jsonb({"cluster": "Westlands", "location_name": "Gate B"})
        merging.execute("INSERT INTO tickets.inc (ticket_id, raw) VALUES ('LOCATION', %s)", [raw])
        with postgres.transaction(pool) as connection:
            postgres.rows(connection, "geocoding", "unset_location", here)
            change_cluster(connection, ["unset_cluster"], here)
    assert sources(pool) == {"CLUSTER": "cluster", "LOCATION": "location"}
    with LocationIQ({}, per_second=None, per_minute=None) as provider:
        batch = look_up(gazetteer(pool, provider))
    assert (batch.outcomes, batch.placed) == ({"miss": 1}, 0)
    assert sources(pool) == {"CLUSTER": None, "LOCATION": None}
    assert execute(pool, "SELECT count(geom) + count(geog) + count(latitude) AS points FROM tickets.inc") == [
        {"points": 0}
    ]


def test_a_place_that_the_gazetteer_does_not_have_at_all_takes_no_ticket_off_the_map(pool: Pool) -> None:
    """What the batch import has placed stays until the provider has been asked."""
    ticket(pool, "ADOPTED")
    execute(pool, "UPDATE tickets.inc SET geom = ST_SetSRID(ST_MakePoint(36.8, -1.2), 4326), geo_source = 'cluster'")
    with LocationIQ({}, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider), limit=0)
        assert sources(pool) == {"ADOPTED": "cluster"}


def request(pool: Pool, file_id: int) -> None:
    """Ask as the file's transaction does, whether for the first time or anew."""
    with postgres.transaction(pool) as connection:
        postgres.rows(connection, "merge", "request_follow_ons", {"file_id": file_id, "kinds": ["geocode"]})


def file_of(pool: Pool, *clusters: str, location: str = "") -> int:
    """A file that has put one ticket into each cluster, and asks for their places."""
    (made,) = execute(
        pool,
        """INSERT INTO ingest.ledger (bucket, prefix, key, etag, epoch, first_seen_by, decision, state)
           VALUES ('b', 'p/', %(key)s, 'e', 1, 'poller', 'new', 'archived') RETURNING file_id""",
        {"key": f"{clusters[0]} {location}"},
    )
    for cluster in clusters:
        name = f"{cluster} {location}"
        ticket(pool, name, cluster=cluster, location_name=location, is_actionable=str(bool(location)))
        execute(
            pool,
            """INSERT INTO ingest.positions (ticket_id, position, file_id)
               VALUES (%(name)s, ROW(1, now(), 'k', now(), 'e', 1), %(file_id)s)""",
            {"name": name, "file_id": made["file_id"]},
        )
    request(pool, made["file_id"])
    return int(made["file_id"])


def test_a_request_that_is_asked_anew_while_its_batch_runs_stays_open(pool: Pool) -> None:
    def find(query: str) -> Coordinates | None:
        if query == "Westlands":
            request(pool, file_id)  # its bytes are back under their key
        return WESTLANDS

    file_id = file_of(pool, "Westlands")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        handler = GeocodeHandler(pool, gazetteer(pool, provider), lambda: 0, lambda _point: None)
        handler.geocode(Batch())
        assert len(provider.searches) == 1
        assert len(execute(pool, UNHANDLED)) == 1
        handler.geocode(Batch())
        assert execute(pool, UNHANDLED) == []


def test_a_file_of_made_up_places_does_not_spend_the_day_of_the_others(
    pool: Pool, provider: LocationIQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gazetteer_module, "MANY", 5, raising=False)
    limits = settings(provider.url, GEOCODER_PER_DAY=20)
    relayed: list[int] = []
    places = Gazetteer(pool, GazetteerSettings(), limits, threading.Event())
    handler = GeocodeHandler(pool, places, lambda: len(relayed), lambda _point: None)

    def work() -> list[str]:
        before = len(provider.searches)
        with suppress(Paused):
            while due(pool):
                handler.geocode(Batch())
        return [asked.query for asked in provider.searches[before:]]

    file_of(pool, *(f"Made up {number:02}" for number in range(30)))
    file_of(pool, "Westlands", location="Sarit Centre")
    asked = work()
    assert asked[:2] == ["Westlands", "Sarit Centre"], "those of few come first, their locations too"
    assert len(asked) == 10, "and those of many leave half of the day"
    file_of(pool, "Kangemi", location="Nowhere")
    assert work() == ["Kangemi"], "who comes later is not kept waiting"
    (open_request,) = execute(pool, "SELECT file_id, due_at FROM ingest.outbox WHERE handled_at IS NULL")
    assert open_request["file_id"] is None
    assert open_request["due_at"] > datetime.now(UTC), "the rest is asked for with the next day's requests"
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = '2020-01-01', ended_at = '2020-01-01'")
    execute(pool, "UPDATE ingest.outbox SET due_at = now() WHERE handled_at IS NULL")
    assert len(work()) == 10
    by_hand = Batch()
    with suppress(Paused):
        places.work([Kind.CLUSTERS], 100, by_hand, by_hand=True)
    assert by_hand.outcomes.total() == 10, "a person who asks for them spends the rest"


def due(pool: Pool) -> bool:
    return bool(execute(pool, "SELECT 1 FROM ingest.outbox WHERE handled_at IS NULL AND due_at <= now()"))


def test_of_any_number_of_places_only_the_next_few_are_held(pool: Pool, provider: LocationIQ) -> None:
    execute(
        pool,
        """INSERT INTO tickets.inc (ticket_id, raw)
           SELECT n, jsonb_build_object('cluster', 'Made up ' || n) FROM generate_series(1, 20000) AS n""",
    )
    look_up(gazetteer(pool, provider), limit=1)  # what is imported and prepared once
    tracemalloc.start()
    try:
        assert look_up(gazetteer(pool, provider), limit=1).rest
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000


def test_each_key_has_its_own_limits(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=2, B=1)
    spent = Gazetteer(pool, GazetteerSettings(), settings(provider.url, GEOCODER_PER_DAY=1), threading.Event())
    with pytest.raises(Paused):
        look_up(spent)
    other = settings(f"{provider.url}/", GEOCODER_PER_DAY=1)
    assert look_up(Gazetteer(pool, GazetteerSettings(), other, threading.Event())).outcomes == {"miss": 1}
    assert len(provider.searches) == 2


def test_an_answer_for_a_location_whose_cluster_has_no_point_any_more_is_not_kept(pool: Pool) -> None:
    def find(query: str) -> Coordinates:
        if query == "Yaya Centre":
            execute(pool, "UPDATE tickets.geo_clusters SET latitude = NULL, longitude = NULL, status = 'miss'")
        return WESTLANDS

    ticket(pool, "HERE", location_name="Yaya Centre", is_actionable="true")
    with LocationIQ(find, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1, "unanswered": 1}
    assert locations(pool) == {}


def test_a_point_of_a_location_set_by_hand_outlives_answers_and_judgements(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "THERE", location_name="Atlantis", is_actionable="true")
    look_up(gazetteer(pool, provider))
    execute(pool, "UPDATE tickets.geo_locations SET latitude = -4, longitude = 39.6, status = 'hit', is_manual = true")
    execute(pool, "UPDATE tickets.geo_locations SET geocoded_at = '2020-01-01'")
    places = gazetteer(pool, provider, keep_hits_days=1)
    look_up(places)
    move_westlands(pool, -1.3, 36.8)
    assert locations(pool) == {"Atlantis": "hit"}
    assert execute(pool, "SELECT latitude FROM tickets.inc") == [{"latitude": -4}]


@pytest.mark.parametrize(
    ("quality", "cluster", "location"),
    [
        ("exact/centroid/street", "hit", "hit"),
        ("exact/centroid/city", "hit", "rejected"),
        ("fallback/centroid/city", "rejected", None),
        ("exact/centroid/county", "rejected", None),
        ("exact/centroid/state", "rejected", None),
        ("exact/centroid/country", "rejected", None),
        ("exact/centroid/postalcode", "rejected", None),
    ],
)
def test_an_answer_that_is_too_coarse_is_none(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, quality: str, cluster: str, location: str | None
) -> None:
    parts = zip(["matchcode", "matchtype", "matchlevel"], quality.split("/"), strict=True)
    monkeypatch.setattr(geocoder, "MATCH_QUALITY", dict(parts))
    ticket(pool, "HERE", location_name="Westlands", is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as provider:
        look_up(gazetteer(pool, provider))
    assert statuses(pool) == {"Westlands": cluster}
    assert locations(pool) == ({"Westlands": location} if location else {})


MOMBASA = (-4.0435, 39.6682)
NEAR = (-1.25, 36.82)
NOTHING_NEAR = [MOMBASA, (*NEAR, "city"), (-4.1, 39.6)]


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([MOMBASA, NEAR, WESTLANDS], ("hit", NEAR)),
        ([MOMBASA, (*WESTLANDS, "city"), NEAR], ("hit", NEAR)),
        ([*[MOMBASA] * 9, NEAR], ("hit", NEAR)),
        (NOTHING_NEAR, ("rejected", MOMBASA)),
    ],
)
def test_of_places_with_one_name_the_first_that_is_near_and_fine_enough_is_taken(
    pool: Pool, known: list[Coordinates], kept: tuple[str, Coordinates]
) -> None:
    ticket(pool, "HERE", location_name="Moi Avenue", is_actionable="true")
    with LocationIQ({"Westlands": WESTLANDS, "Moi Avenue": known}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == Counter(["hit", kept[0]])
        assert len(provider.searches) == 2, "one request for all of them"
    (found,) = execute(pool, "SELECT * FROM tickets.geo_locations")
    assert (found["status"], (found["latitude"], found["longitude"])) == kept
    assert float(found["answer"]["lat"]) == found["latitude"], "what the point came from"
    assert (found["distance_m"] > 25_000) == (found["status"] == "rejected")


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ([(0.0, 0.0), (*MOMBASA, "state"), WESTLANDS, NEAR], ("hit", WESTLANDS)),
        ([(*MOMBASA, "county"), (0.0, 0.0)], ("rejected", MOMBASA)),
    ],
)
def test_of_places_with_a_clusters_name_the_first_in_kenya_that_is_fine_enough_is_taken(
    pool: Pool, known: list[Coordinates], kept: tuple[str, Coordinates]
) -> None:
    ticket(pool, "HERE")
    with LocationIQ({"Westlands": known}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {kept[0]: 1}
    (found,) = execute(pool, "SELECT * FROM tickets.geo_clusters")
    assert (found["status"], (found["latitude"], found["longitude"])) == kept
    assert float(found["answer"]["lat"]) == found["latitude"], "what the point came from"


def test_a_cluster_outside_the_country_is_none_and_is_asked_for_without_its_region(pool: Pool) -> None:
    ticket(pool, "A", cluster="Zero", region="coast")
    with LocationIQ({"Zero, coast": (0.0, 0.0)}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"rejected": 1}
        assert [asked.query for asked in provider.searches] == ["Zero, coast", "Zero"]
    assert sources(pool) == {"A": None}


def test_a_blank_cluster_is_a_miss_that_nobody_is_asked_for(pool: Pool, provider: LocationIQ) -> None:
    """The cleaning leaves none; a database that was taken over may have some."""
    for number, blank in enumerate(["", " ", "\u00a0"]):
        ticket(pool, f"{number}", cluster=blank)
    tickets(pool, Westlands=1)
    assert look_up(gazetteer(pool, provider)).outcomes["hit"] == 1
    assert look_up(gazetteer(pool, provider)).outcomes == {}
    assert len(provider.searches) == 1


def test_a_limit_that_does_not_end_is_not_waited_for_with_a_message_in_hand(
    pool: Pool, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "end_of_limit", lambda _window, now: now + timedelta(seconds=0.2))
    odd.reply = error(LIMITED["Minute"])
    tickets(pool, Odd_place=1)
    with pytest.raises(Paused, match="in this minute"):
        look_up(gazetteer(pool, odd))
    assert len(odd.searches) == locationiq.ATTEMPTS


def test_a_batch_ends_after_its_time_and_says_that_there_is_more(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=1, B=1, C=1)
    batch = Batch()
    gazetteer(pool, provider).work(Kind, 100, batch, seconds=0)
    assert (batch.outcomes, batch.rest) == ({"miss": 1}, True)


def test_without_an_open_request_nothing_is_done(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, Westlands=1)
    handler = GeocodeHandler(pool, gazetteer(pool, provider), lambda: 0, lambda _point: None)
    batch = Batch()
    with gazetteer(pool, provider)._turn.held():  # noqa: SLF001 - it would be waited for
        handler.geocode(batch)
    assert (batch, provider.searches) == (Batch(), [])


def test_one_looks_up_at_a_time(pool: Pool, provider: LocationIQ) -> None:
    ticket(pool, "HERE")
    held = gazetteer(pool, provider)._turn.held()  # noqa: SLF001 - as a second process would
    with held, pytest.raises(HeldByAnother, match=rf"process {os.getpid()} .* is at it since"):
        look_up(gazetteer(pool, provider))
    assert look_up(gazetteer(pool, provider)).outcomes == {"hit": 1}


def test_no_second_has_more_requests_than_it_may_whoever_books_them(pool: Pool) -> None:
    def book(_number: int) -> None:
        quota = Quota(pool, settings(GEOCODER_PER_SECOND=4), threading.Event())
        for _ in range(4):
            quota.book()
            quota.ended()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(book, range(3)))
    rows = execute(pool, "SELECT booked_at, ended_at FROM ingest.geocoder_requests ORDER BY booked_at")
    assert len(rows) == 12
    for number in range(4, 12):
        # Wherever between booking and end each of them arrived: the fourth before it did so a second ago, or longer.
        fourth = sorted(row["ended_at"] for row in rows[:number])[-4]
        assert rows[number]["booked_at"] >= fourth + timedelta(seconds=1)


def test_a_spent_minute_is_waited_for_and_a_spent_day_is_not(pool: Pool) -> None:
    stop = threading.Event()
    quota = Quota(pool, settings(GEOCODER_PER_MINUTE=2), stop)
    for _ in range(2):
        quota.book()
        quota.ended()
    assert 55 < quota._try() <= 60  # noqa: SLF001 - instead of a minute's wait
    stop.set()
    with pytest.raises(Stopped):
        quota.book()
    with pytest.raises(Paused) as paused:
        Quota(pool, settings(GEOCODER_PER_DAY=2), threading.Event()).book()
    now = datetime.now(UTC)
    assert paused.value.until == now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert Quota(pool, settings(GEOCODER_PER_DAY=5), stop).left() == 3


@pytest.mark.parametrize("limit", ["GEOCODER_PER_MINUTE", "GEOCODER_PER_DAY"])
def test_the_server_counts_no_more_than_three_searchers_may_send(pool: Pool, limit: str) -> None:
    limits = {"per_second": None, "per_minute": None, "per_day": None, limit.removeprefix("GEOCODER_").lower(): 7}
    with LocationIQ({"Westlands": WESTLANDS}, **limits) as server:  # type: ignore[arg-type]
        stop = threading.Event()

        def search_until_spent(_number: int) -> int:
            its_settings = settings(server.url, **{limit: 7})
            its_quota = Quota(pool, its_settings, stop)
            found = 0
            with suppress(Paused, Stopped):
                while True:
                    Geocoder(its_settings).search("Westlands", None, its_quota.book)
                    its_quota.ended()
                    found += 1
            return found

        with ThreadPoolExecutor(3) as threads:
            ends = [threads.submit(search_until_spent, number) for number in range(3)]
            wait_until(lambda: len(server.searches) == 7, "all that may be sent")
            stop.set()
            assert sum(end.result() for end in ends) == 7
        assert {asked.status for asked in server.searches} == {200}
        assert len(server.searches) == 7


def test_a_request_under_way_counts_until_its_answer(pool: Pool) -> None:
    first, second = (Quota(pool, settings(GEOCODER_PER_SECOND=1), threading.Event()) for _ in range(2))
    first.book()
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = booked_at - interval '5 seconds'")
    assert second._try() > 0.9, "it may arrive only now"  # noqa: SLF001
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = booked_at - interval '5 minutes'")
    assert second._try() == 0, "its sender is dead"  # noqa: SLF001


def test_bookings_are_kept_for_as_long_as_a_limit_asks(pool: Pool, provider: LocationIQ) -> None:
    execute(
        pool,
        """INSERT INTO ingest.geocoder_requests (account, booked_at)
           SELECT 'a', now() - days * interval '1 day' FROM unnest(ARRAY[0, 3]) AS days""",
    )
    look_up(gazetteer(pool, provider))
    assert len(execute(pool, "SELECT 1 FROM ingest.geocoder_requests")) == 1


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        ("second", "2026-06-25T00:00:00Z", "2026-06-25T00:00:01Z"),
        ("minute", "2026-06-25T00:00:00Z", "2026-06-25T00:01:00Z"),
        ("day", "2026-06-24T23:59:59Z", "2026-06-25T00:00:00Z"),
        ("day", "2026-06-25T00:00:00Z", "2026-06-25T00:15:00Z"),
        ("day", "2026-06-25T00:14:59Z", "2026-06-25T00:15:00Z"),
        ("day", "2026-06-25T00:15:00Z", "2026-06-26T00:00:00Z"),
        ("day", "2026-06-25T03:00:02+03:00", "2026-06-25T00:15:00Z"),
        ("day", "2026-06-25T02:59:58+03:00", "2026-06-25T00:00:00Z"),
    ],
)
def test_a_day_that_has_just_begun_is_not_given_up_for_one_refusal(window: quota.Window, now: str, end: str) -> None:
    assert quota.end_of_limit(window, datetime.fromisoformat(now)) == datetime.fromisoformat(end)


def test_the_providers_word_on_its_limits_is_held_by_the_clock_of_the_database(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[datetime] = []

    def end_of_limit(window: str, now: datetime) -> datetime:
        assert window == "day"
        ends.append(now + timedelta(hours=5))
        return ends[0]

    monkeypatch.setattr(quota, "end_of_limit", end_of_limit)
    before = execute(pool, "SELECT clock_timestamp() AS now")[0]["now"]
    Quota(pool, settings(), threading.Event()).limited("day", "Rate Limited Day")
    assert [row["until"] for row in execute(pool, "SELECT until FROM ingest.geocoder_pause")] == ends
    assert ends[0] >= before + timedelta(hours=5)


def test_a_pause_is_for_everybody_and_the_longer_one_stands(pool: Pool) -> None:
    first, second = (Quota(pool, settings(), threading.Event()) for _ in range(2))
    first.limited("day", "Rate Limited Day")
    first.limited("second", "Rate Limited Second")
    with pytest.raises(Paused, match="Rate Limited Day"):
        second.book()
