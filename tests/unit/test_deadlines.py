"""A part that says nothing is not waited for, and one that answers is, however long it takes."""

from collections.abc import Iterator
from threading import Event

import pytest

from consumer.upkeep.deadlines import Answered, Look, NoAnswer
from publisher.errors import Misconfigured


@pytest.fixture
def end() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


def test_what_is_found_is_given() -> None:
    assert Look("part", 30, lambda _answered: 7).found() == 7


def test_what_it_raises_is_raised() -> None:
    def read(_answered: Answered) -> int:
        raise Misconfigured("no such thing")

    with pytest.raises(Misconfigured, match="no such thing"):
        Look("part", 30, read).found()


def test_silence_is_told_by_a_look_that_is_not_over(end: Event) -> None:
    look = Look("broker", 0.05, lambda _answered: end.wait())
    for _ in range(2):
        with pytest.raises(NoAnswer, match="it has not answered for 0 s"):
            look.found()
    assert not look.is_over
    end.set()


def test_each_answer_is_a_sign_of_life() -> None:
    begun = Event()

    def read(answered: Answered) -> int:
        begun.wait()
        for _ in range(6):
            Event().wait(0.5)
            answered()
        return 7

    look = Look("bucket", 2, read)
    begun.set()
    assert look.found() == 7
