"""Services that a process has to do without for a while: each try that fails is a line, and one line says it is back.

Whoever waits for a service says so here, and whoever is served by it again; of many who are, the first is told.
"""

from collections.abc import Callable
from threading import Lock
from time import monotonic

import structlog

from publisher.errors import DependencyDown, FailsForThisOne, HeldByAnother, LoginRefused, NotConfirmed

_OWN = (FailsForThisOne, HeldByAnother, NotConfirmed)
"""What is in the way of one piece of work alone, although it is a dependency that fails it."""
_EXACT_SECONDS = 10
log = structlog.get_logger()


def missed_service(error: BaseException | None) -> str | None:
    """Which service is away for everybody, by what it has done to one who asked; None for any other trouble."""
    is_away = isinstance(error, LoginRefused) or (isinstance(error, DependencyDown) and not isinstance(error, _OWN))
    return error.dependency if is_away else None  # type: ignore[union-attr]


class Absences:
    """Of one process. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._since: dict[str, float] = {}

    def is_away(self, service: str) -> bool:
        return service in self._since

    @property
    def is_none_away(self) -> bool:
        return not self._since

    def missed(self, error: BaseException | None) -> str | None:
        """Note the service that is away, if that is what the error says, and give it."""
        service = missed_service(error)
        if service is not None:
            with self._lock:
                self._since.setdefault(service, self._clock())
        return service

    def wait(self, error: BaseException | None, seconds: float) -> str | None:
        """The same of somebody who tries again in so many seconds, and says so."""
        log.warning("waiting", detail=str(error), retry_in_s=round(seconds, 2))
        return self.missed(error)

    def served(self, *services: str, began: float | None = None) -> None:
        """Note that they do what they are asked; of work that `began` before they were missed that says nothing."""
        with self._lock:
            now = self._clock()
            ended = {
                service: now - since
                for service in services
                if (since := self._since.get(service)) is not None and (began is None or began > since)
            }
            for service in ended:
                del self._since[service]
        for service, seconds in ended.items():
            told = f"{seconds:.0f}" if seconds >= _EXACT_SECONDS else f"{seconds:.1f}"
            log.info("back", detail=f"{service} is back after {told} s", away_s=round(seconds, 1))
