"""`verify` and `explain` end in bounded time, whoever has locked a table or says nothing, and tell who it is."""

import time
from typing import Any

import psycopg
import pytest

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.silence import silent_server
from tests.stage.stage import Stage

SECONDS = {"FLEETTICKETS_STATUS_SECONDS": "2"}
COMMANDS = {"verify": 3, "explain": 1}


@pytest.fixture(scope="module")
def key(shared_stage: Stage) -> str:
    key = key_at(0)
    shared_stage.bucket.put(key, csv([ticket("INC0")]))
    shared_stage.ask("drain", "--apply")
    return key


def asked(stage: Stage, command: str, key: str, **environment: str) -> dict[str, Any]:
    """The answer in JSON, of a command that could not look at everything."""
    arguments = [key] if command == "explain" else []
    began = time.monotonic()
    ended = stage.run(command, *arguments, "--json", **SECONDS, **environment)
    assert time.monotonic() - began < 20
    assert ended.returncode == COMMANDS[command], ended.stderr
    found: dict[str, Any] = stage.json(ended)
    return found


@pytest.mark.parametrize("table", ["tickets.inc", "ingest.ledger", "ingest.positions", "ingest.rejects"])
def test_behind_a_locked_table_they_name_who_has_the_lock(shared_stage: Stage, key: str, table: str) -> None:
    stage = shared_stage
    with psycopg.connect(stage.database, application_name="an admin's") as admin, admin.transaction():
        admin.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        holder = f"pid {admin.info.backend_pid}"
        found = asked(stage, "verify", key)
        assert (list(found["faults"]), found["accounted_for"]) == (["database"], None)
        assert holder in found["faults"]["database"]
        if table in {"ingest.ledger", "ingest.rejects"}:
            found = asked(stage, "explain", key)
            assert (list(found["faults"]), found["processed"] != []) == (["database"], True)
            assert holder in found["faults"]["database"]
        if table == "tickets.inc":
            began = time.monotonic()
            ended = stage.run("explain", "--ticket", "INC0", **SECONDS)
            assert (ended.returncode, len(ended.stderr.splitlines()), holder in ended.stderr) == (1, 1, True)
            assert time.monotonic() - began < 20
    assert stage.ask("verify")["accounted_for"]


@pytest.mark.parametrize("command", COMMANDS)
def test_who_says_nothing_is_not_waited_for(shared_stage: Stage, key: str, command: str) -> None:
    with silent_server() as port:
        silent = {
            "broker": {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{port}/%2f"},
            "bucket": {"RUSTFS_ENDPOINT": f"http://127.0.0.1:{port}"},
            "database": {"DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/postgres"},
        }
        for part, environment in silent.items():
            faults = asked(shared_stage, command, key, **environment)["faults"]
            assert list(faults) == [part]
            assert f"127.0.0.1:{port}" in faults[part]
