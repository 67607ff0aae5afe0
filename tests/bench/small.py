"""Many small files that wait, archived one by one: one consumer, the least script, and dlt."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from statistics import median

from tests.bench import competitor
from tests.bench.competitor import NotThere
from tests.bench.exported import Feed, body
from tests.bench.figures import Figure, Found, took
from tests.bench.ground import consume, empty, keyed, publish, put, require_same, stage_of_its_own, wait_for_done
from tests.conftest import ROOT
from tests.stage.stage import Stage

ROWS = 59
Way = Callable[[Stage, Mapping[str, bytes]], float]


def measure(feed: Feed, files: int, rounds: int) -> Found:
    bodies = [body(rows) for rows in islice(feed.changes(ROWS), files)]
    ways: dict[str, Way] = {"consumer": _by_consumer, "least": _by_least_script}
    missing = ""
    try:
        ways["dlt"] = competitor.way(competitor.installed())
    except NotThere as error:
        missing = str(error)
    seconds: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        stages = {name: stack.enter_context(stage_of_its_own()) for name in ways}
        for number in range(rounds):
            waiting = keyed(bodies, number * files)
            # Each of them is first in a round, as far as there are rounds.
            names = [*list(ways)[number % len(ways) :], *list(ways)[: number % len(ways)]]
            for name in names:
                empty(stages[name])
                put(stages[name], waiting)
                seconds[name].append(ways[name](stages[name], waiting))
            require_same({name: stages[name] for name in ("consumer", "least")})
    return Found(list(_figures(files, seconds, missing)))


def _figures(files: int, seconds: Mapping[str, Sequence[float]], missing: str) -> list[Figure]:
    what = f"{files} files of {ROWS} rows that wait, archived"
    ours = seconds["consumer"]
    our = f"{took(ours)}, {median(ours) / files * 1e3:.1f} ms a file"
    found = []
    for name, title in (("least", "least script ÷ consumer"), ("dlt", "dlt, which archives none ÷ consumer")):
        if name in seconds:
            theirs = seconds[name]
            their = f"{took(theirs)}, {median(theirs) / files * 1e3:.1f} ms a file"
            ratios = [one / two for one, two in zip(theirs, ours, strict=True)]
            found.append(Figure(f"{what}: {title}", our, their, ratios))
        else:
            found.append(Figure(f"{what}: {title}", our, f"not measured: {missing}"))
    return found


def _by_consumer(stage: Stage, files: Mapping[str, bytes]) -> float:
    """From the first delivery to the last file that is done, by the ledger's own times."""
    publish(stage, files)
    consumer = consume(stage)
    keys = list(files)
    wait_for_done(stage, keys)
    consumer.stop()
    took = "SELECT extract(epoch FROM max(done_at) - min(first_seen_at))::float8 FROM ingest.ledger WHERE key = ANY(%s)"
    return float(stage.one(took, keys))


def _by_least_script(stage: Stage, files: Mapping[str, bytes]) -> float:
    """From its first request to its last, by itself."""
    told = run_plain(stage.environment)
    assert told["files"] == len(files), told
    return float(told["seconds"])


def run_plain(environment: Mapping[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.plain"]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    told: dict[str, float] = json.loads(ended.stdout)
    return told
