"""The broker's answers find the messages they are for."""

import asyncio
from collections.abc import Callable

import pytest

from publisher.broker.confirms import Confirms
from publisher.errors import NotConfirmed


def outcomes(limit: int, *answers: Callable[[Confirms], None], messages: int = 4) -> list[str]:
    """What became of messages named 1, 2, … after the answers: "ok", the reason of a failure, or "waits"."""

    async def run() -> list[str]:
        confirms = Confirms(limit)
        futures = [confirms.published(str(number + 1)) for number in range(messages)]
        for answer in answers:
            answer(confirms)
        found = ["waits" if not future.done() else reason(future) for future in futures]
        assert len(confirms) == found.count("waits")
        return found

    return asyncio.run(run())


def reason(future: "asyncio.Future[None]") -> str:
    error = future.exception()
    return error.reason if isinstance(error, NotConfirmed) else "ok"


def ack(tag: int, *, multiple: bool = False) -> Callable[[Confirms], None]:
    return lambda confirms: confirms.settle(tag, multiple=multiple, taken=True)


def nack(tag: int, *, multiple: bool = False) -> Callable[[Confirms], None]:
    return lambda confirms: confirms.settle(tag, multiple=multiple, taken=False)


def test_one_answer_is_for_one_message() -> None:
    assert outcomes(9, ack(2), nack(4)) == ["waits", "ok", "waits", "nacked"]


def test_an_answer_for_multiple_is_for_all_up_to_its_tag() -> None:
    assert outcomes(9, ack(3, multiple=True)) == ["ok", "ok", "ok", "waits"]
    assert outcomes(9, nack(1), ack(3, multiple=True)) == ["nacked", "ok", "ok", "waits"]
    assert outcomes(9, nack(4, multiple=True)) == ["nacked"] * 4


def test_a_returned_message_fails_although_it_is_confirmed() -> None:
    assert outcomes(9, lambda c: c.returned("2", "no queue"), ack(3, multiple=True)) == [
        "ok", "unroutable", "ok", "waits",
    ]  # fmt: skip


def test_an_answer_that_is_for_nothing_changes_nothing() -> None:
    assert outcomes(9, ack(1), ack(1), ack(77), lambda c: c.returned("77", "no queue")) == ["ok", *["waits"] * 3]


def test_a_lost_connection_ends_every_wait() -> None:
    assert outcomes(9, ack(1), lambda c: c.lose("gone")) == ["ok", "away", "away", "away"]


def test_a_message_whose_sender_gave_up_counts_until_it_is_answered() -> None:
    async def run() -> None:
        confirms = Confirms(1)
        future = confirms.published("1")
        future.cancel()
        with pytest.raises(NotConfirmed, match="1 messages wait"):
            confirms.require_room()
        confirms.settle(1, multiple=False, taken=True)
        confirms.require_room()

    asyncio.run(run())
