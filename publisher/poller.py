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
"""Seconds in which one poller process does not repeat itself about the same version of a key."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll found: files waiting in `changes/`, messages already queued, keys published."""

    waiting: int
    queued: int
    published: int


class Poller:
    """Compares the bucket with the queue and publishes the difference, oldest keys first."""

    def __init__(self, bucket: Bucket, prefetch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = bucket
        self._prefetch = prefetch
        self._clock = clock
        self._offered: dict[tuple[str, str], float] = {}

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
        missing = missing_from_queue(waiting, queued, consumers * self._prefetch)
        self._forget_old_offers()
        published = 0
        for found in missing:
            if (found.key, found.etag) in self._offered:
                continue
            arrived = ChangeFileArrived(
                bucket=self._bucket.name,
                keys=(found.key,),
                etag=found.etag,
                size=found.size,
                seen_by="poller",
                event_time=found.modified,
            )
            broker.publish_arrival(channel, arrived.model_dump_json().encode())
            self._offered[found.key, found.etag] = self._clock()
            published += 1
        return Poll(len(waiting), queued, published)

    def _forget_old_offers(self) -> None:
        horizon = self._clock() - _OFFER_AGAIN_AFTER
        self._offered = {offer: at for offer, at in self._offered.items() if at > horizon}

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


def missing_from_queue(waiting: list[ObjectSummary], queued: int, in_hand: int) -> list[ObjectSummary]:
    """Which waiting files to publish so that the queue never holds more messages than files wait.

    An empty queue means that nothing is on its way but what consumers have in hand: publish all. Otherwise
    `queued` of the files are on their way, and up to `in_hand` more: publish only the rest, oldest first. Nobody
    can tell which ones those are; a key whose event was lost grows old until it is among them, or the queue
    runs empty.
    """
    if queued == 0:
        return waiting
    return waiting[: max(0, len(waiting) - queued - in_hand)]
