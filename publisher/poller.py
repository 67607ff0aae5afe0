"""The guarantee behind the notifications: publish every key that still waits, without flooding the queue."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from pika.adapters.blocking_connection import BlockingChannel

from publisher import broker
from publisher.bucket import Bucket, ObjectSummary
from publisher.messages import ChangeFileArrived
from publisher.topology import Queue

_OFFER_AGAIN_AFTER = 30.0
"""Seconds after which a poller repeats itself about the same version of a key; then twice as many, and so on."""
_OFFER_AGAIN_AT_MOST = 3600.0


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll found: files waiting in `changes/`, messages already queued, keys published."""

    waiting: int
    queued: int
    published: int


@dataclass(frozen=True, slots=True)
class _Offer:
    """A version was published; it is not published again before `due`, in seconds of the poller's clock."""

    due: float
    wait: float


class Poller:
    """Compares the bucket with the queue and publishes the difference, oldest keys first."""

    def __init__(self, bucket: Bucket, prefetch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = bucket
        self._prefetch = prefetch
        self._clock = clock
        self._offered: dict[tuple[str, str], _Offer] = {}

    def poll(self, channel: BlockingChannel) -> Poll:
        """List once and publish what is missing from the queue.

        Raises: DependencyDown, Misconfigured.
        """
        # Looked at before and after the listing: files that arrive or leave meanwhile are then never counted
        # as missing from the queue.
        before, _ = broker.queue_depth(channel, Queue.FILES.broker_name)
        waiting = list(self._bucket.waiting())
        after, consumers = broker.queue_depth(channel, Queue.FILES.broker_name)
        queued = max(before, after)
        offers = self._due_offers(waiting)
        published = 0
        for found, wait in offers[: missing_from_queue(len(waiting), queued, consumers * self._prefetch)]:
            arrived = ChangeFileArrived(
                bucket=self._bucket.name,
                keys=(found.key,),
                etag=found.etag,
                size=found.size,
                seen_by="poller",
                event_time=found.modified,
            )
            broker.publish(channel, broker.arrival(arrived.model_dump_json().encode()))
            self._offered[found.key, found.etag] = _Offer(self._clock() + wait, wait)
            published += 1
        return Poll(len(waiting), queued, published)

    def _due_offers(self, waiting: list[ObjectSummary]) -> list[tuple[ObjectSummary, float]]:
        """Versions to offer, each with the seconds to wait before the next time.

        What stays in `changes/` for good, like a dead letter or a stray file, is offered less and less often.
        """
        now = self._clock()
        known = self._offered
        self._offered = {}
        due = []
        for found in waiting:
            offer = known.get((found.key, found.etag))
            if offer is None:
                due.append((found, _OFFER_AGAIN_AFTER))
                continue
            self._offered[found.key, found.etag] = offer
            if offer.due <= now:
                due.append((found, min(2 * offer.wait, _OFFER_AGAIN_AT_MOST)))
        return due

    def poll_every(self, seconds: float, channel: BlockingChannel, stop: Event, report: Callable[[Poll], None]) -> None:
        """Poll until `stop`; the channel's connection is kept alive between polls.

        Raises: DependencyDown, Misconfigured.
        """
        while not stop.is_set():
            due = self._clock() + seconds
            report(self.poll(channel))
            while not stop.is_set() and (left := due - self._clock()) > 0:
                with broker.translated_errors():
                    channel.connection.process_data_events(time_limit=min(left, 0.5))


def missing_from_queue(waiting: int, queued: int, in_hand: int) -> int:
    """How many of the waiting files to publish so that the queue never holds more messages than files wait.

    An empty queue means that nothing is on its way but what consumers have in hand: publish all. Otherwise
    `queued` of the files are on their way, and up to `in_hand` more: publish as many as are left. Nobody can tell
    which ones those are; one whose event was lost is among the next that this poller did not offer yet, or among
    all of them once the queue runs empty.
    """
    return waiting if queued == 0 else max(0, waiting - queued - in_hand)
