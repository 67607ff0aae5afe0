"""From a published event to committed rows, at several rates; and the floors of each step, taken in the same run.

A floor is an ideal consumer of one file at a time: get, GET, COPY and upsert, COMMIT, with nothing in between. It is
sampled before and after the real one, at the same rate, while that is idle.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from statistics import median

from tests.bench.commits import Commits
from tests.bench.exported import Feed, body
from tests.bench.figures import Bar, Figure, Found, percentile
from tests.bench.floor import FLOORS, Floor
from tests.bench.ground import consume, keyed, publish_paced, stage_of_its_own, wait_for_done
from tests.stage.stage import Stage, wait_until

ROWS = 60
RATES = {1: 30, 10: 20, 30: 10}
"""Files a second, and seconds of them in one round."""
_TIMES = """
SELECT key, extract(epoch FROM first_seen_at)::float8 AS delivered, extract(epoch FROM opened_at)::float8 AS opened,
       extract(epoch FROM staged_at)::float8 AS staged, extract(epoch FROM applied_at)::float8 AS applied,
       extract(epoch FROM archived_at)::float8 AS archived, extract(epoch FROM done_at)::float8 AS done
FROM ingest.ledger WHERE bucket = %s AND key = ANY(%s)"""
STAGES = ("published → delivered", "→ opened", "→ staged", "→ applied", "→ committed", "→ archived", "→ done")


@dataclass(frozen=True)
class _Times:
    """Of several files: for each the moments from the publishing on, in seconds."""

    moments: Sequence[Sequence[float]]

    def between(self, first: int, last: int) -> list[float]:
        return [1e3 * (of[last] - of[first]) for of in self.moments]

    def steps(self, names: Sequence[str]) -> dict[str, float]:
        """The median of each step, in milliseconds."""
        return {name: median(self.between(place, place + 1)) for place, name in enumerate(names)}


def shortened(share: float) -> dict[int, int]:
    return {rate: max(1, round(share * seconds)) for rate, seconds in RATES.items()}


def measure(feed: Feed, rounds: int, rates: Mapping[int, int]) -> Found:
    files = (body(rows) for rows in feed.changes(ROWS))
    real: dict[int, list[_Times]] = defaultdict(list)
    floors: dict[int, list[_Times]] = defaultdict(list)
    with ExitStack() as stack:
        stage, bare = (stack.enter_context(stage_of_its_own()) for _ in range(2))
        commits, commits_of_floor = (stack.enter_context(Commits(of)) for of in (stage, bare))
        floor = stack.enter_context(Floor(bare, commits_of_floor))
        consumer = consume(stage)
        _play(stage, commits, keyed(list(islice(files, 10)), 0), 10)  # the first ones warm up
        floor.sample(list(islice(files, 10)), 10)
        at = 10
        for _ in range(rounds):
            for rate, seconds in rates.items():
                bodies = keyed(list(islice(files, rate * seconds)), at)
                at += len(bodies)
                half = max(1, len(bodies) // 2)
                before = floor.sample(list(islice(files, half)), rate)
                real[rate].append(_Times(_play(stage, commits, bodies, rate)))
                floors[rate].append(_Times([*before, *floor.sample(list(islice(files, half)), rate)]))
        consumer.stop()
    return _found(real, floors)


def _found(real: Mapping[int, Sequence[_Times]], floors: Mapping[int, Sequence[_Times]]) -> Found:
    found = Found()
    for rate in real:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            found.figures.append(_figure(f"{rate} files/s of {ROWS} rows, {name}", share, real[rate], floors[rate]))
        found.bars.append(Bar(f"{rate} files/s", _all(real[rate]).steps(STAGES)))
    found.bars.append(Bar("floor", _all([times for each in floors.values() for times in each]).steps(FLOORS)))
    return found


def _figure(what: str, share: float, real: Sequence[_Times], floors: Sequence[_Times]) -> Figure:
    def ours(times: _Times) -> float:
        return percentile(times.between(0, 1 + STAGES.index("→ committed")), share)

    def theirs(times: _Times) -> float:
        return percentile(times.between(0, len(FLOORS)), share)

    pooled, least = _all(real), _all(floors)
    return Figure(
        f"published → committed, {what}: consumer ÷ floor",
        f"{ours(pooled):.1f} ms, {len(pooled.moments)} files",
        f"{theirs(least):.1f} ms, {len(least.moments)} files",
        [ours(of) / theirs(beside) for of, beside in zip(real, floors, strict=True)],
    )


def _all(rounds: Sequence[_Times]) -> _Times:
    return _Times([moments for times in rounds for moments in times.moments])


def _play(stage: Stage, commits: Commits, files: Mapping[str, bytes], rate: int) -> list[tuple[float, ...]]:
    """The moments of each file; so many come in a second."""
    published = publish_paced(stage, files, rate)
    wait_for_done(stage, list(files))
    wait_until(lambda: commits.found.keys() >= files.keys(), "every commit is told of")
    rows = stage.query(_TIMES, stage.bucket.name, list(files))
    return [
        (
            published[row["key"]],
            row["delivered"],
            row["opened"],
            row["staged"],
            row["applied"],
            commits.found[row["key"]],
            row["archived"],
            row["done"],
        )
        for row in rows
    ]
