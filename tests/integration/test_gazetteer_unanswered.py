"""A place that gets no answer, or none of use, holds up no other."""

import json
import threading

import pytest

from consumer.geocoding import locationiq
from consumer.geocoding.gazetteer import Batch, Gazetteer
from consumer.geocoding.known_places import PlaceKind
from consumer.geocoding.locationiq import GeocoderDown
from consumer.geocoding.quota import Paused
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings
from publisher.errors import Refused
from tests.doubles.geocoder import (
    INVALID_REQUEST,
    PLACE,
    UNKNOWN,
    LocationIQ,
    Odd,
    error,
)
from tests.integration.gazetteers import (
    FEEDS,
    WESTLANDS,
    execute,
    gazetteer,
    look_up,
    pass_time,
    settings,
    statuses,
    ticket,
    tickets,
)


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
def test_an_answer_of_no_use_is_none_when_the_provider_answers_others(pool: Pool, odd: Odd, body: bytes) -> None:
    odd.reply = (200, body)
    tickets(pool, Odd_place=1)
    for asked in ({"unanswered": 1}, {"unanswered": 1}, {"unanswered": 1}, {}):
        before = len(odd.searches)
        assert look_up(gazetteer(pool, odd)).outcomes == asked
        assert len(odd.searches) - before == 2 * asked.get("unanswered", 0), "once, as it would say the same at once"
        assert look_up(gazetteer(pool, odd)).outcomes == {}, "not yet"
        pass_time(pool, minutes=11)
    assert statuses(pool) == {"Odd place": "miss"}


def test_a_place_that_was_answered_with_nonsense_for_a_moment_is_found(pool: Pool, odd: Odd) -> None:
    odd.reply, odd.prefix = (200, b"<html>maintenance"), "Westlands"
    tickets(pool, Westlands=1)
    assert look_up(gazetteer(pool, odd)).outcomes == {"unanswered": 1}
    odd.prefix = "nobody"
    pass_time(pool, minutes=11)
    assert look_up(gazetteer(pool, odd)).outcomes == {"hit": 1}


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
    other_key = Gazetteer(
        pool, FEEDS, GazetteerSettings(), settings(odd.url, GEOCODER_API_KEY="pk.other"), threading.Event()
    )
    assert other_key.quota.paused() is None
    odd.prefix = "nobody"
    places.work(PlaceKind, 100, Batch(), by_hand=True)
    assert statuses(pool) == {"A": "miss", "B": "miss"}
    assert places.quota.paused() is None


@pytest.mark.parametrize("fault", [error(UNKNOWN), (200, b"<html>maintenance")])
def test_a_provider_that_goes_away_during_a_batch_makes_no_miss(pool: Pool, odd: Odd, fault: tuple[int, bytes]) -> None:
    tickets(pool, Westlands=3, B=2, C=1)

    def go_away(_outcome: str) -> None:
        odd.prefix, odd.reply = "", fault

    with pytest.raises(GeocoderDown):
        gazetteer(pool, odd).work(PlaceKind, 100, Batch(), told=go_away)
    assert statuses(pool) == {"Westlands": "hit"}
    odd.prefix = "nobody"
    before = len(odd.searches)
    assert look_up(gazetteer(pool, odd)).outcomes == {"miss": 2}
    assert [asked.query for asked in odd.searches[before:]] == ["B", "C"], "in their order still"


def test_an_answer_that_cannot_be_kept_is_a_miss_and_holds_up_no_other(pool: Pool) -> None:
    execute(pool, "RESET ROLE; ALTER TABLE tickets.geo_clusters ADD CHECK (query <> 'Bad')")
    tickets(pool, Bad=2, Good=1)
    with LocationIQ({"Bad": WESTLANDS, "Good": WESTLANDS}, per_second=None, per_minute=None) as provider:
        assert look_up(gazetteer(pool, provider)).outcomes == {"miss": 1, "hit": 1}
        assert look_up(gazetteer(pool, provider)).outcomes == {}
    assert statuses(pool) == {"Bad": "miss", "Good": "hit"}
