"""The provider's limits, held over all consumers: each request is booked in the database before it is sent."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, Literal, assert_never

import structlog

from consumer.postgres import database
from consumer.postgres.database import Pool
from consumer.settings import GeocoderSettings
from publisher import metrics
from publisher.errors import FleetticketsError

Window = Literal["second", "minute", "day"]

_WAITED_FOR = 90.0
"""Seconds: a limit per second or minute is waited out, and the rest of a day is not."""
_LOOK_SECONDS = 5.0
"""How often somebody who waits looks whether it is his turn now, and still his to take."""
_REFUSED_PAUSE = timedelta(minutes=10)
_DAYS_BEGINNING = timedelta(minutes=15)
"""After 00:00 UTC by our clock the provider's may still be before it, or its count behind: no day is spent so soon."""
log = structlog.get_logger()


class Paused(FleetticketsError):
    """No request may be sent for a while; what waits for one is asked for again later."""

    def __init__(self, until: datetime, reason: str) -> None:
        super().__init__(f"the geocoder is asked nothing before {until:%Y-%m-%d %H:%M:%S %Z}: {reason}")
        self.until = until
        self.reason = reason


class Stopped(FleetticketsError):
    """Told to stop while waiting for a turn."""


def end_of_limit(window: Window, now: datetime) -> datetime:
    """When to ask again after the provider has said that a window's requests are spent."""
    match window:
        case "second":
            return now + timedelta(seconds=1)
        case "minute":
            return now + timedelta(minutes=1)
        case "day":
            midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            beginning = midnight + _DAYS_BEGINNING
            return beginning if now < beginning else midnight + timedelta(days=1)
        case _:
            assert_never(window)


class Quota:
    """One searcher's share: `book` before each request, `ended` after its answer. For one thread.

    `require_turn` is called before each request, and now and again while one is waited for; its errors pass.
    """

    def __init__(
        self,
        pool: Pool,
        settings: GeocoderSettings,
        stop: Event,
        require_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._stop = stop
        self._require_turn = require_turn
        self._open: int | None = None

    def book(self) -> None:
        """Wait for a turn, and take it.

        Raises: Paused, when that would take long; Stopped; DependencyDown.
        """
        self.ended(failed=True)  # who asks again without an end in between had no answer
        self._require_turn()
        while (seconds := self._try()) > 0:
            if self._stop.wait(min(seconds, _LOOK_SECONDS)):
                raise Stopped("told to stop")
            self._require_turn()

    def ended(self, *, failed: bool = False) -> None:
        """The answer is there, or given up.

        Raises: DependencyDown.
        """
        if self._open is not None:
            with database.transaction(self._pool) as connection:
                database.rows(connection, "quota", "ended", {"request_id": self._open, "is_free": failed})
            self._open = None

    def limited(self, window: Window, reason: str) -> None:
        """The provider counts otherwise than we do: everybody with this key waits, after a restart too.

        Raises: DependencyDown.
        """
        self._pause(end_of_limit(window, self._next_request()["now"]), reason)

    def refused(self, reason: str) -> None:
        """The provider takes nothing from this key until somebody mends that; look again now and then.

        Raises: DependencyDown.
        """
        self._pause(self._next_request()["now"] + _REFUSED_PAUSE, reason)

    def lift_pause(self) -> None:
        """Ask again although that was not to be: somebody says that its cause is mended.

        Raises: DependencyDown.
        """
        with database.transaction(self._pool) as connection:
            database.rows(connection, "quota", "lift_pause", {"account": self._settings.account})

    def paused(self) -> Paused | None:
        """The pause that stands now.

        Raises: DependencyDown.
        """
        found = self._next_request()
        return Paused(found["at"], found["reason"]) if found["reason"] else None

    def require_open(self) -> None:
        """Raises: Paused, when `book` would raise it; DependencyDown."""
        self._wait_of(self._next_request())

    def forget_old(self) -> None:
        """Drop the bookings that no limit asks about any more.

        Raises: DependencyDown.
        """
        with database.transaction(self._pool) as connection:
            database.rows(connection, "quota", "forget_old")

    def left(self) -> int:
        """Requests left of today's.

        Raises: DependencyDown.
        """
        found = self._next_request()
        is_spent = found["at"] is not None and found["at"] >= found["tomorrow"]
        return 0 if is_spent else max(0, self._settings.per_day - int(found["today"]))

    def _next_request(self) -> dict[str, Any]:
        with database.transaction(self._pool) as connection:
            found = database.row(connection, "quota", "next_request", self._limits())
        assert found is not None  # noqa: S101 - a query without FROM
        return found

    def _limits(self) -> dict[str, object]:
        longest = timedelta(seconds=4 * self._settings.timeout)
        return {
            "per_second": self._settings.per_second,
            "per_minute": self._settings.per_minute,
            "longest": longest,
            "account": self._settings.account,
        }

    def _try(self) -> float:
        """Book a request if one may be sent now, and give 0; else the seconds to wait before the next try."""
        with database.transaction(self._pool) as connection:
            database.row(connection, "quota", "lock_quota")
            found = database.row(connection, "quota", "next_request", self._limits())
            assert found is not None  # noqa: S101 - a query without FROM
            seconds = self._wait_of(found)
            if seconds <= 0:
                booked = database.row(connection, "quota", "book", self._limits())
                self._open = int(booked["request_id"]) if booked else None
                metrics.REQUESTS.inc()
        return max(0.0, seconds)

    def _wait_of(self, found: dict[str, Any]) -> float:
        """Give the seconds to wait for, which are not many.

        Raises: Paused.
        """
        if int(found["today"]) >= self._settings.per_day:
            raise Paused(found["tomorrow"], f"{self._settings.per_day} requests were sent today")
        seconds = float((found["at"] - found["now"]).total_seconds()) if found["at"] else 0.0
        if seconds > _WAITED_FOR:
            raise Paused(found["at"], found["reason"] or "its limits")
        return seconds

    def _pause(self, until: datetime, reason: str) -> None:
        with database.transaction(self._pool) as connection:
            pause = {"account": self._settings.account, "until": until, "reason": reason}
            database.rows(connection, "quota", "pause", pause)
