"""The one thread that talks to RabbitMQ while others work: deliveries go out to them, calls come back from them.

pika's BlockingConnection is confined to its thread, heartbeats included, so that thread never does any work of its
own. A lost connection fails the calls under way, drops the tags of its deliveries, and is opened again with back-off.
"""

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event
from typing import Any, TypeVar

import structlog
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.spec import Basic, BasicProperties

from publisher import broker, topology
from publisher.errors import DependencyDown
from publisher.settings import BrokerSettings
from publisher.topology import Queue

Answer = TypeVar("Answer")
_LOOK_UP_SECONDS = 1.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One arrival of one message. `channel` and `tag` are only for the link, which settles it."""

    queue: Queue
    body: bytes
    headers: Mapping[str, Any]
    redelivered: bool
    channel: BlockingChannel
    tag: int
    delivered_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Link:
    """Consumes `prefetch[queue]` deliveries of each queue at a time and hands them to `receive`."""

    def __init__(
        self, settings: BrokerSettings, prefetch: Mapping[Queue, int], receive: Callable[[Delivery], None]
    ) -> None:
        self._settings = settings
        self._prefetch = prefetch
        self._receive = receive
        self._calls: queue.SimpleQueue[tuple[Callable[[], object], Future[Any]]] = queue.SimpleQueue()
        self._connection: BlockingConnection | None = None
        self._publishing: BlockingChannel | None = None
        self._consumers: list[tuple[BlockingChannel, str]] = []

    def call(self, action: Callable[[BlockingChannel], Answer]) -> Answer:
        """From any other thread: run `action` with the confirming channel and wait for its answer.

        Raises: what `action` raises; DependencyDown when the connection is away or lost meanwhile.
        """

        def on_the_channel() -> Answer:
            if self._publishing is None or not self._publishing.is_open:
                raise DependencyDown(broker.BROKER, "not connected")
            try:
                return action(self._publishing)
            except DependencyDown as error:
                if broker.was_refused(error):
                    self._renew_publishing()
                raise

        return self._submit(on_the_channel).result()

    def ack(self, delivery: Delivery) -> None:
        """From any other thread: settle a delivery. Too late for a lost connection: it will come again."""

        def on_its_channel() -> None:
            if delivery.channel.is_open:
                with broker.translated_errors():
                    delivery.channel.basic_ack(delivery.tag)

        self._submit(on_its_channel)

    def run(self, stop: Event, is_idle: Callable[[], bool]) -> None:
        """Serve until `stop` is set and the work in hand has been settled.

        Raises: Misconfigured, when the broker refuses us for good; DependencyDown, when stopped without one.
        """
        attempts = broker.Reconnecting(stop)
        for attempt in attempts:
            with attempt:
                try:
                    self._connect()
                    attempts.held(attempt)
                    self._serve(stop, is_idle)
                finally:
                    self._disconnect()

    def _connect(self) -> None:
        self._connection = broker.connect(self._settings, "consumer")
        with broker.translated_errors():
            topology.declare(self._connection.channel())
            self._publishing = self._connection.channel()
            self._publishing.confirm_delivery()
            for name, prefetch in self._prefetch.items():
                channel = self._connection.channel()
                channel.basic_qos(prefetch_count=prefetch)
                self._consumers.append((channel, channel.basic_consume(name.broker_name, self._receiver(name))))

    def _renew_publishing(self) -> None:
        """RabbitMQ 3.10 goes on refusing a channel that met a full queue, even with the limit lifted."""
        connection, refused = self._connection, self._publishing
        if connection is not None and refused is not None:
            with broker.translated_errors():
                refused.close()
                self._publishing = connection.channel()
                self._publishing.confirm_delivery()

    def _receiver(self, name: Queue) -> Callable[[BlockingChannel, Basic.Deliver, BasicProperties, bytes], None]:
        def receive(channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            tag = method.delivery_tag or 0  # only the type stubs doubt it
            self._receive(Delivery(name, body, properties.headers or {}, bool(method.redelivered), channel, tag))

        return receive

    def _serve(self, stop: Event, is_idle: Callable[[], bool]) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - _connect has just set it
        log.info("consuming", queues=[name.value for name in self._prefetch])
        consuming = True
        while not (stop.is_set() and is_idle() and self._calls.empty()):
            with broker.translated_errors():
                connection.process_data_events(time_limit=_LOOK_UP_SECONDS)
                self._make_calls()
                if stop.is_set() and consuming:
                    # What was fetched and not begun goes back to the queue when the connection closes.
                    consuming = False
                    self._cancel_consumers()
            if consuming and not self._still_consuming():
                # The broker may end a consumer without any error: after a time-out (4.3), or a deleted queue.
                raise DependencyDown(broker.BROKER, "the broker ended the consumer")
            if self._publishing is None or not self._publishing.is_open:
                # After a publish to an exchange that is gone. Connecting anew declares it.
                raise DependencyDown(broker.BROKER, "the broker closed the channel for publishing")

    def _cancel_consumers(self) -> None:
        for channel, consumer_tag in self._consumers:
            channel.basic_cancel(consumer_tag)

    def _still_consuming(self) -> bool:
        return all(channel.is_open and tag in channel.consumer_tags for channel, tag in self._consumers)

    def _submit(self, action: Callable[[], Answer]) -> "Future[Answer]":
        future: Future[Answer] = Future()
        self._calls.put((action, future))
        connection = self._connection
        if connection is None:
            self._fail_calls()
        else:
            try:
                connection.add_callback_threadsafe(self._make_calls)
            except Exception:  # noqa: BLE001 - the connection closed under us; _disconnect fails the call
                self._fail_calls()
        return future

    def _make_calls(self) -> None:
        while True:
            try:
                action, future = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(action())
            except Exception as error:  # noqa: BLE001 - belongs to the caller, in its thread
                future.set_exception(error)

    def _fail_calls(self) -> None:
        while True:
            try:
                _, future = self._calls.get_nowait()
            except queue.Empty:
                return
            future.set_exception(DependencyDown(broker.BROKER, "the connection was lost"))

    def _disconnect(self) -> None:
        connection, self._connection, self._publishing = self._connection, None, None
        self._consumers.clear()
        self._fail_calls()
        if connection is not None and connection.is_open:
            try:
                connection.close()
            except Exception as error:  # noqa: BLE001 - it is gone either way
                log.info("connection closed badly", detail=broker.describe(error))
