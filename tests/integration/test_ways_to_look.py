"""A consumer without work sees of each service that it missed whether it is back."""

import pytest

from consumer.commands.consume import ways_to_look
from consumer.fail_points import nowhere
from consumer.files.tail import Tail
from consumer.follow_ons import outbox
from consumer.follow_ons.relay import Relay
from consumer.geocoding import known_places
from consumer.geocoding.locationiq import GEOCODER
from consumer.postgres import database as postgres
from consumer.postgres.database import Pool
from consumer.settings import DatabaseSettings
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown
from publisher.settings import BucketSettings
from publisher.store.bucket import BUCKET, Bucket
from tests.conftest import Database
from tests.doubles.proxy import Proxy


def tail(pool: Pool, bucket: Bucket) -> Tail:
    return Tail(pool, bucket, Relay(pool, lambda _outgoing: None, nowhere), nowhere, keep_versions_days=1)


def test_the_geocoder_is_missed_as_long_as_somebody_asks_for_it(pool: Pool, bucket: Bucket) -> None:
    is_back = ways_to_look(pool, bucket, tail(pool, bucket))[GEOCODER]
    assert is_back()
    with postgres.transaction(pool) as connection:
        known_places.ask_for_batch(connection)
    assert not is_back()
    with postgres.transaction(pool) as connection:
        outbox.mark_handled(connection, outbox.unhandled(connection, Queue.GEOCODE))
    assert is_back()


def test_store_and_database_are_missed_as_long_as_they_do_nothing(
    services: dict[str, str], bucket: Bucket, database: Database
) -> None:
    with (
        Proxy(services["RUSTFS_ENDPOINT"]) as store,
        Proxy(database.url) as server,
        postgres.open_pool(DatabaseSettings.model_validate({"DATABASE_URL": server.url}), size=2) as pool,
    ):
        pool.wait()
        settings = BucketSettings.model_validate(
            {**services, "RUSTFS_ENDPOINT": store.url, "RUSTFS_BUCKET": bucket.name}
        )
        behind = Bucket(settings, bucket.folders)
        is_back = ways_to_look(pool, behind, tail(pool, behind))
        for service, proxy in ((BUCKET, store), (postgres.DATABASE, server)):
            assert is_back[service]()
            proxy.refuse()
            with pytest.raises(DependencyDown):
                is_back[service]()
            proxy.restore()
            assert is_back[service]()
