"""Canaries sent end to end: laid among the change files of each feed, and watched until nothing of them is left."""

import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from consumer.feeds.feed import Feed
from consumer.files import canary
from consumer.files.rehearsal import rehearsed_file
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.upkeep.findings import Finding, Journey
from publisher.errors import FleetticketsError
from publisher.store.bucket import Bucket

_LOOK_SECONDS = 0.05
_STAGES = (
    ("delivered_at", "delivered"),
    ("opened_at", "read"),
    ("applied_at", "applied"),
    ("archived_at", "archived"),
    ("removed_at", "removed"),
)
"""In the order of the way; by the clock of the database alone."""
Hearing = Callable[[Collection[str]], AbstractContextManager[Mapping[str, float]]]
"""When the broker was told something with each of these names in it, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class _Laid:
    """`stored` by the clock of the database is `stored_seconds` by the monotonic one."""

    feed: Feed
    name: str
    key: str
    begun: datetime
    stored: datetime
    stored_seconds: float


def send(
    connection: Connection, bucket: Bucket, feeds: Sequence[Feed], patience: float, hearing: Hearing
) -> list[Journey]:
    """Lay one for each feed, and give how far they came within so many seconds. Leaves none, unless it is killed.

    Raises: DependencyDown; Refused, where the store takes none.
    """
    names = {feed.name: uuid.uuid4().hex for feed in feeds}
    with ExitStack() as leaving, database.translated_errors():
        heard = leaving.enter_context(hearing(names.values()))
        laid = []
        for feed in feeds:
            name = names[feed.name]
            key, begun = canary.key_of(feed, name), _now(connection)
            leaving.callback(_remove, bucket, key)
            bucket.put(key, rehearsed_file(feed, name))
            laid.append(_Laid(feed, name, key, begun, _now(connection), time.monotonic()))
        end = time.monotonic() + patience
        while True:
            journeys = [_journey(connection, one, heard.get(one.name)) for one in laid]
            is_over = all("removed" in journey.milliseconds for journey in journeys)
            if is_over or time.monotonic() > end:
                return journeys
            time.sleep(_LOOK_SECONDS)


def findings(journeys: Sequence[Journey], patience: float, *, poller_only: bool) -> Iterator[Finding]:
    """One line for each."""
    for journey in journeys:
        about = f"canary {journey.feed}"
        told = ", ".join(f"{stage} {took:.0f}" for stage, took in journey.milliseconds.items())
        if journey.trouble is not None:
            do = "files of this feed fail alike; what is wrong with the database is said above, or in its log"
            yield Finding.wrong(about, f"{journey.trouble}; {told} ms", do)
        elif journey.seen_by is None:
            do = "see notifications, consumers and pollers above; a longer wait: --wait SECONDS"
            taken = f"no consumer has taken it within {patience:g} s"
            announced = journey.milliseconds.get("announced")
            what = "of being stored" if announced is None else f"although it was announced after {announced:.0f} ms"
            yield Finding.wrong(about, f"{taken} {what}", do)
        elif not journey.is_whole:
            do = "the log of the consumer says what it waits for, and status who has a lock"
            yield Finding.wrong(about, f"it did not come to its end within {patience:g} s: {told} ms", do)
        elif journey.seen_by == "poller" and not poller_only:
            do = "no notification did: fleettickets notifications; if that is meant: doctor --poller-only"
            yield Finding.note(about, f"a poller brought it; {told} ms", do)
        else:
            total = sum(journey.milliseconds.values())
            yield Finding.ok(about, f"end to end in {total:.0f} ms, told of by the {journey.seen_by}: {told} ms")


def _now(connection: Connection) -> datetime:
    found: dict[str, Any] = database.rows(connection, "canaries", "clock")[0]
    return found["now"]  # type: ignore[no-any-return]


def _journey(connection: Connection, laid: _Laid, heard_seconds: float | None) -> Journey:
    row = database.row(connection, "canaries", "seen", {"key": laid.key}) or {}
    milliseconds = {"stored": _between(laid.begun, laid.stored)}
    before = laid.stored
    if heard_seconds is not None:
        announced = laid.stored + timedelta(seconds=heard_seconds - laid.stored_seconds)
        milliseconds["announced"] = _between(before, announced)
        before = max(before, announced)
    for column, stage in _STAGES:
        if (moment := row.get(column)) is not None:
            milliseconds[stage] = _between(before, moment)
            before = max(before, moment)
    return Journey(
        feed=laid.feed.name, seen_by=row.get("seen_by"), milliseconds=milliseconds, trouble=row.get("trouble")
    )


def _between(first: datetime, then: datetime) -> float:
    return round(max(0.0, (then - first).total_seconds() * 1e3), 1)


def _remove(bucket: Bucket, key: str) -> None:
    """Mostly it is gone by now. A consumer that has it in hand removes what it has made of it."""
    with suppress(FleetticketsError):
        bucket.remove(key)
