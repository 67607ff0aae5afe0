"""Whether anything waits in a queue, for who asks again and again beside other work."""

from contextlib import suppress
from typing import TYPE_CHECKING

from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import BrokerSettings

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

_SECONDS = 5


class Depths:
    """Asks over a connection of its own, made when it is first needed. For one thread at a time.

    For a queue without a leader RabbitMQ ends the connection that asked, and nothing else is to go with it.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._connection: BlockingConnection | None = None
        self._channel: BlockingChannel | None = None

    def waits(self, queue: Queue) -> bool:
        """Whether a message is ready there, in nobody's hand; not where nobody can say."""
        try:
            return self._ready(queue) > 0
        except (DependencyDown, Misconfigured):
            self.close()
            return False

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            with suppress(DependencyDown), channels.translated_errors():
                connection.close()

    def _ready(self, queue: Queue) -> int:
        if self._connection is None or self._channel is None:
            # Between two questions nobody would answer its heartbeats.
            self._connection = channels.connect(self._settings, "relay", heartbeat=0)
            with channels.translated_errors():
                self._channel = self._connection.channel()
        late = f"queue {queue.broker_name} did not answer within {_SECONDS} s"
        with channels.ending_after(_SECONDS, self._connection, late):
            return channels.queue_depth(self._channel, queue.broker_name)[0]
