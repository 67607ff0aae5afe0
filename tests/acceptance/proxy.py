"""A TCP proxy in front of a service, to take the service away from one client without touching it."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Passes bytes on; `cut` ends every connection, `refuse` takes no new ones, `stall` keeps the bytes back."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._clients: list[socket.socket] = []
        self._closing = False
        self._refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._open.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def refuse(self) -> None:
        """Cut, and cut what comes until `restore`."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        self._open.clear()

    def restore(self) -> None:
        self._refusing = False
        self._open.set()

    def cut(self) -> None:
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._sockets.clear()
            self._clients.clear()

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
            if self._refusing:
                client.close()
                continue
            service = socket.create_connection(self._target, timeout=10)
            service.settimeout(None)
            with self._lock:
                self._sockets += [client, service]
                self._clients.append(client)
            for source, target in ((client, service), (service, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
