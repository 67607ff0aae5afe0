"""Whether a process lives and can work: shown over HTTP beside its metrics, and told to systemd.

The loop that works says each time that it has come round; no timer does it in its place, which would go on beside a
loop that hangs.
"""

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from itertools import chain, repeat
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from publisher.errors import Misconfigured
from publisher.heartbeat import Pulse

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_MAX_PORT = 65_535
HANGS_SECONDS = 120.0
"""A loop that has not come round for so long does not any more; it waits for no service for longer than half of it."""


class Health:
    """Of one process, by its pulse. What does not get along without a connection says whether it has it.

    Safe to share between threads.
    """

    def __init__(self, pulse: Pulse, is_connected: Callable[[], bool] | None = None) -> None:
        self._pulse = pulse
        self._is_connected = is_connected

    def _why_not_ready(self) -> str | None:
        if pause := self._pulse.sign().pause:
            return f"{pause.by}: {pause.why}"
        return None if self._is_connected is None or self._is_connected() else "not connected to RabbitMQ"

    def livez(self) -> tuple[HTTPStatus, str]:
        """Whether to leave it alone; who asks may start it anew otherwise."""
        silent = self._pulse.turned_seconds
        if silent < HANGS_SECONDS:
            return HTTPStatus.OK, "ok"
        return HTTPStatus.SERVICE_UNAVAILABLE, f"its loop has not come round for {silent:.0f} s"

    def readyz(self) -> tuple[HTTPStatus, str]:
        """Whether it works, or waits for something that another start would not bring."""
        status, told = self.livez()
        if status is HTTPStatus.OK and (why := self._why_not_ready()):
            return HTTPStatus.SERVICE_UNAVAILABLE, why
        return status, told


def tell_systemd(pulse: Pulse) -> None:
    """Have each turn of the loop told to systemd, which may have started us as a service of `Type=notify`."""
    # Up it is as soon as it waits for what it needs: who starts it is not to give up on it meanwhile.
    states = chain(["READY=1\nWATCHDOG=1"], repeat("WATCHDOG=1"))
    pulse.each_turn(lambda: _send_to_systemd(next(states)))


def show(at: str, registry: CollectorRegistry, health: Health) -> None:
    """Show /metrics, /livez and /readyz at [HOST:]PORT, in a thread.

    Raises: Misconfigured.
    """
    host, _, number = at.rpartition(":")
    port = int(number) if number.isascii() and number.isdecimal() else 0
    if not 0 < port <= _MAX_PORT:
        raise Misconfigured(f"--metrics {at!r}: it is a port, as in 9100 and 0.0.0.0:9100")
    host = host.strip("[]") or "127.0.0.1"
    metrics = make_wsgi_app(registry)
    pages = {"/livez": health.livez, "/readyz": health.readyz}

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)  # type: ignore[no-any-return]
        status, told = pages[path]() if path in pages else (HTTPStatus.NOT_FOUND, "/metrics, /livez and /readyz")
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{told}\n".encode()]

    try:
        server = make_server(host, port, application, _Server, _Silent)
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or 0)
        raise Misconfigured(f"cannot show metrics on {host} port {port}: {why}") from error
    Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Without a look for the host's name, which can take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Silent(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *_: object) -> None:
        """Whoever looks every few seconds is no news."""


def _send_to_systemd(state: str) -> None:
    """As sd_notify(3) has it; nobody listens where it did not start us so."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
        sending.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
