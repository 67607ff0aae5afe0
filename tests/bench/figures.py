"""What a part of the bench found: a row for each ratio, with its floor beside it."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

Rounds = Sequence[float]


@dataclass(frozen=True)
class Figure:
    """One row of the table. `ratio` is the median of those of the rounds, each of which was taken within one round."""

    what: str
    ours: str
    floor: str
    ratios: Rounds = ()
    note: str = ""

    @property
    def ratio(self) -> str:
        return f"{statistics.median(self.ratios):.2f}" if self.ratios else "-"

    @property
    def spread(self) -> str:
        if len(self.ratios) < 2:
            return "-"
        return f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"


@dataclass(frozen=True)
class Bar:
    """Something that took a while, by its stages, in milliseconds."""

    name: str
    stages: dict[str, float]


@dataclass
class Found:
    figures: list[Figure] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    growth: list[tuple[int, float]] = field(default_factory=list)
    """Files in the ledger, and milliseconds that one more takes."""


class Disagree(Exception):
    """Two ways that were timed did not come to the same rows, so their times say nothing."""


def percentile(values: Rounds, share: float) -> float:
    """The smallest of the values that so many are no larger than."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def took(seconds: Rounds, digits: int = 2) -> str:
    return f"{statistics.median(seconds):.{digits}f} s"
