"""A stage outside of pytest: a migrated database, a vhost and a bucket of its own."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from tests.stage.broker import fresh_vhost
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage
from tests.stage.store import Bucket


@contextlib.contextmanager
def load_stage(folder: Path) -> Iterator[Stage]:
    services, name = dict(os.environ), f"ft_load_{uuid.uuid4().hex[:8]}"
    server, database = services["DATABASE_URL"], urlsplit(services["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with (
        psycopg.connect(server, autocommit=True) as connection,
        fresh_vhost(services["RABBITMQ_URL"], services["RABBITMQ_MANAGEMENT_URL"], name) as broker,
    ):
        connection.execute(f"CREATE DATABASE {name}".encode())
        bucket = Bucket(services, name.replace("_", "-"))
        try:
            for command in ("migrate", "topology"):
                environment = services | {"DATABASE_URL": database, "RABBITMQ_URL": broker.url}
                subprocess.run([PROGRAM, command], env=environment, cwd=folder, check=True, capture_output=True)
            stage = Stage(services, database, broker, bucket, folder)
            try:
                yield stage
            finally:
                for process in stage.processes:
                    if process.running:
                        process.kill()
                stage.connection.close()
        finally:
            bucket.remove()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
