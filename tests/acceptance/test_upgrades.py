"""From one version of the program to the next while files arrive: consumers one by one, and the schema before them."""

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consumer.demo.oracle import ChangeFile
from consumer.postgres import migrate
from tests.acceptance.conftest import MakeStage
from tests.conftest import ROOT, Database
from tests.stage.broker import DEAD_FILES, FILES
from tests.stage.comparing import assert_equals_oracle
from tests.stage.feeds import RandomFeed
from tests.stage.stage import Process, Stage, wait_until

RUNS = "from consumer.program import main; main()"


@contextmanager
def arriving(stage: Stage, files: list[ChangeFile], each_seconds: float) -> Iterator[None]:
    """The exporter and the store's notifications go on meanwhile, until all of the files are there."""
    stage.environment["FLEETTICKETS_MAX_REJECT_SHARE"] = "1"

    def arrive() -> None:
        for file in files:
            stage.bucket.put(file.key, file.body)
            stage.announce(file.key)
            pause.wait(each_seconds)

    pause = threading.Event()
    exporter = threading.Thread(target=arrive)
    exporter.start()
    try:
        yield
    finally:
        pause.set()
        exporter.join()


def decisions(processes: list[Process]) -> Counter[tuple[str, str]]:
    """How often which key was decided in which way, by what all of them said."""
    lines = (json.loads(line) for process in processes for line in process.output().splitlines() if line[:1] == "{")
    return Counter((line["key"], line["decision"]) for line in lines if line["event"] == "file")


def done(stage: Stage) -> int:
    return int(stage.one("SELECT count(*) FROM ingest.ledger WHERE state = 'done'"))


def assert_each_was_applied_once(stage: Stage, processes: list[Process], files: list[ChangeFile]) -> None:
    wait_until(lambda: stage.broker.ready(FILES) == 0, "every delivery is settled")
    assert stage.one("SELECT sum(attempts) FROM ingest.ledger") == 0
    assert stage.broker.ready(DEAD_FILES) == 0
    assert stage.waiting() == []
    assert_equals_oracle(stage, files)
    told = decisions(processes)
    assert {key for key, _ in told} == {file.key for file in files}
    applied = {(key, decision): times for (key, decision), times in told.items() if decision != "duplicate"}
    assert set(applied.values()) == {1}, "nothing was applied by two"


@pytest.mark.promise("Exactly once", "Nothing lost")
def test_consumers_are_replaced_one_by_one_under_load(stage: Stage) -> None:
    """The next one is there before the last one goes, and what that has in hand it brings to its end."""
    files = RandomFeed(51, tickets=60).files(160, rows=8)
    running = [stage.start("consume") for _ in range(3)]
    every = list(running)
    with arriving(stage, files, each_seconds=0.03):
        for share in (5, 35, 65):
            wait_until(lambda share=share: done(stage) >= share, "some more files")  # type: ignore[misc]
            next_one = stage.start("consume")
            wait_until(lambda next_one=next_one: '"consuming"' in next_one.output(), "it consumes")  # type: ignore[misc]
            running.pop(0).stop()
            running.append(next_one)
            every.append(next_one)
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    for consumer in running:
        consumer.stop()
    assert_each_was_applied_once(stage, every, files)
    assert all("killed" not in consumer.output() for consumer in every)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def last_before(migration: str) -> str | None:
    """The commit with which the program had come furthest without this migration; none where git cannot tell."""
    path = f"sql/migrations/{migration}.sql"
    for commit in git("rev-list", "--first-parent", "HEAD").split():
        if not git("ls-tree", commit, "--", path):
            return commit if git("ls-tree", commit, "--", "sql/migrations") else None
    return None


class FormerProgram:
    """The program as it was before the newest migration, from this checkout's own history."""

    def __init__(self, stage: Stage, commit: str, folder: Path) -> None:
        packed = folder / "former.tar"
        subprocess.run(["git", "archive", "-o", packed, commit, "consumer", "publisher", "sql"], cwd=ROOT, check=True)
        subprocess.run(["tar", "-x", "-C", folder, "-f", packed], check=True)
        self.folder = folder
        self._stage = stage

    def start(self, *arguments: str) -> Process:
        log = self._stage.folder / f"former-{len(self._stage.processes)}-{arguments[0]}.log"
        environment = self._stage.environment | {"PYTHONPATH": str(self.folder)}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", RUNS, *arguments], cwd=self._stage.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        started = Process(process, log)
        self._stage.processes.append(started)
        return started

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        return process.wait(), process.output()

    def where(self) -> Path:
        """Which program it is that runs so."""
        environment = self._stage.environment | {"PYTHONPATH": str(self.folder)}
        told = subprocess.run(
            [sys.executable, "-c", "import consumer; print(consumer.__path__[0])"],
            cwd=self._stage.folder, env=environment, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return Path(told.stdout.strip())


@pytest.fixture
def former(empty_database: Database, make_stage: MakeStage, tmp_path: Path) -> Iterator[tuple[Stage, FormerProgram]]:
    newest = migrate.all_migrations()[-1].name
    commit = last_before(newest)
    if commit is None:
        pytest.skip(f"this checkout has no history of before {newest}: git fetch --unshallow")
    with make_stage(empty_database.url) as stage:
        program = FormerProgram(stage, commit, tmp_path)
        assert program.where() == tmp_path / "consumer"
        status, said = program.run("migrate")
        assert status == 0, said
        assert stage.query("SELECT FROM public.fleettickets_migrations WHERE name = %s", newest) == []
        yield stage, program


@pytest.mark.promise("Exactly once", "Nothing lost")
def test_the_version_before_goes_on_running_on_the_new_schema_beside_the_new_one(
    former: tuple[Stage, FormerProgram],
) -> None:
    """Expand, migrate, replace: what a migration brings is nothing that whoever runs already stumbles over."""
    stage, program = former
    files = RandomFeed(52, tickets=60).files(150, rows=8)
    old = program.start("consume")
    poller = program.start("poll", "--every", "1")
    with arriving(stage, files, each_seconds=0.05):
        wait_until(lambda: done(stage) >= 20, "the old one works on the old schema")
        assert stage.run("migrate").returncode == 0
        before = decisions([old])
        wait_until(lambda: len(decisions([old])) >= len(before) + 20, "it goes on, on the new one")
        new = stage.start("consume")
        wait_until(lambda: len(decisions([new])) >= 10, "both work")
        # Who begins now is told to be the newer one; who runs is not asked again.
        status, said = program.run("consume")
        assert (status, "ahead of this program" in said) == (2, True), said
        assert old.running
        old.stop()
        poller.stop()
    stage.wait_for("done", *(file.key for file in files))
    stage.wait_for_history()
    assert stage.run("verify").returncode == 0
    new.stop()
    assert_each_was_applied_once(stage, [old, new], files)
    assert not re.search(r"UndefinedColumn|UndefinedTable|UndefinedFunction|Traceback", old.output() + poller.output())
