"""One big file: what a row costs, against psql's COPY into a text staging and an upsert into the same table.

And against the way of the batch import that all this replaces: each row by itself, by `executemany`.
"""

import csv
import io
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psycopg
from psycopg.types.json import Jsonb

from tests.bench.exported import Feed, Row, body, changed
from tests.bench.figures import Figure, Found, took
from tests.bench.ground import consume, empty, keyed, publish, put, require_same, stage_of_its_own, wait_for_done
from tests.bench.plain import HERE
from tests.stage.stage import Process, Stage

KINDS = ("inserted", "all changed", "all the same")
WAYS = ("consumer", "psql", "executemany")
_MB = 1 << 20
_IDLE_SECONDS = 20
_UPSERT = """
    INSERT INTO tickets.inc AS ticket (ticket_id, raw) VALUES (%s, %s)
    ON CONFLICT (ticket_id) DO UPDATE SET raw = excluded.raw, ingested_at = now()
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())"


def loads(feed: Feed, rows: int) -> tuple[list[Row], dict[str, bytes]]:
    """The tickets, and by kind the file that is loaded in its turn: the last one twice."""
    tickets = feed.tickets(rows)
    first, second = body(tickets), body(changed(tickets))
    return tickets, dict(zip(KINDS, (first, second, second), strict=True))


def measure(feed: Feed, rows: int, rounds: int) -> Found:
    tickets, bodies = loads(feed, rows)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        stages = {way: stack.enter_context(stage_of_its_own()) for way in WAYS}
        stage = stages["consumer"]
        consumer = consume(stage)
        by_consumer(stage, body(tickets[:10]), 0)  # what a process does once is done
        idle = consumer.most_memory
        for number in range(rounds):
            for way in WAYS:
                empty(stages[way])
            for place, (kind, content) in enumerate(bodies.items()):
                at = 1 + number * len(KINDS) + place
                # Each of them is first in its turn.
                for way in (*WAYS[at % len(WAYS) :], *WAYS[: at % len(WAYS)]):
                    seconds[way, kind].append(_TAKE[way](stages[way], content, at))
            require_same(stages)
        most, spent = consumer.most_memory, _spent_idle(consumer)
        consumer.stop()
    pairs = [(way, kind) for way in WAYS[1:] for kind in KINDS]
    figures = [_figure(kind, rows, way, seconds["consumer", kind], seconds[way, kind]) for way, kind in pairs]
    return Found([*figures, _memory(most, idle, len(bodies[KINDS[0]])), _idle(spent)])


def _figure(kind: str, rows: int, way: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    return Figure(
        f"one file of {rows} rows, {kind}: {way} ÷ consumer",
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


def _idle(spent: float) -> Figure:
    return Figure(
        f"CPU of the consumer in {_IDLE_SECONDS} s in which nothing comes ÷ all of a core",
        f"{spent * 1e3:.0f} ms",
        f"{_IDLE_SECONDS} s",
        [spent / _IDLE_SECONDS],
    )


def by_consumer(stage: Stage, content: bytes, at: int) -> float:
    """From the delivery to where only the COMMIT is missing, by the ledger's own times."""
    files = keyed([content], at)
    put(stage, files)
    publish(stage, files)
    wait_for_done(stage, list(files))
    (key,) = files
    took = "SELECT extract(epoch FROM applied_at - first_seen_at)::float8 FROM ingest.ledger WHERE key = %s"
    return float(stage.one(took, key))


def _spent_idle(consumer: Process) -> float:
    time.sleep(2)  # for what follows on
    before = consumer.cpu_seconds
    time.sleep(_IDLE_SECONDS)
    return consumer.cpu_seconds - before


def _by_psql(stage: Stage, content: bytes, _at: int) -> float:
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


def _by_executemany(stage: Stage, content: bytes, _at: int) -> float:
    """From before the file is read to where only the COMMIT is missing."""
    with psycopg.connect(stage.database) as connection:
        began = time.perf_counter()
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        named = ({name: value or None for name, value in row.items()} for row in rows)
        with connection.cursor() as cursor:
            cursor.executemany(_UPSERT, ((row["ticket_id"], Jsonb(row)) for row in named))
        return time.perf_counter() - began


_TAKE = {"consumer": by_consumer, "psql": _by_psql, "executemany": _by_executemany}
