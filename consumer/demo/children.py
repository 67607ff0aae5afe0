"""The demo's processes: started with a log file each, ended by their pid, none left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import consumer
from publisher.errors import FleetticketsError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODE = Path(consumer.__file__).resolve().parents[1]
"""Where the packages are: in a checkout its root."""


class DemoFailed(FleetticketsError):
    """The demo cannot go on."""


class Signalled(BaseException):
    """A signal asks the demo to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours; `log` has what it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raises: DemoFailed."""
        status = self.process.poll()
        if status is not None:
            how = f"with status {status}: {last_line(self.log)}" if status > 0 else f"with status {status}"
            raise DemoFailed(f"{self.name} ended {how} (see {self.log})")


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Signalled at the first signal, wherever the main thread is; further ones change nothing."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        no_more_interruptions()
        raise Signalled(number)

    before = [signal.signal(number, interrupt) for number in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def no_more_interruptions() -> None:
    """Let the cleaning up run to its end: each of its steps is bounded."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def finish(child: Child, *, seconds: float) -> None:
    """Wait for a process that ends by itself.

    Raises: DemoFailed, when it fails or takes longer.
    """
    try:
        status = child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{child.name} took more than {seconds:.0f} s (see {child.log})") from None
    if status:
        child.require_alive()


def start(arguments: list[str], environment: dict[str, str], log: Path) -> Child:
    """Start `python -m ARGUMENTS`, away from the terminal's Ctrl-C and from any `.env` file."""
    with log.open("wb") as output:
        return Child(
            arguments[1], popen([sys.executable, "-m", *arguments], environment, output, output, log.parent), log
        )


def popen(
    argv: list[str], environment: dict[str, str], output: IO[bytes] | int, errors: IO[bytes] | int, place: Path
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, with `environment` and what the demo's own process needs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETTICKETS_", "GEOCODER_"))}
    return subprocess.Popen(  # noqa: S603 - our own programs
        argv,
        env=kept | {"PYTHONPATH": str(CODE)} | environment,
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def stop(children: list[Child], *, seconds: float = 20) -> None:
    """Ask all to end at once, wait for them together, and kill what is left."""
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    end = time.monotonic() + seconds
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, end - time.monotonic()))
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]
