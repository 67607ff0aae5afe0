"""The end of a crew: every process in an orderly way, in an order in which none leaves work to another."""

import signal
import time
from collections.abc import Iterator, Mapping

from tests.stage.broker import FILES
from tests.stage.stage import Process, Stage

ENDS_WITHIN = 60
"""Seconds after SIGTERM. What takes longer than a supervisor waits is killed."""


def end_crew(stage: Stage, consumers: Mapping[str, Process], others: Mapping[str, Process]) -> Iterator[str]:
    """End those first that make work for consumers, and these once nothing is left; give what does not end well."""
    yield from _end(others)
    until = time.monotonic() + ENDS_WITHIN
    while stage.broker.ready(FILES) and time.monotonic() < until:
        time.sleep(0.1)
    yield from _end(consumers)


def _end(processes: Mapping[str, Process]) -> Iterator[str]:
    for process in processes.values():
        process.terminate()
    for name, process in processes.items():
        status = process.wait() if process.ends_within(ENDS_WITHIN) else f"nothing within {ENDS_WITHIN} s"
        if status != 0:
            yield f"{name} ended with {status} after SIGTERM: {process.log}"
            process.signal(signal.SIGKILL)
