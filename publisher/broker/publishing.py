"""What is published, and where it goes; publishing is not done until the broker has confirmed it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from publisher.broker.channels import ending_after, translated_errors
from publisher.broker.topology import EVENTS, REQUESTS, Queue, retry_exchange
from publisher.errors import DependencyDown, Misconfigured
from publisher.trace import Trace

ARRIVALS = "files"
"""The routing key of our own arrivals; any other reaches the files queue as well."""
CONFIRM_SECONDS = 10.0
"""Longest wait for one confirm. A quorum queue gives it within milliseconds, or it has lost its quorum."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish: who makes one decides where it goes, who publishes it waits for the broker's confirm."""

    exchange: str
    routing_key: str
    body: bytes
    trace: Trace
    headers: Mapping[str, Any] = field(default_factory=dict)
    message_id: str | None = None

    def properties(self, mark: str | None = None) -> pika.BasicProperties:
        """Those of a message that outlives a restart of the broker; by `mark` a returned one is told from others."""
        return pika.BasicProperties(
            content_type="application/json",
            delivery_mode=pika.DeliveryMode.Persistent,
            message_id=self.message_id,
            correlation_id=mark,
            headers={**self.headers, **self.trace.headers},
        )


def arrival(body: bytes, trace: Trace | None = None) -> Outgoing:
    """An event, published the way a store does it; one that came without a trace begins its own."""
    return Outgoing(EVENTS, ARRIVALS, body, trace or Trace.of(body))


def request(
    queue: Queue,
    body: bytes,
    trace: Trace,
    headers: Mapping[str, Any] | None = None,
    *,
    message_id: str | None = None,
) -> Outgoing:
    """A message for one of the work queues."""
    return Outgoing(REQUESTS, queue.value, body, trace, headers or {}, message_id)


def retry(queue: Queue, body: bytes, trace: Trace, headers: Mapping[str, Any], *, delay: int) -> Outgoing:
    """A message that is back in its work queue after `delay` seconds, one of RETRY_DELAYS."""
    return Outgoing(retry_exchange(delay), queue.value, body, trace, headers)


def publish(channel: BlockingChannel, outgoing: Outgoing) -> None:
    """Publish and wait until the broker has it in a queue, on disk.

    Raises: DependencyDown, at the latest after CONFIRM_SECONDS, and the connection is gone then; Misconfigured when no
    queue is bound there (a plain confirm would hide that).
    """
    try:
        late = f"it did not confirm a message within {CONFIRM_SECONDS:g} s"
        with translated_errors(), ending_after(CONFIRM_SECONDS, channel.connection, late):
            channel.basic_publish(
                outgoing.exchange, outgoing.routing_key, outgoing.body, outgoing.properties(), mandatory=True
            )
    except DependencyDown as error:
        if isinstance(error.__cause__, pika.exceptions.UnroutableError):
            where = f"exchange {outgoing.exchange!r} for {outgoing.routing_key!r}"
            raise Misconfigured(f"no queue is bound to {where}; run: fleettickets topology") from error
        if isinstance(error.__cause__, pika.exceptions.ChannelClosedByBroker):
            raise Misconfigured(f"the broker refuses to publish to {outgoing.exchange!r}: {error.detail}") from error
        raise
