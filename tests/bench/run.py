"""How fast it is beside plain scripts and beside what its services can do: ratios, each taken in one run.

Run by `make bench`; `--only rows,small,versions,latency,counts,growth,read` takes some parts. A whole run with nothing
smaller than by default writes docs/performance.md; any other one prints its table, and writes where `--page` says.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.bench import counts, growth, latency, machine, page, reading, rows, small, versions
from tests.bench.exported import Feed, feed_of
from tests.bench.figures import Found
from tests.conftest import ROOT
from tests.load.stages import say

BESIDE = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "performance.md"
PARTS: Mapping[str, Callable[[Feed, argparse.Namespace], Found]] = {
    "rows": lambda feed, asked: rows.measure(feed, asked.rows, asked.rounds),
    "small": lambda feed, asked: small.measure(feed, asked.files, asked.rounds),
    "versions": lambda feed, asked: versions.measure(feed, asked.rows, asked.rounds),
    "latency": lambda feed, asked: latency.measure(feed, asked.rounds, latency.shortened(asked.seconds)),
    "counts": lambda feed, _asked: counts.measure(feed),
    "growth": lambda feed, asked: growth.measure(feed, asked.ledger),
    "read": lambda _feed, asked: reading.measure(asked.past, asked.rounds),
}

SIZES = ("rounds", "rows", "files", "seconds", "ledger", "past")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--rounds", type=int, default=3, help="in each, every contender has its turn")
    parser.add_argument("--rows", type=int, default=60_000, help="of the big file")
    parser.add_argument("--files", type=int, default=500, help="small ones that wait")
    parser.add_argument("--seconds", type=float, default=1, help="of each rate, as a share of what is usual")
    parser.add_argument("--ledger", type=int, default=1_000_000, help="files of which growth is told")
    parser.add_argument("--past", type=int, default=1_000_000, help="older closed tickets that are not asked for")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLEETTICKETS_SHARED_DATA", BESIDE)))
    parser.add_argument("--page", type=Path, help="write this page")
    asked = parser.parse_args()
    parts = asked.only.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, _terminate)
    feed, told, found, began = feed_of(asked.data), list(machine.told()), Found(), time.monotonic()
    for name in parts:
        since = time.monotonic()
        part = PARTS[name](feed, asked)
        found.figures += part.figures
        found.bars += part.bars
        found.growth += part.growth
        say(f"{name}: {time.monotonic() - since:.0f} s\n{page.table(part)}\n{page.stages(part)}")
    minutes = (time.monotonic() - began) / 60
    rounds = f"{asked.rounds} rounds, in each of which all take their turns, but for counts and growth"
    method = f"Rows of {feed.name}; {rounds}; {minutes:.0f} minutes in all."
    say(page.table(found))
    is_whole = all(getattr(asked, name) >= parser.get_default(name) for name in SIZES) and set(parts) == PARTS.keys()
    if target := asked.page or (PAGE if is_whole else None):
        page.write(target, found, told, method)
        say(f"written to {target.name}")
    return 0


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
