"""How many of the waiting files a poll publishes, how often the same one, and what it remembers of them."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from threading import Event
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.arrivals.folders import Folder
from publisher.arrivals.messages import ChangeFileArrived
from publisher.broker import channels, publishing
from publisher.health import HANGS_SECONDS
from publisher.heartbeat import Pulse
from publisher.sources import poller
from publisher.sources.poller import Poller, missing_from_queue
from publisher.store.bucket import ObjectSummary


@pytest.mark.parametrize(
    ("files", "queued", "in_hand", "published"),
    [
        (2000, 0, 8, 2000),
        (2000, 2000, 0, 0),
        (2000, 1992, 8, 0),
        (2000, 1900, 8, 92),
        (5, 5000, 0, 0),
        (0, 0, 8, 0),
    ],
)
def test_only_what_is_missing_from_the_queue_is_published(
    files: int, queued: int, in_hand: int, published: int
) -> None:
    assert missing_from_queue(files, queued, in_hand) == published


@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 50))
def test_a_queue_with_messages_never_grows_beyond_the_backlog(files: int, queued: int, in_hand: int) -> None:
    published = missing_from_queue(files, queued, in_hand)
    assert published == 0 or queued + in_hand + published <= files


FOLDER = Folder("inc", "")


class Store:
    """A bucket and a queue of numbers, by hand."""

    name = "isptickets"
    folders = (FOLDER,)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.queued = 0
        self.now = 0.0
        self.published: list[str] = []
        self.sent = 0
        self.queued_after_listing: int | None = None
        self.settled: set[str] = set()
        self._is_listed = False
        monkeypatch.setattr(channels, "queue_depth", self._depth)
        monkeypatch.setattr(publishing, "publish", self._publish)
        self.poller = Poller(self, 4, self._open_settled, clock=lambda: self.now)  # type: ignore[arg-type]

    def _open_settled(self, bucket: str, _absences: object) -> AbstractContextManager[poller.Settled]:
        assert bucket == self.name
        return nullcontext(self._is_settled)

    def _is_settled(self, page: Sequence[ObjectSummary]) -> list[bool]:
        assert len(page) <= 1000
        return [found.key in self.settled for found in page]

    def _publish(self, _channel: object, outgoing: publishing.Outgoing) -> None:
        self.published += ChangeFileArrived.model_validate_json(outgoing.body).keys

    def _depth(self, *_: object) -> tuple[int, int]:
        if self._is_listed and self.queued_after_listing is not None:
            return self.queued_after_listing, 1
        return self.queued, 1

    def waiting_in(self, _folder: Folder, after: str = "") -> Iterator[ObjectSummary]:
        self._is_listed = True
        for key in self.keys:
            if key > after:
                yield ObjectSummary(key, "etag", 1, datetime(2026, 6, 25, tzinfo=UTC))

    def poll(self) -> list[str]:
        self.published = []
        self._is_listed = False
        channel: Any = None
        done = self.poller.poll(channel, Event())
        queued = max(self.queued, self.queued_after_listing or 0)
        set_aside = len(self.settled.intersection(self.keys))
        assert done == poller.Poll(len(self.keys) - set_aside, set_aside, queued, len(self.published))
        return self.published


def test_what_stays_for_good_is_offered_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.keys = ["stray"]
    offered: Counter[int] = Counter()
    for minute in range(24 * 60):
        store.now = minute * 60.0
        offered[minute // 60] += len(store.poll())
    assert 5 <= offered[0] <= 7
    assert all(offered[hour] <= 1 for hour in range(2, 24))
    assert sum(offered.values()) > 20  # and yet never given up


def test_a_file_that_left_and_came_back_is_offered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    for keys, published in ((["a"], ["a"]), (["a"], []), ([], []), (["a"], ["a"])):
        store.keys = keys
        assert store.poll() == published


def test_beside_a_queue_that_never_runs_empty_each_file_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.keys, store.queued = [f"key{number}" for number in range(10)], 5
    assert [store.poll() for _ in range(11)] == [[f"key{number}"] for number in range(10)] + [[]]


@pytest.mark.parametrize(("before", "after"), [(10, 4), (4, 10)])
def test_what_leaves_or_enters_the_queue_during_the_listing_is_not_taken_for_missing(
    monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """A consumer took six that the listing still shows, or the store announced six that it shows already."""
    store = Store(monkeypatch)
    store.keys = [f"key{number}" for number in range(10)]
    store.queued, store.queued_after_listing = before, after
    assert store.poll() == []


def test_what_the_ledger_has_settled_is_neither_published_nor_counted_as_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(monkeypatch)
    store.keys = [f"key{number}" for number in range(10)]
    store.settled = {f"key{number}" for number in range(8)}
    assert store.poll() == ["key8", "key9"]
    store.settled, store.now = {"key9"}, 31
    assert store.poll() == [f"key{number}" for number in range(9)], "it counts for this poll alone"


def test_a_backlog_of_any_length_is_published_whole_and_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "_HELD", 10)
    store = Store(monkeypatch)
    store.keys = [f"key{number:03}" for number in range(35)]
    store.settled = {"key005", "key020"}
    assert store.poll() == [key for key in store.keys if key not in store.settled]
    assert store.poll() == []


def test_a_poll_that_takes_long_is_not_taken_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowStore(Store):
        def waiting_in(self, folder: Folder, after: str = "") -> Iterator[ObjectSummary]:
            for found in super().waiting_in(folder, after):
                self.now += 60
                silent.append(pulse.turned_seconds)
                yield found

        def _publish(self, channel: object, outgoing: publishing.Outgoing) -> None:
            self.now += 60
            silent.append(pulse.turned_seconds)
            super()._publish(channel, outgoing)

    silent: list[float] = []
    store = SlowStore(monkeypatch)
    pulse = Pulse(lambda: store.now)
    slow = Poller(store, 4, store._open_settled, clock=lambda: store.now, pulse=pulse)  # type: ignore[arg-type] # noqa: SLF001
    store.keys = [f"key{number}" for number in range(10)]
    assert slow.poll(MagicMock(), Event()) is not None
    assert (len(silent), len(store.published)) == (20, 10)
    assert max(silent) < HANGS_SECONDS


def test_a_poller_does_not_grow_with_what_lies_in_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Store):
        def waiting_in(self, _folder: Folder, after: str = "") -> Iterator[ObjectSummary]:
            for number in range(30_000):
                key = f"automations/inc/changes/2026-06-25T14-20-00-{number:09}.csv"
                if key > after:
                    yield ObjectSummary(key, f"{number:032x}", 1, datetime(2026, 6, 25, tzinfo=UTC))

        def _publish(self, _channel: object, _outgoing: publishing.Outgoing) -> None:
            self.sent += 1

    monkeypatch.setattr(poller, "_HELD", 500, raising=False)
    monkeypatch.setattr(poller, "_REMEMBERED", 2500, raising=False)
    store = Endless(monkeypatch)
    channel: Any = None
    tracemalloc.start()
    try:
        for now, published in ((0.0, 30_000), (1.0, 27_500), (31.0, 30_000)):
            store.now, store.sent = now, 0
            store.poller.poll(channel, Event())
            assert store.sent == published
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
