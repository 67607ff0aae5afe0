"""If everything fails, stop: the reason is then not in the files, and each try would only make one more dead letter.

Failures count when their reason is none of the file's own (`unexpected`), with no success in between: one file's first
or another's fourth. A duplicate is no success, for nothing was tried. At the limit the breaker opens: no attempt is
spent any more, deliveries go back, and one file is tried now and then as a probe: each that was not tried yet after a
second, so that twenty bad ones do not keep the good ones behind them waiting. The first that succeeds closes it.
The process pauses instead of ending, because a supervisor would start it again; and because nobody has to be awake for
it to go on. What failed before a start counts as well, so that restarts spend nothing either.
"""

from collections.abc import Callable
from threading import Event, Lock
from time import monotonic

import structlog

from publisher.errors import FleetticketsError
from publisher.heartbeat import Pause, PausedBy

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LOOK_SECONDS = 0.2
log = structlog.get_logger()


class EverythingFails(FleetticketsError):
    """This failure is one of too many in a row to be the message's own: it is to be tried later, no attempt spent."""


class Breaker:
    """Of one kind of messages in one process. Safe to share between threads."""

    def __init__(self, limit: int, clock: Callable[[], float] = monotonic, *, failed_before: int = 0) -> None:
        """`failed_before` are the failures in a row that an earlier process left: a restart is no new start."""
        self._limit = limit
        self._clock = clock
        self._lock = Lock()
        self._failures = failed_before
        self._is_open = failed_before >= limit
        self._pause = _FIRST_PAUSE
        self._next_probe = 0.0
        self._next_new = 0.0
        self._opened: tuple[float, str] = (0.0, "")
        if self._is_open:
            self._say("before this process began")

    @property
    def is_closed(self) -> bool:
        """Whether whatever comes may be tried."""
        return not self._is_open

    @property
    def pause(self) -> Pause | None:
        """Since it opened, and by what."""
        with self._lock:
            since, detail = self._opened
            return Pause(PausedBy.EVERYTHING_FAILS, detail, self._clock() - since) if self._is_open else None

    def turn(self, stop: Event, seconds: float, *, again: bool) -> bool:
        """Wait until a message may be tried: at once as a rule, else as the next probe.

        `again` says that it has been one. False when stopped before, or after `seconds`.
        """
        end = self._clock() + seconds
        while not stop.is_set():
            if self._may_try(again=again):
                return True
            if self._clock() >= end:
                break
            stop.wait(_LOOK_SECONDS)
        return False

    def failed(self, detail: str) -> None:
        """Count an unexpected failure, which returning from here allows to be recorded.

        Raises: EverythingFails.
        """
        with self._lock:
            if not self._is_open:
                self._failures += 1
                if self._failures < self._limit:
                    return
                self._is_open = True
                self._pause = _FIRST_PAUSE
                self._next_probe = self._next_new = self._clock() + self._pause
                self._say(detail)
        raise EverythingFails(f"the last {self._limit} failed alike, this one with: {detail}")

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0
            if self._is_open:
                self._is_open = False
                log.info("not everything fails any more")

    def undecided(self) -> None:
        """Give the turn back: what was tried tells nothing, such as a duplicate or a file that is itself bad."""
        with self._lock:
            now = self._clock()
            self._next_probe, self._next_new = min(self._next_probe, now), min(self._next_new, now)

    def _say(self, detail: str) -> None:
        self._opened = (self._clock(), detail)
        do = "paused, with no more attempts spent; goes on by itself once a message succeeds"
        log.error("everything fails", failures=self._failures, detail=detail, do=do)

    def _may_try(self, *, again: bool) -> bool:
        with self._lock:
            now = self._clock()
            if self._is_open:
                if now < (self._next_probe if again else self._next_new):
                    return False
                self._pause = min(2 * self._pause, _LONGEST_PAUSE) if again else self._pause
                self._next_probe = now + self._pause
                self._next_new = now + _FIRST_PAUSE
            return True
