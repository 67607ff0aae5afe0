"""A virtual host serves one bucket at a time: its consumers take other buckets' events for strangers', and ack them.

Which bucket that is stands in the arguments of a queue that nothing is ever published to, so the broker itself refuses
to have it for two. Consumers of files consume it as long as they live: without one it is free to be taken over.
"""

import re
import time
from contextlib import closing

import structlog
from pika.adapters.blocking_connection import BlockingChannel

from publisher.broker import channels
from publisher.broker.topology import CLAIM, EVENTS, Asking, MayNotDeclare, QuorumQueue
from publisher.errors import HeldByAnother, Misconfigured

_GRACE_SECONDS = 5
"""For consumers that were stopped a moment ago, and which the broker may still count."""
_LOOK_SECONDS = 0.25
_REPLACING_SECONDS = 20
"""For somebody else's: RabbitMQ takes five to delete a queue that nobody answers for."""
log = structlog.get_logger()


def claim_of(bucket: str) -> QuorumQueue:
    """The queue as it is for this bucket. Its dead-lettering is only where the name stands: it gets no messages."""
    return QuorumQueue(CLAIM, {"x-dead-letter-exchange": EVENTS, "x-dead-letter-routing-key": bucket})


def claim(channel: BlockingChannel, bucket: str, *, anew: bool = False) -> None:
    """Have the virtual host for this bucket, unless consumers of another one run.

    `anew` is for a claim that nobody answers for: without consumers it is deleted first.

    Raises: Misconfigured, DependencyDown.
    """
    ours = claim_of(bucket)
    end = time.monotonic() + _GRACE_SECONDS
    with channels.translated_errors(), closing(Asking(channel.connection)) as asking:
        while (refusal := asking.refusal(ours.declare)) or anew:
            told = re.search(r"current is '(.*)'", refusal or "")
            other = told[1] if told else "of another name"
            consumers = _consumers(asking, ours.name)
            if consumers == 0:
                _replace(channel, asking, ours, anew=anew)
                log.warning("virtual host taken over", of_bucket=other if refusal else bucket, for_bucket=bucket)
            elif refusal is None and consumers:
                return  # somebody was faster in making it anew
            elif time.monotonic() <= end:
                channel.connection.process_data_events(time_limit=_LOOK_SECONDS)
            elif consumers is None:
                raise channels.away(refusal or f"queue {ours.name} is there and cannot be looked at")
            else:
                raise Misconfigured(
                    f"the virtual host of RABBITMQ_URL serves bucket {other!r}, and {consumers} of its consumers run: "
                    f"stop them first, or give bucket {bucket!r} a virtual host of its own"
                )
            anew = anew and consumers is None


def _replace(channel: BlockingChannel, asking: Asking, ours: QuorumQueue, *, anew: bool) -> None:
    """Delete the claim and make ours.

    Nobody else meanwhile: RabbitMQ 3.10 that deletes and declares one quorum queue for several at once may refuse its
    name until it is restarted.
    """
    try:
        with channels.alone(channel, "claim", patience=_REPLACING_SECONDS):
            if asking.refusal(ours.declare) or anew:
                asking.refusal(lambda asked: asked.queue_delete(ours.name))
                asking.refusal(ours.declare)
    except HeldByAnother as error:
        raise channels.away(str(error)) from error


def _consumers(asking: Asking, queue: str) -> int | None:
    """None where there is no such queue, as when somebody else is just taking the virtual host over."""
    found: list[int] = []
    asking.refusal(lambda channel: found.append(channel.queue_declare(queue, passive=True).method.consumer_count))
    return found[0] if found else None


def claim_if_allowed(channel: BlockingChannel, bucket: str) -> bool:
    """Like `claim`, for who can do without: whether this user may. Where he may not, the consumers' claim stands.

    Raises: Misconfigured, DependencyDown.
    """
    try:
        claim(channel, bucket)
    except MayNotDeclare:
        return False
    return True
