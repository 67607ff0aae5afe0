"""A web server with limits on what a connection may take: uvicorn, on a port that is taken first."""

import asyncio
import logging
import os
import socket
from threading import Event

import uvicorn
from starlette.types import ASGIApp

from publisher.errors import Misconfigured
from publisher.heartbeat import Pulse
from publisher.sources import http_limits
from publisher.sources.http_limits import Limits

_KEEP_ALIVE_SECONDS = 75
_WATCHED_SECONDS = 0.5
_WAITING_TO_BE_ACCEPTED = 1024


class Server(uvicorn.Server):
    """uvicorn, with few connections accepted at once and many that may wait for that."""

    def __init__(self, app: ASGIApp, limits: Limits, grace_seconds: int) -> None:
        # What uvicorn warns of is counted and told by whoever has the limits, more sparingly.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                http=http_limits.limited(limits),
                ws="none",
                backlog=http_limits.ACCEPTED_AT_ONCE,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=grace_seconds,
            )
        )

    async def run_until(self, stop: Event, listening: socket.socket, pulse: Pulse) -> None:
        """Serve on the socket until SIGTERM or SIGINT, or until `stop` is set, which a signal may have done before."""
        watching = asyncio.create_task(self._watch(stop, pulse))
        await self.serve(sockets=[listening])
        watching.cancel()

    async def _watch(self, stop: Event, pulse: Pulse) -> None:
        while not stop.is_set():
            pulse.turned()
            await asyncio.sleep(_WATCHED_SECONDS)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING_TO_BE_ACCEPTED)


def listen(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises: Misconfigured.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_WAITING_TO_BE_ACCEPTED)
    except OSError as error:
        why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise Misconfigured(f"cannot listen on {host} port {port}: {why}") from error
    # Its connections have it from here, since asyncio does not know the protocol of a socket that it did not make: a
    # body that is written behind its head would wait until the client acknowledges that, some forty milliseconds.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
