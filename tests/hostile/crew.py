"""The processes of the program that all this is done to. Nobody kills them here, so none may end by itself."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.doubles.receiver import Receiver
from tests.stage.ending import end_crew
from tests.stage.stage import Process, Stage, wait_until

CONSUMERS = 2
POLL_SECONDS = 3


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
        """In an orderly way; give what does not end well."""
        return end_crew(self._stage, self._living(self.consumers), self._living(self._others))

    def _living(self, processes: dict[str, Process]) -> dict[str, Process]:
        return {name: process for name, process in processes.items() if name not in self._dead}


def _megabytes(process: Process, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) >> 10 if found else 0
