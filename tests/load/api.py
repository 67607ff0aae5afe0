"""Readers and followers of the API beside ingest: what each costs the others, and nothing lost. Run by `make load-api`.

Rounds of change files, in turns with nobody there, with one who asks the bare SQL, and with READERS of the dashboard,
each asking once a second, and FOLLOWERS of the live events, of whom some are cut off again and again and go on from
their last event. Fails when a follower lacks a change or has one twice. Writes its table into docs/performance.md,
where it is whole.
"""

import argparse
import asyncio
import contextlib
import random
import re
import secrets
import statistics
import sys
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from consumer.api import packing
from tests.bench import machine
from tests.bench.plain import HERE
from tests.conftest import ROOT
from tests.doubles.receiver import free_port
from tests.load.stages import load_stage, say
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Process, Stage, wait_until

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- load-api: begin, written by make load-api -->\n", "<!-- load-api: end -->\n"
TICKETS, ROWS, CHANGING = 21_312, 20, 1_000
TOKEN = secrets.token_urlsafe(24)
BARE = "SELECT reporting.inc_dashboard_json(NULL, NULL, '7d', NULL, NULL)::text"
_PAGE = re.compile(rb'data: \{"type": "FeatureCollection", "feed": "inc", "since": (\d+), "next": (\d+),')
_AGAIN_SECONDS = 60
_HEAD_BYTES = 200
_MS = 1e3


@dataclass
class Follower:
    """One who follows: the versions that each of his events went from and to, and when it came."""

    port: int
    last: str
    went: list[tuple[int, int, float]] = field(default_factory=list)
    cuts: int = 0
    came: int = 0
    _writer: asyncio.StreamWriter | None = None

    async def follow(self) -> None:
        """Until it is cancelled; whoever is cut off comes back with his last event."""
        while True:
            await asyncio.sleep(2 * random.random())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
                asked = f"Last-Event-ID: {self.last}\r\nAccept-Encoding: gzip\r\n"
                self._writer.write(_request("/api/events?feed=inc", asked))
                head = await reader.readuntil(b"\r\n\r\n")
                self.came += 1
                assert head.startswith(b"HTTP/1.1 200"), head
                async for event in _events(reader):
                    if found := _PAGE.search(event):
                        self.went.append((int(found[1]), int(found[2]), time.time()))
                        self.last = f"inc:{int(found[2])}"
            await asyncio.sleep(random.random())

    def cut(self) -> None:
        """Off, whatever is on its way."""
        if self._writer is not None:
            self._writer.transport.abort()
            self.cuts += 1

    def missed(self, begin: int, end: int) -> int:
        """How many of his events do not go on where the one before ended, from a version to another."""
        versions = [begin, *(version for since, until, _ in self.went for version in (since, until)), end]
        return sum(one != two for one, two in zip(versions[::2], versions[1::2], strict=True))


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """How the page of each begins: a chunk of the body is one of them, its id as it is, and a page packed by itself.

    All of it is taken, and no more unpacked than tells what it is: the work of clients is not what is measured.
    """
    begin = len(packing.STREAM_BEGINS)
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunk = (await reader.readexactly(size + 2))[begin:-2]
        begin = 0
        page = chunk[5 + int.from_bytes(chunk[1:3], "little") :]
        yield zlib.decompressobj(-zlib.MAX_WBITS).decompress(page, _HEAD_BYTES) if page else b""


@dataclass
class DashboardReader:
    """One who has the dashboard open, and looks whether it has changed."""

    port: int
    took: list[float] = field(default_factory=list)
    unchanged: int = 0

    async def read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.sleep(random.random())
        tag = ""
        while True:
            began = time.perf_counter()
            writer.write(_request("/api/inc/dashboard", f"Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n"))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            self.took.append(time.perf_counter() - began)
            status = head.split(None, 2)[1]
            assert status in {b"200", b"304"}, head
            self.unchanged += status == b"304"
            if found := re.search(rb"etag: (\S+)", head):
                tag = found[1].decode().replace("w/", "W/")
            await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - began)))


def _request(path: str, headers: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n{headers}\r\n".encode()


@dataclass
class Measured:
    """Seconds of each round without and with company, and what the company met."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    dashboard: list[float] = field(default_factory=list)
    unchanged: int = 0
    lags: list[float] = field(default_factory=list)
    events: int = 0
    cuts: int = 0
    ended: int = 0
    missed: int = 0
    api_cpu: float = 0
    clients_cpu: float = 0
    seconds: float = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6, help="with company; and as many without")
    parser.add_argument("--files", type=int, default=300, help=f"of {ROWS} rows, in a round")
    parser.add_argument("--page", type=Path, help="where the table goes; docs/performance.md for a run as it is")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, load_stage(Path(folder)) as stage:
        stage.executes = True
        stage.environment |= {
            "FLEETTICKETS_HISTORY_INTERVAL": "3600", "FLEETTICKETS_API_TOKENS": TOKEN, "FLEETTICKETS_API_RATE": "1000",
        }  # fmt: skip
        found = asyncio.run(measure(stage, asked))
    told = table(found, asked)
    say(told)
    is_usual = all(
        getattr(asked, name) == parser.get_default(name) for name in ("readers", "followers", "rounds", "files")
    )
    if page := asked.page or (PAGE if is_usual else None):
        write(page, told)
    if found.missed:
        sys.stderr.write(f"{found.missed} times a follower's event did not go on where the one before it ended\n")
    return 1 if found.missed else 0


async def measure(stage: Stage, asked: argparse.Namespace) -> Measured:
    fill(stage)
    port = free_port()
    server = stage.start("serve", "--port", str(port))
    consumer = stage.start("consume", "--queue", "files")
    for process, word in ((server, "listening"), (consumer, "consuming")):
        await asyncio.to_thread(wait_until, lambda word=word, of=process: word in of.output(), word)  # type: ignore[misc]
    found = Measured()
    await round_of_files(stage, asked.files, 0)  # warms up
    for number in range(1, 3 * asked.rounds, 3):
        found.alone.append(await round_of_files(stage, asked.files, number))
        asking = asyncio.create_task(ask_bare(stage, found.bare))
        await round_of_files(stage, asked.files, number + 1)
        asking.cancel()
        before = server.cpu_seconds, time.process_time(), time.monotonic()
        await beside(stage, port, asked, number + 2, found)
        found.api_cpu += server.cpu_seconds - before[0]
        found.clients_cpu += time.process_time() - before[1]
        found.seconds += time.monotonic() - before[2]
    for each in (server, consumer):
        end(each)
    return found


async def beside(stage: Stage, port: int, asked: argparse.Namespace, number: int, found: Measured) -> None:
    """A round with everybody there."""
    begin = version(stage)
    followers = [Follower(port, f"inc:{begin}") for _ in range(asked.followers)]
    readers = [DashboardReader(port) for _ in range(asked.readers)]
    company = [asyncio.create_task(each.follow()) for each in followers]
    company += [asyncio.create_task(each.read()) for each in readers]
    company.append(asyncio.create_task(cut_some(followers)))
    await asyncio.sleep(4)  # until all are there
    for reader in readers:
        reader.took.clear()
    found.beside.append(await round_of_files(stage, asked.files, number))
    company.pop().cancel()  # those who were cut off come back
    last = version(stage)
    end_by = time.monotonic() + _AGAIN_SECONDS
    while any(each.last != f"inc:{last}" for each in followers) and time.monotonic() < end_by:  # noqa: ASYNC110 - all
        await asyncio.sleep(0.1)
    for each in company:
        if each.done():
            each.result()
        each.cancel()
    found.missed += sum(each.missed(begin, last) for each in followers)
    found.cuts += sum(each.cuts for each in followers)
    found.ended += sum(max(0, each.came - 1 - each.cuts) for each in followers)
    found.events += sum(len(each.went) for each in followers)
    found.dashboard += [took for reader in readers for took in reader.took]
    found.unchanged += sum(reader.unchanged for reader in readers)
    at = {
        row["data_version"]: row["at"].timestamp() for row in stage.query("SELECT data_version, at FROM ingest.changes")
    }
    never_cut = [each for each in followers if not each.cuts]
    found.lags += [came - at[until] for each in never_cut for _, until, came in each.went]
    check_tickets(stage, begin)


def check_tickets(stage: Stage, begin: int) -> None:
    """What the followers were told by versions is what the files wrote."""
    told = "SELECT count(DISTINCT id) FROM ingest.changes, unnest(ticket_ids) AS id WHERE data_version > %s"
    wrote = (
        "SELECT count(*) FROM tickets.inc WHERE ingested_at > (SELECT at FROM ingest.changes WHERE data_version = %s)"
    )
    assert stage.one(told, begin) == stage.one(wrote, begin)


async def round_of_files(stage: Stage, files: int, number: int) -> float:
    """Seconds from the first delivery to the last COMMIT."""
    keys = [key_at(number * files + place) for place in range(files)]
    bodies = {
        key: csv([ticket(f"NEW{(place * ROWS + row) % CHANGING:05}", owner=key) for row in range(ROWS)])
        for place, key in enumerate(keys)
    }
    await asyncio.to_thread(stage.bucket.put_all, bodies)
    await asyncio.to_thread(stage.announce, *keys)
    done = "SELECT count(*) FROM ingest.ledger WHERE key = ANY(%s) AND state = 'done'"
    while stage.one(done, keys) < files:  # noqa: ASYNC110 - it is the database that is waited for
        await asyncio.sleep(0.25)
    took = (
        "SELECT extract(epoch FROM max(applied_at) - min(first_seen_at))::float8 FROM ingest.ledger WHERE key = ANY(%s)"
    )
    return float(stage.one(took, keys))


async def ask_bare(stage: Stage, took: list[float]) -> None:
    async with await psycopg.AsyncConnection.connect(stage.database, autocommit=True) as connection:
        while True:
            began = time.perf_counter()
            await connection.execute(BARE)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(1)


async def cut_some(followers: Sequence[Follower]) -> None:
    some = followers[: max(1, len(followers) // 4)]
    while True:
        await asyncio.sleep(0.5)
        for follower in random.sample(some, max(1, len(some) // 10)):
            follower.cut()


def fill(stage: Stage) -> None:
    """Tickets as the bench of reading has them."""
    stage.connection.execute(
        (HERE / "reading.sql").read_bytes(), {"prefix": "INC", "tickets": TICKETS, "open": 40, "from": 0, "to": 720}
    )
    stage.connection.execute("VACUUM ANALYZE")


def version(stage: Stage) -> int:
    return int(stage.one("SELECT coalesce(max(data_version), 0) FROM tickets.import_meta WHERE source = 'inc'"))


def end(process: Process) -> None:
    if process.running:
        process.stop()


def table(found: Measured, asked: argparse.Namespace) -> str:
    dashboard, bare = _p95(found.dashboard), _p95(found.bare)
    alone, with_all = statistics.median(found.alone), statistics.median(found.beside)
    medians = statistics.median(found.dashboard), statistics.median(found.bare)
    ratios = [b / a for a, b in zip(found.alone, found.beside, strict=True)]  # each of one and the same half-minute
    of_rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    rows = [
        ("what", "with all of them", "beside it", "ratio"),
        ("---",) * 4,
        (
            (f"the dashboard of seven days, {asked.readers} readers once a second each, "
            f"median and p95 of {len(found.dashboard)}"),
            f"{medians[0] * _MS:.0f} ms, {dashboard * _MS:.0f} ms; {found.unchanged} of them 304",
            f"bare SQL for one reader, of {len(found.bare)}: {medians[1] * _MS:.0f} ms, {bare * _MS:.0f} ms",
            f"{medians[0] / medians[1]:.2f}, {dashboard / bare:.2f}",
        ),
        (
            f"{asked.files} files of {ROWS} rows, first delivery → last COMMIT, median of {len(found.beside)}",
            f"{with_all:.2f} s", f"nobody reads: {alone:.2f} s", f"{statistics.median(ratios):.2f} ({of_rounds})",
        ),
        (
            f"version written → event read, {asked.followers} followers, median, p95, most",
            f"{statistics.median(found.lags):.2f} s, {_p95(found.lags):.2f} s, {max(found.lags):.2f} s", "", "",
        ),
        (
            "of one core while they are there", f"the API {found.api_cpu / found.seconds:.0%}",
            f"all its clients {found.clients_cpu / found.seconds:.0%}", "",
        ),
        (
            "events; cut off and come back, or ended by the API; gaps or repetitions",
            f"{found.events}; {found.cuts}, {found.ended}; {found.missed}", "", "",
        ),
    ]  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def write(page: Path, told: str) -> None:
    """Raises: ValueError, when the page has no markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end_, after = rest.partition(END)
    if not (begin and end_):
        raise ValueError(f"{page} has no place for the table")
    where = "".join(f"- {what}: {how}\n" for what, how in machine.told() if what in {"commit", "machine", "PostgreSQL"})
    page.write_text(f"{before}{BEGIN}\n{where}\n{told}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
