"""The consumer process: deliveries in, threads at work, acks out, and a clean end.

The link's thread only talks to the channels. Files are applied by one pool of threads and archived by another, so that
no file's archive delays the next file's rows; history has a thread of its own. A dependency that is away makes a
thread wait with its delivery unacked: no attempt is spent, nothing is requeued, nothing reaches the dead letters.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, NamedTuple, TypeVar, assert_never

import structlog
import tenacity

from consumer.fail_points import Reached
from consumer.files.failures import outgoing
from consumer.files.handler import SMALL_BYTES
from consumer.files.outcomes import (
    UNEXPECTED,
    AlreadyApplied,
    Applied,
    Duplicate,
    Failure,
    FileOutcome,
    Ignored,
    Missing,
    NotServed,
    Spread,
)
from consumer.files.tail import Tail
from consumer.follow_ons.outbox import traces_of
from consumer.follow_ons.outcomes import FollowOnOutcome, HistoryCaptured, Interrupted, Postponed, TicketsGeocoded
from consumer.follow_ons.telling import tell_done
from consumer.geocoding.quota import Stopped
from consumer.postgres import database
from consumer.work.breaker import Breaker, EverythingFails
from consumer.work.pacing import Pacing
from consumer.work.pending import Pending
from consumer.work.routes import HandleTogether, Route
from consumer.work.telling import tell_failed, tell_file
from publisher.absences import Absences
from publisher.arrivals import messages
from publisher.arrivals.messages import ChangeFileArrived
from publisher.arrivals.store_events import read_event
from publisher.broker import publishing, topology
from publisher.broker.consuming import Delivery, Link
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.errors import (
    DependencyDown,
    FailsForThisOne,
    FleetticketsError,
    HeldBack,
    HeldByAnother,
    KeyInHand,
    LockTimeout,
    NotConfirmed,
    ObjectUnavailable,
    Permanent,
    SlowBody,
)
from publisher.heartbeat import Pause, PausedBy, Pulse
from publisher.log import following
from publisher.settings import BATCH, WorkSettings
from publisher.store.bucket import BUCKET

Answer = TypeVar("Answer")
log = structlog.get_logger()

HOLD_SECONDS = 600
"""Longest wait with a delivery in hand, from when it came. The broker takes back what is unacked for half an hour, and
up to RabbitMQ 4.2 that counts against the delivery; so before that the message goes to a wait queue instead."""
OWN_HOLD_SECONDS = 5
"""The same for what fails for this one delivery while others get along, such as an object that the store does not get
out, or a queue that does not take its message: they are not to wait behind it."""
IN_HAND_HOLD_SECONDS = 1
"""The same for what somebody else has in hand, who mostly is done in a moment."""
_NOT_NOW_SECONDS = topology.RETRY_DELAYS[1]
_NEXT_PROBE_SECONDS = topology.RETRY_DELAYS[0]
_LEFT_SECONDS = topology.RETRY_DELAYS[:2]
"""The first time that it is left to others, and from then on: they mostly are done by the first."""
_MOMENT_SECONDS = 0.2
"""Whoever is next waits no longer for a fuller batch, whatever those at work are held up by."""
_FINISH_APART_SECONDS = 0.2
"""Their rows are there, and several tails cost little more than one: of the store's requests, and of the processor."""
_SWEEP_SECONDS, _LONGEST_SWEEP_SECONDS = 30.0, 600.0
_LOOK_SECONDS = 10.0
"""How often a process without work looks whether what it misses is back."""


class Unfinished(NamedTuple):
    """A file that is applied; its tail is to be finished. Its work began at `began`, by the monotonic clock."""

    delivery: Delivery
    outcome: Applied | AlreadyApplied
    breaker: Breaker
    began: float

    @property
    def is_plain(self) -> bool:
        """Whether it may go with others: small, and here for the first time. What is not may hold all of them up."""
        is_first = not (self.delivery.redelivered or self.delivery.headers)
        return is_first and isinstance(self.outcome, Applied) and self.outcome.sighting.size <= SMALL_BYTES

    def goes_with(self, others: Sequence["Unfinished"]) -> bool:
        """Whether it is of their folder, and none of their keys: of those it depends on what the other one leaves."""
        key, keys = self.outcome.file.key, [other.outcome.file.key for other in others]
        return key not in keys and all(_folder(key) == _folder(other) for other in keys)


class Worker:
    """One consumer process, for the queues that have a route."""

    def __init__(
        self,
        link: Link,
        routes: Mapping[Queue, Route],
        tail: Tail,
        settings: WorkSettings,
        stop: Event,
        *,
        settle_letters: Callable[[], None],
        is_back: Mapping[str, Callable[[], bool]],
        reached: Reached,
        pulse: Pulse,
        absences: Absences,
    ) -> None:
        """`is_back` has ways to see of a service that was missed, by its name, whether it is there again."""
        self._link = link
        self._absences = absences
        self._routes = routes
        self._tail = tail
        self._stop = stop
        self._settle_letters = settle_letters
        self._is_back = is_back
        self._reached = reached
        self._pulse = pulse
        self._pulse.look_at(self._pause)
        self._lock = Lock()
        self._pacing = Pacing(_MOMENT_SECONDS)
        self._finish_pacing = Pacing(_MOMENT_SECONDS, apart=_FINISH_APART_SECONDS)
        self._in_hand = 0
        self._threads = {queue: ThreadPoolExecutor(route.threads, queue.value) for queue, route in routes.items()}
        self._waiting = {queue: Pending[Delivery](self._threads[queue], partial(self._next, queue)) for queue in routes}
        self._finish_threads = ThreadPoolExecutor(settings.files_in_hand, "finish")
        self._unfinished = Pending[Unfinished](self._finish_threads, self._finish_next)
        self._are_left = False
        # No more come than may be in hand, of which some are at work.
        self._enough = min(BATCH, settings.prefetch // 2)

    def run(self) -> None:
        """Serve until stopped; what was begun is finished first.

        Raises: Misconfigured.
        """
        sweeper = Thread(target=self._sweep, name="sweep")
        sweeper.start()
        prefetch = {queue: route.prefetch for queue, route in self._routes.items()}
        try:
            self._link.run(prefetch, self._receive, self._stop, self._is_idle, self._pulse.turned)
        except FleetticketsError:
            if not self._stop.is_set():
                raise
        finally:
            self._stop.set()
            for threads in (*self._threads.values(), self._finish_threads):
                threads.shutdown()
            sweeper.join()

    def _is_idle(self) -> bool:
        with self._lock:
            return self._in_hand == 0

    def _receive(self, delivery: Delivery) -> None:
        """In the link's thread: take a delivery in hand."""
        with self._lock:
            self._in_hand += 1
        self._waiting[delivery.queue].add(delivery)

    def _next(self, queue: Queue) -> None:
        """Begin with what waits: one delivery, or as many as go together."""
        route = self._routes[queue]
        with self._pacing.turn() if route.together else nullcontext():
            self._begin_next(queue, route)

    def _begin_next(self, queue: Queue, route: Route) -> None:
        deliveries = self._waiting[queue].take(BATCH if route.together else 1, lambda _one, _others: True)
        # How long a place takes to be looked up, the provider's limits say.
        for delivery in deliveries if queue is not Queue.GEOCODE else ():
            self._pulse.took(delivery, partial(_name, delivery))
        if route.together is None:
            for only in deliveries:
                self._settling(only, partial(self._begin, only))
            return
        for left in self._begin_together(route.together, route.breaker, deliveries):
            # Each by itself, and none behind one that has to wait.
            self._submit(self._threads[queue], left, partial(self._begin, left))

    def _begin_together(
        self, together: HandleTogether, breaker: Breaker, deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        """Handle them in one go, as far as that is to be had; gives those that are left."""
        if not breaker.is_closed or self._stop.is_set():
            return list(deliveries)
        began = monotonic()
        begun = [delivery for delivery in deliveries if not delivery.is_lost]
        try:
            with following(begun[0].trace) if len(begun) == 1 else nullcontext():
                outcomes = dict(zip(begun, together(begun), strict=True))
        except DependencyDown as error:
            self._hold_up(error)
            return list(deliveries)
        for delivery, outcome in outcomes.items():
            if outcome is not None:
                self._settling(delivery, partial(self._settle, delivery, outcome, breaker, began))
        return [delivery for delivery in deliveries if outcomes.get(delivery) is None]

    def _submit(self, threads: ThreadPoolExecutor, delivery: Delivery, work: Callable[[], bool]) -> None:
        threads.submit(self._settling, delivery, work)

    def _begin(self, delivery: Delivery) -> bool:
        # Fetched and not begun it is only left alone: unacked, it goes back to the queue, or is there since its
        # connection was lost.
        return not self._stop.is_set() and not delivery.is_lost and self._handle(delivery)

    def _settling(self, delivery: Delivery, work: Callable[[], bool]) -> None:
        """Do `work`, which says whether the delivery stays in hand; whatever it raises settles the delivery."""
        stays_in_hand = False
        with following(delivery.trace):
            try:
                stays_in_hand = self._worked(delivery, work)
            except Exception:
                # Of our own making, and in the way of nobody else: held, it would keep its place to the process's end.
                log.exception("unsettled", queue=delivery.queue.value, retry_in_s=_NOT_NOW_SECONDS)
                self._link.put_back(delivery, after=_NOT_NOW_SECONDS)
            finally:
                if not stays_in_hand:
                    self._release(delivery)

    def _worked(self, delivery: Delivery, work: Callable[[], bool]) -> bool:
        try:
            return work()
        except Permanent as error:
            self._give_up(delivery, error.reason, error.detail)
        except KeyInHand as error:
            self._not_now(delivery, error, _left_for(delivery), also={messages.LEFT: True})
        except DependencyDown as error:
            self._not_now(delivery, error, _NOT_NOW_SECONDS)
        except Stopped:
            pass  # unacked, it goes back to the queue
        except EverythingFails as error:
            self._not_now(delivery, error, _NEXT_PROBE_SECONDS, also={messages.PROBED: True})
        except Exception as error:
            log.exception("unexpected", queue=delivery.queue.value)
            self._give_up(delivery, UNEXPECTED, f"{type(error).__name__}: {database.one_line(error)}")
        return False

    def _release(self, delivery: Delivery) -> None:
        self._pulse.let_go(delivery)
        with self._lock:
            self._in_hand -= 1

    def _settled(self, delivery: Delivery) -> None:
        """Where files are applied, they alone are progress: follow-ons may get on while no file does."""
        if delivery.queue is Queue.FILES or Queue.FILES not in self._routes:
            self._pulse.settled()

    def _pause(self) -> Pause | None:
        if self._absences.is_none_away:  # who has found that out may have settled nothing
            self._pulse.let_up(PausedBy.AWAY)
        return next((pause for route in self._routes.values() if (pause := route.breaker.pause)), None)

    def _hold_up(self, error: BaseException | None) -> str | None:
        """Note what is in everybody's way, and give the service that is away: what fails one alone, others get past."""
        if isinstance(error, LockTimeout):
            self._pulse.held_up(PausedBy.LOCK, str(error))
        elif missed := self._absences.missed(error):
            self._pulse.held_up(PausedBy.AWAY, str(error))
            return missed
        return None

    def _turn(self, delivery: Delivery) -> Breaker:
        """Wait for the breaker's leave to try; one that was a probe before does not wait in the way of the others.

        Raises: EverythingFails.
        """
        breaker, again = self._routes[delivery.queue].breaker, messages.PROBED in delivery.headers
        if not breaker.turn(self._stop, 0 if again else _left_to_hold(delivery), again=again):
            raise EverythingFails("it has been tried, and its turn to be tried again has not come")
        return breaker

    def _handle(self, delivery: Delivery) -> bool:
        breaker = self._turn(delivery)
        began = monotonic()
        handle = self._routes[delivery.queue].handle
        return self._settle(delivery, self._holding(delivery, lambda: handle(delivery)), breaker, began)

    def _settle(
        self, delivery: Delivery, outcome: FileOutcome | FollowOnOutcome, breaker: Breaker, began: float
    ) -> bool:
        """Settle a delivery by its outcome, or hand it on to its tail; gives whether it stays in hand."""
        if not isinstance(outcome, Applied | AlreadyApplied | NotServed | Postponed | Interrupted):
            self._settled(delivery)
        match outcome:
            case Applied() | AlreadyApplied():
                self._hand_on(Unfinished(delivery, outcome, breaker, began))
                return True
            case NotServed():
                breaker.undecided()
                # Whoever serves it may have to come to it several times, where several do not.
                self._put_aside(delivery, _left_for(delivery), {messages.LEFT: True})
            case Duplicate() | Ignored() | Missing() | Spread() | Failure():
                breaker.undecided()
                self._absences.served(database.DATABASE, began=began)
                tell_file(outcome, delivery.span, redelivered=delivery.redelivered, began=began)
                self._link.ack(delivery)
            case HistoryCaptured(requests=[]):
                breaker.undecided()
                self._link.ack(delivery)
            case HistoryCaptured(requests, seconds):
                breaker.succeeded()
                self._absences.served(database.DATABASE, began=began)
                traces = traces_of(requests)
                delivery.span.links(traces)
                tell_done("history", traces, requests=len(requests), seconds=round(seconds, 3))
                self._link.ack(delivery)
            case TicketsGeocoded():
                breaker.succeeded()
                self._absences.served(database.DATABASE, began=began)
                self._link.ack(delivery)
            case Postponed(seconds):
                delays = (delay for delay in topology.RETRY_DELAYS if delay >= seconds)
                self._put_aside(delivery, next(delays, topology.RETRY_DELAYS[-1]))
            case Interrupted():
                breaker.undecided()  # unacked, it goes back to the queue
            case _:
                assert_never(outcome)
        return False

    def _hand_on(self, file: Unfinished) -> None:
        """Have its tail finished, by itself where it may hold up others."""
        if file.is_plain:
            self._unfinished.add(file)
            self._finish_pacing.look()
        else:
            self._submit(self._finish_threads, file.delivery, partial(self._finish, file))

    def _finish_next(self) -> None:
        """Finish what is applied and waits: one file, or several together."""
        with self._finish_pacing.turn(self._has_enough_to_finish):
            files = self._unfinished.take(BATCH, Unfinished.goes_with)
            self._are_left = bool(self._unfinished)
            match files:
                case [only]:
                    self._settling(only.delivery, partial(self._finish, only))
                case _:
                    self._finish_together(files)

    def _has_enough_to_finish(self) -> bool:
        """Who did not go along with the last ones has waited already."""
        return self._are_left or len(self._unfinished) >= self._enough or self._stop.is_set()

    def _finish(self, file: Unfinished) -> bool:
        archive_key = None
        try:
            (archive_key,) = self._holding(file.delivery, lambda: self._tail.finish([file.outcome.file]))
        except ObjectUnavailable as error:
            self._holding(file.delivery, partial(self._tail.finish_unarchived, file.outcome.file, error))
        return self._close(file, archive_key)

    def _finish_together(self, files: Sequence[Unfinished]) -> None:
        try:
            archive_keys = self._tail.finish([file.outcome.file for file in files])
        except Exception as error:  # noqa: BLE001 - met again, and told, by the one that it is of
            told = [file.delivery.trace.id for file in files]
            detail = f"{type(error).__name__}: {database.one_line(error)}"
            log.info("one by one", files=len(files), detail=detail, trace_ids=told)
            for file in files:
                self._submit(self._finish_threads, file.delivery, partial(self._finish, file))
            return
        for file, archive_key in zip(files, archive_keys, strict=True):
            self._settling(file.delivery, partial(self._close, file, archive_key))

    def _close(self, file: Unfinished, archive_key: str | None) -> bool:
        delivery, outcome, breaker, began = file
        (breaker.succeeded if isinstance(outcome, Applied) else breaker.undecided)()
        self._settled(delivery)
        self._absences.served(database.DATABASE, BUCKET, began=began)
        tell_file(outcome, delivery.span, redelivered=delivery.redelivered, began=began, archive_key=archive_key)
        self._link.ack(delivery)
        return False

    def _holding(self, delivery: Delivery, action: Callable[[], Answer]) -> Answer:
        """Do `action`, waiting with growing delay while a dependency is away.

        Raises: DependencyDown, when stopped meanwhile or HOLD_SECONDS after the delivery came; what `action` raises.
        """
        missed: set[str] = set()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(DependencyDown),
            wait=tenacity.wait_exponential_jitter(multiplier=0.25, max=15),
            stop=tenacity.stop_when_event_set(self._stop) | _HeldLongEnough(_left_to_hold(delivery)),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=partial(self._wait_on, missed),
            reraise=True,
        )
        answer = retrying(action)
        if not isinstance(answer, Postponed | Interrupted):
            self._absences.served(*missed)
        return answer

    def _wait_on(self, missed: set[str], state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        # Who waits for another to be done is no trouble.
        told = log.debug if isinstance(error, HeldByAnother) else log.warning
        told("waiting", detail=str(error), retry_in_s=round(state.upcoming_sleep, 2))
        if service := self._hold_up(error):
            missed.add(service)

    def _not_now(
        self, delivery: Delivery, error: FleetticketsError, delay: int, also: Mapping[str, Any] | None = None
    ) -> None:
        """Put a delivery that cannot be worked on aside, with no attempt spent, and the headers `also`."""
        self._hold_up(error)
        if not self._stop.is_set():
            log.warning("not now", queue=delivery.queue.value, detail=str(error), retry_in_s=delay)
            self._put_aside(delivery, delay, also)

    def _put_aside(self, delivery: Delivery, delay: int, also: Mapping[str, Any] | None = None) -> None:
        headers = {**delivery.headers, **(also or {})}
        self._send_on(delivery, publishing.retry(delivery.queue, delivery.body, delivery.trace, headers, delay=delay))

    def _give_up(self, delivery: Delivery, reason: str, detail: str) -> None:
        """Send a message on that failed outside any file: no event, or a follow-on that broke."""
        if reason == UNEXPECTED:
            try:
                self._routes[delivery.queue].breaker.failed(detail)
            except EverythingFails as error:
                self._not_now(delivery, error, _NEXT_PROBE_SECONDS, also={messages.PROBED: True})
                return
        failure = Failure("", reason, detail, attempts=messages.attempts(delivery.headers) + 1)
        tell_failed(delivery.queue.value, failure, delivery.span)
        self._send_on(delivery, outgoing(failure, delivery))

    def _send_on(self, delivery: Delivery, outgoing: Outgoing) -> None:
        """Publish what stands for the delivery now, and settle it.

        What the broker does not take there waits, as it came, in a wait queue, or else at the head of its own: held,
        eight of them would be all that this process ever has in hand.
        """
        aside = publishing.retry(
            delivery.queue, delivery.body, delivery.trace, delivery.headers, delay=_NOT_NOW_SECONDS
        )
        for tried in (outgoing, aside) if outgoing != aside else (aside,):
            try:
                self._link.publish(tried)
            except DependencyDown as error:
                log.warning("unsettled", queue=delivery.queue.value, detail=str(error), retry_in_s=_NOT_NOW_SECONDS)
            else:
                self._reached("sent on, before ack")
                delivery.span.tell({"fleettickets.sent_on_to": f"{tried.exchange}:{tried.routing_key}"})
                self._link.ack(delivery)
                return
        self._link.put_back(delivery, after=_NOT_NOW_SECONDS)

    def _sweep(self) -> None:
        """Finish what a crash left half-way: at the start, then now and again, less often while it does not succeed."""
        pause, missed = _SWEEP_SECONDS, set[str]()
        self._stop.wait(1.0)
        while not self._stop.is_set():
            try:
                self._tail.sweep(self._stop)
                self._settle_letters()
                self._absences.served(*missed)
                pause = _SWEEP_SECONDS
                missed.clear()
            except DependencyDown as error:
                if service := self._absences.missed(error):
                    missed.add(service)
                pause = min(2 * pause, _LONGEST_SWEEP_SECONDS)
                log.warning("sweep", detail=str(error), retry_in_s=pause)
            except Exception:
                log.exception("sweep")
            self._rest(pause)

    def _rest(self, seconds: float) -> None:
        """Until the next sweep. Without work nobody else would find out that what is missed is back."""
        end = monotonic() + seconds
        while not self._stop.is_set() and (left := end - monotonic()) > 0:
            self._stop.wait(min(left, _LOOK_SECONDS))
            for service, is_back in self._is_back.items():
                # Whoever has something in hand finds out by that, and knows it better.
                if self._absences.is_away(service) and self._is_idle() and not self._stop.is_set():
                    began = monotonic()
                    with suppress(FleetticketsError):
                        if is_back():
                            self._absences.served(service, began=began)


def _name(delivery: Delivery) -> str:
    """What a person calls it: the key of its file, as it may read."""
    if delivery.queue is Queue.FILES:
        with suppress(Permanent):
            for event in read_event(delivery.body):
                if isinstance(event, ChangeFileArrived):
                    return event.keys[0]
    return f"a message of {delivery.queue.value}"


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _left_for(delivery: Delivery) -> int:
    """Seconds until it comes again, which is left to others now."""
    return _LEFT_SECONDS[messages.LEFT in delivery.headers]


def _left_to_hold(delivery: Delivery) -> float:
    """Seconds. It may have waited for its thread already, behind others that were held."""
    return max(0, HOLD_SECONDS - (datetime.now(UTC) - delivery.delivered_at).total_seconds())


class _HeldLongEnough(tenacity.stop.stop_base):
    """The end of a wait with a delivery in hand, by what is waited for: no more than so many seconds from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        limit: float
        match state.outcome.exception() if state.outcome else None:
            case HeldBack(seconds=seconds, error=ObjectUnavailable()):
                # What the store takes long to fail is not begun again at once either.
                return max(seconds, state.seconds_since_start or 0) >= OWN_HOLD_SECONDS
            case HeldBack(seconds=seconds):
                # What has been held before, by whichever consumer, is not waited for once more.
                return seconds >= OWN_HOLD_SECONDS
            case FailsForThisOne() | NotConfirmed():
                limit = min(OWN_HOLD_SECONDS, self._seconds)
            case KeyInHand() | LockTimeout() | SlowBody():
                limit = min(IN_HAND_HOLD_SECONDS, self._seconds)
            case _:
                limit = self._seconds
        return (state.seconds_since_start or 0) >= limit
