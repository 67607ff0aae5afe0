"""Spans that are sent to a collector, by OpenTelemetry's own library: an extra, so imported only where it is asked for.

A collector that is away costs the spans of that time and nothing else: they wait in a queue that has an end, for a
thread of the library's own.
"""

import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from typing import Any

import requests
import structlog
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from publisher.settings import TracesSettings
from publisher.spans import Attribute, Span, SpanKind, Spans
from publisher.terminal import printable
from publisher.trace import SAMPLED, Trace

_GRACE_SECONDS = 3.0
"""For what is to be sent still when a process ends; a collector that is away has nobody wait for longer."""
_LOOK_SECONDS = 3.0
_UNNAMED = "unknown_service"
_KINDS = {
    SpanKind.SERVER: api.SpanKind.SERVER,
    SpanKind.PRODUCER: api.SpanKind.PRODUCER,
    SpanKind.CONSUMER: api.SpanKind.CONSUMER,
}
log = structlog.get_logger()


class _Ids(RandomIdGenerator):
    """The library's own ids, but for the root of a trace that has its id already."""

    def __init__(self) -> None:
        self._given = threading.local()

    @contextmanager
    def of(self, trace: Trace) -> Iterator[None]:
        """What this thread begins meanwhile as a root is of the trace."""
        self._given.id = int(trace.id, 16)
        try:
            yield
        finally:
            del self._given.id

    def generate_trace_id(self) -> int:
        given: int | None = getattr(self._given, "id", None)
        return super().generate_trace_id() if given is None else given


class _Recorded(Span):
    """One that is exported when it ends."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, trace: Trace, span: api.Span, tracer: api.Tracer) -> None:
        super().__init__(trace)
        self._span = span
        self._tracer = tracer

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        # A key can have anything in it, and who shows it is not known.
        told = {name: printable(value) if isinstance(value, str) else value for name, value in attributes.items()}
        self._span.set_attributes(told)

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(api.Status(api.StatusCode.ERROR))

    def stage(self, name: str, began: datetime, ended: datetime) -> None:
        context = api.set_span_in_context(self._span, Context())
        stage = self._tracer.start_span(name, context, start_time=_nanoseconds(began))
        stage.end(_nanoseconds(max(began, ended)))

    def links(self, traces: Iterable[Trace]) -> None:
        for trace in traces:
            self._span.add_link(_context(trace))

    def end(self) -> None:
        self._span.end()


class RecordedSpans(Spans):
    """Those of a process. Safe to share between threads."""

    def __init__(self, provider: TracerProvider, ids: _Ids) -> None:
        self._tracer = provider.get_tracer("fleettickets", version("fleettickets"))
        self._ids = ids

    def begin(self, kind: SpanKind, name: str, trace: Trace, attributes: Mapping[str, Attribute]) -> Span:
        if trace.is_new:
            with self._ids.of(trace):
                span = self._tracer.start_span(name, Context(), _KINDS[kind], attributes)
        else:
            before = api.set_span_in_context(api.NonRecordingSpan(_context(trace)), Context())
            span = self._tracer.start_span(name, before, _KINDS[kind], attributes)
        made = span.get_span_context()
        flags = trace.flags & ~SAMPLED | (made.trace_flags & SAMPLED)
        return _Recorded(Trace(trace.id, f"{made.span_id:016x}", flags, trace.state), span, self._tracer)


class TellingExporter(SpanExporter):
    """The library's, with one line when a collector takes nothing, and one when it does again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._is_away = False
        self._heard = _Heard()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._heard.last = ""
        result = self._exporter.export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            do = "see that a collector listens there for OTLP over HTTP; files go on without"
            log.warning("traces not sent", to=self._endpoint, detail=self._heard.last, do=do)
        elif self._is_away and not is_away:
            log.info("traces sent again", to=self._endpoint)
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _Heard(logging.Handler):
    """What the library says of one export."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""
        logger = logging.getLogger(trace_exporter.__name__)
        logger.addHandler(self)
        logger.setLevel(logging.WARNING)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        # What it tells of a try says why; after the last one, an error says only that it was the last.
        if not self.last or record.levelno < logging.ERROR:
            self.last = printable(record.getMessage())


@contextmanager
def recording(settings: TracesSettings, process: str, exporter: SpanExporter | None = None) -> Iterator[Spans]:
    """Spans of a process of this kind, sent while it runs and at its end, to the collector of the settings."""
    ids = _Ids()
    provider = TracerProvider(resource=_resource(process), id_generator=ids, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or TellingExporter(_exporter(settings), settings.address)))
    try:
        yield RecordedSpans(provider, ids)
    finally:
        # Somebody may wait for this process to end.
        ending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_GRACE_SECONDS)


def fault(settings: TracesSettings) -> str:
    """Why the collector takes nothing, asked with nothing to take; "" where it does."""
    exporter, heard = _exporter(settings, _LOOK_SECONDS), _Heard()
    return "" if exporter.export([]) is SpanExportResult.SUCCESS else heard.last


def _exporter(settings: TracesSettings, timeout: float | None = None) -> OTLPSpanExporter:
    own = {"OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"} & os.environ.keys()
    ca_file = str(settings.ca_file) if settings.ca_file and not own else None
    return OTLPSpanExporter(settings.address, certificate_file=ca_file, timeout=timeout, session=_Session())


class _Session(requests.Session):
    """One whose `verify` holds: requests has a bundle of the environment before it."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


def _resource(process: str) -> Resource:
    """Whose spans they are; what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say of it counts."""
    host, pid = socket.gethostname(), os.getpid()
    made = Resource.create()
    ours: dict[str, Attribute] = {
        "service.version": version("fleettickets"), "service.instance.id": f"{host}:{pid}", "host.name": host,
        "process.pid": pid,
    }  # fmt: skip
    named = str(made.attributes.get("service.name", _UNNAMED))
    name = f"fleettickets-{process}" if named.startswith(_UNNAMED) else named
    return Resource(ours).merge(made).merge(Resource({"service.name": name}))


def _context(trace: Trace) -> api.SpanContext:
    state = api.TraceState.from_header([trace.state]) if trace.state else None
    flags = api.TraceFlags(trace.flags & SAMPLED)
    return api.SpanContext(
        int(trace.id, 16), int(trace.parent, 16), is_remote=True, trace_flags=flags, trace_state=state
    )


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6) * 1000
