"""The set-up of a run: settings for fresh places, the schema, the topology, notifications, and the two processes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from consumer.demo import children, fresh
from consumer.demo.children import Child, DemoFailed
from consumer.demo.fresh import DemoBucket
from consumer.demo.services import Services
from consumer.feeds.declared import packaged_feeds
from consumer.settings import DatabaseSettings
from publisher.arrivals.folders import Folder
from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown, Refused
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.notifications import Notifications

CONNECTIONS = 8
_READY_SECONDS, _MIGRATE_SECONDS = 30.0, 120.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that a play has at hand; `refusal` is why the store does not announce arrivals itself, if so."""

    database: DatabaseSettings
    broker: BrokerSettings
    settings: BucketSettings
    folders: dict[str, Folder]
    """Of each feed, by its name."""
    bucket: DemoBucket
    refusal: str | None
    processes: tuple[Child, ...]
    environment: dict[str, str]
    """Settings that name all of these."""


@contextmanager
def ready(services: Services, logs: Path) -> Iterator[Stage]:
    """A consumer and a poller at work on a database, a virtual host and a bucket made anew.

    Raises: Misconfigured, DemoFailed, DependencyDown, Refused.
    """
    given = services.environment
    bucket_settings = _bucket_settings(given)
    with fresh.demo_database(given["DATABASE_URL"]) as database_url:
        rabbitmq_url = fresh.demo_virtual_host(given["RABBITMQ_URL"], given.get("RABBITMQ_MANAGEMENT_URL"))
        broker_settings = load(BrokerSettings, rabbitmq_url=rabbitmq_url)
        environment = {
            "DATABASE_URL": database_url,
            "RABBITMQ_URL": rabbitmq_url,
            "RUSTFS_ENDPOINT": str(bucket_settings.endpoint),
            "RUSTFS_ACCESS_KEY": bucket_settings.access_key.get_secret_value(),
            "RUSTFS_SECRET_KEY": bucket_settings.secret_key.get_secret_value(),
            "RUSTFS_REGION": bucket_settings.region,
            "RUSTFS_BUCKET": bucket_settings.bucket,
        }
        if management_url := given.get("RABBITMQ_MANAGEMENT_URL"):
            environment["RABBITMQ_MANAGEMENT_URL"] = management_url
        bucket = DemoBucket(bucket_settings, CONNECTIONS)
        processes: list[Child] = []

        def start(*arguments: str) -> Child:
            settings = environment | {"FLEETTICKETS_HISTORY_INTERVAL": "0.5"}
            child = children.start(["consumer", *arguments], settings, logs / f"{arguments[0]}.log")
            processes.append(child)
            return child

        try:
            migrate, topology = start("migrate"), start("topology")
            bucket.make()
            children.finish(topology, seconds=_READY_SECONDS)
            refusal = _refusal(bucket_settings, broker_settings)
            children.finish(migrate, seconds=_MIGRATE_SECONDS)
            working = (start("consume"), start("poll", "--every", "1" if refusal else "5"))
            _wait_for_consumer(broker_settings, working)
            database_settings = load(DatabaseSettings, database_url=database_url)
            folders = {feed.name: feed.folder for feed in packaged_feeds()}
            yield Stage(
                database_settings, broker_settings, bucket_settings, folders, bucket, refusal, working, environment
            )
        finally:
            children.no_more_interruptions()
            children.stop(processes)


def _bucket_settings(given: dict[str, str]) -> BucketSettings:
    names = {
        "endpoint": "RUSTFS_ENDPOINT",
        "access_key": "RUSTFS_ACCESS_KEY",
        "secret_key": "RUSTFS_SECRET_KEY",
        "region": "RUSTFS_REGION",
    }
    known = {field: given[name] for field, name in names.items() if name in given}
    return load(BucketSettings, **known, bucket=fresh.BUCKET_NAME)


def _refusal(settings: BucketSettings, broker_settings: BrokerSettings) -> str | None:
    notifications = Notifications(settings, packaged_feeds().folders)
    try:
        # Not persistent: the store then announces while it answers the PUT, with no half minute until a new
        # topic's first event. What gets lost that way, the poller finds.
        notifications.apply(notifications.plan_for_ceph(broker_settings, persistent=False))
    except (DependencyDown, Refused) as error:
        return error.detail
    return None


def _wait_for_consumer(settings: BrokerSettings, processes: tuple[Child, ...]) -> None:
    """So that the first files do not count the consumer's start."""
    end = time.monotonic() + _READY_SECONDS
    with channels.confirming_channel(settings, "demo") as channel:
        while channels.queue_depth(channel, Queue.FILES.broker_name)[1] == 0:
            for child in processes:
                child.require_alive()
            if time.monotonic() > end:
                raise DemoFailed(f"consume has not begun within {_READY_SECONDS:.0f} s (see {processes[0].log})")
            time.sleep(0.05)


def where_to_look(stage: Stage, services: Services) -> dict[str, str]:
    """What a visitor can open, without passwords."""
    look = {"database": f"psql '{_masked(stage.database.database_url.get_secret_value())}'"}
    if management := services.environment.get("RABBITMQ_MANAGEMENT_URL"):
        url = urlsplit(management)
        look["broker"] = f"{url.scheme}://{url.hostname}:{url.port}/#/queues (user {url.username or 'guest'})"
    endpoint = str(stage.settings.endpoint).rstrip("/")
    look["bucket"] = f"{endpoint}/{stage.settings.bucket} (access key {stage.settings.access_key.get_secret_value()})"
    return look


def leave_settings(stage: Stage, folder: Path) -> str:
    """Have every command that runs in this folder find what was played; gives how one is called there."""
    folder.mkdir(exist_ok=True)
    path = folder / ".env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={_quoted(value)}\n" for name, value in stage.environment.items()))
    program = f"{sys.executable} -m consumer" if sys.argv[0].endswith(".py") else str(Path(sys.argv[0]).absolute())
    return f"cd {folder} && {program} status  (verify, explain, doctor and serve go there as well)"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _masked(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url
