"""RabbitMQ within an event loop: many publishers at once on one connection, each done when its message is confirmed.

A lost connection fails every publisher under way at once and is opened again with back-off, the topology declared anew.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pika.exceptions
import structlog
import tenacity
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from publisher import broker, metrics, topology
from publisher.confirms import Confirms
from publisher.errors import DependencyDown, Misconfigured, NotConfirmed
from publisher.settings import BrokerSettings

UNCONFIRMED = 256
"""Messages that may wait for their confirm at a time."""
_OPENING_SECONDS = 20
_CLOSING_SECONDS = 5
log = structlog.get_logger()


class AsyncLink:
    """Publishes to the exchange of the stores' events while `run` is running. For one event loop."""

    def __init__(self, settings: BrokerSettings, purpose: str, confirm_seconds: float) -> None:
        self._settings = settings
        self._purpose = purpose
        self._confirm_seconds = confirm_seconds
        self._channel: Channel | None = None
        self._confirms = Confirms(UNCONFIRMED)
        self._blocked = ""
        self._was_connected = False

    def require_broker(self) -> None:
        """Raises: NotConfirmed, when the broker takes no messages now."""
        if self._channel is None or not self._channel.is_open:
            raise NotConfirmed("away", "not connected")
        if self._blocked:
            raise NotConfirmed("blocked", f"the broker takes no messages now ({self._blocked})")

    async def publish(self, body: bytes) -> None:
        """Publish the body of an event and wait until the broker has it in a queue, on disk.

        Raises: NotConfirmed; the message may have arrived nevertheless, unless it was refused.
        """
        self.require_broker()
        self._confirms.require_room()
        assert self._channel is not None  # noqa: S101 - require_broker has seen it
        message_id = uuid.uuid4().hex
        try:
            self._channel.basic_publish(
                topology.EVENTS, broker.ARRIVALS, body, broker.persistent(message_id), mandatory=True
            )
        except pika.exceptions.AMQPError as error:
            raise NotConfirmed("away", broker.describe(error)) from error
        confirmed = self._confirms.published(message_id)
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await confirmed
        except TimeoutError:
            raise NotConfirmed("late", f"it did not confirm a message within {self._confirm_seconds:g} s") from None

    async def run(self) -> None:
        """Hold a connection until cancelled.

        Raises: Misconfigured, unless it has been connected before. Then it is waited out like a broker that is away:
        what an operator changes under a running receiver leaves the events with the store, and he can change it back.
        """
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._is_worth_waiting),
            wait=broker.RECONNECT_WAIT,
            before_sleep=broker.log_loss,
            reraise=True,
        ):
            with attempt:
                # pika declares most simply on a connection that blocks, so that one is not ours.
                await asyncio.to_thread(self._declare)
                lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                async with self._connected(lost):
                    self._was_connected = True
                    attempt.retry_state.attempt_number = 1  # it held: the back-off starts anew
                    log.info("connected")
                    await lost

    def _is_worth_waiting(self, error: BaseException) -> bool:
        return isinstance(error, DependencyDown) or (self._was_connected and isinstance(error, Misconfigured))

    def _declare(self) -> None:
        with (
            broker.confirming_channel(self._settings, f"{self._purpose}: topology") as channel,
            broker.translated_errors(),
        ):
            topology.declare(channel)

    @asynccontextmanager
    async def _connected(self, lost: "asyncio.Future[None]") -> AsyncIterator[None]:
        """Open a connection with a confirming channel; `lost` ends with DependencyDown when either is gone."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Channel] = loop.create_future()
        ended = asyncio.Event()

        def lose(_connection_or_channel: Any, error: BaseException) -> None:
            if not lost.done():
                lost.set_exception(broker.lost(error))

        def end(_connection: Any, error: BaseException) -> None:
            ended.set()
            lose(_connection, error)

        connection = AsyncioConnection(
            broker.parameters(self._settings, self._purpose),
            on_open_callback=lambda opened: opened.channel(on_open_callback=prepare),
            on_open_error_callback=end,
            on_close_callback=end,
            custom_ioloop=loop,
        )
        confirms = Confirms(UNCONFIRMED)

        def prepare(channel: Channel) -> None:
            channel.add_on_close_callback(lose)
            channel.add_on_return_callback(_returned_to(confirms))
            channel.confirm_delivery(_answered_to(confirms), callback=lambda _frame: ready.set_result(channel))

        connection.add_on_connection_blocked_callback(lambda _, frame: self._block(str(frame.method.reason) or "alarm"))
        connection.add_on_connection_unblocked_callback(lambda *_: self._block(""))
        try:
            await asyncio.wait((ready, lost), timeout=_OPENING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if lost.done():
                lost.result()
            if not ready.done():
                raise DependencyDown(broker.BROKER, f"no channel within {_OPENING_SECONDS} s")
            self._channel, self._confirms = ready.result(), confirms
            metrics.CONNECTED.set(1)
            yield
        finally:
            metrics.CONNECTED.set(0)
            self._channel, self._blocked = None, ""
            confirms.lose("the connection was lost before it confirmed a message")
            lost.cancel()
            if not ended.is_set():
                await _close(connection, ended)

    def _block(self, reason: str) -> None:
        if reason != self._blocked:
            log.warning("blocked" if reason else "unblocked", detail=reason or self._blocked)
        self._blocked = reason


def _returned_to(confirms: Confirms) -> Callable[[Channel, Basic.Return, BasicProperties, bytes], None]:
    def returned(_channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        confirms.returned(
            properties.message_id or "",
            f"no queue is bound to exchange {method.exchange!r} for {method.routing_key!r}; run: fleettickets topology",
        )

    return returned


def _answered_to(confirms: Confirms) -> Callable[[Method[Any]], None]:
    def answered(frame: Method[Any]) -> None:
        taken = isinstance(frame.method, Basic.Ack)
        confirms.settle(frame.method.delivery_tag, multiple=frame.method.multiple, taken=taken)

    return answered


async def _close(connection: AsyncioConnection, ended: asyncio.Event) -> None:
    try:
        if not connection.is_closing:
            connection.close()
        async with asyncio.timeout(_CLOSING_SECONDS):
            await ended.wait()
    except (pika.exceptions.AMQPError, TimeoutError) as error:
        log.info("connection closed badly", detail=broker.describe(error))
