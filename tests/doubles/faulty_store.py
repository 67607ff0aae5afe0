"""An HTTP proxy in front of the store that answers wrongly when told to, and counts what it was asked.

Requests keep their Host header, which the signature covers: to the store they look as if sent to it by another name.
"""

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive"}
RESET = struct.pack("ii", 1, 0)
TRICKLE_SECONDS = 0.5
"""Between two bytes: no reader's patience with a silent connection runs out."""
PACED_SECONDS = 0.2


@dataclass
class Fault:
    """What becomes of the requests with this method and with this text in their path or their copy source.

    `how`: a status to answer with; `cut` or `reset`, which end the connection in the middle of the answer's body;
    `lost`, which does so before the answer though the store has done what it was asked; `slow`, which keeps the
    second half of the body back until the fault is healed, `late`, which does so with all of the answer; `never`, which
    does that and then loses it; `trickle`, which lets that half go byte by byte until then, `paced`, which does so at
    `amount` bytes a second; `delayed`, which keeps the answer back for `amount` seconds.
    """

    method: str
    text: str
    how: int | str
    amount: float = 0
    met: threading.Event = field(default_factory=threading.Event)
    healed: threading.Event = field(default_factory=threading.Event)


class FaultyStore:
    """A plain proxy until it has faults; `url` is for RUSTFS_ENDPOINT."""

    def __init__(self, url: str) -> None:
        store = self
        address = urlsplit(url)
        self.target = (address.hostname or "127.0.0.1", address.port or 80)
        self.faults: list[Fault] = []
        self.asked: Counter[str] = Counter()

        class Handler(_Handler):
            faulty = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, text: str, how: int | str, amount: float = 0) -> Fault:
        made = Fault(method, text, how, amount)
        self.faults.append(made)
        return made

    def remove(self, fault: Fault) -> None:
        """Heal one."""
        self.faults.remove(fault)
        fault.healed.set()

    def heal(self) -> None:
        for fault in self.faults:
            fault.healed.set()
        self.faults = []

    @contextlib.contextmanager
    def passing(self, method: str, path: str, headers: Message) -> Iterator[int | None]:  # noqa: ARG002 - for others
        """While a request is passed on; the status to answer with instead, if any."""
        yield None


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultyStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has left
            self.close_connection = True

    def pass_on(self) -> None:
        source = f"{self.path} {self.headers.get('x-amz-copy-source', '')}"
        self.faulty.asked[self.command] += 1
        fault = next((f for f in self.faulty.faults if f.method == self.command and f.text in source), None)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is not None and isinstance(fault.how, int):
            fault.met.set()
            self._refuse(fault.how)
            return
        with self.faulty.passing(self.command, self.path, self.headers) as refusal:
            if refusal is None:
                self._ask(body, fault)
            else:
                self._refuse(refusal)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815 - the library's names

    def _ask(self, body: bytes, fault: Fault | None) -> None:
        connection = HTTPConnection(*self.faulty.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP | {"expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read(), fault)
        finally:
            connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def _refuse(self, status: int) -> None:
        code = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed"}.get(status, "InternalError")
        body = f"<Error><Code>{code}</Code></Error>".encode() if self.command != "HEAD" else b""
        self._answer(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body, None)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None) -> None:
        if fault is not None:
            fault.met.set()
            if fault.how in {"late", "never"}:
                fault.healed.wait(60)
            if fault.how == "delayed":
                fault.healed.wait(fault.amount)
            if fault.how in {"lost", "never"}:
                self._end()
                return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        if body and not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        middle = len(body) // 2
        self.wfile.write(body[:middle])
        if fault is None:
            self.wfile.write(body[middle:])
        else:
            self._answer_second_half(body, middle, fault)

    def _answer_second_half(self, body: bytes, begin: int, fault: Fault) -> None:
        if fault.how == "slow":
            fault.healed.wait(60)
        while fault.how == "trickle" and begin < len(body) and not fault.healed.wait(TRICKLE_SECONDS):
            self.wfile.write(body[begin : begin + 1])
            begin += 1
        while fault.how == "paced" and begin < len(body) and not fault.healed.wait(PACED_SECONDS):
            piece = int(fault.amount * PACED_SECONDS)
            self.wfile.write(body[begin : begin + piece])
            begin += piece
        if fault.how in {"cut", "reset"}:
            if fault.how == "reset":
                time.sleep(0.05)  # so that what was sent is read before the reset throws it away
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._end()
            return
        self.wfile.write(body[begin:])

    def _end(self) -> None:
        self.close_connection = True
        if self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == RESET:
            self.rfile.close()
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
