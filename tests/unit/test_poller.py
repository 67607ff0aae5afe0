"""How many of the waiting files a poll publishes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.bucket import ObjectSummary
from publisher.poller import missing_from_queue


def waiting(count: int) -> list[ObjectSummary]:
    return [ObjectSummary(f"key{number:04}", "etag", 1, datetime(2026, 6, 25, tzinfo=UTC)) for number in range(count)]


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
    assert missing_from_queue(waiting(files), queued, in_hand) == waiting(files)[:published]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 50))
def test_a_queue_with_messages_never_grows_beyond_the_backlog(files: int, queued: int, in_hand: int) -> None:
    published = len(missing_from_queue(waiting(files), queued, in_hand))
    if queued:
        assert published == 0 or queued + in_hand + published <= files


@given(st.integers(1, 300), st.integers(0, 50))
def test_an_empty_queue_gets_every_file(files: int, in_hand: int) -> None:
    assert missing_from_queue(waiting(files), 0, in_hand) == waiting(files)
