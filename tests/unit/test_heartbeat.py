"""What a process says of itself comes from the loop that works."""

import pytest

from publisher.errors import DependencyDown, HeldByAnother
from publisher.heartbeat import Pause, PausedBy, Pulse, Sign


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_in_hand_for_longest_is_told_and_named_only_then() -> None:
    clock, named = Clock(), []
    pulse = Pulse(clock)

    def name(of: str) -> str:
        named.append(of)
        return of

    for what in ("a", "b"):
        pulse.took(what, lambda what=what: name(what))  # type: ignore[misc]
        clock.now += 10
    assert pulse.sign() == Sign("a", 20, None, None)
    pulse.let_go("a")
    assert pulse.sign() == Sign("b", 10, None, None)
    pulse.let_go("b")
    pulse.let_go("b")
    assert pulse.sign() == Sign(None, None, None, None)
    assert named == ["a", "b"]


def test_a_pause_counts_from_its_beginning_and_ends_with_what_is_settled() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.held_up(PausedBy.AWAY, "first")
    clock.now += 5
    pulse.held_up(PausedBy.AWAY, "second")
    assert pulse.sign().pause == Pause(PausedBy.AWAY, "second", 5)
    pulse.held_up(PausedBy.LOCK, "third")
    assert pulse.sign().pause == Pause(PausedBy.LOCK, "third", 0)
    pulse.settled()
    clock.now += 3
    assert pulse.sign() == Sign(None, None, None, 3)


def test_a_pause_ends_with_its_cause_too_and_that_by_a_lock_when_it_is_not_met_again() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.held_up(PausedBy.AWAY, "away")
    pulse.let_up(PausedBy.LOCK)
    assert pulse.sign().pause is not None
    pulse.let_up(PausedBy.AWAY)
    assert pulse.sign().pause is None
    pulse.held_up(PausedBy.LOCK, "locked")
    clock.now += 100
    pulse.held_up(PausedBy.LOCK, "locked")
    clock.now += 100
    assert pulse.sign().pause == Pause(PausedBy.LOCK, "locked", 200)
    clock.now += 20
    assert pulse.sign().pause is None


def test_what_everything_fails_by_is_told_before_all_else() -> None:
    pulse = Pulse(Clock())
    pulse.held_up(PausedBy.AWAY, "away")
    fails = Pause(PausedBy.EVERYTHING_FAILS, "broken", 1)
    pulse.look_at(lambda: fails)
    assert pulse.sign().pause == fails


def test_a_piece_of_work_that_breaks_is_not_settled() -> None:
    pulse = Pulse(Clock())
    with pulse.at("work"):
        assert pulse.sign().in_hand == "work"
    assert pulse.sign() == Sign(None, None, None, 0)
    broken = Pulse(Clock())
    with pytest.raises(DependencyDown), broken.noting_absence(), broken.at("work"):
        raise DependencyDown("bucket", "away")
    assert broken.sign() == Sign(None, None, Pause(PausedBy.AWAY, "bucket is not available: away", 0), None)
    waiting = Pulse(Clock())
    with pytest.raises(HeldByAnother), waiting.noting_absence():
        raise HeldByAnother("poll", "another is at it")
    assert waiting.sign().pause is None
