"""What waits for the threads of a pool: taken in the order in which it came, one item or several that go together."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pending(Generic[Item]):
    """Items, and a call for a thread that takes some of them. Safe to share between threads.

    Whoever takes several leaves none to others who were called for them, and what is submitted to the pool besides
    would stand behind those; so only one is called for at a time: the next one once he has taken.
    """

    def __init__(self, pool: ThreadPoolExecutor, begin: Callable[[], None]) -> None:
        """`begin` is what a thread does; it takes once."""
        self._pool = pool
        self._begin = begin
        self._lock = Lock()
        self._items: deque[Item] = deque()
        self._is_called = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def add(self, item: Item) -> None:
        with self._lock:
            self._items.append(item)
            is_to_call, self._is_called = not self._is_called, True
        if is_to_call:
            self._call()

    def take(self, most: int, goes_with: Callable[[Item, Sequence[Item]], bool]) -> list[Item]:
        """The first one, and those behind it that go with those before."""
        taken: list[Item] = []
        others: deque[Item] = deque()
        with self._lock:
            for item in self._items:
                is_next = len(taken) < most and (not taken or goes_with(item, taken))
                (taken if is_next else others).append(item)
            self._items = others
            self._is_called = is_to_call = bool(others)
        if is_to_call:
            self._call()
        return taken

    def _call(self) -> None:
        try:
            self._pool.submit(self._begin)
        except RuntimeError:
            # The pool is shut down: what waits is unacked, and goes back to its queue. Or there is no thread to be had
            # now, and the next item calls again.
            self._is_called = False
