"""The guarantee behind the notifications: publish every key that still waits, without flooding the queue."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from threading import Event

import structlog
from pika.adapters.blocking_connection import BlockingChannel

from publisher.absences import Absences
from publisher.arrivals.folders import Folder
from publisher.arrivals.messages import ChangeFileArrived
from publisher.broker import channels, publishing, serving, tracing
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.heartbeat import Pulse
from publisher.spans import UNRECORDED, Spans
from publisher.store.bucket import Bucket, ObjectSummary, pages

_OFFER_AGAIN_AFTER = 30.0
"""Seconds after which a poller repeats itself about the same version of a key; then twice as many, and so on."""
_OFFER_AGAIN_AT_MOST = 3600.0
_SERVED_SECONDS = 1.0
"""The broker hears from a poller at least so often, as far as the requests of a listing take no longer."""
_HELD = 10_000
"""So many versions of a listing are held until it is known how many to publish; for more it is read on from there."""
_REMEMBERED = 50_000
"""So many versions are offered less and less often; others that stay, with each poll that finds the queue empty."""
log = structlog.get_logger()

Settled = Callable[[Sequence[ObjectSummary]], Sequence[bool]]
"""Of each of some versions that wait, whether somebody knows that a delivery would do nothing with it now."""
OpenSettled = Callable[[str, Absences], AbstractContextManager[Settled]]
"""For one poll of the named bucket; whoever knows may be away."""


def nothing_settled(page: Sequence[ObjectSummary]) -> Sequence[bool]:
    """What a poller knows by itself."""
    return [False] * len(page)


def knowing_nothing(_bucket: str, _absences: Absences) -> AbstractContextManager[Settled]:
    """For a poller that is alone."""
    return nullcontext(nothing_settled)


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll found: files that wait in `changes/`, others that are settled, messages queued, keys published."""

    waiting: int
    set_aside: int
    queued: int
    published: int


@dataclass(frozen=True, slots=True)
class _Offer:
    """A version was published; it is not published again before `due`, in seconds of the poller's clock."""

    due: float
    wait: float


@dataclass(slots=True)
class _Listing:
    """What waits, of which the first that are due are held, the last of them from that folder."""

    waiting: int
    set_aside: int
    due: list[ObjectSummary]
    folder: int


class Poller:
    """Compares the bucket with the queue and publishes the difference, of each feed the oldest keys first.

    Its memory does not grow with what lies in the bucket.
    """

    def __init__(
        self,
        bucket: Bucket,
        prefetch: int,
        open_settled: OpenSettled = knowing_nothing,
        clock: Callable[[], float] = time.monotonic,
        *,
        pulse: Pulse | None = None,
        absences: Absences | None = None,
        spans: Spans = UNRECORDED,
    ) -> None:
        self._pulse = pulse or Pulse()
        self._absences = absences or Absences()
        self._spans = spans
        self._bucket = bucket
        self._prefetch = prefetch
        self._open_settled = open_settled
        self._clock = clock
        # By 64 bits of what names a version: two that share them share a wait.
        self._offered: dict[int, _Offer] = {}
        self._folders = deque(bucket.folders)

    def poll(self, channel: BlockingChannel, stop: Event) -> Poll | None:
        """Publish what is missing from the queue; None when `stop` came before the end of it.

        Raises: DependencyDown, Misconfigured.
        """
        # Another feed comes first each time: the backlog of one is not in the way of the others.
        self._folders.rotate()
        with self._open_settled(self._bucket.name, self._absences) as settled:
            # Looked at before and after the listing: files that arrive or leave meanwhile are then never counted
            # as missing from the queue.
            before, _ = channels.queue_depth(channel, Queue.FILES.broker_name)
            listing = self._list(channel, settled, stop)
            if stop.is_set():
                return None
            after, consumers = channels.queue_depth(channel, Queue.FILES.broker_name)
            queued = max(before, after)
            missing = missing_from_queue(listing.waiting, queued, consumers * self._prefetch)
            published = 0
            for found in islice(self._due(listing, channel, settled, stop), missing):
                if stop.is_set():
                    return None
                self._publish(channel, found)
                published += 1
                if self._pulse.turned_seconds >= _SERVED_SECONDS:
                    self._pulse.turned()
        return Poll(listing.waiting, listing.set_aside, queued, published)

    def _waiting_in(
        self, folder: Folder, channel: BlockingChannel, stop: Event, after: str = ""
    ) -> Iterator[ObjectSummary]:
        """What waits, until `stop`; the channel's connection is kept alive however many requests that takes."""
        served = self._clock()
        for found in self._bucket.waiting_in(folder, after=after):
            if stop.is_set():
                return
            if self._clock() - served >= _SERVED_SECONDS:
                self._pulse.turned()  # a listing of millions takes longer than a loop that hangs is given
                with channels.translated_errors():
                    channel.connection.process_data_events(time_limit=0)
                served = self._clock()
            yield found

    def _list(self, channel: BlockingChannel, settled: Settled, stop: Event) -> _Listing:
        listing = _Listing(0, 0, [], 0)
        known, self._offered = self._offered, {}
        now = self._clock()
        for number, folder in enumerate(self._folders):
            for page in pages(self._waiting_in(folder, channel, stop)):
                for found, is_settled in zip(page, settled(page), strict=True):
                    if is_settled:
                        listing.set_aside += 1
                        continue
                    listing.waiting += 1
                    offer = known.get(_name(found))
                    if offer is not None:  # what has left is forgotten
                        self._offered[_name(found)] = offer
                    if len(listing.due) < _HELD and (offer is None or offer.due <= now):
                        listing.due.append(found)
                        listing.folder = number
        return listing

    def _due(
        self, listing: _Listing, channel: BlockingChannel, settled: Settled, stop: Event
    ) -> Iterator[ObjectSummary]:
        yield from listing.due
        if len(listing.due) < _HELD:
            return
        begun, *others = list(self._folders)[listing.folder :]
        rest = self._waiting_in(begun, channel, stop, after=listing.due[-1].key)
        more = (self._waiting_in(folder, channel, stop) for folder in others)
        for page in pages(chain(rest, *more)):
            for found, is_settled in zip(page, settled(page), strict=True):
                offer = self._offered.get(_name(found))
                if not is_settled and (offer is None or offer.due <= self._clock()):
                    yield found

    def _publish(self, channel: BlockingChannel, found: ObjectSummary) -> None:
        with tracing.sending(self._spans, offer(self._bucket.name, found)) as event:
            publishing.publish(channel, event)
        log.debug("handed on", key=found.key, trace_id=event.trace.id)
        before = self._offered.get(_name(found))
        if before is not None or len(self._offered) < _REMEMBERED:
            # What stays in `changes/` for good, like a stray file, is offered less and less often.
            wait = min(2 * before.wait, _OFFER_AGAIN_AT_MOST) if before else _OFFER_AGAIN_AFTER
            self._offered[_name(found)] = _Offer(self._clock() + wait, wait)

    def poll_every(self, seconds: float, channel: BlockingChannel, stop: Event, report: Callable[[Poll], None]) -> None:
        """Poll until `stop`; the channel's connection is kept alive between polls.

        Raises: DependencyDown, Misconfigured.
        """
        may_claim = True
        while not stop.is_set():
            self._pulse.turned()
            due = self._clock() + seconds
            may_claim = may_claim and serving.claim_if_allowed(channel, self._bucket.name)
            with self._pulse.at("a poll"):
                done = self.poll(channel, stop)
            if done is not None:
                report(done)
            while not stop.is_set() and (left := due - self._clock()) > 0:
                self._pulse.turned()
                with channels.translated_errors():
                    channel.connection.process_data_events(time_limit=min(left, 0.5))


def _name(found: ObjectSummary) -> int:
    return hash((found.key, found.etag))


def missing_from_queue(waiting: int, queued: int, in_hand: int) -> int:
    """How many of the waiting files to publish so that the queue never holds more messages than files wait.

    An empty queue means that nothing is on its way but what consumers have in hand: publish all. Otherwise
    `queued` of the files are on their way, and up to `in_hand` more: publish as many as are left. Nobody can tell
    which ones those are; one whose event was lost is among the next that this poller did not offer yet, or among
    all of them once the queue runs empty.
    """
    return waiting if queued == 0 else max(0, waiting - queued - in_hand)


def offer(bucket: str, found: ObjectSummary) -> Outgoing:
    """The message that tells of an object, as a store's notification would."""
    arrived = ChangeFileArrived(
        bucket=bucket, keys=(found.key,), etag=found.etag, size=found.size, seen_by="poller", event_time=found.modified
    )
    return publishing.arrival(arrived.model_dump_json().encode())
