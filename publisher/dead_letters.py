"""Dead letters: written with their reason, looked at without being touched, replayed publish-first."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from publisher import broker, messages
from publisher.errors import FleetticketsError
from publisher.events import read_event
from publisher.topology import DEAD, REQUESTS, Queue

_PATIENCE = 100
"""Looks at a queue, each 20 ms after the one before, until what was put back shows up in it."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of a dead-letter queue; `number` is its place in the queue, from 1, `tag` its delivery tag."""

    number: int
    tag: int
    queue: Queue
    key: str
    reason: str
    error: str
    fingerprint: str
    attempts: int
    dead_at: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters to replay; None selects all."""

    key: str | None = None
    fingerprint: str | None = None

    def holds(self, letter: DeadLetter) -> bool:
        return (self.key is None or letter.key == self.key) and (
            self.fingerprint is None or letter.fingerprint == self.fingerprint
        )


def fingerprint(reason: str, detail: str) -> str:
    """Eight hex digits that are equal for errors that differ only in numbers, names in quotes and hashes."""
    shape = re.sub(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8,}\b|\d+", "#", f"{reason}: {detail}")
    return hashlib.sha256(shape.encode(errors="replace")).hexdigest()[:8]


def bury(
    channel: BlockingChannel, queue: Queue, body: bytes, *, key: str, reason: str, detail: str, attempts: int
) -> None:
    """Put a message among the dead letters of its queue, with the reason in the headers. Confirmed on return."""
    headers = {
        messages.KEY: key,
        messages.REASON: reason[:200],
        messages.ERROR: detail[:2000],
        messages.FINGERPRINT: fingerprint(reason, detail),
        messages.ATTEMPTS: attempts,
        messages.DEAD_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    broker.publish(channel, DEAD, queue.value, body, headers=headers)


@contextmanager
def walking(channel: BlockingChannel, queue: Queue) -> Iterator[Iterator[DeadLetter]]:
    """The dead letters of a queue one after the other, oldest first, in memory one at a time. All are put back.

    Raises: DependencyDown, Misconfigured.
    """
    seen = 0

    def counted() -> Iterator[DeadLetter]:
        nonlocal seen
        for letter in _read(channel, queue):
            seen = letter.number
            yield letter

    try:
        yield counted()
    finally:
        _put_back(channel, queue, seen)


@contextmanager
def browsing(channel: BlockingChannel, queue: Queue) -> Iterator[list[DeadLetter]]:
    """Every dead letter of a queue, oldest first. Those still in the list at the end are put back.

    Raises: DependencyDown, Misconfigured.
    """
    held = list(_read(channel, queue))
    try:
        yield held
    finally:
        _put_back(channel, queue, len(held))


def _read(channel: BlockingChannel, queue: Queue) -> Iterator[DeadLetter]:
    broker.queue_depth(channel, queue.dead_letters)
    for number in count(1):
        with broker.translated_errors():
            method, properties, body = channel.basic_get(queue.dead_letters)
        if method is None or properties is None:
            return
        tag = method.delivery_tag or 0  # only the type stubs doubt it
        yield _letter(number, tag, queue, body or b"", properties.headers or {})


def _put_back(channel: BlockingChannel, queue: Queue, letters: int) -> None:
    """Requeue what was not settled. That takes the broker a moment, in which the next look would find too few."""
    if not channel.is_open or not letters:
        return
    with broker.translated_errors():
        channel.basic_nack(0, multiple=True, requeue=True)
        for _ in range(_PATIENCE):
            ready, _ = broker.queue_depth(channel, queue.dead_letters)
            if ready >= letters:
                return
            channel.connection.process_data_events(time_limit=0.02)


def replay(channel: BlockingChannel, queue: Queue, selection: Selection, report: Callable[[DeadLetter], None]) -> int:
    """Send the selected dead letters back to their work queue: publish, wait for the confirm, only then settle.

    A crash in between leaves a letter in both places, and the ledger makes the second arrival harmless.
    Raises: DependencyDown, Misconfigured.
    """
    with browsing(channel, queue) as held:
        selected = [letter for letter in held if selection.holds(letter)]
        for letter in selected:
            broker.publish(channel, REQUESTS, queue.value, letter.body, headers={messages.AGAIN: "replay"})
            with broker.translated_errors():
                channel.basic_ack(letter.tag)
            held.remove(letter)
            report(letter)
    return len(selected)


def _letter(number: int, tag: int, queue: Queue, body: bytes, headers: Mapping[str, Any]) -> DeadLetter:
    deaths = headers.get("x-death") or [{}]
    reason = str(headers.get(messages.REASON) or f"broker: {deaths[0].get('reason', 'unknown')}")
    error = str(headers.get(messages.ERROR) or "the broker gave up on this message by itself")
    died = deaths[0].get("time")
    return DeadLetter(
        number=number,
        tag=tag,
        queue=queue,
        key=str(headers.get(messages.KEY) or _key_in(body)),
        reason=reason,
        error=error,
        fingerprint=str(headers.get(messages.FINGERPRINT) or fingerprint(reason, error)),
        attempts=messages.attempts(headers) or _count(headers.get("x-delivery-count")),
        dead_at=str(headers.get(messages.DEAD_AT) or (died.isoformat() if isinstance(died, datetime) else "")),
        body=body,
        headers=headers,
    )


def bucket_of(letter: DeadLetter) -> str | None:
    """The bucket that the dead letter's event names; None for a body that is no event of a change file."""
    try:
        for event in read_event(letter.body):
            if isinstance(event, messages.ChangeFileArrived) and letter.key in event.keys:
                return event.bucket
    except FleetticketsError:
        pass
    return None


def _count(header: Any) -> int:
    return header if isinstance(header, int) and header > 0 else 1


def _key_in(body: bytes) -> str:
    try:
        for event in read_event(body):
            if isinstance(event, messages.ChangeFileArrived):
                return event.keys[0]
    except FleetticketsError:
        pass
    return ""
