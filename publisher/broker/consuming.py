"""The consumer's side of RabbitMQ: one thread talks to it, deliveries go out to others, calls come back from them.

That thread only runs the event loop of an AsyncLink, so nothing that anybody waits for keeps heartbeats, a signal or
other queues' messages waiting. A lost connection fails what is being published and drops the tags of its deliveries.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any

import structlog
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from publisher.absences import Absences
from publisher.arrivals import messages
from publisher.arrivals.store_events import MAX_BYTES
from publisher.broker import channels, topology, tracing
from publisher.broker.confirming import AsyncLink, Subscription
from publisher.broker.publishing import CONFIRM_SECONDS, Outgoing
from publisher.broker.topology import Queue
from publisher.errors import NotConfirmed
from publisher.settings import BrokerSettings
from publisher.spans import UNRECORDED, Span, Spans
from publisher.trace import Trace

log = structlog.get_logger()

_UNCONFIRMED = 28
"""Messages of one exchange and routing key that may wait for their confirm at a time. With 32 unanswered ones of one
channel and queue, RabbitMQ would stop to read the whole connection, acks included."""
_LOOK_UP_SECONDS = 0.5
_LOOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One arrival of one message. `channel` and `tag` are only for the link, which settles it.

    `headers` are those of ours, and only of a message that came through our own exchange: what a stranger publishes,
    who may write to the exchange of the events, steers nothing. A `body` that is too large to be read is only its
    beginning, so that strangers' ones do not fill the memory. Its `span` is of the trace of whoever sent it, a
    stranger's too, and ends when it is settled.
    """

    queue: Queue
    body: bytes
    headers: Mapping[str, Any]
    redelivered: bool
    channel: Channel
    tag: int
    span: Span
    delivered_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def trace(self) -> Trace:
        """Of what comes of it."""
        return self.span.trace

    @property
    def is_lost(self) -> bool:
        """Whether its connection is gone: the broker has it again, and it is on its way to somebody anew."""
        return not self.channel.is_open


@dataclass(frozen=True, slots=True)
class _Running:
    """What there is of a link while it runs."""

    loop: asyncio.AbstractEventLoop
    link: AsyncLink
    stop: Event


class Link:
    """Publishes and consumes while `run` is running, for threads that know nothing of the event loop.

    While it consumes files, the virtual host is the bucket's.
    """

    def __init__(self, settings: BrokerSettings, bucket: str, absences: Absences, spans: Spans = UNRECORDED) -> None:
        self._settings = settings
        self._absences = absences
        self._bucket = bucket
        self._spans = spans
        self._running: _Running | None = None
        self._spreading = Lock()

    @property
    def is_connected(self) -> bool:
        running = self._running
        return running is not None and running.link.is_connected

    def publish(self, outgoing: Outgoing) -> None:
        """From any other thread: publish and wait until the broker has the message in a queue, on disk.

        Raises: NotConfirmed, at the latest after CONFIRM_SECONDS.
        """
        self._publish_together((outgoing,))

    def publish_all(self, outgoing: Sequence[Outgoing]) -> None:
        """From any other thread: publish many messages of one exchange and routing key, several of them at a time.

        Nobody else publishes many meanwhile, for whom there would be no room.
        Raises: NotConfirmed, also when stopped meanwhile; the first ones may have arrived.
        """
        with self._spreading:
            for begin in range(0, len(outgoing), _UNCONFIRMED):
                running = self._running
                if running is None or running.stop.is_set():
                    raise NotConfirmed("away", f"stopped after {begin} of {len(outgoing)} messages")
                self._publish_together(outgoing[begin : begin + _UNCONFIRMED])

    def _publish_together(self, outgoing: Sequence[Outgoing]) -> None:
        published: Future[None] = Future()

        async def publish(link: AsyncLink) -> None:
            answers = await asyncio.gather(*(link.publish(one) for one in outgoing), return_exceptions=True)
            for error in filter(None, answers):
                raise error

        def begin(link: AsyncLink) -> None:
            asyncio.ensure_future(publish(link)).add_done_callback(end)

        def end(publishing: "asyncio.Task[None]") -> None:
            if publishing.cancelled():
                published.set_exception(NotConfirmed("away", "the connection is being closed"))
            elif error := publishing.exception():
                published.set_exception(error)
            else:
                published.set_result(None)

        if not self._soon(begin):
            raise NotConfirmed("away", "not connected")
        try:
            published.result(CONFIRM_SECONDS + _LOOP_SECONDS)
        except TimeoutError:  # the loop has ended meanwhile
            raise NotConfirmed("away", "the connection was closed") from None

    def ack(self, delivery: Delivery) -> None:
        """From any other thread: settle a delivery. Too late for a lost connection: it will come again."""
        delivery.span.end()

        def ack(_link: AsyncLink) -> None:
            if delivery.channel.is_open:
                delivery.channel.basic_ack(delivery.tag)

        self._soon(ack)

    def put_back(self, delivery: Delivery, *, after: float) -> None:
        """From any other thread: give a delivery back to its queue after so many seconds; nobody has it until then."""
        delivery.span.end()

        def put_back() -> None:
            if delivery.channel.is_open:
                delivery.channel.basic_nack(delivery.tag, requeue=True)

        self._soon(lambda _link: asyncio.get_running_loop().call_later(after, put_back))

    def run(
        self,
        prefetch: Mapping[Queue, int],
        receive: Callable[[Delivery], None],
        stop: Event,
        is_idle: Callable[[], bool],
        turned: Callable[[], None],
    ) -> None:
        """Serve until `stop` is set and the work in hand has been settled; `turned` is called twice a second.

        Hands `prefetch[queue]` deliveries of each queue at a time to `receive`.

        Raises: Misconfigured, when the broker refuses us for good; DependencyDown, when stopped without one.
        """
        subscriptions = [
            Subscription(queue.broker_name, count, _receiver(queue, receive, self._spans))
            for queue, count in prefetch.items()
        ]
        link = AsyncLink(
            self._settings,
            "consumer",
            CONFIRM_SECONDS,
            self._absences,
            unconfirmed=_UNCONFIRMED,
            subscriptions=subscriptions,
            bucket=self._bucket if Queue.FILES in prefetch else None,
        )
        asyncio.run(self._run(link, stop, is_idle, turned))

    async def _run(self, link: AsyncLink, stop: Event, is_idle: Callable[[], bool], turned: Callable[[], None]) -> None:
        self._running = _Running(asyncio.get_running_loop(), link, stop)
        running = asyncio.create_task(link.run())
        try:
            while not (stop.is_set() and is_idle()):
                turned()
                await asyncio.wait((running,), timeout=_LOOK_UP_SECONDS)
                if running.done():
                    running.result()
                if stop.is_set():
                    if not link.is_connected:
                        raise channels.away("not connected")
                    link.stop_consuming()
        finally:
            # What was acked last goes out before the connection closes: the loop has it already, and keeps the order.
            await asyncio.sleep(0)
            self._running = None
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    def _soon(self, action: Callable[[AsyncLink], object]) -> bool:
        """Have the loop do something; False when there is none any more."""
        running = self._running
        if running is None:
            return False
        try:
            running.loop.call_soon_threadsafe(action, running.link)
        except RuntimeError:  # it was closed under us
            return False
        return True


def _receiver(
    queue: Queue, receive: Callable[[Delivery], None], spans: Spans
) -> Callable[[Channel, Basic.Deliver, BasicProperties, bytes], None]:
    def take(channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        tag = method.delivery_tag or 0  # only the type stubs doubt it
        told, size = properties.headers or {}, len(body)
        body = body[: MAX_BYTES + 1]  # one more than is read, so that it is told to be too large
        trace = Trace.of_headers(told) or Trace.of(body)
        if size > MAX_BYTES:
            log.warning("body cut", queue=queue.value, trace_id=trace.id, bytes=size, kept=MAX_BYTES + 1)
        headers = messages.kept(told) if method.exchange == topology.REQUESTS else {}
        is_again = bool(method.redelivered)
        span = tracing.processing(spans, queue, trace, size, redelivered=is_again)
        receive(Delivery(queue, body, headers, is_again, channel, tag, span))

    return take
