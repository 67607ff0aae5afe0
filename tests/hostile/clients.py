"""Strangers at the webhook's port, of which each has more patience than the receiver may have."""

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator

import requests

from tests.doubles.receiver import RIGHT, TOKEN
from tests.hostile.hostility import Act, Hostility
from tests.stage.feeds import csv

_MANY = 1200
"""More than there are places in a receiver."""
_HEAD = b"POST / HTTP/1.1\r\nHost: webhook\r\n"
_AUTHORIZED = _HEAD + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"


def _connected(act: Act, count: int) -> Iterator[socket.socket]:
    """Connections from several addresses, none of which is the store's."""
    for number in range(count):
        with contextlib.suppress(OSError):  # turned away is turned away
            yield socket.create_connection(
                ("127.0.0.1", act.world.crew.receiver.port), timeout=5, source_address=(f"127.0.1.{number % 7 + 1}", 0)
            )


def _strangers(name: str, first: bytes, more: bytes = b"", *, reads: bool = True) -> Hostility:
    """Each says `first`, then a byte of `more` now and again, and does not leave; the store posts meanwhile."""

    def play(act: Act) -> None:
        strangers: list[socket.socket] = []
        try:
            for stranger in _connected(act, _MANY):
                strangers.append(stranger)
                _say(stranger, first)
            end = time.monotonic() + act.lasting
            while time.monotonic() < end and not act.world.over.is_set():
                for number, stranger in enumerate(strangers):
                    if reads:
                        _hear(stranger)
                    if more:
                        _say(stranger, more[:1])
                    elif number % 50 == 0:
                        _say(stranger, b"x")
                _store_posts(act, f"{len(strangers)} strangers are there ({name})")
                time.sleep(0.5)
        finally:
            for stranger in strangers:
                stranger.close()

    return Hostility(f"strangers: {name}", "TOKEN" if TOKEN.encode() in first else "ANON", play)


def _say(stranger: socket.socket, what: bytes) -> None:
    with contextlib.suppress(OSError):
        stranger.setblocking(False)
        stranger.send(what)


def _hear(stranger: socket.socket) -> None:
    with contextlib.suppress(OSError):
        stranger.setblocking(False)
        stranger.recv(1 << 16)


def _store_posts(act: Act, while_what: str) -> None:
    """An event of the store is taken, at the latest when it is sent again; the broker may be away for a while."""
    body = act.event(act.good_file(csv([act.ticket()]), announced=False))

    def is_taken() -> bool:
        try:
            return act.world.crew.receiver.post(body).ok
        except requests.RequestException:
            return False

    act.wait_for(is_taken, f"the store's post is not taken while {while_what}")


def _refused(
    name: str, headers: dict[str, str], body: bytes | Callable[[], Iterator[bytes]], *expected: int
) -> Hostility:
    """Forty requests in a row, each with the answer that it has to have."""

    def play(act: Act) -> None:
        for _ in range(40):
            sent = body if isinstance(body, bytes) else body()
            try:
                status = act.world.crew.receiver.post(sent, headers).status_code
            except requests.RequestException:
                continue  # closed before its end, which is an answer too
            # Without a broker it takes nothing, whatever it is.
            if status not in (*expected, requests.codes.unavailable):
                act.complain(f"was answered with {status}")
                return

    return Hostility(f"requests: {name}", "TOKEN" if TOKEN in str(headers) else "ANON", play)


def _endless() -> Iterator[bytes]:
    for _ in range(200):
        yield secrets.token_bytes(1 << 16)


STRANGERS = [
    _strangers("nothing is said", b""),
    _strangers("a head that never ends", _HEAD, b"X"),
    _strangers("a body after a 401", _HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
    _strangers("a body that trickles, with the token", _AUTHORIZED + b"Content-Length: 1000\r\n\r\n", b"x"),
    _strangers("answers that nobody reads", b"GET /metrics HTTP/1.1\r\nHost: webhook\r\n\r\n" * 20, reads=False),
    _strangers("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00" + b"\0" * 100),
    _strangers(
        "a request in a request", _HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET"
    ),
]
REQUESTS = [
    _refused("a wrong token", {"Authorization": "Bearer wrong"}, b"{}", 401),
    _refused("no token", {}, b"{}", 401),
    _refused("a token of 60,000 characters", {"Authorization": "Bearer " + "x" * 60_000}, b"{}", 401, 400, 431),
    _refused("a body without an end", RIGHT, _endless, 413),
    _refused("a body without an end and a token", {}, _endless, 401, 413),
    _refused("an empty body", RIGHT, b"", 422),
]
