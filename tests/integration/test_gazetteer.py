"""The gazetteer keeps what is known, places whatever is elsewhere, and shares the provider's limits."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer import database as postgres
from consumer.database import Pool
from consumer.geocoding import Batch, Gazetteer, Kind
from consumer.quota import Paused, Quota, Stopped
from consumer.settings import GazetteerSettings, GeocoderSettings
from publisher.errors import HeldByAnother
from tests.acceptance.geocoder import KEY, LocationIQ

WESTLANDS = (-1.2676, 36.8108)


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as server:
        yield server


def settings(url: str = "http://127.0.0.1:1", **limits: int) -> GeocoderSettings:
    fast = {"GEOCODER_PER_SECOND": 1000, "GEOCODER_PER_MINUTE": 60_000}
    return GeocoderSettings.model_validate({"GEOCODER_API_KEY": KEY, "GEOCODER_URL": url} | fast | limits)


def gazetteer(pool: Pool, provider: LocationIQ, **kept: float) -> Gazetteer:
    return Gazetteer(pool, GazetteerSettings.model_validate(kept), settings(provider.url), threading.Event())


def look_up(of: Gazetteer, limit: int = 100) -> Batch:
    batch = Batch()
    of.work(Kind, limit, batch)
    return batch


def execute(pool: Pool, statement: str) -> list[dict[str, Any]]:
    with postgres.transaction(pool) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


TICKET = """INSERT INTO tickets.inc (ticket_id, raw) VALUES ('{}', '{{"cluster": "Westlands"}}')"""


def sources(pool: Pool) -> dict[str, str | None]:
    return {
        row["ticket_id"]: row["geo_source"] for row in execute(pool, "SELECT ticket_id, geo_source FROM tickets.inc")
    }


def test_a_ticket_that_is_merged_while_its_place_becomes_known_is_placed_by_the_next_batch(
    pool: Pool, provider: LocationIQ
) -> None:
    """Neither the trigger sees the new point nor the batch the new row; the request of the row's file is still open."""
    places = gazetteer(pool, provider)
    execute(pool, TICKET.format("FIRST"))
    with postgres.transaction(pool) as merging:
        merging.execute(TICKET.format("MEANWHILE").encode())
        assert look_up(places).outcomes == {"hit": 1}
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": None}
    again = look_up(places)
    assert (again.outcomes, again.placed) == ({}, 1)
    assert sources(pool) == {"FIRST": "cluster", "MEANWHILE": "cluster"}
    assert look_up(places).placed == 0


def test_a_place_that_changes_moves_its_tickets_and_no_others(pool: Pool, provider: LocationIQ) -> None:
    execute(pool, TICKET.format("HERE"))
    execute(pool, TICKET.format("FED").replace("}", ', "latitude": "-1", "longitude": "37"}'))
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
    execute(pool, TICKET.format("HERE"))
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
    execute(pool, TICKET.format("HERE").replace("Westlands", "Atlantis"))
    places = gazetteer(pool, provider)
    assert look_up(places).outcomes == {"miss": 1}
    assert look_up(places).outcomes == {}
    execute(pool, "UPDATE tickets.geo_clusters SET geocoded_at = now() - interval '31 days'")
    assert look_up(places).outcomes == {"miss": 1}


def test_one_looks_up_at_a_time(pool: Pool, provider: LocationIQ) -> None:
    execute(pool, TICKET.format("HERE"))
    with pytest.raises(HeldByAnother), gazetteer(pool, provider)._alone():  # noqa: SLF001 - as a second process would
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


def test_a_request_under_way_counts_until_its_answer(pool: Pool) -> None:
    first, second = (Quota(pool, settings(GEOCODER_PER_SECOND=1), threading.Event()) for _ in range(2))
    first.book()
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = booked_at - interval '5 seconds'")
    assert second._try() > 0.9, "it may arrive only now"  # noqa: SLF001
    execute(pool, "UPDATE ingest.geocoder_requests SET booked_at = booked_at - interval '5 minutes'")
    assert second._try() == 0, "its sender is dead"  # noqa: SLF001


def test_bookings_are_kept_for_as_long_as_a_limit_asks(pool: Pool, provider: LocationIQ) -> None:
    execute(pool, "INSERT INTO ingest.geocoder_requests (booked_at) VALUES (now() - interval '3 days'), (now())")
    look_up(gazetteer(pool, provider))
    assert len(execute(pool, "SELECT 1 FROM ingest.geocoder_requests")) == 1


def test_a_pause_is_for_everybody_and_the_longer_one_stands(pool: Pool) -> None:
    first, second = (Quota(pool, settings(), threading.Event()) for _ in range(2))
    first.limited("day", "Rate Limited Day")
    first.limited("second", "Rate Limited Second")
    with pytest.raises(Paused, match="Rate Limited Day"):
        second.book()
