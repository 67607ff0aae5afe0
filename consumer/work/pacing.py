"""Small files begin one after the other, so that those that come meanwhile share the next transaction.

Several at once would only be in each other's way: at the processor, and at the tickets that they have in common.
Whoever takes longer than a moment, a large file or one behind a slow store, keeps nobody else.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition
from time import monotonic


class Pacing:
    """Gives turns. Safe to share between threads."""

    def __init__(self, moment: float, clock: Callable[[], float] = monotonic) -> None:
        """After `moment` seconds a turn keeps nobody any more."""
        self._moment = moment
        self._clock = clock
        self._changed = Condition()
        self._last: object | None = None
        self._since = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Begin once the last one that began is done, or has taken its moment: those before have by then."""
        mine = object()
        with self._changed:
            while self._last is not None and (left := self._since + self._moment - self._clock()) > 0:
                self._changed.wait(left)
            self._last, self._since = mine, self._clock()
        try:
            yield
        finally:
            with self._changed:
                if self._last is mine:
                    self._last = None
                    self._changed.notify()
