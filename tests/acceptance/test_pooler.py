"""Behind a real PgBouncer: whole sessions work, and what gives each transaction another one is refused."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.stage.feeds import csv, key_at, ticket
from tests.stage.stage import Stage

PGBOUNCER = "/usr/sbin/pgbouncer"


@contextmanager
def pooled(url: str, mode: str, ours: str = "") -> Iterator[str]:
    """The database's URL through a PgBouncer of its own; with settings of our database alone."""
    server = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    folder = Path(tempfile.mkdtemp(prefix="fleettickets-pgbouncer-", dir="/var/tmp"))
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server.hostname} port={server.port} user={server.username} {ours}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\n"
    )
    command = [PGBOUNCER, "-q", str(settings)]
    if os.geteuid() == 0:  # as which it refuses to run
        shutil.chown(folder, "postgres")
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        through = server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl()
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
        yield through
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.parametrize("modes", [("session",), ("transaction", "pool_mode=session")], ids=["of all", "of ours"])
def test_whole_sessions_work(stage: Stage, modes: tuple[str, ...]) -> None:
    first, second = key_at(0), key_at(10)
    with pooled(stage.database, *modes) as url:
        stage.environment["DATABASE_URL"] = url
        assert stage.ask("migrate")["migrations"] == []
        consumer = stage.start("consume")
        stage.bucket.put_all({first: csv([ticket("INC1")]), second: csv([ticket("INC2")])})
        stage.announce(first, second)
        stage.wait_for("done", first, second)
        stage.wait_for_history()
        assert stage.run("verify").returncode == 0
        consumer.stop()
        levels = {found["about"]: found["level"] for found in stage.json(stage.run("doctor", "--json"))["findings"]}
        assert (levels["postgres"], levels["rights"], levels["merge"]) == ("ok", "ok", "ok")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_what_gives_each_transaction_another_session_is_refused_before_anything_is_set(
    shared_stage: Stage, mode: str
) -> None:
    stage = shared_stage
    with (
        pooled(stage.database, mode) as url,
        psycopg.connect(url, autocommit=True, row_factory=dict_row) as neighbour,
    ):
        state = "SELECT current_user, current_setting('search_path'), current_setting('row_security')"
        before = neighbour.execute(state.encode()).fetchone()
        for arguments in (("consume",), ("drain", "--apply"), ("migrate",), ("status",)):
            refused = stage.run(*arguments, DATABASE_URL=url)
            told = refused.stdout + refused.stderr
            assert refused.returncode != 0, arguments
            assert "DATABASE_URL leads to a connection pooler that gives each transaction another session" in told
            assert "Traceback" not in told
        doctor = stage.run("doctor", "--json", DATABASE_URL=url)
        found = {finding["about"]: finding for finding in stage.json(doctor)["findings"]}["postgres"]
        assert found["level"] == "wrong"
        assert "pool_mode=session" in found["found"]
        for _ in range(5):
            assert neighbour.execute(state.encode()).fetchone() == before
