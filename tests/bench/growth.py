"""What one more file takes after none and after a million of them, by the ledger's own times."""

import time
from contextlib import ExitStack
from itertools import islice
from statistics import median

from tests.bench.exported import Feed, body
from tests.bench.figures import Figure, Found
from tests.bench.ground import consume, keyed, publish, put, stage_of_its_own, wait_for_done
from tests.load.growth import give_past
from tests.stage.stage import Stage

ROWS = 59
FILES = 40
WARMING = 5
_APART = 0.3
"""So that each file comes alone: of several the tails are put off for each other."""
_TOOK = "SELECT extract(epoch FROM done_at - first_seen_at)::float8 FROM ingest.ledger WHERE bucket = %s AND key = %s"


def measure(feed: Feed, most: int) -> Found:
    """Ledgers of none, a hundredth, a tenth and `most`, each on a stage of its own; all get the same files in turns."""
    pasts = [0, most // 100, most // 10, most]
    with ExitStack() as stack:
        stages = [stack.enter_context(stage_of_its_own()) for _ in pasts]
        for stage, past in zip(stages, pasts, strict=True):
            if past:
                give_past(stage, past, 0)
        consumers = [consume(stage) for stage in stages]
        times: list[list[float]] = [[] for _ in stages]
        for number, rows in enumerate(islice(feed.changes(ROWS), WARMING + FILES)):
            for place in (range(len(stages)), reversed(range(len(stages))))[number % 2]:
                took = _seconds(stages[place], body(rows), number)
                if number >= WARMING:
                    times[place].append(took)
        for consumer in consumers:
            consumer.stop()
    young, old = times[0], times[-1]
    figure = Figure(
        f"a file of {ROWS} rows with {most} files in the ledger ÷ with none",
        f"{1e3 * median(old):.1f} ms",
        f"{1e3 * median(young):.1f} ms",
        [median(old) / median(young)],
    )
    return Found([figure], growth=[(past, 1e3 * median(of)) for past, of in zip(pasts, times, strict=True)])


def _seconds(stage: Stage, content: bytes, number: int) -> float:
    files = keyed([content], number)
    put(stage, files)
    time.sleep(_APART)
    publish(stage, files)
    wait_for_done(stage, list(files), pause=0.05)
    return float(stage.one(_TOOK, stage.bucket.name, *files))
