"""What a small file costs, counted: store requests, statements, round trips, commits. No times, which would be noise.

The bounds are what it costs today. Whoever makes it cheaper lowers them; whoever has to raise one says why.
"""

from collections.abc import Callable

import pytest

from tests.bench.counts import BATCH, Costs, count
from tests.bench.exported import Feed
from tests.bench.ground import SETTINGS
from tests.stage.stage import Stage

REQUESTS, STATEMENTS, ROUND_TRIPS, COMMITS = 6, 44, 55, 10
"""Of one file that comes alone."""
NOW_AND_THEN = 20
"""Statements of what a consumer does by itself, such as a sweep, that may fall into a count of many files."""


@pytest.fixture(scope="module")
def costs(shared_stage: Stage) -> tuple[Costs, Costs]:
    shared_stage.environment |= SETTINGS
    return count(shared_stage, Feed(None))


def test_a_file_that_comes_alone(costs: tuple[Costs, Costs], record_property: Callable[[str, object], None]) -> None:
    alone = costs[0]
    tell(alone, record_property)
    assert alone.requests.total() <= REQUESTS
    assert alone.statements.total() <= STATEMENTS
    assert alone.round_trips <= ROUND_TRIPS
    assert alone.commits <= COMMITS


def test_files_that_wait(costs: tuple[Costs, Costs], record_property: Callable[[str, object], None]) -> None:
    waiting = costs[1]
    tell(waiting, record_property)
    assert waiting.requests.total() <= BATCH * REQUESTS
    assert waiting.statements.total() <= BATCH * STATEMENTS + NOW_AND_THEN
    assert waiting.round_trips <= BATCH * ROUND_TRIPS + NOW_AND_THEN
    assert waiting.commits <= BATCH * COMMITS + NOW_AND_THEN


def test_the_counts_are_of_work_that_was_done(costs: tuple[Costs, Costs]) -> None:
    """Otherwise nothing would be counted some day, and every bound kept."""
    for found, files in zip(costs, (1, BATCH), strict=True):
        assert found.requests["GET"] >= files
        assert found.requests["COPY"] >= files
        assert found.statements["COPY"] >= 1
        assert 1 <= found.commits < found.statements.total() < found.round_trips


def tell(found: Costs, record_property: Callable[[str, object], None]) -> None:
    for name, number in (
        ("requests", found.requests.total()), ("statements", found.statements.total()),
        ("round trips", found.round_trips), ("commits", found.commits),
    ):  # fmt: skip
        record_property(name, number)
