"""Change files of all habits in any mix, judged by who wrote them: `make fuzz FILES=100000 SEED=7`."""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from unittest.mock import patch

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture.providers import CONSTANTS_CACHE, HypothesisProvider
from hypothesis.internal.constants_ast import Constants
from hypothesis.strategies import SearchStrategy

from tests.fuzz.oracle import Differs, judge
from tests.fuzz.writing import WrittenFile, written_files

BATCH = 500
SECONDS_BETWEEN_LINES = 10
FILES = written_files()


def play(
    seed: int,
    count: int,
    judged: Callable[[WrittenFile], None] | None = None,
    written: SearchStrategy[WrittenFile] = FILES,
) -> str | None:
    """What differs in the smallest of the files that do; None where none does."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), report_multiple_bugs=False,
    )  # fmt: skip
    @given(written)
    def files(file: WrittenFile) -> None:
        (judged or judge)(file)

    try:
        # Else a file depends on what constants there are in the modules that are loaded.
        with patch.object(HypothesisProvider, "_local_constants", Constants()):
            CONSTANTS_CACHE.cache.clear()
            files()
    except Differs as difference:
        return str(difference)
    return None


def batches(seed: int, files: int) -> Iterator[tuple[int, int]]:
    """Seeds, and how many files of each."""
    seeds = random.Random(seed)
    for begin in range(0, files, BATCH):
        yield seeds.getrandbits(64), min(BATCH, files - begin)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="0 for this one alone")
    parser.add_argument("--failures", type=int, default=1, help="so many are told before it ends")
    asked = parser.parse_args(arguments)
    say(f"seed {asked.seed}, {asked.files:,} files")
    begin = told = time.monotonic()
    done = failures = 0
    for batch, difference in _played(list(batches(asked.seed, asked.files)), asked.processes):
        done += batch[1]
        if difference:
            failures += 1
            say(f"differs, by seed {batch[0]} of its batch:\n{difference}")
            if failures >= asked.failures:
                break
        now = time.monotonic()
        if now - told > SECONDS_BETWEEN_LINES or done == asked.files:
            told = now
            say(f"{done:,} of {asked.files:,} files, {done / (now - begin):,.0f} a second")
    say(f"make fuzz SEED={asked.seed} repeats it" if failures else "every file is read as it was written")
    return 1 if failures else 0


def _played(waiting: list[tuple[int, int]], processes: int) -> Iterator[tuple[tuple[int, int], str | None]]:
    """Each batch with what differs in it, in any order."""
    if not processes:
        yield from ((batch, play(*batch)) for batch in waiting)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap_unordered(_played_batch, waiting)


def _played_batch(batch: tuple[int, int]) -> tuple[tuple[int, int], str | None]:
    return batch, play(*batch)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
