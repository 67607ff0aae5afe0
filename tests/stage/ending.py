"""The end of a crew: every process in an orderly way, in an order in which none leaves work to another."""

import signal
import time
from collections.abc import Iterator, Mapping

import requests

from publisher.broker.topology import RETRY_DELAYS, retry_exchange
from tests.stage.broker import FILES
from tests.stage.stage import Process, Stage

ENDS_WITHIN = 60
"""Seconds after SIGTERM. What takes longer than a supervisor waits is killed."""
_SETTLED_SECONDS = 6
"""Without work for so long: the management API counts what is in hand every five seconds."""


def end_crew(stage: Stage, consumers: Mapping[str, Process], others: Mapping[str, Process]) -> Iterator[str]:
    """End those first that make work for consumers, and these once nothing is left; give what does not end well."""
    yield from _end(others)
    until = time.monotonic() + ENDS_WITHIN
    worked = time.monotonic()
    while (now := time.monotonic()) < min(until, worked + _SETTLED_SECONDS):
        if _has_work(stage):
            worked = now
        time.sleep(0.1)
    yield from _end(consumers)


def _has_work(stage: Stage) -> bool:
    """In the queue, in hand, where it is to be known, or put aside for a moment."""
    aside = (retry_exchange(delay) for delay in RETRY_DELAYS[:2])
    try:
        return any(stage.broker.ready(queue) for queue in (FILES, *aside)) or stage.broker.held(FILES) > 0
    except requests.RequestException:  # the management API is up later than its broker
        return True


def _end(processes: Mapping[str, Process]) -> Iterator[str]:
    for process in processes.values():
        process.terminate()
    for name, process in processes.items():
        status = process.wait() if process.ends_within(ENDS_WITHIN) else f"nothing within {ENDS_WITHIN} s"
        if status != 0:
            yield f"{name} ended with {status} after SIGTERM: {process.log}"
            process.signal(signal.SIGKILL)
