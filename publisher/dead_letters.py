"""Dead letters: written with their reason, looked at without being touched, replayed publish-first."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from publisher import broker, messages
from publisher.errors import FleetticketsError
from publisher.events import read_event
from publisher.topology import DEAD, REQUESTS, Queue


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of a dead-letter queue; `number` is its place in the queue, from 1."""

    number: int
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


def browse(channel: BlockingChannel, queue: Queue) -> Iterator[DeadLetter]:
    """Every dead letter of a queue, oldest first. They stay unacked until the channel closes, then are all back.

    Raises: DependencyDown, Misconfigured.
    """
    left, _ = broker.queue_depth(channel, queue.dead_letters)
    for number in range(1, left + 1):
        with broker.translated_errors():
            method, properties, body = channel.basic_get(queue.dead_letters)
        if method is None or properties is None:
            return
        yield _letter(number, queue, body or b"", properties.headers or {})


def replay(channel: BlockingChannel, queue: Queue, selection: Selection, report: Callable[[DeadLetter], None]) -> int:
    """Send the selected dead letters back to their work queue: publish, wait for the confirm, only then settle.

    A crash in between leaves a letter in both places, and the ledger makes the second arrival harmless.
    Raises: DependencyDown, Misconfigured.
    """
    replayed = 0
    for tag, letter in enumerate(browse(channel, queue), start=1):
        if not selection.holds(letter):
            continue
        broker.publish(channel, REQUESTS, queue.value, letter.body, headers={messages.AGAIN: "replay"})
        with broker.translated_errors():
            channel.basic_ack(tag)  # the channel is fresh, so its tags count from 1 as browse does
        replayed += 1
        report(letter)
    return replayed


def _letter(number: int, queue: Queue, body: bytes, headers: Mapping[str, Any]) -> DeadLetter:
    deaths = headers.get("x-death") or [{}]
    reason = str(headers.get(messages.REASON) or f"broker: {deaths[0].get('reason', 'unknown')}")
    error = str(headers.get(messages.ERROR) or "the broker gave up on this message by itself")
    died = deaths[0].get("time")
    return DeadLetter(
        number=number,
        queue=queue,
        key=str(headers.get(messages.KEY) or _key_in(body)),
        reason=reason,
        error=error,
        fingerprint=str(headers.get(messages.FINGERPRINT) or fingerprint(reason, error)),
        attempts=int(headers.get(messages.ATTEMPTS) or headers.get("x-delivery-count") or 1),
        dead_at=str(headers.get(messages.DEAD_AT) or (died.isoformat() if isinstance(died, datetime) else "")),
        body=body,
        headers=headers,
    )


def _key_in(body: bytes) -> str:
    try:
        for event in read_event(body):
            if isinstance(event, messages.ChangeFileArrived):
                return event.keys[0]
    except FleetticketsError:
        pass
    return ""
