"""The broker as its other users see it: publishing, counting and reading messages."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import requests
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from consumer.demo.fresh import fresh_virtual_host

EVENTS = "fleettickets.events"
DEAD = "fleettickets.dead"
FILES = "fleettickets.files"
DEAD_FILES = "fleettickets.files.dead"
GEOCODE = "fleettickets.geocode"
HISTORY = "fleettickets.history"


@dataclass(frozen=True)
class Message:
    headers: Mapping[str, Any]
    body: bytes


@dataclass
class Broker:
    """One vhost; `management` is the address of the management API with its credentials, where it is known."""

    url: str
    management: str | None
    queues: list[str] = field(default_factory=list)

    @property
    def vhost(self) -> str:
        return urlsplit(self.url).path.removeprefix("/") or "%2f"

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        parameters = pika.URLParameters(self.url)
        # A broker that stands still, on purpose or because the machine is busy, is tried again as a store would.
        parameters.connection_attempts, parameters.retry_delay = 8, 1
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            # Without, a message is on its way for as long as the channel lives, and this one ends at once.
            channel.confirm_delivery()
            yield channel
        finally:
            if connection.is_open:
                connection.close()

    def publish(self, bodies: Iterable[bytes], exchange: str = EVENTS, routing_key: str = "store") -> None:
        with self.channel() as channel:
            for body in bodies:
                channel.basic_publish(
                    exchange, routing_key, body, pika.BasicProperties(delivery_mode=2), mandatory=True
                )

    def publish_with(self, channel: BlockingChannel, body: bytes, headers: dict[str, Any]) -> None:
        self.publish_to(channel, EVENTS, "store", body, headers)

    def publish_to(
        self, channel: BlockingChannel, exchange: str, routing_key: str, body: bytes, headers: dict[str, Any]
    ) -> None:
        properties = pika.BasicProperties(delivery_mode=2, headers=headers)
        channel.basic_publish(exchange, routing_key, body, properties, mandatory=True)

    def ready(self, queue: str) -> int:
        """Messages that wait in the queue, without those in the hands of a consumer."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def held(self, queue: str) -> int:
        """Messages ready and unacknowledged, as last counted by the management API; 0 where there is none."""
        if self.management is None:
            return 0
        answer = requests.get(f"{self.management}/api/queues/{self.vhost}/{quote(queue)}", timeout=10)
        answer.raise_for_status()
        return int(answer.json().get("messages", 0))

    def messages(self, queue: str) -> list[Message]:
        """What waits in the queue, and goes back to it."""
        found: list[Message] = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=False)
                if method is None or properties is None or body is None:
                    # In their order: a server before 4.1.1 must not be left to put many of them back by itself.
                    channel.basic_nack(0, multiple=True)
                    return found
                found.append(Message(properties.headers or {}, body))

    def find_queues(self, names: Iterable[str]) -> None:
        """Keep for purging those of the names that are queues."""
        for name in names:
            with self.channel() as channel, contextlib.suppress(ChannelClosedByBroker):
                channel.queue_declare(name, passive=True)
                self.queues.append(name)

    def purge(self, *queues: str) -> None:
        """Forget what waits in these queues, or in all of them."""
        with self.channel() as channel:
            for queue in queues or self.queues:
                channel.queue_purge(queue)


def fresh_vhost(url: str, management: str | None, name: str) -> Broker:
    """A vhost of its own where the management API can make one, else the one of the URL.

    It is made anew and left behind: the Ceph gateway never forgets an endpoint it once published to, and keeps trying
    to connect to one that is gone.
    """
    return Broker(url if management is None else fresh_virtual_host(url, management, name), management)
