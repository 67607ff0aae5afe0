"""What the webhook receiver grants a connection before it has shown a token: little time, and one place of a few.

uvicorn bounds neither. A stranger with idle connections would otherwise take every file descriptor there is, and keep
the store out.
"""

import asyncio
import resource
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from publisher import metrics

HEAD_SECONDS: Final = 10.0
"""For the whole head of a request, from its first byte or from the connection's beginning."""
MAX_CONNECTIONS: Final = 1000
BACKLOG: Final = 64
"""Connections that the system takes for us at once; each has a descriptor before anything here sees it."""
_OTHER_DESCRIPTORS = 64


def connections() -> int:
    """How many to serve at once, so that descriptors are left for the broker and for turning the others away."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(MAX_CONNECTIONS, descriptors - 2 * BACKLOG - _OTHER_DESCRIPTORS))


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with an end to every wait for a request's head, and to the number of connections."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limit = connections()
        self._waiting_for_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Serve the connection, or end it when there are enough of them."""
        super().connection_made(transport)
        if len(self.connections) > self._limit:
            metrics.REFUSED.labels("connections").inc()
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the time for the head of a request runs until it is whole."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._have_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        metrics.REFUSED.labels("no_http").inc()
        super().send_400_response(msg)

    def _await_head(self) -> None:
        if self._waiting_for_head is None:
            self._waiting_for_head = self.loop.call_later(HEAD_SECONDS, self._end_slow)

    def _have_head(self) -> None:
        if self._waiting_for_head is not None:
            self._waiting_for_head.cancel()
            self._waiting_for_head = None

    def _end_slow(self) -> None:
        self._waiting_for_head = None
        if not self.transport.is_closing():
            metrics.REFUSED.labels("slow").inc()
            self.transport.close()
