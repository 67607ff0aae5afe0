"""Services of a test's own, to be restarted and filled up without anybody else noticing."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import place
from ceph import Ceph
from place import Place
from postgres import Postgres
from rabbitmq import RabbitMQ

from tests.stage.broker import Broker
from tests.stage.program import Forked
from tests.stage.stage import Stage
from tests.stage.store import Bucket


def settled(folder: Path) -> Place:
    """Free ports and room for a service under the folder."""
    found = place.settle(place.remembered(folder))
    found.logs.mkdir(parents=True, exist_ok=True)
    return found


@contextlib.contextmanager
def private_postgres(
    folder: Path, certificate: tuple[Path, Path] | None = None, language: str = ""
) -> Iterator[Postgres]:
    """A server with a migrated database, which speaks English unless another language is named."""
    postgres = Postgres(settled(folder), certificate, language)
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


@dataclass(frozen=True)
class PrivateStack:
    """All that the program needs, each service to be taken away by itself."""

    postgres: Postgres
    rabbitmq: RabbitMQ
    ceph: Ceph

    def environment(self) -> dict[str, str]:
        return self.postgres.environment() | self.rabbitmq.environment() | self.ceph.environment()


@contextlib.contextmanager
def private_stack(folder: Path) -> Iterator[PrivateStack]:
    """A migrated database, a node with the topology declared, and a store."""
    found = settled(folder)
    stack = PrivateStack(Postgres(found), RabbitMQ(found), Ceph(found))

    def start_postgres() -> None:
        stack.postgres.start()
        run("migrate", {"DATABASE_URL": stack.postgres.url}, folder)

    def start_rabbitmq() -> None:
        stack.rabbitmq.start()
        run("topology", {"RABBITMQ_URL": stack.rabbitmq.url}, folder)

    try:
        with ThreadPoolExecutor(3) as threads:
            for starting in [threads.submit(start) for start in (start_postgres, start_rabbitmq, stack.ceph.start)]:
                starting.result()
        yield stack
    finally:
        for service in (stack.postgres, stack.rabbitmq, stack.ceph):
            service.stop()


@contextlib.contextmanager
def private_stage(folder: Path, bucket: str) -> Iterator[tuple[PrivateStack, Stage]]:
    """A stage on such services, and what its processes log in the folder, whatever comes of it."""
    with private_stack(folder) as stack:
        services = stack.environment()
        broker = Broker(stack.rabbitmq.url, services["RABBITMQ_MANAGEMENT_URL"])
        (folder / "processes").mkdir()
        stage = Stage(services, stack.postgres.url, broker, Bucket(services, bucket), folder / "processes")
        try:
            yield stack, stage
        finally:
            stage.end()
            stage.connection.close()
            stage.bucket.s3.close()


def run(command: str, environment: Mapping[str, str], folder: Path) -> None:
    out = folder / f"{command}.out"
    assert Forked([command], {"PATH": "/usr/bin:/bin", **environment}, folder, out, out).wait(60) == 0, out.read_text()


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
