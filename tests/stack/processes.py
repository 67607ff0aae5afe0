"""Processes that outlive the command that started them, found again by what they were started with.

No pid is written down: a process is ours when its program and its command line say so, and that is looked up
at the moment of the signal, through a pidfd, so that a reused pid is never hit.
"""

import contextlib
import http.client
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")


class StackError(Exception):
    """A service that did not come up; `log` is the file that says why."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Keep few variables: the caller's PG*, RABBITMQ_*, CEPH_* and PYTHON* would change what services do."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept["PATH"] = kept.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    return {**kept, "LANG": "C.UTF-8", **(extra or {})}


def spawn(argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start it in a session of its own: neither Ctrl-C nor the end of the caller's terminal reaches it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            env=environment(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def call(argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, timeout: float = 120) -> None:
    """Run a short command that has to succeed; what it prints goes to `log`."""
    program = Path(argv[0]).name
    with log.open("ab") as out:
        try:
            done = subprocess.run(
                argv,
                env=environment(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            raise StackError(f"{program} took more than {timeout:.0f} s", log) from slow
    if done.returncode:
        raise StackError(f"{program} ended with status {done.returncode}", log)


def find(program: str, mark: str) -> list[int]:
    """Pids whose command is `program` (a base name) and whose command line has `mark` in it."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if _is(pid, program, mark)]


def stop(program: str, mark: str, *, by: signal.Signals = signal.SIGKILL, grace: float | None = 5) -> None:
    """Send `by`, wait up to `grace` seconds for the end, then SIGKILL; None sends and leaves it at that."""
    for pid in find(program, mark):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if _is(pid, program, mark):
                    signal.pidfd_send_signal(handle, by)
                    if grace is not None and not _ended(handle, grace):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)
                        _ended(handle, grace)
            finally:
                os.close(handle)


def wait_until(
    answers: Callable[[], bool], *, process: subprocess.Popen[bytes], log: Path, seconds: float = 60
) -> None:
    end = time.monotonic() + seconds
    while not answers():
        if process.poll() is not None:
            raise StackError(f"it ended with status {process.returncode} while starting", log)
        if time.monotonic() > end:
            # A wrapper that has not come to the real program yet is not found by name.
            os.killpg(process.pid, signal.SIGKILL)
            raise StackError(f"no answer within {seconds:.0f} s", log)
        time.sleep(0.05)


def http_status(port: int, path: str, headers: Mapping[str, str] | None = None) -> int | None:
    """None when nothing answers. Not urllib, which would ask the caller's proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _is(pid: int, program: str, mark: str) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return Path(argv[0]).name == program and mark in " ".join(argv)


def _ended(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
