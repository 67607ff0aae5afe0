"""A signal ends what runs, whenever it comes."""

import signal
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from publisher.program import stop_on_signals


@pytest.fixture
def stop() -> Iterator[Event]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield stop_on_signals()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_another_one_is_taken_waits_for_nothing(stop: Event, number: signal.Signals) -> None:
    """The event is then in the hands of whoever was interrupted, who goes on only after the handler."""
    handler = signal.getsignal(number)
    assert callable(handler)
    with stop._cond:  # type: ignore[attr-defined]  # noqa: SLF001 - as its own methods do
        taking = Thread(target=handler, args=(number, None), daemon=True)
        taking.start()
        taking.join(10)
        assert not taking.is_alive()
    assert stop.wait(10)
