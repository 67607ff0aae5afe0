"""A database, a virtual host and a bucket made anew: the demo's own, left until its next run, and those of tests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import requests
from botocore.exceptions import BotoCoreError, ClientError

from consumer.demo.children import DemoFailed
from consumer.postgres import database
from consumer.settings import DatabaseSettings
from publisher.broker import channels
from publisher.broker.channels import BROKER
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown, Misconfigured, Refused
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import BUCKET, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

VIRTUAL_HOST = "fleettickets-demo"
BUCKET_NAME = "fleettickets-demo"


def at(server_url: str, name: str) -> str:
    """The URL of a database or a virtual host of the server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


@contextmanager
def demo_database(server_url: str) -> Iterator[str]:
    """Drop and create the demo's database; gives its URL. Holds a lock against a second demo meanwhile.

    Raises: Misconfigured, DemoFailed, DependencyDown, Refused.
    """
    with database.connect(load(DatabaseSettings, database_url=server_url), None) as connection:
        with database.translated_errors():
            locked = connection.execute("SELECT pg_try_advisory_lock(hashtextextended('fleettickets demo', 0)) AS had")
            if not (had := locked.fetchone()) or not had["had"]:
                raise DemoFailed("another demo is running on this PostgreSQL server")
            connection.execute("DROP DATABASE IF EXISTS fleettickets_demo WITH (FORCE)")
            connection.execute(
                "DROP ROLE IF EXISTS fleettickets_ingest_fleettickets_demo, fleettickets_read_fleettickets_demo"
            )
            connection.execute("CREATE DATABASE fleettickets_demo")
        yield at(server_url, "fleettickets_demo")


def demo_virtual_host(rabbitmq_url: str, management_url: str | None) -> str:
    """Make a virtual host through the management API and give its URL; without that API the given one, if idle.

    Raises: Misconfigured, DependencyDown.
    """
    if not management_url:
        _require_idle(rabbitmq_url)
        return rabbitmq_url
    return fresh_virtual_host(rabbitmq_url, management_url, VIRTUAL_HOST)


def fresh_virtual_host(rabbitmq_url: str, management_url: str, name: str) -> str:
    """Delete and make a virtual host for the user of the URL; gives its own URL.

    Raises: Misconfigured, DependencyDown, Refused.
    """
    user = unquote(urlsplit(rabbitmq_url).username or "guest")
    api = f"{management_url.rstrip('/')}/api"
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    _manage("DELETE", f"{api}/vhosts/{name}")
    _manage("PUT", f"{api}/vhosts/{name}")
    _manage("PUT", f"{api}/permissions/{name}/{quote(user, safe='')}", everything)
    return at(rabbitmq_url, name)


def remove_bucket(s3: "S3Client", name: str) -> None:
    """Empty a bucket and delete it."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        found: list[ObjectIdentifierTypeDef] = [{"Key": each["Key"]} for each in page.get("Contents", [])]
        if found:
            s3.delete_objects(Bucket=name, Delete={"Objects": found, "Quiet": True})
    s3.delete_bucket(Bucket=name)


def _require_idle(rabbitmq_url: str) -> None:
    """Refuse a virtual host where the demo's consumer would take another consumer's messages."""
    settings = load(BrokerSettings, rabbitmq_url=rabbitmq_url)
    with channels.confirming_channel(settings, "demo") as channel:
        try:
            messages, consumers = channels.queue_depth(channel, Queue.FILES.broker_name)
        except Misconfigured:
            return  # no such queue yet
    if messages or consumers:
        raise Misconfigured(
            f"{Queue.FILES.broker_name} is in use in this virtual host ({messages} messages, {consumers} consumers); "
            "set RABBITMQ_MANAGEMENT_URL, and the demo makes a virtual host of its own"
        )


def _manage(method: str, url: str, body: dict[str, str] | None = None) -> None:
    try:
        answer = requests.request(method, url, json=body or {}, timeout=30)
    except requests.RequestException as error:
        where = urlsplit(url).netloc.rpartition("@")[2]
        raise DependencyDown(BROKER, f"its management API: {type(error).__name__}", where) from error
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise Misconfigured("RABBITMQ_MANAGEMENT_URL: the broker refuses this user, password or right")
    if not answer.ok and not (method == "DELETE" and answer.status_code == HTTPStatus.NOT_FOUND):
        raise Refused(BROKER, f"{method} {urlsplit(url).path}: {answer.status_code} {answer.text[:200]}")


class DemoBucket:
    """The bucket as the exporter and a visitor see it. Safe to share between threads."""

    def __init__(self, settings: BucketSettings, connections: int) -> None:
        self.name = settings.bucket
        self.s3 = s3_client(settings, connections)
        self._connections = connections

    def make(self) -> None:
        """Create the bucket anew: one of an earlier run would still announce to the broker of then.

        Raises: DependencyDown.
        """
        with _translated_errors():
            if self.name in {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}:
                remove_bucket(self.s3, self.name)
            self.s3.create_bucket(Bucket=self.name)

    def put(self, key: str, body: bytes) -> None:
        """Raises: DependencyDown."""
        with _translated_errors():
            self.s3.put_object(Bucket=self.name, Key=key, Body=body, ContentType="text/csv")

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def content(self, prefix: str) -> dict[str, bytes]:
        """Every object below `prefix`, by the rest of its key.

        Raises: DependencyDown.
        """
        with _translated_errors(), ThreadPoolExecutor(self._connections) as threads:
            keys = self.keys(prefix)
            return dict(zip((key.removeprefix(prefix) for key in keys), threads.map(self._get, keys), strict=True))

    def _get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise DependencyDown(BUCKET, " ".join(str(error).split())[:300]) from error
