"""The provider's limits hold across everybody who asks it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from consumer.geocoding import locationiq, quota
from consumer.geocoding.gazetteer import Gazetteer
from consumer.geocoding.locationiq import Geocoder
from consumer.geocoding.quota import Paused, Quota, Stopped
from consumer.postgres.database import Pool
from consumer.settings import GazetteerSettings
from tests.doubles.geocoder import (
    LIMITED,
    LocationIQ,
    Odd,
    error,
)
from tests.integration.gazetteers import FEEDS, WESTLANDS, execute, gazetteer, look_up, settings, tickets
from tests.stage.stage import wait_until


def test_each_key_has_its_own_limits(pool: Pool, provider: LocationIQ) -> None:
    tickets(pool, A=2, B=1)
    spent = Gazetteer(pool, FEEDS, GazetteerSettings(), settings(provider.url, GEOCODER_PER_DAY=1), threading.Event())
    with pytest.raises(Paused):
        look_up(spent)
    other = settings(f"{provider.url}/", GEOCODER_PER_DAY=1)
    assert look_up(Gazetteer(pool, FEEDS, GazetteerSettings(), other, threading.Event())).outcomes == {"miss": 1}
    assert len(provider.searches) == 2


def test_a_limit_that_does_not_end_is_not_waited_for_with_a_message_in_hand(
    pool: Pool, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "end_of_limit", lambda _window, now: now + timedelta(seconds=0.2))
    odd.reply = error(LIMITED["Minute"])
    tickets(pool, Odd_place=1)
    with pytest.raises(Paused, match="in this minute"):
        look_up(gazetteer(pool, odd))
    assert len(odd.searches) == locationiq.ATTEMPTS


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
