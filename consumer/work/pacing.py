"""Small files begin one after the other, so that those that come meanwhile share the next transaction.

Several at once would only be in each other's way: at the processor, and at the tickets that they have in common.
Whoever takes longer than a moment, a large file or one behind a slow store, keeps nobody else. What is in no hurry, the
tails of files whose rows are in, begins some time apart as well, so that more go together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from threading import Condition
from time import monotonic


class Pacing:
    """Gives turns. Safe to share between threads."""

    def __init__(self, moment: float, apart: float = 0, clock: Callable[[], float] = monotonic) -> None:
        """After `moment` seconds a turn keeps nobody any more. Two begin so many seconds `apart`, for more to come."""
        self._moment = moment
        self._apart = apart
        self._clock = clock
        self._changed = Condition()
        self._last: object | None = None
        self._since = -inf

    @contextmanager
    def turn(self, is_enough: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Begin once the last one that began is done, or has taken its moment: those before have by then.

        Where there `is_enough` to do, no more is waited for; who makes it enough says `look`.
        """
        mine = object()
        with self._changed:
            while (left := self._left(is_enough)) > 0:
                self._changed.wait(left)
            self._last, self._since = mine, self._clock()
        try:
            yield
        finally:
            with self._changed:
                if self._last is mine:
                    self._last = None
                    self._changed.notify()

    def look(self) -> None:
        """There may be enough to do by now."""
        with self._changed:
            self._changed.notify_all()

    def _left(self, is_enough: Callable[[], bool]) -> float:
        """Seconds until the next one may begin."""
        ends = [self._since] if is_enough() else [self._since + self._apart]
        if self._last is not None:
            ends.append(self._since + self._moment)
        return max(ends) - self._clock()
