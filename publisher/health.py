"""Whether a process lives and can work: shown over HTTP beside its metrics, and told to systemd.

The loop that works says each time that it has come round; no timer does it in its place, which would go on beside a
loop that hangs.
"""

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from publisher.errors import Misconfigured

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HANGS_SECONDS = 60.0
"""A loop that comes round every second at least, and has not for so long, does not any more."""


class Health:
    """Of one process. `why_not_ready` says what keeps it from working, which it waits for; None for nothing.

    Safe to share between threads.
    """

    def __init__(self, why_not_ready: Callable[[], str | None], *, hangs_seconds: float = HANGS_SECONDS) -> None:
        self._why_not_ready = why_not_ready
        self._hangs_seconds = hangs_seconds
        self._turned_at = monotonic()
        self._is_told = False

    def turned(self) -> None:
        """Called by the loop that works, each time that it comes round."""
        self._turned_at = monotonic()
        # Up it is as soon as it waits for what it needs: who starts it is not to give up on it meanwhile.
        _tell_systemd("WATCHDOG=1" if self._is_told else "READY=1\nWATCHDOG=1")
        self._is_told = True

    def livez(self) -> tuple[HTTPStatus, str]:
        """Whether to leave it alone; who asks may start it anew otherwise."""
        silent = monotonic() - self._turned_at
        if silent < self._hangs_seconds:
            return HTTPStatus.OK, "ok"
        return HTTPStatus.SERVICE_UNAVAILABLE, f"its loop has not come round for {silent:.0f} s"

    def readyz(self) -> tuple[HTTPStatus, str]:
        """Whether it works, or waits for something that another start would not bring."""
        status, told = self.livez()
        if status is HTTPStatus.OK and (why := self._why_not_ready()):
            return HTTPStatus.SERVICE_UNAVAILABLE, why
        return status, told


def show(host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
    """Show /metrics, /livez and /readyz at http://host:port, in a thread.

    Raises: Misconfigured.
    """
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


def _tell_systemd(state: str) -> None:
    """As sd_notify(3) has it; nobody listens where it did not start us so."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
        sending.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
