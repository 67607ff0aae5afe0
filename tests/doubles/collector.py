"""A collector of spans, that speaks OTLP over HTTP as far as an exporter needs it."""

import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Collected:
    """A span as it came; ids in hex, "" for no parent."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    nanoseconds: int
    attributes: dict[str, Any]
    links: list[str]
    is_error: bool


@dataclass
class Collector:
    """As a context it listens on loopback, by TLS with a certificate and its key; `is_away` has it refuse all."""

    spans: list[Collected] = field(default_factory=list)
    is_away: bool = False
    certificate: tuple[Path, Path] | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if self.certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self.certificate else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self._server.server_port}"

    def named(self, name: str) -> list[Collected]:
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {pair.key: _plain(pair.value) for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Collected(
                            told["service.name"],
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.kind,
                            span.end_time_unix_nano - span.start_time_unix_nano,
                            {pair.key: _plain(pair.value) for pair in span.attributes},
                            [link.trace_id.hex() for link in span.links],
                            span.status.code == 2,
                        )
                    )


def _plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.is_away or self.path != "/v1/traces":
                self.send_response(400)
            else:
                collector.take(body)
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
