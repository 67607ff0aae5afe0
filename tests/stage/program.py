"""The program in processes of its own.

Python needs longer to import the program than most commands take. So one process imports it, once per test run, and
each start is a fork of that process: a real process with its own number, environment, folder, files and signals, which
begins where the installed script begins, in `main`. Only its command line, and what Python reads before it begins, are
not its own: a test that looks at those executes the installed script, and so do a few that would not need to.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

CLOCK_BEHIND = "TESTS_CLOCK_BEHIND_SECONDS"
"""In a fork's environment: by how much the clock that our modules read is behind. That of its libraries is right."""
PROGRAM = str(Path(sys.executable).with_name("fleettickets"))

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["consumer.program", "uvicorn", "fastapi", __name__, "tests.stage.preloaded"])


class Forked:
    """As much of `subprocess.Popen` as is used, for a fork."""

    def __init__(
        self, arguments: Iterable[str], environment: Mapping[str, str], folder: Path, out: Path, err: Path
    ) -> None:
        for path in (out, err):
            path.write_bytes(b"")
        given = (["fleettickets", *arguments], dict(environment), folder, out, err)
        # A daemon in the sense of this library: it does not outlive the tests.
        self._process = _FORKS.Process(target=_run, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            raise subprocess.TimeoutExpired("fleettickets", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def executed(
    arguments: Iterable[str], environment: Mapping[str, str], folder: Path, out: Path, err: Path
) -> "subprocess.Popen[bytes]":
    """Begin the installed script."""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stdout if err == out else stderr,
        )


def _run(arguments: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(folder)
    appending = os.O_WRONLY | os.O_APPEND
    for path, number, how in ((os.devnull, 0, os.O_RDONLY), (out, 1, appending), (err, 2, appending)):
        opened = os.open(path, how)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = arguments
    from consumer.program import main  # noqa: PLC0415 - the tests themselves have no need of it

    if behind := environment.get(CLOCK_BEHIND):
        _set_clock_back(timedelta(seconds=float(behind)))
    main()


def _set_clock_back(behind: timedelta) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - behind

    for name, module in list(sys.modules.items()):
        if name.startswith(("consumer.", "publisher.")) and getattr(module, "datetime", None) is datetime:
            module.datetime = Behind  # type: ignore[attr-defined]
