"""The shell lines that docs/deployment-and-operations.md has for a host: followed as they stand, in their order."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.conftest import MakeStage
from tests.compose import BROKER_PASSWORDS, ROOT
from tests.conftest import Database
from tests.stage.broker import fresh_vhost
from tests.stage.feeds import csv, key_at, ticket
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage

PAGE = (ROOT / "docs" / "deployment-and-operations.md").read_text()
LOGINS = ("fleettickets_consumer", "fleettickets_reader")


class Host:
    """A folder in place of /etc/fleettickets; services, names and the program's place are those of the test."""

    def __init__(self, stage: Stage, management: str, name: str, folder: Path) -> None:
        self.stage, self.name, self.folder = stage, name, folder
        database, broker = urlsplit(stage.database), urlsplit(stage.broker.url)
        self.owner = database._replace(path=f"/{name}").geturl()
        self.here = {
            "postgresql://postgres:PASSWORD@127.0.0.1:5432/fleettickets": self.owner,
            "amqp://guest:guest@127.0.0.1:5672/%2f": stage.broker.url,
            "http://127.0.0.1:15672": management,
            "cd /etc/fleettickets": f"cd {folder}",
            "/root/fleettickets.ran": str(folder / "ran"),
            # This store takes a broker's password over TLS alone; the administrator's here is known to everybody.
            "fleettickets notifications --store rustfs": "RABBITMQ_URL=$ADMIN fleettickets notifications --store ceph",
            "DATABASE fleettickets": f"DATABASE {name}",
            "TO fleettickets_before": f"TO {name}_before",
        }
        for file in ("Makefile", ".env.example"):
            shutil.copy(ROOT / file, folder)
        subprocess.run(["make", "env"], cwd=folder, check=True, capture_output=True)
        consumer = f"{self.login('fleettickets_consumer')}:${{POSTGRES_CONSUMER_PASSWORD}}"
        settings = BROKER_PASSWORDS | {
            "DATABASE_URL": database._replace(
                netloc=f"{consumer}@{database.netloc.rpartition('@')[2]}", path=f"/{name}"
            ).geturl(),
            "RABBITMQ_URL": broker._replace(
                netloc=f"fleettickets-consumer:${{RABBITMQ_CONSUMER_PASSWORD}}@{broker.netloc.rpartition('@')[2]}"
            ).geturl(),
            **{f"RUSTFS_{one}": stage.environment[f"RUSTFS_{one}"]
               for one in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY", "REGION", "BUCKET")},
            "FLEETTICKETS_MISSING_COLUMNS": "allow",
        }  # fmt: skip
        text = (folder / ".env").read_text()
        for setting, value in settings.items():
            text = re.sub(rf"^{setting}=.*$", lambda _, line=f"{setting}={value}": line, text, flags=re.MULTILINE)  # type: ignore[misc]
        (folder / ".env").write_text(text)
        made = (ROOT / "sql" / "logins.sql").read_text()
        for login in LOGINS:
            made = made.replace(login, self.login(login))
        (folder / "logins.sql").write_text(made)
        tools = folder / "bin"
        tools.mkdir()
        (tools / "fleettickets").symlink_to(PROGRAM)
        (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{folder}/systemctl\necho one.service active\n')
        (tools / "systemctl").chmod(0o755)

    def login(self, login: str) -> str:
        return f"{login}_{self.name}"

    def follow(self, begins: str, **more: str) -> str:
        """What is said by the page's block that begins so; none of its lines may fail."""
        (block,) = re.findall(rf"^ *```sh\n( *{re.escape(begins)}.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
        for there, here in self.here.items():
            block = block.replace(there, here)
        environment = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(self.folder), **more}
        done = subprocess.run(
            ["sh", "-eux", "-c", block], cwd=self.folder, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def program(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """With what its .env has, and nothing else."""
        return subprocess.run(
            [PROGRAM, *arguments], cwd=self.folder, env={"PATH": os.environ["PATH"]}, check=False, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip


@pytest.fixture
def host(
    empty_database: Database, make_stage: MakeStage, services: dict[str, str], worker_id: str, tmp_path: Path
) -> Iterator[Host]:
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    if management is None:
        pytest.skip("the management API makes the users of this test")
    with make_stage(empty_database.url) as stage:
        stage.broker = fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-host-{worker_id}")
        made = Host(stage, management, f"{urlsplit(empty_database.url).path[1:]}_host", tmp_path)
        yield made
        for name in (made.name, f"{made.name}_before"):
            command = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            stage.connection.execute(command)
        roles = [f"fleettickets_{kind}_{made.name}" for kind in ("ingest", "read")]
        for role in [*map(made.login, LOGINS), *roles]:
            stage.connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def tickets(host: Host) -> int:
    with psycopg.connect(host.owner) as connection:
        (found,) = connection.execute("SELECT count(*) FROM tickets.inc").fetchone() or (0,)
        return int(found)


def test_the_first_start_a_backup_and_a_restore_by_the_lines_of_the_page(host: Host) -> None:
    bucket = host.stage.bucket
    assert re.search(r"^ok +topology", host.follow("cd /etc/fleettickets\nOWNER="), re.MULTILINE)
    assert "fleettickets_consumer" in host.program("doctor").stdout, "each with its own login"
    bucket.put(key_at(0), csv([ticket("INC1")]))
    assert host.program("drain", "--apply").returncode == 0
    dumped = host.follow("   pg_dump", OWNER=host.owner)
    assert int(dumped.split()[-1]) >= 20
    bucket.put(key_at(1), csv([ticket("INC2")]))
    assert host.program("drain", "--apply").returncode == 0

    said = host.follow("systemctl list-units", OWNER=host.owner)
    assert "unrecorded: 1" in said
    assert said.endswith("everything is accounted for\n")
    assert tickets(host) == 2
    assert (host.folder / "systemctl").read_text().splitlines()[1::1] == ["stop one.service", "start one.service"]


def test_a_dump_without_its_database_s_name_is_none(host: Host) -> None:
    """Libpq would take the login's own database, and pg_dump end with 0."""
    with pytest.raises(AssertionError, match="OWNER"):
        host.follow("   pg_dump", OWNER="")
    assert not (host.folder / "fleettickets.dump").exists()


def test_logins_without_passwords_are_told_what_lacks(host: Host) -> None:
    done = subprocess.run(
        ["psql", "--quiet", f"--file={host.folder / 'logins.sql'}", host.stage.database],
        env={"PATH": os.environ["PATH"], "POSTGRES_READER_PASSWORD": "one"}, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 3
    assert "POSTGRES_CONSUMER_PASSWORD and POSTGRES_READER_PASSWORD have to be in the environment" in done.stderr
    assert "syntax" not in done.stderr
