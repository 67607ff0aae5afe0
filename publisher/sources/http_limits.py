"""What the webhook receiver grants a connection: little time and few bytes until it shows the token, and an end to all.

uvicorn ends idle connections and nothing else; hypercorn does the same, and granian bounds the head of a request too.
None bounds a whole request or knows who may stay when there are too many, and neither does a proxy in front: to it the
store is one more address. So both are done here, around uvicorn's protocol on h11.
"""

import asyncio
import resource
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Final

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from publisher.sources.places import Places, counted_as

STRANGER_SECONDS: Final = 10.0
"""For a whole request that shows no token: head, body, and reading the answer."""
LINGER_SECONDS: Final = 5.0
"""For a client to read an answer that came before its request was whole; closing at once could destroy that answer."""
MAX_CONNECTIONS: Final = 1000
ACCEPTED_AT_ONCE: Final = 32
_OTHER_DESCRIPTORS = 64
_CONNECTION, _TRUSTED = "connection", "trusted"
_SUCCEEDED = frozenset({HTTPStatus.OK, HTTPStatus.NOT_MODIFIED})


def connections() -> int:
    """How many to serve at once, so that descriptors are left for the broker and for those that come and go."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A new one has a descriptor for a moment before anything here sees it, and so has the one that makes room for it.
    # One that has just come must outlast those accepted beside it, or it could not show its token.
    in_between = 3 * ACCEPTED_AT_ONCE
    return max(2 * ACCEPTED_AT_ONCE, min(MAX_CONNECTIONS, descriptors - in_between - _OTHER_DESCRIPTORS))


def trust(scope: MutableMapping[str, Any]) -> None:
    """The request of this ASGI scope has shown the token: it gets its time, and its connection may have another."""
    state = scope.setdefault("state", {})
    state[_TRUSTED] = True
    if connection := state.get(_CONNECTION):
        connection.trust()


def go_on(scope: MutableMapping[str, Any], seconds: float) -> None:
    """The answer to the request of this ASGI scope has no end, and is read: it gets so many seconds more."""
    if connection := scope.get("state", {}).get(_CONNECTION):
        connection.go_on(seconds)


class OneRequestEach:
    """An ASGI application whose connections end with their answer, unless the request was trusted and succeeded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        scope.setdefault("state", {})

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_taken = scope["state"].get(_TRUSTED, False) and message["status"] in _SUCCEEDED
                if not is_taken:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_on)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server grants its connections."""

    places: Places["LimitedProtocol"]
    trusted_seconds: float
    """For a whole request that has shown the token, from then on."""
    on_refusal: Callable[[str, str, str], None]
    """Told of each connection that is ended: the word it is counted under, what happened, and the client's address."""


def limited(given: Limits) -> type[asyncio.Protocol]:
    """What uvicorn is to speak on each connection."""

    class Limited(LimitedProtocol):
        limits = given

    return Limited


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with one deadline for each request, whatever has been answered already, and a place among a few."""

    limits: ClassVar[Limits]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app_state = self.app_state | {_CONNECTION: self}
        self._deadline: asyncio.TimerHandle | None = None
        self._real: asyncio.Transport
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the connection a place, which another one may have to leave."""
        self._real = transport
        super().connection_made(_Closing(transport, self._close))
        leaving = self.limits.places.enter(self, counted_as(self._host()))
        self._set_deadline(STRANGER_SECONDS)
        if leaving is not None:
            leaving.make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._is_over = True
        self.limits.places.leave(self)
        self._set_deadline(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless all is said."""
        if not self._is_over:
            super().data_received(data)
            self._look_at_the_time()

    def eof_received(self) -> None:
        """The client has no more to say and is taken to be gone; what was written may still leave, but not for ever."""
        self._is_over = True
        self._set_deadline(LINGER_SECONDS)
        super().eof_received()

    def on_response_complete(self) -> None:
        """Go on with the next request, if there may be one."""
        super().on_response_complete()
        self._look_at_the_time()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, if nothing has been answered yet."""
        self._refuse("no_http", "what came is no HTTP/1.1")
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            if self.cycle is not None:
                # The body is what is broken, and the application at work on its request: it is to answer no more.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            super().send_400_response(msg)
        else:
            self._real.abort()

    def shutdown(self) -> None:
        """The server ends: a request under way is finished, and nothing else waited for."""
        if self._is_over:
            self._real.abort()
        else:
            super().shutdown()

    def trust(self) -> None:
        """The request under way has shown the token."""
        if not self._is_over:
            self.limits.places.know(self)
            self._set_deadline(self.limits.trusted_seconds)

    def go_on(self, seconds: float) -> None:
        """What was sent so far of the answer under way was taken."""
        if not self._is_over:
            self._set_deadline(seconds)

    def make_room(self) -> None:
        """End, since another one needs the place."""
        self._refuse("connections", "all places were taken, and it had shown no token for longest")
        self._real.abort()

    def _look_at_the_time(self) -> None:
        """A request has its deadline from its first byte, and nothing that comes later moves it."""
        if self._is_over:
            return
        under_way = self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])
        if under_way and self._deadline is None:
            self._set_deadline(STRANGER_SECONDS)
        elif not under_way and self.cycle is not None and self.cycle.response_complete:
            self.limits.places.rest(self)
            self._set_deadline(None)  # from here on it is uvicorn's time for idle connections

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self._deadline = None
        if not self._is_over:
            self._refuse("slow", "the request did not come whole in time, or its answer was not read")
        self._real.abort()

    def _close(self) -> None:
        """All is said: end the connection, but let the client read what was said, and soon."""
        if self._is_over:
            return
        self._is_over = True
        self._set_deadline(LINGER_SECONDS)
        if self.conn.their_state not in {h11.SEND_BODY, h11.ERROR} or self._real.get_write_buffer_size():
            self._real.close()
            return
        # What still comes is thrown away. Left unread, it would make the system take the answer back.
        self._real.resume_reading()
        try:
            self._real.write_eof()
        except OSError:  # the client is gone this very moment
            self._real.abort()

    def _refuse(self, reason: str, detail: str) -> None:
        self.limits.on_refusal(reason, detail, self._host())

    def _host(self) -> str:
        return self.client[0] if self.client else ""


class _Closing(asyncio.Transport):
    """A connection as uvicorn sees it: all of it, but for the way it is closed."""

    def __init__(self, real: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._real = real
        self._close = close
        self._is_closing = False

    def close(self) -> None:
        self._is_closing = True
        self._close()

    def is_closing(self) -> bool:
        return self._is_closing or self._real.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._real.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._real.write(data)

    def pause_reading(self) -> None:
        self._real.pause_reading()

    def resume_reading(self) -> None:
        self._real.resume_reading()
