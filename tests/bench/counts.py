"""What a small file costs in requests, statements, round trips and commits: counted, and so the same on any machine.

The consumer talks to its store and its database through proxies that count. What it does now and then, such as a sweep,
or to prepare a statement that a connection has had several times, may fall into a count: of single files the cheapest
is told, which had nothing of it.
"""

import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from tests.bench.exported import Feed, body
from tests.bench.figures import Figure, Found
from tests.bench.ground import consume, keyed, publish, put, stage_of_its_own, wait_for_done
from tests.bench.small import run_plain
from tests.doubles.conditional_store import ALL, LIKE_RUSTFS, ConditionalStore
from tests.doubles.counting_postgres import CountingPostgres
from tests.doubles.proxy import Proxy
from tests.stage.stage import Process, Stage

ROWS = 59
BATCH = 50
SINGLES = 9
WARMING = 25
SETTLED_SECONDS = 0.3
KEPT = {"copies": LIKE_RUSTFS, "copies and deletes": ALL}
"""A proxy keeps them for the store, which keeps none."""
_OBJECT = re.compile(r"^\S+ /[^/?]+/[^?]")


@dataclass(frozen=True)
class Costs:
    """Of one file, or of several: what the store and the database were asked."""

    requests: Counter[str]
    """By kind: GET, HEAD, COPY, PUT, DELETE of objects; LIST, and DELETE MANY."""
    statements: Counter[str]
    """By the first word of their tag."""
    round_trips: int
    commits: int

    def __sub__(self, other: "Costs") -> "Costs":
        return Costs(
            self.requests - other.requests,
            self.statements - other.statements,
            self.round_trips - other.round_trips,
            self.commits - other.commits,
        )


def measure(feed: Feed) -> Found:
    with stage_of_its_own() as stage:
        single, batch = count(stage, feed)
    least = _of_least_script([body(rows) for rows in islice(feed.changes(ROWS), BATCH)])
    found = Found([*_figures("one waiting", single, 1, least), *_figures(f"{BATCH} waiting", batch, BATCH, least)])
    for kept, keeps in KEPT.items():
        with stage_of_its_own() as stage, keeping(stage, keeps):
            single, batch = count(stage, feed)
        for when, ours, files in (("one waiting", single, 1), (f"{BATCH} waiting", batch, BATCH)):
            found.figures += islice(
                _figures(f"{when}, where the store keeps conditions of {kept}", ours, files, least), 1
            )
    return found


@contextmanager
def keeping(stage: Stage, keeps: frozenset[str]) -> Iterator[None]:
    """The stage's store, and in front of it one that keeps conditions."""
    with ConditionalStore(stage.environment, keeps) as store:
        stage.environment |= {"RUSTFS_ENDPOINT": store.url}
        yield


def count(stage: Stage, feed: Feed) -> tuple[Costs, Costs]:
    """The costs of one file that comes alone, and of BATCH that wait."""
    bodies = [body(rows) for rows in islice(feed.changes(ROWS), WARMING + SINGLES + BATCH)]
    with counted(stage) as counting:
        counting.waiting(keyed(bodies[:WARMING], 0))  # what a process does once for each of its threads is done
        single = min(counting.one_by_one(keyed(bodies[WARMING:-BATCH], WARMING)), key=lambda costs: costs.round_trips)
        return single, counting.waiting(keyed(bodies[-BATCH:], WARMING + SINGLES))


def _of_least_script(bodies: list[bytes]) -> Costs:
    with (
        stage_of_its_own() as stage,
        Proxy(stage.environment["RUSTFS_ENDPOINT"]) as store,
        CountingPostgres(stage.environment["DATABASE_URL"]) as database,
    ):
        put(stage, keyed(bodies, 0))
        run_plain(stage.environment | {"RUSTFS_ENDPOINT": store.url, "DATABASE_URL": database.url})
        return costs(store, database)


def _figures(when: str, ours: Costs, files: int, least: Costs) -> Iterator[Figure]:
    """All by one file, the least script's of BATCH of them."""
    for what, our, their in (
        ("store requests", ours.requests.total(), least.requests.total()),
        ("SQL statements", ours.statements.total(), least.statements.total()),
        ("round trips to the database", ours.round_trips, least.round_trips),
        ("commits", ours.commits, least.commits),
    ):
        kinds = {"store requests": ours.requests, "SQL statements": ours.statements}.get(what, Counter())
        told = ", ".join(f"{_each(count, files)} {kind}" for kind, count in kinds.most_common())
        yield Figure(
            f"{what} a file of {ROWS} rows, {when}: consumer ÷ least script",
            f"{_each(our, files)}{f' ({told})' if told else ''}",
            _each(their, BATCH),
            [our / files / (their / BATCH)],
        )


def _each(count: int, files: int) -> str:
    return f"{count / files:.4g}"


class Counted:
    """A consumer on a stage whose store and database count what they are asked."""

    def __init__(self, stage: Stage, consumer: Process, store: Proxy, database: CountingPostgres) -> None:
        self._stage = stage
        self._consumer = consumer
        self._store = store
        self._database = database

    def one_by_one(self, files: Mapping[str, bytes]) -> list[Costs]:
        """Each is announced when the one before is done, so that one waits at a time."""
        put(self._stage, files)
        return [self._cost_of({key: content}) for key, content in files.items()]

    def waiting(self, files: Mapping[str, bytes]) -> Costs:
        """All of them wait when the consumer looks at the first."""
        put(self._stage, files)
        return self._cost_of(files, stopped=True)

    def _cost_of(self, files: Mapping[str, bytes], *, stopped: bool = False) -> Costs:
        before = self._now()
        if stopped:
            self._consumer.signal(signal.SIGSTOP)
        publish(self._stage, files)
        if stopped:
            self._consumer.signal(signal.SIGCONT)
        wait_for_done(self._stage, list(files), pause=0.05)
        self._wait_until_settled()
        return self._now() - before

    def _wait_until_settled(self) -> None:
        """Nothing is asked any more: the file's requests were sent and what follows on is put off."""
        found = None
        while found != (found := self._now()):
            time.sleep(SETTLED_SECONDS)

    def _now(self) -> Costs:
        return costs(self._store, self._database)


def costs(store: Proxy, database: CountingPostgres) -> Costs:
    """All that they were asked so far."""
    requests = Counter(_kind(line) for line in list(store.http_requests))
    return Costs(requests, Counter(database.statements), database.round_trips, database.commits)


@contextmanager
def counted(stage: Stage) -> Iterator[Counted]:
    with (
        Proxy(stage.environment["RUSTFS_ENDPOINT"]) as store,
        CountingPostgres(stage.environment["DATABASE_URL"]) as database,
    ):
        stage.environment |= {"RUSTFS_ENDPOINT": store.url, "DATABASE_URL": database.url}
        consumer = consume(stage)
        yield Counted(stage, consumer, store, database)
        consumer.stop()


def _kind(line: str) -> str:
    """COPY is a PUT into the archive, which is all that the consumer puts."""
    method, target, _ = line.split(" ")
    if method == "POST" and "delete" in target:
        return "DELETE MANY"
    if method == "GET" and not _OBJECT.match(line):
        return "LIST"
    return "COPY" if method == "PUT" else method
