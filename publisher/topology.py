"""Every exchange and queue, and the one place that declares them. The same on RabbitMQ 3.10 to 4.x.

store, poller ──▶ fleettickets.events (topic, #) ──▶ fleettickets.files
relay, retries, replay ──▶ fleettickets (direct) ──▶ fleettickets.files | .geocode | .history
fleettickets.retry.30s (fanout) ──▶ its wait queue ──TTL──▶ fleettickets, by the same routing key
fleettickets.dead (direct) ──▶ fleettickets.files.dead | .geocode.dead | .history.dead
"""

from enum import StrEnum

import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from publisher.errors import Misconfigured

EVENTS = "fleettickets.events"
"""Where stores publish; it must exist before they do. Any routing key reaches the files queue."""
REQUESTS = "fleettickets"
DEAD = "fleettickets.dead"

RETRY_DELAYS = (5, 30, 120, 600)
"""Seconds before the 2nd, 3rd, … attempt; one wait queue each, since a TTL only expires at a queue's head."""
MAX_ATTEMPTS = len(RETRY_DELAYS) + 1

# A file that kills its consumer is redelivered this often before the broker itself dead-letters it. Restarts of a
# consumer while a dependency is away count too, up to RabbitMQ 4.2, so there is room for many of those.
_DELIVERY_LIMIT = 500
# Looking at dead letters requeues them, which counts as a delivery; 4.x would drop them after 20 looks,
# and -1 ("no limit") dead-letters at the first requeue on 3.10.
_NO_DELIVERY_LIMIT = 1_000_000


class Queue(StrEnum):
    """The work queues; the value is also the routing key."""

    FILES = "files"
    GEOCODE = "geocode"
    HISTORY = "history"

    @property
    def broker_name(self) -> str:
        return f"fleettickets.{self.value}"

    @property
    def dead_letters(self) -> str:
        return f"{self.broker_name}.dead"


def retry_exchange(delay: int) -> str:
    return f"fleettickets.retry.{delay}s"


def declare(channel: BlockingChannel) -> list[str]:
    """Declare everything that is missing; give the names in the order declared. Safe to repeat.

    Raises: Misconfigured, when the server has one of the names with other arguments.
    """
    declared: list[str] = []
    name = ""
    try:
        for name, kind in ((EVENTS, "topic"), (REQUESTS, "direct"), (DEAD, "direct")):
            channel.exchange_declare(name, exchange_type=kind, durable=True)
            declared.append(name)
        for queue in Queue:
            name = queue.dead_letters
            _declare_queue(channel, name, {"x-delivery-limit": _NO_DELIVERY_LIMIT})
            channel.queue_bind(name, DEAD, queue.value)
            declared.append(name)
            name = queue.broker_name
            limit = {"x-delivery-limit": _DELIVERY_LIMIT}
            _declare_queue(channel, name, limit | _dead_lettering(DEAD) | {"x-dead-letter-routing-key": queue.value})
            channel.queue_bind(name, REQUESTS, queue.value)
            declared.append(name)
        channel.queue_bind(Queue.FILES.broker_name, EVENTS, "#")
        for delay in RETRY_DELAYS:
            name = retry_exchange(delay)
            channel.exchange_declare(name, exchange_type="fanout", durable=True)
            _declare_queue(channel, name, _dead_lettering(REQUESTS) | {"x-message-ttl": delay * 1000})
            channel.queue_bind(name, name)
            declared.append(name)
    except pika.exceptions.ChannelClosedByBroker as error:
        raise Misconfigured(
            f"the broker has {name!r} with other arguments, or refuses it ({error.reply_text}); "
            "empty and delete it there, then declare again"
        ) from error
    return declared


def _declare_queue(channel: BlockingChannel, name: str, arguments: dict[str, str | int]) -> None:
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"} | arguments)


def _dead_lettering(exchange: str) -> dict[str, str | int]:
    # Without reject-publish the broker silently falls back to at-most-once.
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
