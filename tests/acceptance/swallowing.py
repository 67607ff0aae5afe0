"""A TCP proxy that a test can cut, or have swallow what it should not get through."""

import contextlib
import socket
import threading
from typing import Self


class SwallowingProxy:
    """Forwards to one address on loopback while `open`; `swallow` is a text that no request with it gets past."""

    def __init__(self, port: int, swallow: bytes | None = None) -> None:
        self.swallowed = threading.Event()
        self._to = port
        self._swallow = swallow
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `mend`."""
        with self._lock:
            self._open = False
            for connection in self._connections:
                _break(connection)
            self._connections.clear()

    def mend(self) -> None:
        with self._lock:
            self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    if not self._open:
                        _break(client)
                        continue
                    try:
                        server = socket.create_connection(("127.0.0.1", self._to))
                    except OSError:
                        _break(client)
                        continue
                    self._connections |= {client, server}
                threading.Thread(target=self._pump, args=(client, server, self._swallow), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, swallow: bytes | None) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                if swallow is not None and swallow in chunk:
                    self.swallowed.set()
                    return
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
