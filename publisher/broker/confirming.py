"""RabbitMQ within an event loop: many messages at once on one connection, each done when the broker has confirmed it.

Each exchange and routing key has a confirming channel of its own, so a queue that confirms nothing keeps only its own
messages waiting. A lost connection fails every publisher under way at once and is opened again with back-off, the
topology declared anew.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pika.exceptions
import structlog
import tenacity
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from publisher.absences import Absences
from publisher.broker import channels, serving, topology
from publisher.broker.confirms import Confirms
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import QuorumQueue
from publisher.errors import DependencyDown, Misconfigured, NotConfirmed
from publisher.settings import BrokerSettings

UNCONFIRMED = 256
"""Messages of a receiver that may wait for their confirm at a time."""
_OPENING_SECONDS = 20
_DECLARING_HEARTBEAT = 10
"""Seconds: nobody can stop a declaration that waits for its answer, so its connection has to end by itself, soon."""
_CLOSING_SECONDS = 5
_INTERNAL_ERROR = 541
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue of which `prefetch` messages at a time are handed to `receive`, within the loop."""

    queue: str
    prefetch: int
    receive: Callable[[Channel, Basic.Deliver, BasicProperties, bytes], None]


class AsyncLink:
    """Publishes and consumes while `run` is running. For one event loop.

    `unconfirmed` is how many messages of one exchange and routing key may wait for their confirm at a time; `bucket` is
    the one whose files are consumed.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        purpose: str,
        confirm_seconds: float,
        absences: Absences,
        *,
        unconfirmed: int = UNCONFIRMED,
        subscriptions: Sequence[Subscription] = (),
        bucket: str | None = None,
    ) -> None:
        self._settings = settings
        self._purpose = purpose
        self._confirm_seconds = confirm_seconds
        self._absences = absences
        self._unconfirmed = unconfirmed
        self._subscriptions = subscriptions
        self._bucket = bucket
        self._connection: AsyncioConnection | None = None
        self._lost: asyncio.Future[None] | None = None
        self._outlets: dict[tuple[str, str], _Outlet] = {}
        self._consumers: list[tuple[Channel, str]] = []
        self._blocked = ""
        self._was_connected = False
        self._claim_unanswered = False
        self._unanswered: set[str] = set()
        """Queues that are subscribed to, and which the broker has not said yes for."""

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    def require_broker(self) -> None:
        """Raises: NotConfirmed, when the broker takes no messages now."""
        if not self.is_connected:
            raise NotConfirmed("away", "not connected")
        if self._blocked:
            raise NotConfirmed("blocked", f"the broker takes no messages now ({self._blocked})")

    async def publish(self, outgoing: Outgoing) -> None:
        """Publish and wait until the broker has the message in a queue, on disk.

        Raises: NotConfirmed; the message may have arrived nevertheless, unless it was refused.
        """
        self.require_broker()
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await self._outlet(outgoing).publish(outgoing)
        except TimeoutError:
            raise NotConfirmed("late", f"it did not confirm a message within {self._confirm_seconds:g} s") from None

    def stop_consuming(self) -> None:
        """Take no more messages. What was handed out and is not settled goes back when the connection closes."""
        while self._consumers:
            channel, consumer_tag = self._consumers.pop()
            if channel.is_open:
                channel.basic_cancel(consumer_tag)

    async def run(self) -> None:
        """Hold a connection until cancelled.

        Raises: Misconfigured, unless it has been connected before. Then it is waited out like a broker that is away:
        what an operator changes under a running process, he can change back.
        """
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_worth_waiting),
            wait=channels.RECONNECT_WAIT,
            before_sleep=self._wait,
            reraise=True,
        ):
            with attempt:
                # pika declares most simply on a connection that blocks, so that one is not ours.
                await asyncio.to_thread(self._declare)
                lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                async with self._connected(lost):
                    self._was_connected = True
                    attempt.retry_state.attempt_number = 1  # it held: the back-off starts anew
                    await lost

    def _is_worth_waiting(self, error: BaseException) -> bool:
        return isinstance(error, DependencyDown) or (self._was_connected and isinstance(error, Misconfigured))

    def _wait(self, state: tenacity.RetryCallState) -> None:
        self._absences.wait(state.outcome.exception() if state.outcome else None, state.upcoming_sleep)

    def _declare(self) -> None:
        with (
            channels.confirming_channel(
                self._settings, f"{self._purpose}: topology", _DECLARING_HEARTBEAT, channels.DECLARING_SECONDS
            ) as channel,
            channels.translated_errors(),
        ):
            topology.declare(channel)
            if self._bucket is not None:
                serving.claim(channel, self._bucket, anew=self._claim_unanswered)
                self._claim_unanswered = False

    @asynccontextmanager
    async def _connected(self, lost: "asyncio.Future[None]") -> AsyncIterator[None]:
        """Open a connection; `lost` ends with DependencyDown when it, or a channel that is in use, is gone."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        ended = asyncio.Event()

        def end(_connection: Any, error: BaseException) -> None:
            ended.set()
            # What RabbitMQ says at once, or after half a minute, of a queue that it cannot ask.
            if isinstance(error, pika.exceptions.ConnectionClosedByBroker) and error.reply_code == _INTERNAL_ERROR:
                self._tell_unanswered(*self._unanswered)
            _fail(lost, channels.lost(error))

        connection = AsyncioConnection(
            channels.parameters(self._settings, self._purpose),
            on_open_callback=lambda _connection: opened.set_result(None),
            on_open_error_callback=end,
            on_close_callback=end,
            custom_ioloop=loop,
        )
        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(str(frame.method.reason) or "alarm"))
        connection.add_on_connection_unblocked_callback(lambda *_: self._block(""))
        try:
            await asyncio.wait((opened, lost), timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                lost.result()
            if not opened.done():
                raise channels.away(f"no connection within {_OPENING_SECONDS} s")
            self._connection, self._lost = connection, lost
            if self._bucket is not None:
                await self._hold(serving.claim_of(self._bucket), connection, lost)
            for subscription in self._subscriptions:
                self._subscribe(connection, subscription, lost)
            self._absences.served(channels.BROKER)
            log.info("consuming" if self._subscriptions else "connected", **self._queues())
            yield
        finally:
            self._connection = self._lost = None
            self._blocked = ""
            self._consumers.clear()
            self._unanswered.clear()
            for outlet in self._outlets.values():
                outlet.lose("the connection was lost before it confirmed a message")
            self._outlets.clear()
            lost.cancel()
            if not ended.is_set():
                await _close(connection, ended)

    def _queues(self) -> dict[str, list[str]]:
        queues = [subscription.queue for subscription in self._subscriptions]
        return {"queues": queues} if queues else {}

    def _block(self, reason: str) -> None:
        if reason != self._blocked:
            log.warning("blocked" if reason else "unblocked", detail=reason or self._blocked)
        self._blocked = reason

    async def _hold(self, claim: QuorumQueue, connection: AsyncioConnection, lost: "asyncio.Future[None]") -> None:
        """Consume the claim for as long as the connection lives.

        Raises: DependencyDown, when somebody was faster, or nobody answers: then the next connection makes it anew.
        """
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def consume(channel: Channel) -> None:
            self._lose_with(channel, lost)
            channel.basic_consume(
                claim.name, lambda *_: None, auto_ack=True, callback=lambda _frame: declare_again(channel)
            )

        def declare_again(channel: Channel) -> None:
            # Before it had a consumer, somebody may have taken it for another bucket: then this is refused.
            channel.queue_declare(
                claim.name, durable=True, arguments=claim.all_arguments, callback=lambda _frame: held.set_result(None)
            )

        connection.channel(on_open_callback=consume)
        await asyncio.wait((held, lost), timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            lost.result()
        if not held.done():
            self._claim_unanswered = True
            raise channels.away(f"queue {claim.name} does not answer within {_OPENING_SECONDS} s")

    @staticmethod
    def _lose_with(channel: Channel, lost: "asyncio.Future[None]") -> None:
        channel.add_on_close_callback(lambda _, error: _fail(lost, channels.lost(error)))
        # The broker may end a consumer without any error: after a time-out (4.3), or with its queue.
        channel.add_on_cancel_callback(lambda _frame: _fail(lost, channels.away("the broker ended the consumer")))

    def _subscribe(
        self, connection: AsyncioConnection, subscription: Subscription, lost: "asyncio.Future[None]"
    ) -> None:
        def consume(channel: Channel) -> None:
            self._lose_with(channel, lost)
            channel.basic_qos(prefetch_count=subscription.prefetch)
            consumer_tag = channel.basic_consume(queue, subscription.receive, callback=answered)
            self._consumers.append((channel, consumer_tag))

        def answered(_frame: Any) -> None:
            late.cancel()
            self._unanswered.discard(queue)

        queue = subscription.queue
        self._unanswered.add(queue)
        late = asyncio.get_running_loop().call_later(_OPENING_SECONDS, self._tell_unanswered, queue)
        lost.add_done_callback(lambda _: late.cancel())
        connection.channel(on_open_callback=consume)

    @staticmethod
    def _tell_unanswered(*queues: str) -> None:
        """Others go on: it may come back, as with the node that leads it."""
        for queue in queues:
            log.warning(
                "queue does not answer",
                queue=queue,
                do="it is a quorum queue without a leader: start the nodes that are down; where all run, it was made "
                "just before its node died, and has lost its members: delete it, then run fleettickets topology",
            )

    def _outlet(self, outgoing: Outgoing) -> "_Outlet":
        destination = (outgoing.exchange, outgoing.routing_key)
        outlet = self._outlets.get(destination)
        if outlet is None or outlet.is_spoilt:
            assert self._connection is not None  # noqa: S101 - require_broker has seen it
            assert self._lost is not None  # noqa: S101 - set with it
            outlet = self._outlets[destination] = _Outlet(self._connection, self._unconfirmed, self._lost)
        return outlet


class _Outlet:
    """A confirming channel, and the messages that wait for its confirms.

    `is_spoilt` after a refusal: RabbitMQ 3.10 goes on refusing a channel that met a full queue, even with the limit
    lifted. It is closed then, once everything on it has been answered.
    """

    def __init__(self, connection: AsyncioConnection, limit: int, lost: "asyncio.Future[None]") -> None:
        self._connection_lost = lost
        self._confirms = Confirms(limit)
        self._channel: Channel | None = None
        self._opened = asyncio.Event()
        self.is_spoilt = False
        connection.channel(on_open_callback=self._prepare)

    async def publish(self, outgoing: Outgoing) -> None:
        """Raises: NotConfirmed."""
        await self._opened.wait()
        self._confirms.require_room()
        if self._channel is None or not self._channel.is_open:
            raise NotConfirmed("away", "not connected")
        mark = uuid.uuid4().hex
        try:
            self._channel.basic_publish(
                outgoing.exchange, outgoing.routing_key, outgoing.body, outgoing.properties(mark), mandatory=True
            )
        except pika.exceptions.AMQPError as error:
            raise NotConfirmed("away", channels.describe(error)) from error
        await self._confirms.published(mark)

    def lose(self, detail: str) -> None:
        """End every wait: the channel is gone."""
        self._channel = None
        self._opened.set()
        self._confirms.lose(detail)

    def _prepare(self, channel: Channel) -> None:
        def ready(_frame: Any) -> None:
            self._channel = channel
            self._opened.set()

        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._answered, callback=ready)

    def _closed(self, _channel: Channel, error: BaseException) -> None:
        self.lose("the channel was lost before it confirmed a message")
        if not self.is_spoilt:
            # After a publish to an exchange that is gone. Connecting anew declares it.
            _fail(self._connection_lost, channels.lost(error))

    def _returned(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        self._confirms.returned(
            properties.correlation_id or "",
            f"no queue is bound to exchange {method.exchange!r} for {method.routing_key!r}; run: fleettickets topology",
        )

    def _answered(self, frame: Method[Any]) -> None:
        taken = isinstance(frame.method, Basic.Ack)
        self._confirms.settle(frame.method.delivery_tag, multiple=frame.method.multiple, taken=taken)
        self.is_spoilt = self.is_spoilt or not taken
        if self.is_spoilt and not len(self._confirms) and self._channel is not None and self._channel.is_open:
            self._channel.close()


def _fail(lost: "asyncio.Future[None]", error: DependencyDown) -> None:
    if not lost.done():
        lost.set_exception(error)


async def _close(connection: AsyncioConnection, ended: asyncio.Event) -> None:
    try:
        if not connection.is_closing:
            connection.close()
        async with asyncio.timeout(_CLOSING_SECONDS):
            await ended.wait()
    except (pika.exceptions.AMQPError, TimeoutError) as error:
        log.info("connection closed badly", detail=channels.describe(error))
