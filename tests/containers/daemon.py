"""A Docker daemon of the tests' own: a socket that nobody else knows, and all that it keeps under one folder.

Debian's docker.io and docker-compose. On this machine's own Docker, if it has one, nothing is built and nothing run.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import processes

from tests.compose import ROOT

FOLDER = ROOT / ".local" / "containers"
"""Images stay there from run to run."""
PACKAGES = {
    "docker.io": Path("/usr/sbin/dockerd"),
    "docker-compose": Path("/usr/bin/docker-compose"),
    "debootstrap": Path("/usr/sbin/debootstrap"),
}
_UP_WITHIN_SECONDS = 60
_DOWN_WITHIN_SECONDS = 60


class DockerFailed(Exception):
    """A command of Docker's that had to succeed; the text is what it said."""


class Docker:
    """The clients of one daemon."""

    def __init__(self, socket: Path) -> None:
        # What the machine's own clients are set to is no matter of ours.
        self._environment = processes.environment(
            {
                "DOCKER_HOST": f"unix://{socket}",
                "DOCKER_CONFIG": str(socket.parent / "config"),
                "DOCKER_BUILDKIT": "1",
                "BUILDKIT_PROGRESS": "plain",
            }
        )

    def __call__(self, *arguments: str | Path, seconds: float = 600) -> str:
        """What `docker …` prints.

        Raises: DockerFailed.
        """
        return self.run("/usr/bin/docker", *arguments, seconds=seconds)

    def run(self, *command: str | Path, seconds: float = 600) -> str:
        """What any client prints.

        Raises: DockerFailed.
        """
        done = self.ended(*command, seconds=seconds)
        if done.returncode:
            raise DockerFailed(
                f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    def ended(self, *command: str | Path, seconds: float = 600) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(word) for word in command], env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            capture_output=True, check=False, text=True, timeout=seconds,
        )  # fmt: skip

    def begin(self, *command: str, out: BinaryIO) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


@contextmanager
def daemon(*more: str) -> Iterator[Docker]:
    """Run one until the end of the block, and with it what runs in it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    socket, log = FOLDER / "docker.sock", FOLDER / "dockerd.log"
    (FOLDER / "docker.pid").unlink(missing_ok=True)
    log.write_bytes(b"")
    process = processes.spawn(
        [
            "/usr/sbin/dockerd", "--data-root", FOLDER / "data", "--exec-root", FOLDER / "exec",
            "--pidfile", FOLDER / "docker.pid", "-H", f"unix://{socket}", "--ip", "127.0.0.1",
            # Where the limits of this machine are lower than Docker's defaults, no container would start.
            "--default-ulimit", "nofile=20000:20000", "--default-ulimit", "nproc=10000:10000",
            "--exec-opt", "native.cgroupdriver=cgroupfs", *more,
        ],
        log=log,
    )  # fmt: skip
    docker = Docker(socket)
    try:
        end = time.monotonic() + _UP_WITHIN_SECONDS
        while docker.ended("/usr/bin/docker", "info").returncode:
            if process.poll() is not None or time.monotonic() > end:
                raise DockerFailed(f"the daemon does not come up:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(_DOWN_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
