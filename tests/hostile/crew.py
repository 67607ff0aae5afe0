"""The processes of the program that all this is done to. Nobody kills them here, so none may end by itself."""

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.doubles.receiver import Receiver
from tests.stage.broker import FILES
from tests.stage.stage import Process, Stage, wait_until

CONSUMERS = 2
POLL_SECONDS = 3
ENDS_WITHIN = 60
"""Seconds after SIGTERM. What takes longer than a supervisor waits is killed."""


class Crew:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._dead: set[str] = set()
        self.consumers = {f"consumer {number}": stage.start("consume") for number in range(CONSUMERS)}
        self.receiver = Receiver(stage)
        self._others = {"poller": stage.start("poll", "--every", str(POLL_SECONDS)), "receiver": self.receiver.process}
        for process in self.consumers.values():
            wait_until(lambda process=process: "consuming" in process.output(), "a consumer is there")  # type: ignore[misc]
        self.receiver.wait()

    @property
    def processes(self) -> dict[str, Process]:
        return self.consumers | self._others

    def newly_dead(self) -> Iterator[str]:
        for name, process in self.processes.items():
            if name not in self._dead and not process.running:
                self._dead.add(name)
                yield f"{name} ended by itself with {process.wait()}: {process.log}"

    def resident(self) -> dict[str, int]:
        """Megabytes of memory that each process has now."""
        return {name: _megabytes(process, "VmRSS") for name, process in self.processes.items() if process.running}

    def peaks(self) -> dict[str, int]:
        """The most that each has had."""
        return {name: _megabytes(process, "VmHWM") for name, process in self.processes.items() if process.running}

    def stop(self) -> Iterator[str]:
        """End them in an orderly way, those first that make work for the others; give what does not end well."""
        yield from self._end(self._others)
        until = time.monotonic() + ENDS_WITHIN
        while self._stage.broker.ready(FILES) and time.monotonic() < until:
            time.sleep(0.1)
        yield from self._end(self.consumers)

    def _end(self, processes: dict[str, Process]) -> Iterator[str]:
        for process in processes.values():
            process.terminate()
        for name, process in processes.items():
            if name in self._dead:
                continue
            status = process.wait() if process.ends_within(ENDS_WITHIN) else f"nothing within {ENDS_WITHIN} s"
            if status != 0:
                yield f"{name} ended with {status} after SIGTERM: {process.log}"
                process.signal(signal.SIGKILL)


def _megabytes(process: Process, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) >> 10 if found else 0
