"""Our own modules on real services: pools, buckets and virtual hosts of one test."""

import functools
import uuid
from collections.abc import Callable, Iterator

import pytest
import tenacity
from pika.adapters.blocking_connection import BlockingChannel

from consumer.feeds.declared import packaged_feeds
from consumer.files.outcomes import AlreadyApplied, Applied, Duplicate
from consumer.geocoding import locationiq
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import DatabaseSettings
from publisher.broker import channels, topology
from publisher.broker.topology import Queue
from publisher.settings import BrokerSettings, BucketSettings
from publisher.store.bucket import Bucket
from tests.doubles.geocoder import LocationIQ, Odd
from tests.integration.change_files import apply_to
from tests.integration.gazetteers import WESTLANDS
from tests.stage import store
from tests.stage.broker import fresh_vhost

CHANGES = "automations/inc/changes/"


@pytest.fixture
def pool(database) -> Iterator[Pool]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - its type is in another conftest
    with postgres.open_pool(DatabaseSettings.model_validate({"DATABASE_URL": database.url}), size=8) as opened:
        opened.wait()
        yield opened


@pytest.fixture
def apply(pool: Pool) -> Callable[..., Applied | AlreadyApplied | Duplicate]:
    """Apply a change file to the test's database."""
    return functools.partial(apply_to, pool)


@pytest.fixture(scope="session")
def broker_settings(services: dict[str, str], worker_id: str) -> BrokerSettings:
    """A virtual host made anew for this run, where the management API is known."""
    management, name = services.get("RABBITMQ_MANAGEMENT_URL"), f"fleettickets-integration-{worker_id}"
    url = fresh_vhost(services["RABBITMQ_URL"], management, name).url
    return BrokerSettings.model_validate({"RABBITMQ_URL": url})


@pytest.fixture
def channel(broker_settings: BrokerSettings) -> Iterator[BlockingChannel]:
    """A confirming channel on declared and empty queues."""
    with channels.confirming_channel(broker_settings, "tests") as opened:
        topology.declare(opened)
        for queue in Queue:
            opened.queue_purge(queue.broker_name)
            opened.queue_purge(queue.dead_letters)
        yield opened


@pytest.fixture
def bucket(services: dict[str, str]) -> Iterator[Bucket]:
    """A fresh bucket on the real store."""
    made = store.Bucket(services, f"ft-{uuid.uuid4().hex[:12]}")
    settings = BucketSettings.model_validate({**services, "RUSTFS_BUCKET": made.name})
    yield Bucket(settings, packaged_feeds().folders)
    made.remove()


@pytest.fixture
def provider() -> Iterator[LocationIQ]:
    with LocationIQ({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as server:
        yield server


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setattr(locationiq, "_WAIT", tenacity.wait_none())
    with Odd({"Westlands": WESTLANDS}, per_second=None, per_minute=None) as server:
        yield server
