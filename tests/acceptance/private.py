"""Services of a test's own, to be restarted and filled up without anybody else noticing."""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import place
from place import Place
from postgres import Postgres
from rabbitmq import RabbitMQ

from tests.acceptance.stage import PROGRAM


def settled(folder: Path) -> Place:
    """Free ports and room for a service under the folder."""
    found = place.settle(place.remembered(folder))
    found.logs.mkdir(parents=True, exist_ok=True)
    return found


@contextlib.contextmanager
def private_postgres(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[Postgres]:
    """A server with a migrated database."""
    postgres = Postgres(settled(folder), certificate)
    try:
        postgres.start()
        run("migrate", {"DATABASE_URL": postgres.url}, folder)
        yield postgres
    finally:
        postgres.stop()


@contextlib.contextmanager
def private_rabbitmq(folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[RabbitMQ]:
    """A node with the topology declared."""
    rabbitmq = RabbitMQ(settled(folder), certificate=certificate)
    try:
        rabbitmq.start()
        run("topology", {"RABBITMQ_URL": rabbitmq.url}, folder)
        yield rabbitmq
    finally:
        rabbitmq.stop()


def run(command: str, environment: Mapping[str, str], folder: Path) -> None:
    done = subprocess.run(
        [PROGRAM, command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def private_cluster(folder: Path, nodes: int) -> Iterator[list[RabbitMQ]]:
    """Nodes that have found each other, with the topology declared."""
    places: list[Place] = []
    for number in range(nodes):
        (folder / f"node{number}").mkdir()
        places.append(settled(folder / f"node{number}"))
    cookie = secrets.token_hex(16)
    members = [RabbitMQ(found, places, cookie) for found in places]
    try:
        members[0].start_epmd()
        with ThreadPoolExecutor(nodes) as threads:
            for _ in threads.map(RabbitMQ.start, members):
                pass
        run("topology", {"RABBITMQ_URL": members[0].url}, folder)
        yield members
    finally:
        for member in members:
            member.stop()
