"""A vhost for the session, and a stage for each test or for a whole file of tests."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.acceptance.broker import DEAD_FILES, FILES, GEOCODE, HISTORY, Broker, fresh_vhost
from tests.acceptance.program import PROGRAM
from tests.acceptance.stage import Stage
from tests.acceptance.store import Bucket
from tests.conftest import Database

pytest.register_assert_rewrite("tests.acceptance.comparing")

MakeStage = Callable[[str], AbstractContextManager[Stage]]


@pytest.fixture(scope="session")
def broker(services: dict[str, str], worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The topology declared in a vhost that nobody else uses."""
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    with fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-acceptance-{worker_id}") as fresh:
        declared = subprocess.run(
            [PROGRAM, "topology", "--json"],
            cwd=tmp_path_factory.mktemp("topology"),
            env=os.environ | services | {"RABBITMQ_URL": fresh.url, "RUSTFS_BUCKET": "none"},
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert declared.returncode == 0, declared.stderr
        fresh.find_queues(json.loads(declared.stdout)["declared"])
        assert {FILES, DEAD_FILES, GEOCODE, HISTORY} <= set(fresh.queues)
        yield fresh


@pytest.fixture(scope="session")
def make_stage(services: dict[str, str], broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> MakeStage:
    @contextmanager
    def make(database: str) -> Iterator[Stage]:
        broker.purge()
        bucket = Bucket(services, f"acceptance-{uuid.uuid4().hex[:12]}")
        try:
            stage = Stage(services, database, broker, bucket, tmp_path_factory.mktemp("stage"))
            try:
                yield stage
            finally:
                stage.close()
        finally:
            bucket.remove()

    return make


@pytest.fixture
def stage(database: Database, make_stage: MakeStage) -> Iterator[Stage]:
    with make_stage(database.url) as made:
        yield made


@pytest.fixture(scope="module")
def shared_stage(services: dict[str, str], make_stage: MakeStage, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One stage for all tests of a file."""
    template = request.getfixturevalue("_template")
    name = f"ft_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(services["DATABASE_URL"], autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            with make_stage(urlsplit(services["DATABASE_URL"])._replace(path=f"/{name}").geturl()) as made:
                yield made
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
