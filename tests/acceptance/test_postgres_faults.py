"""Postgres restarted, cut off or full: the consumer waits, spends nothing, and finds out what was committed."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from postgres import Postgres

from consumer.demo.oracle import ChangeFile
from tests.acceptance.conftest import MakeStage
from tests.doubles.faulty_store import FaultyStore
from tests.doubles.proxy import Proxy
from tests.stage.broker import DEAD_FILES
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import START, RandomFeed, csv, key_at, ticket
from tests.stage.private import private_postgres
from tests.stage.stage import Process, Stage, wait_until

FILES = 12
COMMIT, OF_A_FILE = b"COMMIT\0", b"COPY staging"  # not ON COMMIT, nor the commits of the sweep


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with private_postgres(tmp_path_factory.mktemp("postgres")) as private:
        yield private


@pytest.fixture
def private_stage(postgres: Postgres, make_stage: MakeStage) -> Iterator[Stage]:
    """On a copy of the private server's migrated database."""
    server = postgres.url.rpartition("/")[0]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE copy TEMPLATE fleettickets")
    try:
        with make_stage(f"{server}/copy") as made:
            yield made
    finally:
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE copy WITH (FORCE)")


def play(stage: Stage, seed: int) -> list[ChangeFile]:
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"
    files = RandomFeed(seed, tickets=30).files(FILES, rows=8)
    stage.bucket.put_all({file.key: file.body for file in files})
    stage.announce(*(file.key for file in files))
    return files


def restart(postgres: Postgres, stage: Stage, by: signal.Signals, seconds: float = 0.5) -> None:
    postgres.halt(by)
    time.sleep(seconds)
    postgres.start()
    stage.reconnect()


def assert_as_if_nothing_had_happened(stage: Stage, consumer: Process, files: list[ChangeFile]) -> None:
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    consumer.stop()
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.waiting() == []
    assert_equals_oracle(stage, files)


@pytest.mark.promise("One transaction")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_restarted_in_the_middle_of_a_copy(private_stage: Stage, postgres: Postgres, by: signal.Signals) -> None:
    stage = private_stage
    with FaultyStore(stage.environment["RUSTFS_ENDPOINT"]) as store:
        big = ChangeFile(key_at(-5), START - timedelta(minutes=5), csv(ticket(f"B{row}") for row in range(9000)))
        fault = store.fault("GET", big.key, "slow")  # so that it stays half read
        consumer = stage.start("consume", RUSTFS_ENDPOINT=store.url)
        stage.bucket.put(big.key, big.body)
        stage.announce(big.key)
        assert fault.met.wait(30)
        copying = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY staging%%' AND state = 'active'"
        wait_until(lambda: stage.one(copying) > 0, "a COPY is under way", timeout=20)
        restart(postgres, stage, by)
        files = [big, *play(stage, seed=21)]
        store.heal()
        assert_as_if_nothing_had_happened(stage, consumer, files)
    assert "waiting" in consumer.output()


@pytest.mark.promise("One transaction", "Exactly once")
@pytest.mark.parametrize("done", [False, True], ids=["not committed", "committed"])
def test_restarted_while_a_commit_is_on_its_way(private_stage: Stage, postgres: Postgres, done: bool) -> None:
    stage = private_stage
    with Proxy(stage.environment["DATABASE_URL"], losing=COMMIT, once=OF_A_FILE, after=done, holding=True) as proxy:
        consumer = stage.start("consume", DATABASE_URL=proxy.url)
        files = play(stage, seed=22)
        assert proxy.lost.wait(30)
        committed = stage.one("SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL")
        assert (committed > 0) == done
        restart(postgres, stage, signal.SIGQUIT)
        proxy.restore()
        proxy.cut()
        assert_as_if_nothing_had_happened(stage, consumer, files)


@pytest.mark.promise("Exactly once")
def test_an_answer_to_commit_that_is_lost_is_looked_up_in_the_ledger(stage: Stage) -> None:
    """Postgres is well; only the connection dies, again and again, between the COMMIT and its answer."""
    with Proxy(stage.environment["DATABASE_URL"], losing=COMMIT, once=OF_A_FILE, after=True) as proxy:
        consumer = stage.start("consume", DATABASE_URL=proxy.url)
        files = play(stage, seed=23)
        applied = "SELECT count(*) FROM ingest.ledger WHERE applied_at IS NOT NULL"
        wait_until(lambda: stage.one(applied) >= FILES - 2, "nearly all were applied, by commits without an answer")
        proxy.restore()
        assert_as_if_nothing_had_happened(stage, consumer, files)
    assert stage.one("SELECT sum(duplicates) FROM ingest.ledger") > 0


@pytest.mark.promise("Exactly once")
@pytest.mark.faults
def test_a_commit_that_nobody_answers_ends_by_itself(stage: Stage) -> None:
    """The connection stays open and silent, by way of somebody who acknowledges every packet."""
    with Proxy(stage.environment["DATABASE_URL"], losing=COMMIT, once=OF_A_FILE, after=True, holding=True) as proxy:
        consumer = stage.start("consume", DATABASE_URL=proxy.url)
        files = play(stage, seed=24)
        assert proxy.lost.wait(30)
        proxy.restore()
        told = "postgres is not available"
        wait_until(lambda: told in consumer.output(), "it stops waiting for the answer", timeout=75)
        assert_as_if_nothing_had_happened(stage, consumer, files)


KEEPALIVE = "02"
"""The kind of timer that /proc/net/tcp shows of a connection on which nothing is under way."""


def connections_of(pid: int, port: int) -> list[str]:
    """The kind of timer that runs on each of the process's connections to the port."""
    opened = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {name.removeprefix("socket:[").rstrip("]") for name in opened if name.startswith("socket:[")}
    # sl local remote state queues timer:when retransmits uid timeout inode, numbers in hexadecimal
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[5].split(":")[0] for row in rows if row[9] in inodes and row[2].endswith(f":{port:04X}")]


def test_the_connections_of_a_consumer_are_kept_alive(stage: Stage) -> None:
    consumer = stage.start("consume")
    key = key_at(0)
    stage.bucket.put(key, csv([ticket("INC1")]))
    stage.announce(key)
    stage.wait_for("done", key)
    port = urlsplit(stage.environment["DATABASE_URL"]).port or 5432
    # A connection on which something is under way has another timer for that moment.
    wait_until(lambda: set(connections_of(consumer.pid, port)) == {KEEPALIVE}, "each is kept alive")
    consumer.stop()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of some megabytes that the postgres user may write to."""
    disk = Path("/var/tmp") / f"fleettickets-{folder.name}-{os.getpid()}"  # noqa: S108 - the server can enter it
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0777", "none", str(disk)], check=False, capture_output=True
    )
    try:
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)
        disk.rmdir()


@pytest.mark.promise("One bad thing stays one bad thing")
def test_a_full_disk_is_waited_for(private_stage: Stage, tmp_path: Path) -> None:
    stage = private_stage
    with small_disk(tmp_path) as disk:
        tablespace = disk / "tablespace"
        tablespace.mkdir()
        tablespace.chmod(0o777)
        subprocess.run(["chown", "postgres", tablespace], check=os.geteuid() == 0)
        stage.connection.execute(f"CREATE TABLESPACE small LOCATION '{tablespace}'".encode())
        try:
            stage.connection.execute("ALTER TABLE tickets.inc SET TABLESPACE small")
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as sink:
                while True:
                    sink.write(bytes(1 << 12))
            consumer = stage.start("consume")
            files = play(stage, seed=24)
            wait_until(lambda: "No space left on device" in consumer.output(), "the disk is full")
            time.sleep(2)
            assert stage.one("SELECT count(*) FROM ingest.ledger WHERE state <> 'seen' OR attempts > 0") == 0
            assert consumer.running
            filler.unlink()
            assert_as_if_nothing_had_happened(stage, consumer, files)
        finally:
            stage.connection.execute("ALTER TABLE tickets.inc SET TABLESPACE pg_default")
            stage.connection.execute("DROP TABLESPACE small")


@pytest.mark.promise("One bad thing stays one bad thing")
@pytest.mark.faults
def test_back_after_a_long_absence_it_is_found_soon(private_stage: Stage, postgres: Postgres) -> None:
    """The pool's own pauses between attempts would otherwise grow to minutes."""
    stage = private_stage
    consumer = stage.start("consume")
    wait_until(lambda: "consuming" in consumer.output(), "the consumer is there")
    postgres.halt()
    files = play(stage, seed=25)
    time.sleep(35)
    postgres.start()
    stage.reconnect()
    began = time.monotonic()
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger") > 0, "it has found Postgres", timeout=60)
    assert time.monotonic() - began < 20
    assert_as_if_nothing_had_happened(stage, consumer, files)
