"""When something was published to the exchange of the events, heard beside the queue that its messages go to."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from uuid import uuid4

from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from publisher.broker import channels, topology
from publisher.errors import DependencyDown, Misconfigured
from publisher.settings import BrokerSettings

_KEPT = 1000
"""Messages that may wait to be heard; of more the oldest are left out."""
_TURN_SECONDS = 0.1


@contextmanager
def hearing(settings: BrokerSettings | None, words: Collection[str]) -> Iterator[Mapping[str, float]]:
    """When each word was first in a message, by the monotonic clock, from now on.

    Nothing is heard by a user who may not bind a queue, or of no broker, or one that is away: others say what is wrong
    with it.
    Nobody else has fewer messages by it, and the broker forgets the queue with the connection.
    """
    heard: dict[str, float] = {}
    stop = Event()
    connection = _begun(settings, words, heard) if settings else None
    if connection is None:
        yield heard
        return
    thread = Thread(target=_hear, args=(connection, stop), name="events", daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()


def _begun(settings: BrokerSettings, words: Collection[str], heard: dict[str, float]) -> BlockingConnection | None:
    def take(_channel: BlockingChannel, _method: object, _properties: object, body: bytes) -> None:
        for word in words:
            if word not in heard and word.encode() in body:
                heard[word] = monotonic()

    with suppress(DependencyDown, Misconfigured):
        connection = channels.connect(settings, "doctor: events", channels.LOOKING_HEARTBEAT)
        late = f"it did not answer within {channels.DECLARING_SECONDS} s"
        try:
            with (
                channels.translated_errors(),
                channels.ending_after(channels.DECLARING_SECONDS, connection, late),
            ):
                channel = connection.channel()
                queue = f"{topology.PREFIX}heard.{uuid4().hex}"
                channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments={"x-max-length": _KEPT})
                channel.queue_bind(queue, topology.EVENTS, "#")
                channel.basic_consume(queue, take, auto_ack=True)
        except DependencyDown:
            _close(connection)
        else:
            return connection
    return None


def _hear(connection: BlockingConnection, stop: Event) -> None:
    with suppress(DependencyDown), channels.translated_errors():
        while not stop.is_set():
            connection.process_data_events(time_limit=_TURN_SECONDS)
    _close(connection)


def _close(connection: BlockingConnection) -> None:
    with suppress(DependencyDown), channels.translated_errors():
        if connection.is_open:
            connection.close()
