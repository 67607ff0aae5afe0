"""Dead letters: written with their reason, looked at without being touched, replayed publish-first."""

import hashlib
import heapq
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from threading import Event
from typing import Any

import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from publisher.arrivals import messages
from publisher.arrivals.store_events import read_event
from publisher.broker import channels, publishing
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import DEAD, Queue
from publisher.errors import FleetticketsError, NoSuchLetter
from publisher.trace import Trace

_LOCK = "dead-letters"
_PATIENT_SECONDS = 10
"""For who has them in hand just now; a look is over by then, a long replay is not."""
_PATIENCE = 100
"""Looks at a queue, each 20 ms after the one before, until what was put back shows up in it."""
# When a channel dies with more than this in hand, RabbitMQ before 4.1.1 puts it back in an order of which only that run
# of the server knows. Started again it arrives at another one from the same log, and what was acked in between then
# takes other letters with it: those are lost, and the acked ones are back (rabbitmq-server pull request 13971).
_ONE_HAND = 32
# What is shown of a letter, and with what it is written: whoever wrote its headers, its fields have bounds.
_KEY_BYTES = 1024
_REASON_CHARACTERS = 200
_ERROR_CHARACTERS = 2000
_FINGERPRINT_CHARACTERS = 64
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
"""Where a letter stands that does not tell when it died."""


@dataclass(frozen=True, slots=True)
class LastFailure:
    """Why a message became a dead letter, after how many attempts; `history` has a line for each."""

    key: str
    reason: str
    detail: str
    attempts: int
    history: list[str]
    etag: str | None = None
    """Of the version that failed; None for a message that is about no file."""
    replays: int = 0
    """How often a person has sent it back to work."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of a dead-letter queue. `id` is the same at every look; `taken`, from 1, is this look's own count."""

    id: str
    taken: int
    queue: Queue
    key: str
    reason: str
    error: str
    fingerprint: str
    attempts: int
    replays: int
    """How often a person has sent it back to work."""
    dead_at: datetime | None
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def etag(self) -> str | None:
        """Of the version that failed; None where the letter does not tell."""
        found = _of_ours(self.headers).get(messages.ETAG)
        return found if isinstance(found, str) else None

    @property
    def trace(self) -> Trace:
        """Of the delivery that it was, also where the broker gave that up."""
        return Trace.of_headers(self.headers) or Trace.of(self.body)

    @property
    def rank(self) -> tuple[datetime, str]:
        """What the oldest has least of. Its place in the queue tells nothing: looking at letters moves them."""
        return self.dead_at or _BEFORE_ALL, self.id

    @property
    def history(self) -> list[str]:
        """Its failed tries and replays, oldest first."""
        return messages.lines_of(_of_ours(self.headers))


@dataclass(slots=True)
class Group:
    """Dead letters of one fingerprint, which probably have one cause; `key` and `error` are those of the oldest.

    `oldest` and `newest` are the times of those that tell theirs.
    """

    fingerprint: str
    reason: str
    error: str
    key: str
    letters: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of the dead letters: each condition that is not None has to hold, for the oldest `limit` of them."""

    id: str | None = None
    key: str | None = None
    fingerprint: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    limit: int | None = None

    def among(self, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
        """The chosen ones, as they come; with a limit oldest first, once all have been seen, keeping no others."""
        now = datetime.now(UTC)
        fitting = (letter for letter in letters if self._holds(letter, now))
        if self.limit is None:
            yield from fitting
        else:
            yield from heapq.nsmallest(self.limit, fitting, key=attrgetter("rank"))

    def of(self, held: "LettersInHand") -> Iterator[DeadLetter]:
        """Those among the letters in hand, for one who is going to act on them: what he names has to be there.

        Raises: NoSuchLetter, when there is none and they were chosen by id or key.
        """
        found = False
        for letter in self.among(held):
            found = True
            yield letter
        if not found and (self.id is not None or self.key is not None):
            # Not taken for a key: files of several feeds can have one name, and a discard is for good.
            is_bare_name = self.key is not None and "/" not in self.key
            raise NoSuchLetter(held.queue.dead_letters, self._words(), is_bare_name=is_bare_name)

    def _words(self) -> str:
        texts = {"id": self.id, "key": self.key, "group": self.fingerprint}
        words = [f"{name} {text!r}" for name, text in texts.items() if text is not None]
        if self.older_than is not None or self.newer_than is not None:
            words.append("the age asked for")
        return " and ".join(words)

    def _holds(self, letter: DeadLetter, now: datetime) -> bool:
        if self.id is not None and letter.id != self.id:
            return False
        if self.key is not None and letter.key != self.key:
            return False
        if self.fingerprint is not None and letter.fingerprint != self.fingerprint:
            return False
        if self.older_than is None and self.newer_than is None:
            return True
        if letter.dead_at is None:  # only the broker's own are without; nobody can say how old one is
            return False
        age = now - letter.dead_at
        return (self.older_than is None or age >= self.older_than) and (
            self.newer_than is None or age <= self.newer_than
        )


class LettersInHand:
    """The dead letters of a queue, one after the other, in our hands until settled or put back.

    A hand is a channel: the one that is given, and others of its connection when that has its fill.
    """

    def __init__(self, channel: BlockingChannel, queue: Queue) -> None:
        self._channel = channel
        self.queue = queue
        # What dies meanwhile is for the next look: a replayed letter can be back before this one ends.
        self._there, _ = channels.queue_depth(channel, queue.dead_letters)
        self._taken = 0
        self._hands = [channel]
        self._room = _ONE_HAND
        self._holding: dict[int, tuple[BlockingChannel, int]] = {}  # by `taken`: the hand, and the delivery tag in it

    def __iter__(self) -> Iterator[DeadLetter]:
        while self._taken < self._there:
            with channels.translated_errors():
                hand = self._free_hand()
                method, properties, body = hand.basic_get(self.queue.dead_letters)
            if method is None or properties is None:
                return
            self._taken += 1
            self._room -= 1
            self._holding[self._taken] = hand, method.delivery_tag or 0  # only the type stubs doubt the tag
            yield _letter(self._taken, self.queue, body or b"", properties.headers or {})

    def settle(self, letter: DeadLetter) -> None:
        """Take a letter out of the queue, for good.

        Raises: DependencyDown.
        """
        hand, tag = self._holding[letter.taken]
        with channels.translated_errors():
            hand.basic_ack(tag)
        del self._holding[letter.taken]
        if hand is self._hands[-1]:
            self._room += 1

    def put_back(self) -> None:
        """Requeue what was not settled. That takes the broker a moment, in which the next look would find too few."""
        left = len(self._holding)
        if not self._channel.is_open or not left:
            return
        with channels.translated_errors():
            for hand in self._hands:
                hand.basic_nack(0, multiple=True, requeue=True)
                # With its answer these are back, and those of the next hand come behind them.
                channels.queue_depth(hand, self.queue.dead_letters)
            for _ in range(_PATIENCE):
                ready, _ = channels.queue_depth(self._channel, self.queue.dead_letters)
                if ready >= left:
                    return
                self._channel.connection.process_data_events(time_limit=0.02)

    def _free_hand(self) -> BlockingChannel:
        if self._room <= 0:
            # 65,000 letters take all the channels that the server grants a connection; the last one has the rest.
            with suppress(pika.exceptions.NoFreeChannels):
                self._hands.append(self._channel.connection.channel())
                self._room = _ONE_HAND
        return self._hands[-1]


def fingerprint(reason: str, detail: str) -> str:
    """Eight hex digits that are equal for errors that differ only in numbers, names in quotes and hashes."""
    shape = re.sub(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8,}\b|\d+", "#", f"{reason}: {detail}")
    return hashlib.sha256(shape.encode(errors="replace")).hexdigest()[:8]


def dead_letter(queue: Queue, body: bytes, trace: Trace, failure: LastFailure) -> Outgoing:
    """A message for the dead letters of its queue, with the reason in the headers."""
    headers: dict[str, Any] = {
        messages.KEY: failure.key,
        messages.REASON: failure.reason[:_REASON_CHARACTERS],
        messages.ERROR: failure.detail[:_ERROR_CHARACTERS],
        messages.FINGERPRINT: fingerprint(failure.reason, failure.detail),
        messages.ATTEMPTS: failure.attempts,
        messages.DEAD_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
        messages.HISTORY: failure.history,
    }
    if failure.etag is not None:
        headers[messages.ETAG] = failure.etag
    if failure.replays:
        headers[messages.REPLAYS] = failure.replays
    return Outgoing(DEAD, queue.value, body, trace, headers)


@contextmanager
def browsing(channel: BlockingChannel, queue: Queue, patience: float = _PATIENT_SECONDS) -> Iterator[LettersInHand]:
    """Every dead letter of a queue, in no order to rely on. What is not settled by the end is put back.

    AMQP shows a message only to who takes it, and one that is put back is the next to be given. So to see all is to
    have all in hand, and nobody else sees any meanwhile: one process at a time has them, and the others wait for
    `patience` seconds or are told, where they would find too few.
    Raises: HeldByAnother, DependencyDown, Misconfigured.
    """
    with channels.alone(channel, _LOCK, patience):
        held = LettersInHand(channel, queue)
        try:
            yield held
        finally:
            held.put_back()


def grouped(letters: Iterable[DeadLetter]) -> list[Group]:
    """Count the letters by fingerprint, in whatever order they come; the largest group first, then the oldest."""
    groups: dict[str, Group] = {}
    ranks: dict[str, tuple[datetime, str]] = {}
    for letter in letters:
        mark = letter.fingerprint
        group = groups.setdefault(mark, Group(mark, letter.reason, letter.error, letter.key))
        group.letters += 1
        if letter.rank < ranks.setdefault(mark, letter.rank):
            ranks[mark] = letter.rank
            group.reason, group.error, group.key = letter.reason, letter.error, letter.key
        if letter.dead_at is not None:
            group.oldest = min(group.oldest or letter.dead_at, letter.dead_at)
            group.newest = max(group.newest or letter.dead_at, letter.dead_at)
    return sorted(groups.values(), key=lambda group: (-group.letters, ranks[group.fingerprint]))


def replay(
    channel: BlockingChannel,
    queue: Queue,
    selection: Selection,
    report: Callable[[DeadLetter], None],
    *,
    begin: Callable[[DeadLetter], object] = lambda _letter: None,
    allows_missing: bool = False,
    per_second: float | None = None,
    stop: Event | None = None,
) -> int:
    """Send the selected dead letters back to their work queue: publish, wait for the confirm, only then settle.

    A crash in between leaves a letter in both places, and the ledger makes the second arrival harmless. With
    `allows_missing` their files may lack columns that the exporter always writes. `begin` is told of each letter before
    anybody else can have it, `report` afterwards. `stop` ends it after the letter in hand.
    Raises: HeldByAnother, DependencyDown, Misconfigured, NoSuchLetter.
    """
    replayed = 0
    with browsing(channel, queue) as held:
        for letter in selection.of(held):
            if stop is not None and stop.is_set():
                break
            due = time.monotonic() + (1 / per_second if per_second else 0)
            begin(letter)
            publishing.publish(channel, sent_back(queue, letter, allows_missing=allows_missing))
            held.settle(letter)
            replayed += 1
            report(letter)
            _wait(channel, due, stop)
    return replayed


def _wait(channel: BlockingChannel, due: float, stop: Event | None) -> None:
    while (left := due - time.monotonic()) > 0 and not (stop is not None and stop.is_set()):
        with channels.translated_errors():
            channel.connection.process_data_events(time_limit=min(left, 0.2))


def sent_back(queue: Queue, letter: DeadLetter, *, allows_missing: bool) -> Outgoing:
    """The message that a letter is once a person has it tried again."""
    ours = _of_ours(letter.headers)
    headers: dict[str, Any] = {
        messages.AGAIN: "replay",
        messages.REPLAYS: letter.replays + 1,
        messages.HISTORY: messages.history(ours, also="replayed by hand"),
    }
    if named := messages.etag(ours):
        headers[messages.ETAG] = named
    if allows_missing:
        headers[messages.ALLOWED] = messages.MISSING_COLUMNS
    return publishing.request(queue, letter.body, letter.trace, headers)


def _letter(taken: int, queue: Queue, body: bytes, headers: Mapping[str, Any]) -> DeadLetter:
    match headers.get("x-death"):
        case [dict(death), *_]:
            pass
        case _:
            death = {}
    ours = _of_ours(headers)
    reason = str(ours.get(messages.REASON) or f"broker: {death.get('reason', 'unknown')}")[:_REASON_CHARACTERS]
    error = str(ours.get(messages.ERROR) or "the broker gave up on this message by itself")[:_ERROR_CHARACTERS]
    dead_at = _moment(ours.get(messages.DEAD_AT)) or _moment(death.get("time"))
    return DeadLetter(
        id=_identity(queue, dead_at, body),
        taken=taken,
        queue=queue,
        key=_bounded(str(ours.get(messages.KEY) or _key_in(body)), _KEY_BYTES),
        reason=reason,
        error=error,
        fingerprint=str(ours.get(messages.FINGERPRINT) or fingerprint(reason, error))[:_FINGERPRINT_CHARACTERS],
        attempts=max(messages.attempts(ours), 1),
        replays=messages.replays(ours),
        dead_at=dead_at,
        body=body,
        headers=headers,
    )


def _of_ours(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The headers that tell why a letter is one: none of a message that the broker gave up, whose sender wrote them.

    Letters of ours are published as such and never have an x-death.
    """
    return {} if "x-death" in headers else headers


def _bounded(text: str, size: int) -> str:
    """As much of a text as so many bytes of UTF-8 have room for."""
    return text.encode(errors="backslashreplace")[:size].decode(errors="ignore")


def _identity(queue: Queue, dead_at: datetime | None, body: bytes) -> str:
    """Twelve hex digits of what a letter has at every look, and is one by in ingest.discards too.

    Two letters that agree in all of it are the same message, which died twice in one millisecond.
    """
    when = dead_at.isoformat() if dead_at else ""
    return hashlib.sha256(f"{queue.value} {when} ".encode() + body).hexdigest()[:12]


def bucket_of(letter: DeadLetter) -> str | None:
    """The bucket that the dead letter's event names; None for a body that is no event of a change file."""
    try:
        for event in read_event(letter.body):
            if isinstance(event, messages.ChangeFileArrived) and letter.key in event.keys:
                return event.bucket
    except FleetticketsError:
        pass
    return None


def _moment(header: Any) -> datetime | None:
    """A time that we wrote, or the broker, which gives UTC without saying so."""
    try:
        moment = header if isinstance(header, datetime) else datetime.fromisoformat(header)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _key_in(body: bytes) -> str:
    try:
        for event in read_event(body):
            if isinstance(event, messages.ChangeFileArrived):
                return event.keys[0]
    except FleetticketsError:
        pass
    return ""
