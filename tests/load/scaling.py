"""One, two and four consumers, each on a host of its own, near or far from the services. Run by `make load-scaling`.

Files that wait are worked off by so many consumers, from the first delivery to the last file that is done; rounds take
turns, and the ratios are those of one round. Hosts are network namespaces of this machine, so cores are shared by all:
consumers, services, and the network between them, whose delay is the only thing that is not real. Fails when a file was
applied twice or not at all. Writes its table into docs/scaling.md, where it is whole.
"""

import argparse
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from tests.acceptance.test_real_input import BESIDE
from tests.bench import machine
from tests.bench.exported import body, feed_of
from tests.bench.ground import keyed, publish, put, stage_of_its_own, wait_for_done
from tests.conftest import ROOT
from tests.load.stages import say
from tests.stage.hosts import hosts
from tests.stage.stage import Stage, wait_until

PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- load-scaling: begin, written by make load-scaling -->\n", "<!-- load-scaling: end -->\n"
ROWS, COUNTS = 59, (1, 2, 4)
Took = dict[tuple[float, int], list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=600, help=f"of {ROWS} rows, in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--milliseconds", type=float, default=2, help="one way, to the services that are far away")
    parser.add_argument("--page", type=Path, help="where the table goes; docs/scaling.md for a run as it is")
    asked = parser.parse_args()
    found: Took = defaultdict(list)
    shares: dict[tuple[float, int], list[float]] = defaultdict(list)
    with stage_of_its_own() as stage:
        changes = feed_of(Path(os.environ.get("FLEETTICKETS_SHARED_DATA", BESIDE))).changes(ROWS)
        number = 0
        for _ in range(asked.rounds):
            for milliseconds in (0.0, asked.milliseconds):
                for count in COUNTS:
                    files = keyed([body(next(changes)) for _ in range(asked.files)], number * asked.files)
                    number += 1
                    seconds, busy = worked_off(stage, files, count, milliseconds)
                    found[milliseconds, count].append(seconds)
                    shares[milliseconds, count].append(busy)
                    say(f"{count} consumers, {milliseconds:g} ms: {seconds:.1f} s, {busy:.0%} of all cores busy")
        twice = stage.one("SELECT count(*) FROM ingest.ledger WHERE attempts > 0 OR state <> 'done'")
        applied = stage.one("SELECT count(*) FROM ingest.ledger WHERE decision IN ('new', 'late')")
    told = table(found, shares, asked.files)
    say(told)
    if twice or applied != number * asked.files:
        sys.stderr.write(
            f"{twice} files were tried again or are not done; {applied} of {number * asked.files} applied\n"
        )
        return 1
    is_usual = all(getattr(asked, name) == parser.get_default(name) for name in ("files", "rounds", "milliseconds"))
    if page := asked.page or (PAGE if is_usual else None):
        write(page, told)
    return 0


def worked_off(stage: Stage, files: dict[str, bytes], count: int, milliseconds: float) -> tuple[float, float]:
    """Seconds, and the share of all cores that was busy meanwhile."""
    put(stage, files)
    keys = list(files)
    with hosts(stage, count, milliseconds) as machines:
        consumers = [machine.start("consume", "--queue", "files") for machine in machines]
        wait_until(lambda: all('"consuming"' in consumer.output() for consumer in consumers), "all consume")
        before = _cores()
        publish(stage, files)
        wait_for_done(stage, keys)
        busy, idle = (now - then for now, then in zip(_cores(), before, strict=True))
        for consumer in consumers:
            consumer.stop()
    took = "SELECT extract(epoch FROM max(done_at) - min(first_seen_at))::float8 FROM ingest.ledger WHERE key = ANY(%s)"
    return float(stage.one(took, keys)), busy / (busy + idle)


def _cores() -> tuple[int, int]:
    """Ticks of all cores so far: busy, idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, idle


def table(found: Took, shares: dict[tuple[float, int], list[float]], files: int) -> str:
    rows = [
        ("services are", "consumers", "files a second", "÷ one consumer", "of the rounds", "cores busy"),
        ("---",) * 6,
    ]
    for (milliseconds, count), seconds in sorted(found.items()):
        ratios = [one / these for one, these in zip(found[milliseconds, COUNTS[0]], seconds, strict=True)]
        where = f"{2 * milliseconds:g} ms away and back" if milliseconds else "near"
        speed, busy = files / statistics.median(seconds), statistics.median(shares[milliseconds, count])
        rows.append((
            where, str(count), f"{speed:.0f}", f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}", f"{busy:.0%}",
        ))  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write(page: Path, told: str) -> None:
    """Raises: ValueError, when the page has no markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for the table")
    wanted = {"commit", "machine", "PostgreSQL", "RabbitMQ", "store"}
    where = "".join(f"- {what}: {how}\n" for what, how in machine.told() if what in wanted)
    page.write_text(f"{before}{BEGIN}\n{where}\n{told}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
