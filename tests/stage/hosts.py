"""Hosts of their own on this machine: network namespaces with a cable each, at whose other end the services are."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.stage.program import PROGRAM
from tests.stage.stage import Process, Stage

_WHERE = ("DATABASE_URL", "RABBITMQ_URL", "RUSTFS_ENDPOINT")
_LOOPBACK = re.compile(r"(?<=[@/])(127\.0\.0\.1|localhost)(?=[:/])")


class Host:
    """One of them; services of ours, which listen on loopback, are reached at this end of its cable."""

    def __init__(self, number: int, milliseconds: float, stage: Stage) -> None:
        # Of a range that is for measuring networks, and is nobody's.
        self.name, self.here = f"ft{os.getpid() % 100_000}-{number}", f"198.18.{number}.1"
        there, self._cable = f"198.18.{number}.2/30", f"ft{os.getpid() % 100_000}v{number}"
        self._stage = stage
        self.environment = {name: _LOOPBACK.sub(self.here, stage.environment[name]) for name in _WHERE}
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("addr", "add", f"{self.here}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        for command in (
            ("addr", "add", there, "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self.name, *command)
        ports = [str(urlsplit(url).port) for url in self.environment.values()]
        self._forwarding = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forwarding.py")), str(milliseconds), self.here, *ports],
            stdout=subprocess.PIPE,
        )
        assert self._forwarding.stdout is not None
        assert self._forwarding.stdout.readline() == b"ready\n"

    def start(self, *arguments: str) -> Process:
        log = self._stage.folder / f"{len(self._stage.processes)}-{self.name}-{arguments[0]}.log"
        with log.open("wb") as out:
            begun = subprocess.Popen(
                ["ip", "netns", "exec", self.name, PROGRAM, *arguments], cwd=self._stage.folder,
                env=self._stage.environment | self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        process = Process(begun, log)
        self._stage.processes.append(process)
        return process

    def unplug(self) -> None:
        """No packet comes through any more, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        self._forwarding.kill()
        self._forwarding.wait()
        if self._forwarding.stdout is not None:
            self._forwarding.stdout.close()
        for command in (("link", "del", self._cable), ("netns", "del", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*command)


@contextlib.contextmanager
def hosts(stage: Stage, count: int, milliseconds: float = 0) -> Iterator[list[Host]]:
    """So many, each so far away one way. What runs there is killed at the end."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces are root's")
    made: list[Host] = []
    try:
        for number in range(count):
            made.append(Host(number, milliseconds, stage))  # noqa: PERF401 - each is removed that was made
        yield made
    finally:
        stage.end()
        for host in made:
            host.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
