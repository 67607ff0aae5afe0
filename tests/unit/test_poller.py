"""How many of the waiting files a poll publishes, and how often the same one."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher import broker, poller
from publisher.bucket import ObjectSummary
from publisher.messages import ChangeFileArrived
from publisher.poller import Poller, missing_from_queue


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


class Store:
    """A bucket and a queue of numbers, by hand."""

    name = "isptickets"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.queued = 0
        self.now = 0.0
        self.published: list[str] = []
        self.queued_after_listing: int | None = None
        self._is_listed = False
        monkeypatch.setattr(broker, "queue_depth", self._depth)
        monkeypatch.setattr(broker, "publish", self._publish)
        self.poller = Poller(self, 4, clock=lambda: self.now)  # type: ignore[arg-type]

    def _publish(self, _channel: object, outgoing: broker.Outgoing) -> None:
        self.published += ChangeFileArrived.model_validate_json(outgoing.body).keys

    def _depth(self, *_: object) -> tuple[int, int]:
        if self._is_listed and self.queued_after_listing is not None:
            return self.queued_after_listing, 1
        return self.queued, 1

    def waiting(self) -> list[ObjectSummary]:
        self._is_listed = True
        return [ObjectSummary(key, "etag", 1, datetime(2026, 6, 25, tzinfo=UTC)) for key in self.keys]

    def poll(self) -> list[str]:
        self.published = []
        self._is_listed = False
        channel: Any = None
        done = self.poller.poll(channel)
        queued = max(self.queued, self.queued_after_listing or 0)
        assert done == poller.Poll(len(self.keys), queued, len(self.published))
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
