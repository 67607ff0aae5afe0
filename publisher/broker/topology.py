"""Every exchange and queue, and the one place that declares them. The same on RabbitMQ 3.10 to 4.x.

store, poller ──▶ fleettickets.events (topic, #) ──▶ fleettickets.files
relay, retries, replay ──▶ fleettickets (direct) ──▶ fleettickets.files | .geocode | .history
fleettickets.retry.30s (fanout) ──▶ its wait queue ──TTL──▶ fleettickets, by the same routing key
fleettickets.dead (direct) ──▶ fleettickets.files.dead | .geocode.dead | .history.dead
amq.topic ──▶ fleettickets.files, for a store that publishes by MQTT and only when asked for
"""

import re
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from publisher.errors import Misconfigured

EVENTS = "fleettickets.events"
"""Where stores publish; it must exist before they do. Any routing key reaches the files queue."""
REQUESTS = "fleettickets"
DEAD = "fleettickets.dead"
MQTT = "amq.topic"
"""Where RabbitMQ's MQTT plugin publishes; the server's own."""
PREFIX = "fleettickets."
LOCK_PREFIX = "fleettickets.lock."
CLAIM = "fleettickets.bucket"
"""The queue that says which bucket the virtual host serves. No lock: only who consumes may configure it."""

RETRY_DELAYS = (5, 30, 120, 600)
"""Seconds before the 2nd, 3rd, … attempt; one wait queue each, since a TTL only expires at a queue's head."""
MAX_ATTEMPTS = len(RETRY_DELAYS) + 1

# A file that kills its consumer is redelivered this often before the broker itself dead-letters it. Restarts of a
# consumer while a dependency is away count too, up to RabbitMQ 4.2, so there is room for many of those.
_DELIVERY_LIMIT = 500
# Looking at dead letters requeues them, which counts as a delivery; 4.x would drop them after 20 looks,
# and -1 ("no limit") dead-letters at the first requeue on 3.10.
_NO_DELIVERY_LIMIT = 1_000_000

ACCESS_REFUSED, _NOT_FOUND, _PRECONDITION_FAILED = 403, 404, 406
_MAX_ROUTING_KEY = 255


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


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange of ours."""

    name: str
    type: str
    kind = "exchange"

    def declare(self, channel: BlockingChannel, *, passive: bool = False) -> None:
        """Passive asks only whether it exists."""
        channel.exchange_declare(self.name, exchange_type=self.type, durable=True, passive=passive)


@dataclass(frozen=True, slots=True)
class QuorumQueue:
    """A durable queue of ours; `arguments` beside its type."""

    name: str
    arguments: dict[str, str | int]
    kind = "queue"

    @property
    def all_arguments(self) -> dict[str, str | int]:
        return {"x-queue-type": "quorum"} | self.arguments

    def declare(self, channel: BlockingChannel, *, passive: bool = False) -> None:
        """Passive asks only whether it exists."""
        channel.queue_declare(self.name, durable=True, arguments=self.all_arguments, passive=passive)


@dataclass(frozen=True, slots=True)
class Binding:
    """What `exchange` gets with `key` goes to `queue`."""

    exchange: str
    queue: str
    key: str

    def declare(self, channel: BlockingChannel) -> None:
        channel.queue_bind(self.queue, self.exchange, self.key)

    def __str__(self) -> str:
        return f"{self.exchange} -> {self.queue} for {self.key!r}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the server does not have the way it is declared here; `what` differs, and what to `do`."""

    kind: str
    name: str
    what: str
    do: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.what}; {self.do}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Names that are as declared, in the order of their declaration, and what is not."""

    agreed: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def declarations() -> list[Exchange | QuorumQueue]:
    """Every exchange and queue, each after those it needs."""
    declared: list[Exchange | QuorumQueue] = [
        Exchange(EVENTS, "topic"),
        Exchange(REQUESTS, "direct"),
        Exchange(DEAD, "direct"),
    ]
    for queue in Queue:
        limit: dict[str, str | int] = {"x-delivery-limit": _DELIVERY_LIMIT}
        dead_lettering = _dead_lettering(DEAD) | {"x-dead-letter-routing-key": queue.value}
        declared.append(QuorumQueue(queue.dead_letters, {"x-delivery-limit": _NO_DELIVERY_LIMIT}))
        declared.append(QuorumQueue(queue.broker_name, limit | dead_lettering))
    for delay in RETRY_DELAYS:
        declared.append(Exchange(retry_exchange(delay), "fanout"))
        declared.append(QuorumQueue(retry_exchange(delay), _dead_lettering(REQUESTS) | {"x-message-ttl": delay * 1000}))
    return declared


def bindings() -> list[Binding]:
    """Every binding between them."""
    made = [Binding(EVENTS, Queue.FILES.broker_name, "#")]
    for queue in Queue:
        made.append(Binding(DEAD, queue.dead_letters, queue.value))
        made.append(Binding(REQUESTS, queue.broker_name, queue.value))
    return made + [Binding(retry_exchange(delay), retry_exchange(delay), "") for delay in RETRY_DELAYS]


def mqtt_binding(topic: str) -> Binding:
    """Bind the files queue to what a store publishes on an MQTT topic: `a/b` is the routing key `a.b`.

    Raises: Misconfigured, for a topic that has no routing key of its own.
    """
    if not topic or set(topic) & set(".*+#\0"):
        raise Misconfigured(f"MQTT topic {topic!r}: give the store's exact topic, without . * + and #, like a/b")
    key = topic.replace("/", ".")
    if len(key.encode()) > _MAX_ROUTING_KEY:
        raise Misconfigured(f"MQTT topic {topic[:40]!r}…: longer than the {_MAX_ROUTING_KEY} bytes of a routing key")
    return Binding(MQTT, Queue.FILES.broker_name, key)


MISSING = "missing"


class MayNotDeclare(Misconfigured):
    """The broker's user may not declare what we need."""


def declare(channel: BlockingChannel) -> list[str]:
    """Declare everything that is missing; give the names in the order declared. Safe to repeat.

    A user who may only publish declares nothing: he has to find everything there.

    Raises: Misconfigured, when the server has one of the names with other arguments, or misses one that this user may
    not declare.
    """
    try:
        outcome = reconcile(channel, bindings())
    except MayNotDeclare as error:
        return _found(channel, error)
    if outcome.differences:
        named = ", ".join(repr(difference.name) for difference in outcome.differences)
        raise Misconfigured(f"the broker has {named} with other arguments; what to do: fleettickets topology --check")
    return outcome.agreed


def _found(channel: BlockingChannel, refused: MayNotDeclare) -> list[str]:
    names = []
    with closing(Asking(channel.connection)) as asking:
        for declared in declarations():
            # Looking needs no right.
            if asking.refusal(partial(declared.declare, passive=True)):
                raise Misconfigured(
                    f"the broker has no {declared.kind} {declared.name!r}, and this user may not declare it: run "
                    "fleettickets topology as the consumer's user"
                ) from refused
            names.append(declared.name)
    return names


def reconcile(channel: BlockingChannel, bound: Iterable[Binding]) -> Outcome:
    """Declare everything that is missing and leave alone what the server has otherwise.

    Raises: Misconfigured, when the server refuses for another reason.
    """
    outcome = Outcome()
    with closing(Asking(channel.connection)) as asking:
        for declared in declarations():
            refusal = asking.refusal(declared.declare)
            _note(outcome, declared, _different(declared, refusal) if refusal else None)
        for binding in bound:
            if refusal := asking.refusal(binding.declare):
                outcome.differences.append(Difference("binding", str(binding), refusal, "run: fleettickets topology"))
    return outcome


def compare(channel: BlockingChannel) -> Outcome:
    """Like `reconcile`, but what is missing is reported and stays missing; bindings cannot be asked for this way.

    Raises: Misconfigured, when the server refuses for another reason.
    """
    outcome = Outcome()
    with closing(Asking(channel.connection)) as asking:
        for declared in declarations():
            difference: Difference | None = None
            if asking.refusal(partial(declared.declare, passive=True)):
                difference = Difference(declared.kind, declared.name, MISSING, "run: fleettickets topology")
            # A passive declaration compares no arguments. Repeating what exists changes nothing.
            elif refusal := asking.refusal(declared.declare):
                difference = _different(declared, refusal)
            _note(outcome, declared, difference)
    return outcome


def _note(outcome: Outcome, declared: Exchange | QuorumQueue, difference: Difference | None) -> None:
    if difference is None:
        outcome.agreed.append(declared.name)
    else:
        outcome.differences.append(difference)


def _different(declared: Exchange | QuorumQueue, refusal: str) -> Difference:
    # PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost 'v': received … but current is …
    told = re.search(r"inequivalent arg ('[^']+').*?: received (.*) but current is (.*)", refusal)
    what = f"{told[1]} is {told[3]}, should be {told[2]}" if told else refusal
    what = re.sub(r"the value ('.*?') of type '\w+'", r"\1", what)
    emptied = "stop what publishes there, let it run empty, " if declared.kind == "queue" else ""
    return Difference(
        declared.kind, declared.name, what, f"{emptied}delete it on the server, then run: fleettickets topology"
    )


class Asking:
    """Asks the server for one thing after the other; it answers what it does not like by closing the channel."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection
        self._channel = connection.channel()

    def refusal(self, call: Callable[[BlockingChannel], object]) -> str | None:
        """Why the server does not do it: something is missing, or is there with other arguments."""
        if not self._channel.is_open:
            self._channel = self._connection.channel()
        try:
            call(self._channel)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == ACCESS_REFUSED:
                raise MayNotDeclare(f"the broker refuses the topology: {error.reply_text}") from error
            if error.reply_code not in {_NOT_FOUND, _PRECONDITION_FAILED}:
                raise Misconfigured(f"the broker refuses the topology: {error.reply_text}") from error
            return str(error.reply_text)
        return None

    def close(self) -> None:
        if self._channel.is_open:
            self._channel.close()


def _dead_lettering(exchange: str) -> dict[str, str | int]:
    # Without reject-publish the broker silently falls back to at-most-once.
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
