"""What it costs to keep every content of a ticket: a consumer that does beside one that keeps none."""

from collections import defaultdict
from contextlib import ExitStack
from statistics import median

from tests.bench.exported import Feed, body
from tests.bench.figures import Figure, Found, took
from tests.bench.ground import consume, empty, require_same, stage_of_its_own
from tests.bench.rows import KINDS, by_consumer, loads

_DAYS = {"kept": "400", "not kept": "0"}


def measure(feed: Feed, rows: int, rounds: int) -> Found:
    tickets, bodies = loads(feed, rows)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        stages = {way: stack.enter_context(stage_of_its_own()) for way in _DAYS}
        for way, stage in stages.items():
            stage.environment["FLEETTICKETS_KEEP_VERSIONS_DAYS"] = _DAYS[way]
            consume(stage)
            by_consumer(stage, body(tickets[:10]), 0)  # what a process does once is done
        for number in range(rounds):
            for stage in stages.values():
                empty(stage)
            for place, (kind, content) in enumerate(bodies.items()):
                at = 1 + number * len(KINDS) + place
                for way in sorted(stages, reverse=bool(at % 2)):  # each is first in its turn
                    seconds[way, kind].append(by_consumer(stages[way], content, at))
            require_same(stages)
        size = int(stages["kept"].one("SELECT pg_total_relation_size('tickets.versions')")) / rows
    return Found(
        [_figure(kind, rows, seconds["kept", kind], seconds["not kept", kind]) for kind in KINDS] + [_size(size)]
    )


def _figure(kind: str, rows: int, kept: list[float], not_kept: list[float]) -> Figure:
    return Figure(
        f"one file of {rows} rows, {kind}: with every content kept ÷ without",
        f"{took(kept)}, {median(kept) / rows * 1e6:.0f} µs a row",
        f"{took(not_kept)}, {median(not_kept) / rows * 1e6:.0f} µs a row",
        [ours / floor for ours, floor in zip(kept, not_kept, strict=True)],
    )


def _size(size: float) -> Figure:
    return Figure("a content that is kept, on disk with its indexes", f"{size:.0f} bytes", "-")
