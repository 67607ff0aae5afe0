"""An end to every connection, whatever its client does: the receiver on a real socket, with short times, no broker."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn

from publisher.broker.publishing import Outgoing
from publisher.log import Sparing
from publisher.settings import WebhookSettings
from publisher.sources import http_limits, webhook
from publisher.sources.places import Places

TOKEN = "t0ken"
ROOM = 8
POST = b"POST / HTTP/1.1\r\nHost: webhook\r\n"
RIGHT = POST + b"Authorization: Bearer t0ken\r\n"
EVENT = b'{"Records": []}'
WHOLE = RIGHT + b"Content-Length: 15\r\n\r\n" + EVENT
GET_METRICS = b"GET /metrics HTTP/1.1\r\nHost: webhook\r\n\r\n"


class Broker:
    """Takes everything, at once or never."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def require_broker(self) -> None:
        pass

    async def publish(self, outgoing: Outgoing) -> None:
        self.was_asked.set()
        await self.may_answer.wait()
        self.taken.append(outgoing.body)


class Served:
    """A receiver that listens; `ended` are the reasons for which connections were ended."""

    def __init__(self, trusted_seconds: float) -> None:
        self.broker = Broker()
        self.ended: list[str] = []
        settings = WebhookSettings.model_validate({"FLEETTICKETS_WEBHOOK_TOKEN": TOKEN})
        limits = http_limits.Limits(
            Places(ROOM), trusted_seconds, lambda reason, _detail, _client: self.ended.append(reason)
        )
        config = uvicorn.Config(
            webhook.application(self.broker, settings, Sparing()),
            http=http_limits.limited(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=5,
        )
        self.server = uvicorn.Server(config)
        self.listening = socket.create_server(("127.0.0.1", 0))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.listening.getsockname()
        return await asyncio.open_connection(host, port)

    async def until_empty(self) -> None:
        """Come back when no connection is left; the test's own timeout is the end of the patience."""
        while self.server.server_state.connections or self.server.server_state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "level", logging.ERROR)


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those that wait for an end; the others would depend on how busy the machine is."""
    monkeypatch.setattr(http_limits, "STRANGER_SECONDS", 0.4)
    monkeypatch.setattr(http_limits, "LINGER_SECONDS", 0.2)
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.3)


def run(play: Callable[[Served], Awaitable[None]], trusted_seconds: float = 30) -> None:
    @contextlib.asynccontextmanager
    async def serving() -> AsyncIterator[Served]:
        served = Served(trusted_seconds)
        # The signals stay pytest's.
        running = asyncio.create_task(served.server._serve([served.listening]))  # noqa: SLF001
        while not served.server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield served
        finally:
            served.server.should_exit = True
            await running

    async def play_it() -> None:
        async with asyncio.timeout(30), serving() as served:
            await play(served)

    asyncio.run(play_it())


async def exhausted(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection ends, in whatever way."""
    came = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            came += chunk
    return bytes(came)


async def trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Byte by byte, for as long as the server takes it."""
    with contextlib.suppress(ConnectionError):
        for number in range(len(data)):
            writer.write(data[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", b""),
        (POST, b"X-Never-Ending: " + 1000 * b"x"),
        (POST + b"Content-Length: 1000\r\n\r\n", b"x"),
        (POST + b"Content-Length: 1000\r\n\r\n", 999 * b"x"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", 300 * b"1\r\nx\r\n"),
        (b"GET / HTTP/1.1\r\nHost: webhook\r\nContent-Length: 1000\r\n\r\n", 999 * b"x"),
        (GET_METRICS, 100 * GET_METRICS),
        (RIGHT + b"Content-Length: 1000\r\n\r\n", 999 * b"x"),
        (RIGHT + b"Content-Length: 1000\r\n\r\n", b"x"),
        (WHOLE + POST, b"X-Never-Ending: " + 1000 * b"x"),
        (WHOLE + WHOLE + POST + b"Content-Length: 1000\r\n\r\n", 999 * b"x"),
        (WHOLE, b"\r\n" * 500),
        (b"\x16\x03\x01 hello\r\n\r\n", 1000 * b"x"),
        (RIGHT + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", 1000 * b"x"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", 1000 * b"x"),
        (POST + b"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 9\r\n\r\n", b"x"),
        (POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.usefixtures("short_times")
def test_every_connection_ends_whatever_its_client_does(
    at_once: bytes, slowly: bytes, reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(at_once)
        reading = asyncio.create_task(exhausted(reader)) if reads else None
        trickling = asyncio.create_task(trickle(writer, slowly))
        await asyncio.sleep(0.05)
        await served.until_empty()
        await trickling
        if reading:
            await reading
        writer.transport.abort()

    run(play, trusted_seconds=0.6)
    assert caplog.records == [], "no traceback"


@pytest.mark.usefixtures("short_times")
def test_who_never_reads_the_answers_does_not_stay() -> None:
    async def play(served: Served) -> None:
        # Nothing is taken from the stream, so asyncio stops reading, and the system's buffers fill.
        _reader, writer = await served.connect()
        asked = RIGHT.replace(b"POST /", b"GET /openapi.json") + b"\r\n"
        with contextlib.suppress(ConnectionError):
            writer.write(5000 * asked)
        await asyncio.sleep(0.05)
        await served.until_empty()
        writer.transport.abort()

    run(play, trusted_seconds=0.6)


def test_who_sends_no_more_is_taken_to_be_gone() -> None:
    async def play(served: Served) -> None:
        for said in (b"", POST, POST + b"Content-Length: 1000\r\n\r\n", RIGHT + b"Content-Length: 1000\r\n\r\n"):
            _reader, writer = await served.connect()
            writer.write(said)
            writer.write_eof()
            await asyncio.sleep(0.05)
            await served.until_empty()
            writer.transport.abort()

    run(play)


def test_who_sends_no_more_and_reads_no_answer_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "LINGER_SECONDS", 0.2)

    async def play(served: Served) -> None:
        # More answers than the system has room for here, and fewer than make the server wait with the next.
        served.listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        with client:
            await loop.sock_connect(client, served.listening.getsockname())
            await loop.sock_sendall(client, 250 * WHOLE)
            while len(served.broker.taken) < 250:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            client.shutdown(socket.SHUT_WR)
            await served.until_empty()

    run(play, trusted_seconds=300)


def test_a_client_that_is_still_sending_is_not_cut_off_by_its_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "LINGER_SECONDS", 300)

    async def play(served: Served) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, served.listening.getsockname())
            await loop.sock_sendall(client, POST + b"Content-Length: 1000\r\n\r\n")
            answer = b""
            while chunk := await loop.sock_recv(client, 65536):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 401")
            for _ in range(5):  # a connection that was closed at once would be reset by the first
                await loop.sock_sendall(client, b"x")
                await asyncio.sleep(0.05)
        await served.until_empty()

    run(play)


def test_what_comes_after_all_is_said_is_thrown_away_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "LINGER_SECONDS", 300)

    async def play(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert (await exhausted(reader)).startswith(b"HTTP/1.1 401")
        writer.write(b"no size\r\n")
        writer.close()
        await served.until_empty()
        assert served.ended == [], "no HTTP, had it been read"

    run(play)


def test_a_client_that_is_gone_at_the_very_end_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(_transport: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.write_eof", gone)

    async def play(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")
        await exhausted(reader)
        await served.until_empty()
        writer.close()

    run(play)
    assert caplog.records == [], "no traceback"


def test_a_refusal_is_read_to_its_end_by_a_client_that_is_still_sending() -> None:
    async def play(served: Served) -> None:
        for head, status in ((POST, b"401"), (RIGHT, b"413")):
            reader, writer = await served.connect()
            body = 4 * (1 << 20) * b"x"
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            answer = await exhausted(reader)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert b"connection: close" in answer
            assert answer.endswith(b"}")
            writer.close()

    run(play)


def test_only_an_event_that_was_taken_keeps_its_connection() -> None:
    async def play(served: Served) -> None:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(WHOLE)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in head.lower()
            await reader.readexactly(len(b'{"queued":true}'))
        assert served.broker.taken == [EVENT] * 3
        writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
        assert b"connection: close" in await exhausted(reader)
        writer.close()
        health = RIGHT.replace(b"POST /", b"GET /readyz") + b"\r\n"
        for request in (GET_METRICS, health, GET_METRICS.replace(b"metrics", b"nowhere"), RIGHT + b"\r\n"):
            reader, writer = await served.connect()
            writer.write(request)
            assert b"connection: close" in await exhausted(reader)
            writer.close()

    run(play)


def test_an_event_keeps_its_place_and_its_time_while_the_broker_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "STRANGER_SECONDS", 2)

    async def play(served: Served) -> None:
        served.broker.may_answer.clear()
        reader, writer = await served.connect()
        writer.write(WHOLE)
        await served.broker.was_asked.wait()
        strangers = [await served.connect() for _ in range(3 * ROOM)]
        await asyncio.sleep(2.1)
        served.broker.may_answer.set()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert "connections" in served.ended
        for _, stranger in [*strangers, (reader, writer)]:
            stranger.transport.abort()

    run(play)


def test_a_store_comes_in_while_strangers_hold_all_places() -> None:
    async def play(served: Served) -> None:
        strangers = []
        for _ in range(ROOM):
            reader, writer = await served.connect()
            writer.write(POST + b"Content-Length: 1000\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"x")
            strangers.append(writer)
        reader, writer = await served.connect()
        writer.write(WHOLE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for stranger in [*strangers, writer]:
            stranger.transport.abort()

    run(play)
