"""What waits is taken once each, in its order, and nobody is called for in vain."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from consumer.work.pending import Pending


class Pool:
    """Does what is submitted when it is told to."""

    def __init__(self) -> None:
        self.submitted: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], None]) -> None:
        self.submitted.append(work)

    def do_next(self) -> None:
        self.submitted.pop(0)()


def any_goes(_item: int, _others: object) -> bool:
    return True


def waiting(pool: Pool, taken: list[list[int]], most: int = 3) -> Pending[int]:
    def begin() -> None:
        taken.append(items.take(most, any_goes))

    items = Pending[int](cast("Any", pool), begin)
    return items


def test_all_are_taken_and_each_who_is_called_finds_some() -> None:
    pool, taken = Pool(), list[list[int]]()
    items = waiting(pool, taken)
    for number in range(10):
        items.add(number)
        assert len(pool.submitted) == 1
    while pool.submitted:
        pool.do_next()
        assert len(pool.submitted) <= 1
    assert [number for several in taken for number in several] == list(range(10))
    assert list(map(len, taken)) == [3, 3, 3, 1]


def test_what_is_submitted_besides_stands_behind_one_and_not_behind_all() -> None:
    pool, taken = Pool(), list[list[int]]()
    items = waiting(pool, taken, most=1)
    for number in range(10):
        items.add(number)
    pool.submit(lambda: taken.append([-1]))
    for _ in range(2):
        pool.do_next()
    assert taken == [[0], [-1]]


def test_the_next_one_is_called_for_before_work_begins() -> None:
    """As many threads are at work as the pool has."""
    pool, taken = Pool(), list[list[int]]()
    items = waiting(pool, taken, most=1)
    for number in range(3):
        items.add(number)
    assert items.take(1, any_goes) == [0]
    assert len(pool.submitted) == 2


def test_those_that_do_not_go_along_are_next() -> None:
    pool, taken = Pool(), list[list[int]]()

    def begin() -> None:
        taken.append(items.take(9, lambda item, others: item % 2 == others[0] % 2))

    items = Pending[int](cast("Any", pool), begin)
    for number in range(5):
        items.add(number)
    while pool.submitted:
        pool.do_next()
    assert taken == [[0, 2, 4], [1, 3]]


def test_nothing_is_left_by_many_threads() -> None:
    taken: list[int] = []
    lock = threading.Lock()

    def begin() -> None:
        found = items.take(4, any_goes)
        with lock:
            taken.extend(found)

    def add(first: int) -> None:
        for number in range(first, first + 300):
            items.add(number)

    with ThreadPoolExecutor(3) as pool:
        items = Pending[int](pool, begin)
        adding = [threading.Thread(target=add, args=(first,)) for first in (0, 300, 600)]
        for thread in adding:
            thread.start()
        for thread in adding:
            thread.join()
        end = time.monotonic() + 60
        while len(taken) < 900 and time.monotonic() < end:
            time.sleep(0.01)
    assert sorted(taken) == list(range(900))


def test_a_pool_that_is_shut_down_is_no_error() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    Pending[int](pool, lambda: None).add(1)


def test_a_call_that_nobody_took_is_made_again() -> None:
    taken = list[list[int]]()

    class Full(Pool):
        is_full = True

        def submit(self, work: Callable[[], None]) -> None:
            if self.is_full:
                raise RuntimeError("can't start new thread")
            super().submit(work)

    pool = Full()
    items = waiting(pool, taken)
    items.add(1)
    pool.is_full = False
    items.add(2)
    pool.do_next()
    assert taken == [[1, 2]]
