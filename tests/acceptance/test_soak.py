"""A short soak in every run of the tests, another one at each commit; the long ones are `make soak`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.plan import COMPONENTS, make_plan
from tests.soak.soaking import soak
from tests.stage import commit
from tests.stage.running import say

SECONDS = 10
TOLD = {
    "seed": "seed",
    "files": "files put",
    "rows": "rows",
    "deliveries": "deliveries settled",
    "redeliveries": "redeliveries",
    "kills": "kills",
    "lost": "lost",
    "twice": "twice",
}
"""The figures that every run of the tests prints at its end, by their names there."""


def test_a_plan_is_its_seed_and_nothing_else() -> None:
    assert make_plan(7, 60) == make_plan(7, 60)
    assert make_plan(7, 60).faults != make_plan(8, 60).faults
    assert {step.at <= 60 for step in make_plan(7, 60).steps} == {True}


@pytest.mark.promise("Exactly once", "Order-free", "Nothing lost")
@pytest.mark.timeout(400)
def test_every_component_is_killed_and_nothing_is_lost_or_done_twice(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = commit.seed()
    say(f"seed {seed}; the same feed and faults: make soak MINUTES={SECONDS / 60:g} SEED={seed}")
    result = soak(make_plan(seed, SECONDS), tmp_path, say)
    say("\n".join(f"{name}: {value}" for name, value in result.figures.items()))
    for name, figure in TOLD.items():
        record_property(name, result.figures[figure])
    assert result.differences == []
    assert (result.figures["lost"], result.figures["twice"]) == (0, 0)
    assert set(result.figures["by component"]) == set(COMPONENTS)
