"""The webhook receiver as the store sees it."""

import contextlib
import random
import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import requests

from tests.stage.stage import Process, Stage, wait_until

TOKEN = "t0ken-of-the-store"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


_BELOW_THE_SYSTEMS_OWN = range(20_000, 30_000)


def free_port() -> int:
    """A port to listen on, now and after a restart: not one that the system could give to an outgoing connection."""
    while True:
        port = random.choice(_BELOW_THE_SYSTEMS_OWN)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Endpoint:
    """Where a `fleettickets webhook` listens, as the store sees it."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def post(
        self, body: bytes | Iterator[bytes], headers: Mapping[str, str] = MappingProxyType(RIGHT)
    ) -> requests.Response:
        return requests.post(self.url, data=body, headers=dict(headers), timeout=30)

    def healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", timeout=10).ok
        except requests.ConnectionError:
            return False

    def wait(self) -> None:
        wait_until(self.healthy, "the receiver is up")

    def counted(self, name: str) -> float:
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        values = [line.split()[-1] for line in lines if line.startswith(f"fleettickets_webhook_{name} ")]
        return float(values[0]) if values else 0


class Receiver(Endpoint):
    """A running `fleettickets webhook`."""

    def __init__(self, stage: Stage, port: int | None = None, **environment: str) -> None:
        super().__init__(port)
        self.process: Process = stage.start(
            "webhook", "--port", str(self.port), FLEETTICKETS_WEBHOOK_TOKEN=TOKEN, **environment
        )
