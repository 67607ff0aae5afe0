"""One big file: what a row costs, against psql's COPY into a text staging and an upsert into the same table."""

import subprocess
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.bench.exported import Feed, body, changed
from tests.bench.figures import Figure, Found, took
from tests.bench.ground import consume, empty, keyed, publish, put, require_same, stage_of_its_own, wait_for_done
from tests.bench.plain import HERE
from tests.stage.stage import Stage

KINDS = ("inserted", "all changed", "all the same")
_MB = 1 << 20
_NOW = "SELECT extract(epoch FROM clock_timestamp())"


def measure(feed: Feed, rows: int, rounds: int) -> Found:
    tickets = feed.tickets(rows)
    first, second = body(tickets), body(changed(tickets))
    bodies = dict(zip(KINDS, (first, second, second), strict=True))
    ours: dict[str, list[float]] = defaultdict(list)
    theirs: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        stage, plain = (stack.enter_context(stage_of_its_own()) for _ in range(2))
        consumer = consume(stage)
        _by_consumer(stage, body(tickets[:10]), 0)  # what a process does once is done
        idle = consumer.most_memory
        for number in range(rounds):
            empty(stage)
            empty(plain)
            for place, (kind, content) in enumerate(bodies.items()):
                at = 1 + number * len(KINDS) + place
                if at % 2:
                    ours[kind].append(_by_consumer(stage, content, at))
                    theirs[kind].append(_by_psql(plain, content))
                else:
                    theirs[kind].append(_by_psql(plain, content))
                    ours[kind].append(_by_consumer(stage, content, at))
            require_same({"consumer": stage, "psql": plain})
        most = consumer.most_memory
        consumer.stop()
    return Found([*(_figure(kind, rows, ours[kind], theirs[kind]) for kind in KINDS), _memory(most, idle, len(first))])


def _figure(kind: str, rows: int, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    return Figure(
        f"one file of {rows} rows, {kind}: psql ÷ consumer",
        f"{took(ours)}, {median(ours) / rows * 1e6:.0f} µs a row",
        f"{took(theirs)}, {median(theirs) / rows * 1e6:.0f} µs a row",
        [their / our for our, their in zip(ours, theirs, strict=True)],
    )


def _memory(most: int, idle: int, size: int) -> Figure:
    return Figure(
        f"memory of the consumer after these files of {size / _MB:.0f} MB, most resident",
        f"{most / _MB:.0f} MB",
        f"{idle / _MB:.0f} MB after a file of 10 rows",
        [most / idle],
    )


def _by_consumer(stage: Stage, content: bytes, at: int) -> float:
    """From the delivery to where only the COMMIT is missing, by the ledger's own times."""
    files = keyed([content], at)
    put(stage, files)
    publish(stage, files)
    wait_for_done(stage, list(files))
    (key,) = files
    took = "SELECT extract(epoch FROM applied_at - first_seen_at)::float8 FROM ingest.ledger WHERE key = %s"
    return float(stage.one(took, key))


def _by_psql(stage: Stage, content: bytes) -> float:
    """From before the COPY to where only the COMMIT is missing, by the server's clock."""
    file = Path(stage.folder, "rows.csv")
    file.write_bytes(content)
    copy = f"\\copy staging FROM '{file}' WITH (FORMAT csv, HEADER match)"
    command = ["psql", stage.database, "--no-psqlrc", "-qAt", "--single-transaction", "--set", "ON_ERROR_STOP=1"]
    for option, what in (
        ("-f", HERE / "make_staging.sql"), ("-c", _NOW), ("-c", copy), ("-f", HERE / "plain_upsert.sql"), ("-c", _NOW),
    ):  # fmt: skip
        command += [option, str(what)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    began, done = map(float, ended.stdout.split())
    return done - began
