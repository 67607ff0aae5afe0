"""The commands themselves: how they end, and what they say."""

from importlib.metadata import version

import pytest

from consumer.program import program
from tests.stage.broker import FILES
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage, wait_until
from tests.stage.store import CHANGES

NOWHERE = {
    "RABBITMQ_URL": "amqp://guest:guest@nowhere.invalid:5672/",
    "RUSTFS_ENDPOINT": "http://nowhere.invalid:9000",
    "DATABASE_URL": "postgresql://postgres@nowhere.invalid:5432/fleettickets",
}


def test_sigterm_finishes_the_files_in_hand_and_loses_none(stage: Stage) -> None:
    files = {key_at(number): csv([ticket(f"INC{number}")]) for number in range(40)}
    stage.bucket.put_all(files)
    stage.announce(*files)
    consumer = stage.start("consume")
    wait_until(lambda: stage.one("SELECT count(*) FROM ingest.ledger") > 0, "the first file is in hand")
    consumer.stop()
    done = stage.one("SELECT count(*) FROM ingest.ledger WHERE state = 'done'")
    assert stage.query("SELECT key, state FROM ingest.ledger WHERE state <> 'done'") == []
    assert len(stage.waiting()) == stage.broker.ready(FILES) == len(files) - done

    consumer = stage.start("consume")
    stage.wait_for("done", *files)
    consumer.stop()
    assert stage.waiting() == []
    assert stage.one("SELECT count(*) FROM tickets.inc") == len(files)
    assert stage.one("SELECT sum(duplicates) FROM ingest.ledger") == 0


def test_status_tells_backlog_queues_and_watermark(stage: Stage) -> None:
    waiting, applied = key_at(10), key_at(0)
    consumer = stage.start("consume")
    stage.bucket.put(applied, csv([ticket("INC1")]))
    stage.announce(applied)
    stage.wait_for("done", applied)
    stage.wait_for_history()
    consumer.stop()
    stage.bucket.put(waiting, csv([ticket("INC2")]))
    stage.announce(waiting)
    status = stage.ask("status")
    assert status["bucket"]["waiting"] == 1
    assert status["bucket"]["oldest_waiting_key"] == waiting
    assert status["database"]["feeds"]["inc"]["watermark"] == applied
    assert status["database"]["feeds"]["inc"]["tickets"] == 1
    assert status["database"]["last_files"][0]["key"] == applied
    stages = status["database"]["stages"]
    assert stages.pop("files") == 1
    assert list(stages) == ["delivered", "opened", "staged", "applied", "archived", "done"]
    assert all(0 <= seconds < 60 for name, seconds in stages.items() if name != "delivered")
    queues = status["broker"]["queues"]
    assert queues["files"] == {"ready": 1, "consumers": 0, "dead_letters": 0}
    assert queues["geocode"]["ready"] == 1
    assert status["faults"] == {}
    assert stage.waiting() == [f"{CHANGES}2026-06-01T061000.csv"]


@pytest.mark.parametrize("command", ["poll", "consume"])
def test_a_missing_setting_is_one_line_that_names_it(shared_stage: Stage, command: str) -> None:
    environment = dict(shared_stage.environment)
    del shared_stage.environment["RABBITMQ_URL"]
    try:
        ended = shared_stage.run(command)
    finally:
        shared_stage.environment.update(environment)
    assert ended.returncode == 2
    assert "RABBITMQ_URL" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "guest" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "setting", "service"),
    [
        ("topology", "RABBITMQ_URL", "rabbitmq"),
        ("poll", "RUSTFS_ENDPOINT", "store"),
        ("migrate", "DATABASE_URL", "postgres"),
    ],
)
def test_a_service_that_is_not_there_is_one_line_that_names_it(
    shared_stage: Stage, command: str, setting: str, service: str
) -> None:
    ended = shared_stage.run(command, **{setting: NOWHERE[setting]})
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert service in ended.stderr.lower()


def test_help_has_its_groups_with_every_command_and_examples(shared_stage: Stage) -> None:
    shown = shared_stage.run("-h", COLUMNS="120")
    assert (shown.returncode, shown.stdout) == (0, shared_stage.run("--help", COLUMNS="120").stdout)
    places = [shown.stdout.index(f" {group} ") for group in ("Look", "Mend", "Run", "Set up", "Examples")]
    assert places == sorted(places)
    grouped = shown.stdout.partition(" Look ")[2]
    known = [str(one.name) for one in program.registered_commands] + [
        str(one.name) for one in program.registered_groups
    ]
    assert len(known) > 20
    assert [name for name in known if f" {name} " not in grouped] == []
    assert shared_stage.run("dead-letters", "replay", "-h").returncode == 0


def test_the_version_is_told_without_any_setting(shared_stage: Stage) -> None:
    told = shared_stage.run("--version", DATABASE_URL="", RABBITMQ_URL="")
    assert (told.returncode, told.stdout) == (0, f"fleettickets {version('fleettickets')}\n")
