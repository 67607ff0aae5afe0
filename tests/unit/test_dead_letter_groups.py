"""Which failures are the same trouble, and which dead letters a choice means."""

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from publisher.arrivals import messages
from publisher.broker.dead_letters import DeadLetter, LastFailure, Selection, dead_letter, fingerprint, grouped
from publisher.broker.topology import Queue
from publisher.trace import Trace


@pytest.mark.parametrize(
    "other",
    [
        "invalid continuation byte near line 7",
        "invalid continuation byte near line 12345",
    ],
)
def test_failures_that_differ_in_numbers_are_one_group(other: str) -> None:
    assert fingerprint("not UTF-8", other) == fingerprint("not UTF-8", "invalid continuation byte near line 3")


def test_failures_of_another_kind_are_another_group() -> None:
    assert fingerprint("not UTF-8", "near line 3") != fingerprint("cut off", "near line 3")
    assert len(fingerprint("x", "y")) == 8


def letter(number: int, age: timedelta | None, *, key: str = "key", mark: str = "aaaaaaaa") -> DeadLetter:
    dead_at = None if age is None else NOW - age
    return DeadLetter(f"id{number}", number, Queue.FILES, key, "reason", f"error {number}", mark, 1, 0, dead_at, b"")


NOW = datetime.now(UTC)
SHIFT, DAY = timedelta(hours=8), timedelta(days=1)  # much longer than all tests run
LETTERS = (
    letter(4, SHIFT / 2, mark="bbbbbbbb"),
    letter(2, 2 * SHIFT, key="other"),
    letter(3, None),
    letter(1, 3 * DAY),
)


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), ["id4", "id2", "id3", "id1"]),
        (Selection(id="id3"), ["id3"]),
        (Selection(id="id3", key="other"), []),
        (Selection(key="other"), ["id2"]),
        (Selection(fingerprint="bbbbbbbb"), ["id4"]),
        (Selection(older_than=SHIFT), ["id2", "id1"]),
        (Selection(newer_than=DAY), ["id4", "id2"]),
        (Selection(older_than=SHIFT, newer_than=DAY), ["id2"]),
        (Selection(older_than=timedelta(0)), ["id4", "id2", "id1"]),
        (Selection(newer_than=timedelta(0)), []),
        (Selection(limit=1), ["id3"]),
        (Selection(limit=3), ["id3", "id1", "id2"]),
        (Selection(limit=9), ["id3", "id1", "id2", "id4"]),
        (Selection(newer_than=DAY, limit=1), ["id2"]),
        (Selection(key="key", older_than=timedelta(days=9)), []),
    ],
)
def test_a_selection_takes_those_for_which_all_conditions_hold_and_with_a_limit_the_oldest(
    selection: Selection, ids: list[str]
) -> None:
    assert [chosen.id for chosen in selection.among(LETTERS)] == ids


def test_of_letters_of_one_moment_a_limit_takes_the_same_in_whatever_order_they_come() -> None:
    twins = [letter(number, DAY) for number in range(9)]
    for order in (twins, twins[::-1], twins[4:] + twins[:4]):
        assert [chosen.id for chosen in Selection(limit=3).among(order)] == ["id0", "id1", "id2"]


def test_a_limit_keeps_no_more_letters_than_it_chooses() -> None:
    size, many = 100_000, 500
    of_some_size = (replace(letter(number, SHIFT * (number % 7)), body=bytes(size)) for number in range(many))
    tracemalloc.start()
    try:
        chosen = list(Selection(limit=3).among(of_some_size))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(chosen) == 3
    assert peak < size * many / 10


@pytest.mark.parametrize("letters", [LETTERS, LETTERS[::-1], LETTERS[2:] + LETTERS[:2]])
def test_groups_have_counts_and_ages_the_largest_first_in_whatever_order_letters_come(
    letters: tuple[DeadLetter, ...],
) -> None:
    large, small = grouped(letters)
    assert (large.fingerprint, large.letters) == ("aaaaaaaa", 3)
    assert (large.oldest, large.newest, large.error) == (NOW - 3 * DAY, NOW - 2 * SHIFT, "error 3")
    assert (small.letters, small.oldest, small.newest, small.error) == (1, NOW - SHIFT / 2, NOW - SHIFT / 2, "error 4")


def test_a_group_has_the_key_and_error_of_its_oldest() -> None:
    letters = [letter(1, SHIFT, key="newest"), letter(2, DAY, key="oldest"), letter(3, 2 * SHIFT, key="between")]
    (group,) = grouped(letters)
    assert (group.key, group.error, group.oldest, group.newest) == ("oldest", "error 2", NOW - DAY, NOW - SHIFT)


def test_a_letter_is_written_within_bounds_and_grouped_by_all_that_failed() -> None:
    reason, detail = "r" * 1000, "d" * 10_000
    headers = dead_letter(Queue.FILES, b"body", Trace.of(b"body"), LastFailure("key", reason, detail, 1, [])).headers
    assert headers[messages.REASON] == "r" * 200
    assert headers[messages.ERROR] == "d" * 2000
    assert headers[messages.FINGERPRINT] == fingerprint(reason, detail)


def test_a_letter_of_the_broker_has_neither_version_nor_history_whatever_its_sender_wrote() -> None:
    own = replace(letter(1, SHIFT), headers={messages.ETAG: "abc", messages.HISTORY: ["a try"]})
    assert (own.etag, own.history) == ("abc", ["a try"])
    for death in ([{"reason": "expired"}], [], None, "no list"):
        of_the_broker = replace(own, headers={**own.headers, "x-death": death})
        assert (of_the_broker.etag, of_the_broker.history) == (None, [])
