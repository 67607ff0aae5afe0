"""A proxy in front of PostgreSQL that counts what its clients ask: statements by kind, and how often they wait.

Counted is what the server answers. A statement is what it tells the end of, under the first word of its tag: BEGIN,
COMMIT, SELECT, INSERT. A client waits once for each time the server is ready for the next query, and once more before
it may send the rows of a COPY. A commit is a COMMIT, or a statement outside of any transaction that writes.
"""

import contextlib
import socket
import struct
import threading
from collections import Counter
from urllib.parse import urlsplit

from tests.doubles.proxy import CHUNK, Proxy

_READY, _COPY_IN, _COMPLETE = b"Z", b"G", b"C"
_IDLE = b"I"
_COMMITTING = frozenset({"COMMIT", "INSERT", "UPDATE", "DELETE"})


class CountingPostgres(Proxy):
    """A plain proxy that counts; `url` is for DATABASE_URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.statements: Counter[str] = Counter()
        self.round_trips = 0
        self.commits = 0
        self._counting = threading.Lock()
        # Without TLS, which nobody could look into.
        self.url = urlsplit(self.url)._replace(query="sslmode=disable&gssencmode=disable").geturl()

    def _answers(self, service: socket.socket, client: socket.socket, _answers_lost: threading.Event) -> None:
        waiting = b""
        completed: list[str] = []
        """Since the server was ready for the last time."""
        with contextlib.suppress(OSError):
            while data := service.recv(CHUNK):
                waiting = self._counted(waiting + data, completed)
                client.sendall(data)
        for connection in (client, service):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _counted(self, data: bytes, completed: list[str]) -> bytes:
        """Count each message that is there as a whole; give what is left."""
        at = 0
        while len(data) >= at + 5:
            kind, (length,) = data[at : at + 1], struct.unpack_from(">I", data, at + 1)
            if len(data) < at + 1 + length:
                break
            with self._counting:
                if kind == _COMPLETE:
                    completed.append(data[at + 5 : at + length].partition(b" ")[0].decode())
                    self.statements[completed[-1]] += 1
                elif kind == _READY:
                    is_outside = data[at + 5 : at + 6] == _IDLE
                    self.commits += is_outside and not _COMMITTING.isdisjoint(completed)
                    completed.clear()
                self.round_trips += kind in (_READY, _COPY_IN)
            at += 1 + length
        return data[at:]
