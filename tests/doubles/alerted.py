"""Whoever is at FLEETTICKETS_ALERT_URL: takes what is posted there, or does not when told so."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

SECRET = "Zalert1-Yalert2"


@dataclass(frozen=True)
class Posted:
    """One request, and the status that it got."""

    path: str
    content_type: str
    body: dict[str, Any]
    status: int

    @property
    def text(self) -> str:
        told: str = self.body["text"]
        return told

    @property
    def message_id(self) -> str:
        return self.text.rpartition("; id ")[2]


class Alerted:
    """Listens at `url` until closed; `posted` is all that came, `taken` what was answered with 2xx."""

    def __init__(self) -> None:
        server = self
        self.answers = 200
        self.posted: list[Posted] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = server.answers
                server.posted.append(Posted(self.path, self.headers["Content-Type"], body, status))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/services/{SECRET}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def taken(self) -> list[Posted]:
        return [one for one in self.posted if one.status // 100 == 2]

    @property
    def heads(self) -> list[str]:
        """The first lines of what it took."""
        return [one.text.splitlines()[0].removeprefix("fleettickets: ") for one in self.taken]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
