"""A stage outside of pytest: a migrated database, a vhost and a bucket of its own."""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.stage.broker import fresh_vhost
from tests.stage.database import fresh_database
from tests.stage.program import PROGRAM
from tests.stage.stage import Stage
from tests.stage.store import Bucket


@contextlib.contextmanager
def load_stage(folder: Path) -> Iterator[Stage]:
    services, name = dict(os.environ), f"ft-load-{uuid.uuid4().hex[:8]}"
    broker = fresh_vhost(services["RABBITMQ_URL"], services["RABBITMQ_MANAGEMENT_URL"], name)
    with fresh_database(services["DATABASE_URL"]) as database:
        bucket = Bucket(services, name)
        try:
            for command in ("migrate", "topology"):
                environment = services | {"DATABASE_URL": database, "RABBITMQ_URL": broker.url}
                subprocess.run([PROGRAM, command], env=environment, cwd=folder, check=True, capture_output=True)
            stage = Stage(services, database, broker, bucket, folder)
            try:
                yield stage
            finally:
                stage.end()
                stage.connection.close()
        finally:
            bucket.remove()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
