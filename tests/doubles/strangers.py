"""Clients that mean no good: a crowd in one event loop, each of which comes again as soon as it is sent away."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Sequence
from threading import Event, Thread
from typing import Self

_POST = b"POST / HTTP/1.1\r\nHost: webhook\r\n"
_UNTOLD = _POST + b"Content-Length: 1000\r\n\r\n"
_WRONG = _POST + b"Authorization: Bearer wrong\r\nContent-Length: 1000\r\n\r\n"
_GET = b"GET /metrics HTTP/1.1\r\nHost: webhook\r\n\r\n"

MANNERS: dict[str, tuple[bytes, bytes, bool]] = {
    # What is said at once, what byte by byte, and whether the answers are read.
    "a byte after the 401": (_UNTOLD, b"x", True),
    "a slow head": (_POST, b"X-Never-Ending: " + 10_000 * b"x", True),
    "a slow body": (_UNTOLD, 999 * b"x", True),
    "a wrong token": (_WRONG, 999 * b"x", True),
    "nothing": (b"", b"", True),
    "no HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 1000 * b"x", False),
    "answers unread": (100 * _GET, 10 * _GET, False),
    "pipelining": (100 * (_POST + b"Content-Length: 2\r\n\r\n{}"), b"x", True),
    "half closed": (_UNTOLD, b"", True),
    "gone at once": (_UNTOLD, b"", False),
}
_BYTE_SECONDS = 0.5
_COMING_AGAIN_SECONDS = 3
_UNREAD_SECONDS = 12
_DESCRIPTORS = 4096


class Crowd:
    """So many strangers at the port, from each of the addresses of this machine, for as long as the block runs."""

    def __init__(
        self, port: int, count: int, addresses: Sequence[str], manners: Sequence[str] = tuple(MANNERS)
    ) -> None:
        self._port = port
        self._count = count
        self._addresses = addresses
        self._manners = manners
        self._came = 0
        self._all_came, self._over = Event(), Event()
        self._thread = Thread(target=lambda: asyncio.run(self._gather()))
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)

    def __enter__(self) -> Self:
        hard = self._descriptors[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, hard), hard))
        self._thread.start()
        assert self._all_came.wait(60), "the crowd does not come together"
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._descriptors)

    async def _gather(self) -> None:
        tasks = [asyncio.create_task(self._come(number)) for number in range(self._count)]
        await asyncio.to_thread(self._over.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _come(self, number: int) -> None:
        address, manner = self._addresses[number % len(self._addresses)], self._manners[number % len(self._manners)]
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(address, 0))
                self._came += 1
                if self._came >= self._count:
                    self._all_came.set()
                await _behave(reader, writer, manner)
            await asyncio.sleep(_COMING_AGAIN_SECONDS)


async def _behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, manner: str) -> None:
    at_once, slowly, reads = MANNERS[manner]
    try:
        writer.write(at_once)
        if manner == "gone at once":
            return
        if manner == "half closed":
            writer.write_eof()
        if reads and at_once.endswith((b"\r\n\r\n", b"}")):
            await reader.read(1)
        for number in range(len(slowly)):
            writer.write(slowly[number : number + 1])
            await writer.drain()
            await asyncio.sleep(_BYTE_SECONDS)
        await reader.read() if reads else await asyncio.sleep(_UNREAD_SECONDS)
    finally:
        writer.transport.abort()


def addresses(count: int) -> list[str]:
    """So many addresses of this machine's loopback."""
    found = [f"127.0.1.{number}" for number in range(1, count + 1)]
    for address in found:
        with socket.socket() as probe:
            probe.bind((address, 0))
    return found
