"""What a process that runs for long says of itself now and then. Pure.

The loop that works tells its pulse what it does; whoever beats only passes on what stands there. So a process whose
work hangs shows for how long, and one that stands still as a whole shows nothing new.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from time import monotonic
from typing import Protocol

from publisher.errors import DependencyDown, HeldByAnother

_LOCK_SECONDS = 120.0
"""Who is held up by a lock meets it again well within that; of one that he does not meet, others may have the file."""


class ProcessKind(StrEnum):
    """What runs for long."""

    CONSUMER = "consumer"
    POLLER = "poller"
    WEBHOOK = "webhook"
    SQS = "sqs"
    SERVE = "serve"


class PausedBy(StrEnum):
    """Why a process gets nowhere: a reason in none of its messages, somebody's lock, a service that is away."""

    EVERYTHING_FAILS = "everything fails"
    LOCK = "lock"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Pause:
    """For so many seconds."""

    by: PausedBy
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Sign:
    """How it stands now; ages in seconds, which mean the same by every clock."""

    in_hand: str | None
    in_hand_seconds: float | None
    pause: Pause | None
    settled_seconds: float | None


@dataclass(frozen=True, slots=True)
class _Held:
    """What is in the way since then, and was met last at `met`."""

    by: PausedBy
    why: str
    since: float
    met: float


def _no_pause() -> Pause | None:
    return None


def _nothing() -> None:
    pass


class Pulse:
    """What one process does. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._in_hand: dict[Hashable, tuple[float, Callable[[], str]]] = {}
        self._settled_at: float | None = None
        self._held: _Held | None = None
        self._look: Callable[[], Pause | None] = _no_pause
        self._turned_at = clock()
        self._each_turn: Callable[[], None] = _nothing

    def look_at(self, pause: Callable[[], Pause | None]) -> None:
        """Ask there first whether it is paused."""
        self._look = pause

    def each_turn(self, tell: Callable[[], None]) -> None:
        """Tell somebody else too that the loop has come round."""
        self._each_turn = tell

    def turned(self) -> None:
        """Come round: the loop that works does so every second or so, also where there is nothing to do."""
        self._turned_at = self._clock()
        self._each_turn()

    @property
    def turned_seconds(self) -> float:
        """Since it did."""
        return self._clock() - self._turned_at

    def took(self, what: Hashable, name: Callable[[], str]) -> None:
        """Begin to work on something; what it is called is asked only when it has taken long."""
        with self._lock:
            self._in_hand[what] = (self._clock(), name)

    def let_go(self, what: Hashable) -> None:
        with self._lock:
            self._in_hand.pop(what, None)

    def settled(self) -> None:
        """Be done with something: whatever was in the way is so no more."""
        with self._lock:
            self._settled_at = self._clock()
            self._held = None

    def held_up(self, by: PausedBy, why: str) -> None:
        """Get nowhere; it counts from the first time since something was settled."""
        with self._lock:
            now = self._clock()
            since = self._held.since if self._held and self._held.by is by else now
            self._held = _Held(by, why, since, now)

    def let_up(self, by: PausedBy) -> None:
        """Be held up by that no more, whatever was settled meanwhile."""
        with self._lock:
            if self._held and self._held.by is by:
                self._held = None

    @contextmanager
    def noting_absence(self) -> Iterator[None]:
        """Note a dependency that is away, which ends what is tried."""
        self.turned()
        try:
            yield
        except DependencyDown as error:
            if not isinstance(error, HeldByAnother):
                self.held_up(PausedBy.AWAY, str(error))
            raise

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Do a piece of work; it is settled unless it breaks."""
        self.took(what, lambda: what)
        try:
            yield
            self.settled()
        finally:
            self.let_go(what)

    def sign(self) -> Sign:
        paused = self._look()
        with self._lock:
            now = self._clock()
            oldest = min(self._in_hand.values(), key=lambda one: one[0], default=None)
            held, settled_at = self._held, self._settled_at
        is_over = held is not None and held.by is PausedBy.LOCK and now - held.met >= _LOCK_SECONDS
        if paused is None and held is not None and not is_over:
            paused = Pause(held.by, held.why, now - held.since)
        return Sign(
            in_hand=oldest[1]() if oldest else None,
            in_hand_seconds=now - oldest[0] if oldest else None,
            pause=paused,
            settled_seconds=now - settled_at if settled_at is not None else None,
        )


class Beating(Protocol):
    """Says of a process how its pulse is, for as long as the context lasts; never in the way of its work."""

    def __call__(
        self, kind: ProcessKind, pulse: Pulse, *, feeds: Sequence[str] = (), queues: Sequence[str] = ()
    ) -> AbstractContextManager[None]: ...
