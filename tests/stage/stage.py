"""A stage: one database, one bucket and the broker, with real processes of the program on it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.stage.broker import FILES, Broker
from tests.stage.program import Forked, executed
from tests.stage.store import CHANGES, Bucket

LOG_TAIL = 2000
RUN_SECONDS = 240
"""A command with much to do on a machine that does other things takes this long at most."""


def wait_until(predicate: Callable[[], object], what: str, timeout: float = 90) -> None:
    """Come back as soon as the predicate holds; fail with `what` when it does not within the seconds."""
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.05)


class Process:
    """A running command of the program; whoever starts it ends it."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def most_memory(self) -> int:
        """Bytes of it that it has had at the most."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    @property
    def cpu_seconds(self) -> float:
        """What it has had of all cores together."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self, timeout: float = 90) -> int:
        return self._process.wait(timeout)

    def ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def stop(self) -> None:
        self.terminate()
        assert self.wait() == 0, f"ended otherwise than by 0 after SIGTERM:\n{self.output()[-LOG_TAIL:]}"

    def kill(self) -> None:
        self._process.kill()
        self.wait()


class Stage:
    """Everything that one test needs; `close` ends what it started."""

    def __init__(
        self, services: Mapping[str, str], database: str, broker: Broker, bucket: Bucket, folder: Path
    ) -> None:
        self.services = services
        self.broker = broker
        self.bucket = bucket
        self.folder = folder
        self.executes = False
        """Whether each process is a program begun anew, and not a fork: where the command line itself matters."""
        self.processes: list[Process] = []
        self.database = database
        self.connection = self._connect()
        ours = ("FLEETTICKETS_", "RUSTFS_", "GEOCODER_")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            **{name: value for name, value in services.items() if name.startswith("RUSTFS_")},
            "DATABASE_URL": database,
            "RABBITMQ_URL": broker.url,
            "RUSTFS_BUCKET": bucket.name,
            "FLEETTICKETS_HISTORY_INTERVAL": "0.2",
            # Files of most tests name no more columns than they are about.
            "FLEETTICKETS_MISSING_COLUMNS": "allow",
            # Beside many other tests an answer takes longer.
            "FLEETTICKETS_STATUS_SECONDS": "30",
            # The files of tests are of one summer, however long ago that is.
            "FLEETTICKETS_KEEP_VERSIONS_DAYS": "36500",
            "NO_COLOR": "1",
        }
        # Where Python may not keep what it compiled, each of the many starts takes half as long again.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def reconnect(self) -> None:
        """After a restart of the database."""
        self.connection.close()
        self.connection = self._connect()

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self.database, autocommit=True, row_factory=dict_row)

    def start(self, *arguments: str, **environment: str) -> Process:
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        process = Process(self._begin(arguments, environment, log, log), log)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, whatever that is."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            process = self._begin(arguments, environment, out, err)
            try:
                status = process.wait(RUN_SECONDS)
            finally:
                process.kill()
            return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())

    def _begin(
        self, arguments: Sequence[str], environment: dict[str, str], out: Path, err: Path
    ) -> "subprocess.Popen[bytes] | Forked":
        begin = executed if self.executes else Forked
        return begin(arguments, self.environment | environment, self.folder, out, err)

    def ask(self, *arguments: str) -> Any:
        """The JSON answer of a command that has to succeed."""
        ended = self.run(*arguments, "--json")
        assert ended.returncode == 0, f"{arguments} ended with {ended.returncode}: {ended.stderr}"
        return json.loads(ended.stdout)

    @staticmethod
    def json(ended: "subprocess.CompletedProcess[str]") -> Any:
        """The JSON answer of a command that may have ended with a status of its own."""
        assert ended.stdout, ended.stderr
        return json.loads(ended.stdout)

    def query(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        # The queries of a test are its own literals.
        return self.connection.execute(query.encode(), parameters).fetchall()

    def one(self, query: str, *parameters: object) -> Any:
        """The only value of the only row."""
        (row,) = self.query(query, *parameters)
        (value,) = row.values()
        return value

    def ledger(self, key: str) -> dict[str, Any]:
        """The only row of the key."""
        (row,) = self.query("SELECT * FROM ingest.ledger WHERE key = %s", key)
        return row

    @contextlib.contextmanager
    def another_has(self, key: str, *, bucket: str | None = None) -> Iterator[None]:
        """Somebody else has the key in hand meanwhile."""
        lock = "SELECT FROM ingest.key_slots WHERE slot = ingest.key_slot(%s, %s) FOR UPDATE"
        with psycopg.connect(self.database) as another, another.transaction():
            another.execute(lock, (bucket or self.bucket.name, key))
            yield

    def announce(self, *keys: str) -> None:
        """Send a notification for each key, as the store would."""
        self.broker.publish(self.bucket.event(key, self.bucket.read(key)) for key in keys)

    def die_at(self, point: str, key: str, body: bytes) -> None:
        """Put a file, and let a consumer that has it in hand kill itself there; the broker has the delivery back."""
        doomed = self.start("consume", FLEETTICKETS_FAIL_POINT=point)
        self.bucket.put(key, body)
        self.announce(key)
        assert doomed.wait() == -signal.SIGKILL, doomed.output()
        wait_until(lambda: self.broker.ready(FILES) == 1, "the delivery is in the queue again")

    def wait_for(self, state: str, *keys: str, timeout: float = 90) -> None:
        """Wait until every key has a ledger row in the state."""
        query = "SELECT count(DISTINCT key) FROM ingest.ledger WHERE state = %s AND key = ANY(%s)"
        wait_until(lambda: self.one(query, state, list(keys)) == len(set(keys)), f"{state}: {keys[:5]}", timeout)

    def wait_for_history(self) -> None:
        open_requests = "SELECT count(*) FROM ingest.outbox WHERE kind = 'history' AND handled_at IS NULL"
        wait_until(lambda: self.one(open_requests) == 0, "every history request handled")

    def waiting(self) -> list[str]:
        return self.bucket.keys(CHANGES)

    def end(self) -> None:
        for process in self.processes:
            if process.running:
                process.kill()

    def close(self) -> None:
        self.end()
        for process in self.processes:
            sys.stdout.write(f"\n{process.log.name}\n{process.output()[-LOG_TAIL:]}")
        self.connection.close()
