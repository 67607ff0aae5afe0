"""A TCP proxy in front of a service, to take the service away from one client without touching it."""

import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 1 << 16
HTTP_REQUEST = re.compile(rb"^[A-Z]+ \S+ HTTP/1\.1(?=\r\n)", re.MULTILINE)


class Proxy:
    """Passes bytes on, until told otherwise; `url` is the service's own, by way of the proxy.

    `losing` is a text that no request gets past; with `after` the request still does, and its answer does not.
    `once` is what a connection has to have sent before that. With `holding` a connection whose answer is lost stays
    open and silent; otherwise it ends. With `swallowing` only the request is lost, and all else goes on.
    `http_requests` are the first lines of what passed, where that is HTTP.
    """

    def __init__(
        self,
        url: str,
        losing: bytes | None = None,
        *,
        after: bool = False,
        once: bytes = b"",
        holding: bool = False,
        swallowing: bool = False,
    ) -> None:
        address = urlsplit(url)
        self._target = (address.hostname or "127.0.0.1", address.port or 5672)
        self._losing = losing
        self._lose_answer = after
        self._once = once
        self._holding = holding
        self._swallowing = swallowing
        self.lost = threading.Event()
        self.http_requests: list[str] = []
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self._closing = False
        self._refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        login, at, _ = address.netloc.rpartition("@")
        self.url = address._replace(netloc=f"{login}{at}127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closing = True
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection; new ones are taken."""
        with self._lock:
            for connection in self._sockets:
                _end(connection)
            self._sockets.clear()
            self._clients.clear()

    def refuse(self) -> None:
        """Cut, and cut what comes until `restore`."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Keep all bytes back until `restore`."""
        self._open.clear()

    def restore(self) -> None:
        """Be a plain proxy again: nothing refused, kept back or lost."""
        self._refusing = False
        self._losing = None
        self._open.set()

    def say_to_clients(self, frame: bytes) -> None:
        """Send a frame that the service did not send; for a moment in which it is silent."""
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):  # some have left
                    client.sendall(frame)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            service = None
            with contextlib.suppress(OSError):
                service = None if self._refusing else socket.create_connection(self._target, timeout=10)
            if service is None:
                _end(client)
                continue
            service.settimeout(None)
            with self._lock:
                self._sockets += [client, service]
                self._clients.append(client)
            answers_lost = threading.Event()
            threading.Thread(target=self._requests, args=(client, service, answers_lost), daemon=True).start()
            threading.Thread(target=self._answers, args=(service, client, answers_lost), daemon=True).start()

    def _requests(self, client: socket.socket, service: socket.socket, answers_lost: threading.Event) -> None:
        armed = not self._once
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                self._open.wait()
                armed = armed or self._once in data
                if armed and self._losing is not None and self._losing in data:
                    if not self._lose_answer:
                        # The connection stays as it is: whoever sent this waits for an answer.
                        self.lost.set()
                        if self._swallowing:
                            continue
                        return
                    answers_lost.set()
                self.http_requests += [line.decode() for line in HTTP_REQUEST.findall(data)]
                service.sendall(data)
        _shut((client, service))

    def _answers(self, service: socket.socket, client: socket.socket, answers_lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := service.recv(CHUNK):
                self._open.wait()
                if answers_lost.is_set():
                    self.lost.set()
                    if self._holding:
                        return
                    break
                client.sendall(data)
        _shut((client, service))


def _end(connection: socket.socket) -> None:
    _shut((connection,))
    connection.close()


def _shut(connections: tuple[socket.socket, ...]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
