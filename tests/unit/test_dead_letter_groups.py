"""Which failures are the same trouble, and which dead letters a choice means."""

from datetime import UTC, datetime, timedelta

import pytest

from publisher.dead_letters import DeadLetter, Selection, fingerprint, grouped
from publisher.topology import Queue


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
    dead_at = None if age is None else datetime.now(UTC) - age
    return DeadLetter(number, number, Queue.FILES, key, "reason", "error", mark, 1, dead_at, b"")


HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LETTERS = (
    letter(1, 3 * DAY),
    letter(2, 2 * HOUR, key="other"),
    letter(3, None),
    letter(4, HOUR / 2, mark="bbbbbbbb"),
)


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (Selection(), [1, 2, 3, 4]),
        (Selection(key="other"), [2]),
        (Selection(fingerprint="bbbbbbbb"), [4]),
        (Selection(older_than=HOUR), [1, 2]),
        (Selection(newer_than=DAY), [2, 4]),
        (Selection(older_than=HOUR, newer_than=DAY), [2]),
        (Selection(limit=2), [1, 2]),
        (Selection(newer_than=DAY, limit=1), [2]),
        (Selection(key="key", older_than=timedelta(days=9)), []),
    ],
)
def test_a_selection_takes_those_for_which_all_conditions_hold(selection: Selection, numbers: list[int]) -> None:
    assert [chosen.number for chosen in selection.among(LETTERS)] == numbers


def test_groups_have_counts_and_ages_the_largest_first() -> None:
    large, small = grouped(LETTERS)
    assert (large.fingerprint, large.letters, large.oldest, large.newest) == (
        "aaaaaaaa",
        3,
        LETTERS[0].dead_at,
        LETTERS[1].dead_at,
    )
    assert (small.letters, small.oldest, small.newest) == (1, LETTERS[3].dead_at, LETTERS[3].dead_at)
