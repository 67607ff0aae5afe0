from threading import Event

import pytest

from consumer.work.breaker import Breaker, EverythingFails


class Impatient(Event):
    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        return self.is_set()


STOP = Impatient()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def opened(clock: Clock, limit: int = 3) -> Breaker:
    breaker = Breaker(limit, clock)
    for _ in range(limit - 1):
        breaker.failed("broken")
    with pytest.raises(EverythingFails):
        breaker.failed("broken")
    return breaker


def test_fewer_failures_than_the_limit_are_recorded() -> None:
    breaker = Breaker(3)
    for _ in range(2):
        breaker.failed("broken")
    assert breaker.turn(STOP, 1, again=True)


def test_what_failed_before_the_process_began_counts() -> None:
    assert Breaker(3, failed_before=2).turn(STOP, 1, again=True)
    with pytest.raises(EverythingFails):
        Breaker(3, failed_before=2).failed("broken")
    clock = Clock()
    breaker = Breaker(3, clock, failed_before=3)
    assert breaker.turn(STOP, 1, again=True), "the first probe comes at once"
    with pytest.raises(EverythingFails):
        breaker.failed("broken")
    breaker.succeeded()
    breaker.failed("broken")


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(3)
    for number in range(30):
        breaker.failed("broken")
        if number % 2:
            breaker.succeeded()


def test_open_it_lets_one_try_at_a_time_after_growing_pauses() -> None:
    clock = Clock()
    breaker = opened(clock)
    began, tried = clock.now, []
    while clock.now < began + 200:
        if breaker.turn(STOP, 0.05, again=True):
            tried.append(clock.now - began)
            with pytest.raises(EverythingFails):
                breaker.failed("broken")
    pauses = [round(later - before) for before, later in zip([0.0, *tried], tried, strict=False)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 30, 30]


def test_one_success_closes_it_for_all() -> None:
    breaker = opened(Clock())
    breaker.succeeded()
    assert all(breaker.turn(STOP, 0.1, again=True) for _ in range(5))


def test_a_probe_that_tells_nothing_gives_its_turn_back() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 2
    assert breaker.turn(STOP, 0.05, again=True)
    assert not breaker.turn(STOP, 0.05, again=True)
    breaker.undecided()
    assert breaker.turn(STOP, 0.1, again=True)


def test_whoever_waits_for_a_turn_is_let_go_when_stopped() -> None:
    stop = Event()
    stop.set()
    assert not opened(Clock()).turn(stop, 100, again=True)


def test_what_tells_nothing_neither_clears_the_count_nor_closes() -> None:
    breaker = Breaker(3, Clock())
    for _ in range(2):
        breaker.failed("broken")
        breaker.undecided()
    with pytest.raises(EverythingFails):
        breaker.failed("broken")
    breaker.undecided()
    with pytest.raises(EverythingFails):
        breaker.failed("broken")


def test_what_was_not_tried_yet_waits_for_a_second_and_not_for_the_growing_pause() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(8):
        clock.now += 1
        assert breaker.turn(STOP, 0.05, again=False)
        assert not breaker.turn(STOP, 0.05, again=False)
        with pytest.raises(EverythingFails):
            breaker.failed("broken")
    clock.now += 0.5
    assert not breaker.turn(STOP, 0, again=True)
