"""What a small file costs, counted: store requests, statements, round trips, commits. No times, which would be noise.

The bounds are what it costs today; of files that wait, with room for how their deliveries happen to fall into batches.
Whoever makes it cheaper lowers them; whoever has to raise one says why.
"""

from collections.abc import Callable

import pytest

from tests.bench import counts
from tests.bench.counts import BATCH, Costs, count, keeping
from tests.bench.exported import Feed
from tests.bench.ground import SETTINGS
from tests.stage.stage import Stage

ALONE = {"requests": 6, "statements": 23, "round trips": 18, "commits": 5}
WAITING = {"requests": 3.5, "statements": 4, "round trips": 5.5, "commits": 0.8}
"""Of each of many."""
KEPT = {"copies": (4, 2.6), "copies and deletes": (3, 3)}
"""Store requests where a store keeps conditions of these: of one alone, and of each of many."""
NOW_AND_THEN = 20
"""Statements of what a consumer does by itself, such as a sweep, that may fall into a count of many files."""


@pytest.fixture(scope="module")
def costs(shared_stage: Stage) -> tuple[Costs, Costs]:
    # A beat that falls into one file's statements is none of its own.
    shared_stage.environment |= SETTINGS | {"FLEETTICKETS_HEARTBEAT_SECONDS": "600"}
    return count(shared_stage, Feed(None))


def test_a_file_that_comes_alone(costs: tuple[Costs, Costs], record_property: Callable[[str, object], None]) -> None:
    found = told(costs[0], record_property)
    assert {name: number for name, number in found.items() if number > ALONE[name]} == {}


def test_files_that_wait(costs: tuple[Costs, Costs], record_property: Callable[[str, object], None]) -> None:
    found = told(costs[1], record_property)
    assert {name: number for name, number in found.items() if number > BATCH * WAITING[name] + NOW_AND_THEN} == {}


@pytest.mark.parametrize("kept", KEPT)
def test_a_store_that_keeps_conditions_is_asked_less(
    stage: Stage, kept: str, record_property: Callable[[str, object], None]
) -> None:
    stage.environment |= SETTINGS | {"FLEETTICKETS_HEARTBEAT_SECONDS": "600"}
    with keeping(stage, counts.KEPT[kept]):
        alone, waiting = (told(found, record_property)["requests"] for found in count(stage, Feed(None)))
    of_one, of_many = KEPT[kept]
    assert alone <= of_one
    assert waiting <= BATCH * of_many + NOW_AND_THEN // 4


def test_the_counts_are_of_work_that_was_done(costs: tuple[Costs, Costs]) -> None:
    """Otherwise nothing would be counted some day, and every bound kept."""
    for found, files in zip(costs, (1, BATCH), strict=True):
        assert found.requests["GET"] >= files
        assert found.requests["COPY"] >= files
        assert found.statements["COPY"] >= 1
        assert 1 <= found.commits < found.round_trips  # of which one may be of several statements
        assert found.commits < found.statements.total()


def told(found: Costs, record_property: Callable[[str, object], None]) -> dict[str, int]:
    numbers = {
        "requests": found.requests.total(), "statements": found.statements.total(),
        "round trips": found.round_trips, "commits": found.commits,
    }  # fmt: skip
    for name, number in numbers.items():
        record_property(name, number)
    return numbers
