"""A vhost for the session, and a stage for each test or for a whole file of tests."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.conftest import Database
from tests.stage.broker import DEAD_FILES, FILES, GEOCODE, HISTORY, Broker, fresh_vhost
from tests.stage.database import fresh_database
from tests.stage.program import Forked
from tests.stage.stage import Stage
from tests.stage.store import Bucket

pytest.register_assert_rewrite("tests.stage.comparing")

MakeStage = Callable[[str], AbstractContextManager[Stage]]


@pytest.fixture(scope="session")
def broker(services: dict[str, str], worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """The topology declared in a vhost that nobody else uses."""
    management = services.get("RABBITMQ_MANAGEMENT_URL")
    fresh = fresh_vhost(services["RABBITMQ_URL"], management, f"fleettickets-acceptance-{worker_id}")
    folder = tmp_path_factory.mktemp("topology")
    out, err = folder / "out", folder / "err"
    environment = os.environ | services | {"RABBITMQ_URL": fresh.url, "RUSTFS_BUCKET": "none"}
    assert Forked(["topology", "--json"], environment, folder, out, err).wait(60) == 0, err.read_text()
    fresh.find_queues(json.loads(out.read_text())["declared"])
    assert {FILES, DEAD_FILES, GEOCODE, HISTORY} <= set(fresh.queues)
    return fresh


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
    with fresh_database(services["DATABASE_URL"], request.getfixturevalue("_template")) as url, make_stage(url) as made:
        yield made
