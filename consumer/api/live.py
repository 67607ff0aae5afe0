"""Changes as they come, for many who follow: one looks for all of them, and what was read once is sent to all.

A follower is a cursor: the version of each feed's data that he has. He is given page after page behind it, and holds
nothing else: one who reads slowly is sent less often, and then what has changed meanwhile; one who reads nothing is
ended, and goes on from his cursor when he is back.
"""

import asyncio
import contextlib
import json
import re
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Final

import structlog
from starlette.concurrency import run_in_threadpool

from consumer.api import packing
from consumer.api.problems import Problem
from consumer.api.reading import Reader
from consumer.feeds.feed import Feed, Feeds
from publisher import metrics
from publisher.errors import FleetticketsError
from publisher.heartbeat import PausedBy, Pulse

LOOK_SECONDS: Final = 0.5
"""Between two looks at the versions. No notification is waited for, so none can get lost."""
AWAY_SECONDS: Final = 1.0
"""Until the next look at a database that did not answer."""
BEAT_SECONDS: Final = 15.0
"""A comment is sent so often where nothing changes, and shows who is gone."""
MAX_FOLLOWERS: Final = 400
PAGE_TICKETS: Final = 500
"""Of an event: a version has no more."""
_KEPT_PAGES = 16
_MARKS = 1000
"""Versions that were seen, of each feed."""
_CURSOR = re.compile(r"[a-z0-9_]{1,63}:[0-9]{1,18}(,[a-z0-9_]{1,63}:[0-9]{1,18})*")
_BEAT = b": nothing new\n\n"

log = structlog.get_logger()


class Cursor(dict[str, int]):
    """The version that is known of each feed, written as the id of an event: `crq:7,inc:12`."""

    def __str__(self) -> str:
        return ",".join(f"{feed}:{version}" for feed, version in sorted(self.items()))

    @classmethod
    def read(cls, written: str) -> "Cursor":
        """Raises: ValueError."""
        if not _CURSOR.fullmatch(written):
            raise ValueError(f"{written[:60]!r} is no place to go on from; like inc:12, with commas between feeds")
        pairs = [part.split(":") for part in written.split(",")]
        return cls({feed: int(version) for feed, version in pairs})


@dataclass(frozen=True, slots=True)
class LivePage:
    """A page as it is sent to all who follow, but for the id, in which each has the feeds that are his."""

    next: int
    plain: bytes
    packed: bytes


class Live:
    """The changes of the feeds that are served. For the event loop alone."""

    def __init__(self, reader: Reader, feeds: Feeds, pulse: Pulse | None = None) -> None:
        self._reader = reader
        self._pulse = pulse or Pulse()
        self._feeds = feeds
        self._followers = self._beginning = 0
        self._versions: Mapping[str, int] = {}
        self._looked_at = self._failed_at = float("-inf")
        self._failure: FleetticketsError | None = None
        self._looking, self._reading = asyncio.Lock(), asyncio.Lock()
        self._news = asyncio.Event()
        self._marks: dict[str, deque[int]] = {feed.name: deque(maxlen=_MARKS) for feed in feeds}
        self._pages: OrderedDict[tuple[str, int], asyncio.Task[LivePage]] = OrderedDict()
        self._is_over = False

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Look for those who follow, until it is over; then end them."""
        while not is_over():
            # Nobody may ask for long, and it is to be known that it is back.
            if self._followers or self._reader.is_missed:
                try:
                    await self._look()
                    self._pulse.settled()
                except FleetticketsError as error:
                    log.warning("changes cannot be seen", detail=str(error))
                    self._pulse.held_up(PausedBy.AWAY, str(error))
                    await self._be_away()
                except Exception:
                    log.exception("changes cannot be seen")
                    await self._be_away()
            else:
                self._pulse.let_up(PausedBy.AWAY)  # whoever was answered since has found that out
            await asyncio.sleep(LOOK_SECONDS)
        self._is_over = True
        self._wake()

    async def follow(self, known: Cursor, names: list[str], *, is_packed: bool = False) -> AsyncGenerator[bytes]:
        """What to send somebody who knows these versions of feeds, and of the others the ones of now.

        One stream of gzip if it is to be packed.

        Raises: Problem, before anything is sent: what he lacks is not known any more, or too many follow.
        """
        feeds = [feed for feed in self._feeds if not names or feed.name in names]
        if self._followers + self._beginning >= MAX_FOLLOWERS:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_FOLLOWERS} follow the changes; no more may", {"Retry-After": "5"}
            )
        self._beginning += 1
        try:
            sent = self._sent(feeds, await self._begun(feeds, known))
            return _packed(sent) if is_packed else _plain(sent)
        finally:
            self._beginning -= 1

    async def _begun(self, feeds: list[Feed], known: Cursor) -> Cursor:
        if monotonic() - self._looked_at > 2 * LOOK_SECONDS:
            await self._look()
        cursor = Cursor({feed.name: known.get(feed.name, self._version(feed)) for feed in feeds})
        for feed in feeds:
            if cursor[feed.name] > self._version(feed):
                await self._look()  # he was told of it by another process, a moment ago
            if cursor[feed.name] != self._version(feed):
                await self._page(feed, cursor[feed.name])
        return cursor

    async def _sent(self, feeds: list[Feed], cursor: Cursor) -> AsyncGenerator[tuple[bytes, LivePage | None]]:
        """What is his alone, and the page behind it."""
        self._followers += 1
        metrics.FOLLOWERS.set(self._followers)
        try:
            yield f"retry: 1000\nid: {cursor}\nevent: begin\ndata: {json.dumps(cursor)}\n\n".encode(), None
            while not self._is_over:
                news = self._news
                behind = [feed for feed in feeds if cursor[feed.name] != self._version(feed)]
                try:
                    for feed in behind:
                        page = await self._page(feed, cursor[feed.name])
                        cursor[feed.name] = page.next
                        metrics.EVENTS.inc()
                        yield f"id: {cursor}\n".encode(), page
                except Problem as problem:
                    # Without an id: whoever comes back with the last one is told the same, and by its status.
                    yield f"event: gone\ndata: {json.dumps({'detail': problem.detail})}\n\n".encode(), None
                    return
                except FleetticketsError as error:
                    log.warning("changes cannot be read", detail=str(error))
                    await asyncio.sleep(AWAY_SECONDS)
                    yield _BEAT, None
                    continue
                if not behind:
                    try:
                        async with asyncio.timeout(BEAT_SECONDS):
                            await news.wait()
                    except TimeoutError:
                        yield _BEAT, None
        finally:
            self._followers -= 1
            metrics.FOLLOWERS.set(self._followers)

    async def _be_away(self) -> None:
        """Wait for the database, which may come back with other data under the versions that were seen."""
        self._forget()
        await asyncio.sleep(AWAY_SECONDS)

    def _forget(self) -> None:
        self._pages.clear()
        for marks in self._marks.values():
            marks.clear()

    def _version(self, feed: Feed) -> int:
        return self._versions.get(feed.name, 0)

    async def _look(self) -> None:
        """At the versions of now; of several who wait for that, one looks."""
        asked_at = monotonic()
        async with self._looking:
            if self._looked_at >= asked_at:
                return
            if self._failure is not None and self._failed_at >= asked_at:
                raise self._failure
            looked_at = monotonic()
            try:
                found = await run_in_threadpool(self._reader.versions)
            except FleetticketsError as error:
                self._failed_at, self._failure = looked_at, error
                raise
            self._looked_at = looked_at
        if found != self._versions:
            for name, marks in self._marks.items():
                if marks and found.get(name, 0) < marks[-1]:  # restored, or set back by hand
                    self._forget()
                if found.get(name, 0) != self._versions.get(name, 0):
                    marks.append(found.get(name, 0))
            self._versions = found
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _page(self, feed: Feed, since: int) -> LivePage:
        """The one behind a version, which all who have that are given.

        It goes up to the first version behind it that was seen at a look: so those who came from wherever meet there.
        Raises: Problem, DependencyDown.
        """
        asked = (feed.name, since)
        if asked not in self._pages:
            until = min((mark for mark in self._marks[feed.name] if mark > since), default=self._version(feed))
            self._pages[asked] = asyncio.create_task(self._read(feed, since, until))
            while len(self._pages) > _KEPT_PAGES and next(iter(self._pages.values())).done():
                self._pages.popitem(last=False)
        reading = self._pages[asked]
        try:
            return await asyncio.shield(reading)
        except Exception:
            self._pages.pop(asked, None)
            raise

    async def _read(self, feed: Feed, since: int, until: int) -> LivePage:
        def read() -> LivePage:
            page = self._reader.page_of_changes(feed, since, until, PAGE_TICKETS)
            sent = f"event: changes\ndata: {page.text}\n\n".encode()
            return LivePage(page.next, sent, packing.part(sent))

        metrics.PAGES.inc()
        async with self._reading:
            return await run_in_threadpool(read)


async def _plain(sent: AsyncGenerator[tuple[bytes, LivePage | None]]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(sent) as parts:
        async for own, page in parts:
            yield own + (page.plain if page else b"")


async def _packed(sent: AsyncGenerator[tuple[bytes, LivePage | None]]) -> AsyncGenerator[bytes]:
    begin = packing.STREAM_BEGINS
    async with contextlib.aclosing(sent) as parts:
        async for own, page in parts:
            yield begin + packing.part_of_one(own) + (page.packed if page else b"")
            begin = b""
