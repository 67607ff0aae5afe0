"""Who begins waits for the one before him, and no longer than a moment."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from consumer.work.pacing import Pacing

LONG = 60.0


@contextmanager
def waiting(pacing: Pacing, began: threading.Event) -> Iterator[threading.Thread]:
    """Somebody else who takes a turn, and is done at once."""

    def take() -> None:
        with pacing.turn():
            began.set()

    other = threading.Thread(target=take)
    other.start()
    yield other
    other.join(LONG)
    assert not other.is_alive()


def test_one_begins_after_the_other() -> None:
    pacing, began = Pacing(LONG), threading.Event()
    first = pacing.turn()
    first.__enter__()
    with waiting(pacing, began):
        assert not began.wait(0.05)
        first.__exit__(None, None, None)
        assert began.wait(LONG)


def test_nobody_waits_when_nobody_is_at_work() -> None:
    pacing = Pacing(LONG)
    for _ in range(3):
        with pacing.turn():
            pass


def test_whoever_takes_longer_than_a_moment_keeps_nobody() -> None:
    pacing, began = Pacing(0.05), threading.Event()
    with pacing.turn(), waiting(pacing, began):
        assert began.wait(LONG)


def test_who_is_slow_gives_nobody_elses_turn_back() -> None:
    """The one that took longer is done while a later one is at work: the next one waits for that."""
    now = 0.0
    pacing, began = Pacing(1.0, clock=lambda: now), threading.Event()
    slow, later = pacing.turn(), pacing.turn()
    slow.__enter__()
    now = 2.0
    later.__enter__()
    slow.__exit__(None, None, None)
    with waiting(pacing, began):
        assert not began.wait(0.05)
        later.__exit__(None, None, None)
        assert began.wait(LONG)


def test_two_begin_some_time_apart() -> None:
    now = 0.0
    pacing, began = Pacing(LONG, apart=0.1, clock=lambda: now), threading.Event()
    with pacing.turn():
        pass
    with waiting(pacing, began):
        assert not began.wait(0.3)
        now = 0.1
        assert began.wait(LONG)


def test_where_there_is_enough_to_do_nothing_more_is_waited_for() -> None:
    pacing, began = Pacing(LONG, apart=LONG), time.monotonic()
    for _ in range(3):
        with pacing.turn(is_enough=lambda: True):
            pass
    assert time.monotonic() - began < LONG / 2


def test_who_waits_is_told_that_there_is_enough_by_now() -> None:
    pacing, began, enough = Pacing(LONG, apart=LONG), threading.Event(), threading.Event()
    with pacing.turn():
        pass

    def take() -> None:
        with pacing.turn(is_enough=enough.is_set):
            began.set()

    other = threading.Thread(target=take)
    other.start()
    assert not began.wait(0.05)
    enough.set()
    pacing.look()
    assert began.wait(LONG / 2)
    other.join(LONG)


def test_enough_to_do_is_no_reason_to_begin_beside_another_one() -> None:
    pacing, began = Pacing(LONG, apart=LONG), threading.Event()

    def take() -> None:
        with pacing.turn(is_enough=lambda: True):
            began.set()

    other = threading.Thread(target=take)
    with pacing.turn():
        other.start()
        assert not began.wait(0.05)
    assert began.wait(LONG)
    other.join(LONG)


def test_a_turn_that_ends_with_an_error_is_given_back() -> None:
    pacing = Pacing(LONG)
    with suppress(RuntimeError), pacing.turn():
        raise RuntimeError
    began = time.monotonic()
    with pacing.turn():
        pass
    assert time.monotonic() - began < LONG / 2
