"""Looking at what may never answer: each part in a thread of its own, and nobody waits for one that says nothing.

A server can take a connection and be silent for ever, and no library ends all waits for it. So a part that has given
no sign for its seconds is left alone; its thread ends by itself or with the process.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from threading import Event, Thread
from time import monotonic
from typing import Generic, TypeVar

from publisher.errors import DependencyDown

_PART = 0.6
Found = TypeVar("Found")
Answered = Callable[[], None]
"""Called by a part for each answer that it got: it is at work, however much there is to ask."""


def before(seconds: float) -> float:
    """How long a part may wait for somebody else, so that it can still say for whom."""
    return seconds * _PART


class NoAnswer(DependencyDown):
    """A part said nothing for too long."""

    def __init__(self, part: str, seconds: float, where: str = "") -> None:
        super().__init__(part, f"it has not answered for {seconds:.0f} s", where)
        self.args = (self.detail,)


class Look(Generic[Found]):
    """Begins to read a part at once; `found` waits for it. `where` tells the host and port that is asked."""

    def __init__(
        self, part: str, seconds: float, read: Callable[[Answered], Found], where: Callable[[], str] | None = None
    ) -> None:
        self._part = part
        self._where = where
        self._seconds = seconds
        self._read = read
        self._done = Event()
        self._result: Found | None = None
        self._error: Exception | None = None
        self._answered_at = monotonic()
        Thread(target=self._run, name=f"look at {part}", daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._done.is_set()

    def found(self) -> Found:
        """Raises: NoAnswer; what reading it raises."""
        while not self._done.wait(max(0.0, self._answered_at + self._seconds - monotonic())):
            silent = monotonic() - self._answered_at
            if silent >= self._seconds:
                raise NoAnswer(self._part, silent, self._where() if self._where else "")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value] # it is there, or the error is

    def _run(self) -> None:
        try:
            self._result = self._read(self._answer)
        except Exception as error:  # noqa: BLE001 - belongs to who waits for it, in his thread
            self._error = error
        finally:
            self._done.set()

    def _answer(self) -> None:
        self._answered_at = monotonic()


def each_in_time(
    part: str, seconds: float, asked: Iterable[Found], where: Callable[[], str] | None = None
) -> Iterator[Found]:
    """The same, each of them an answer that is waited for no longer.

    Raises: NoAnswer; what reading it raises.
    """
    left = iter(asked)
    while answer := Look(part, seconds, lambda _answered: list(islice(left, 1)), where).found():
        yield from answer
