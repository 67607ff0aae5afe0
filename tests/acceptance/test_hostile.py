"""A short play of some hostilities in every run of the tests, others each commit; the long ones are `make hostile`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.headers import FRAME, NAMES, VALUES, named
from tests.hostile.plan import LANES, make_plan
from tests.hostile.playing import play
from tests.stage import commit
from tests.stage.running import say

SECONDS = 30
TOLD = ("seed", "acts", "good files of the feed", "good files of acts", "hostile files", "hostile bodies")
"""The figures that every run of the tests prints at its end."""


def test_a_plan_is_its_seed_and_nothing_else() -> None:
    assert make_plan(7, 120) == make_plan(7, 120)
    assert make_plan(7, 120).lanes != make_plan(8, 120).lanes


def test_every_hostility_has_its_turn() -> None:
    plan = make_plan(7, 900)
    played = {cue.hostility.name for cues in plan.lanes.values() for cue in cues}
    names = [hostility.name for hostilities in LANES.values() for hostility in hostilities]
    assert played == set(names)
    assert len(names) == len(set(names))


def test_every_header_table_fits_into_a_frame() -> None:
    """The broker ends the connection of whoever sends a larger one, and nothing of it would reach the program."""
    sizes = {name: len(named([(header, value) for header in NAMES])) for name, value in VALUES.items()}
    assert {name: size for name, size in sizes.items() if size > FRAME} == {}


@pytest.mark.promise("Exactly once", "No silent decision", "One bad thing stays one bad thing")
@pytest.mark.timeout(600)
def test_good_files_are_applied_once_beside_everything_hostile(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = commit.seed()
    say(f"seed {seed}; the same feed and acts: make hostile MINUTES={SECONDS / 60:g} SEED={seed}")
    result = play(make_plan(seed, SECONDS), tmp_path, say)
    say("\n".join(f"{name}: {value}" for name, value in result.figures.items()))
    for name in TOLD:
        record_property(name, result.figures[name])
    assert result.differences == []
    assert result.unplayed == []
