"""How much at once is read for those who ask, and how often one of them may."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool

from consumer.api.problems import Problem

WAIT_SECONDS: Final = 1.0
"""For a turn. Whoever would wait longer is told so, and holds nothing meanwhile."""
_BURST_SECONDS: Final = 2.0
"""Of the rate may come at once, as a page does that opens."""
_KNOWN: Final = 10_000

Answer = TypeVar("Answer")


class Turns:
    """So many looks into the database at once, each in a thread. For the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = asyncio.Semaphore(most)

    async def take(self, look: Callable[[], Answer]) -> Answer:
        """What the look gives. Raises: Problem, when no turn comes soon; what the look raises."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"all {self._most} connections of FLEETTICKETS_API_CONNECTIONS are at work; ask again in a moment",
                {"Retry-After": "2"},
            ) from None
        try:
            return await run_in_threadpool(look)
        finally:
            self._free.release()


class Rates:
    """Requests of each who asks: so many a second, and some of them at once. For the event loop alone."""

    def __init__(self, per_second: float, now: Callable[[], float] = monotonic) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * _BURST_SECONDS)
        self._now = now
        # How many are left to each, and as of when; who has asked last is last.
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def count(self, who: object) -> None:
        """Count a request. Raises: Problem, for one too many."""
        now = self._now()
        left, since = self._left.pop(who, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        self._left[who] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _KNOWN:
            self._left.popitem(last=False)
        if left < 1:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._per_second:g} requests a second of one token and address; FLEETTICKETS_API_RATE "
                "has how many may be",
                {"Retry-After": "1"},
            )
