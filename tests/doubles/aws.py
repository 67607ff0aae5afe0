"""AWS's S3, SNS and SQS on this machine, by moto."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UP_WITHIN_SECONDS = 30


@contextmanager
def moto_server(folder: Path) -> Iterator[int]:
    """A server that logs to the folder; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    log = folder / "log"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as sink:
        server = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        end = time.monotonic() + _UP_WITHIN_SECONDS
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"moto does not come up: {log.read_text()}")
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
