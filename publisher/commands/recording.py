"""Whether what a process does is sent as spans to a collector."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from publisher.errors import Misconfigured
from publisher.heartbeat import ProcessKind
from publisher.settings import TracesSettings, load, written
from publisher.spans import UNRECORDED, Spans

_OURS = "OTEL_"
log = structlog.get_logger()


@contextmanager
def recording(process: ProcessKind) -> Iterator[Spans]:
    """Spans of a process, sent where OpenTelemetry's own variables ask for it; what that lacks keeps no file waiting.

    Raises: Misconfigured, for a setting that is wrong.
    """
    settings = load(TracesSettings)
    if not settings.address:
        yield UNRECORDED
        return
    try:
        require_exporter(settings)
    except Misconfigured as error:
        log.warning("traces not sent", to=settings.address, detail=str(error), do="files go on without")
        yield UNRECORDED
        return
    from publisher import otel  # noqa: PLC0415 - an extra, which takes a quarter of a second to import

    log.info("traces", to=settings.address)
    with otel.recording(settings, process.value) as spans:
        yield spans


def require_exporter(settings: TracesSettings) -> None:
    """The library that sends spans is there, and can do so as it is told to; it gets what `.env` has for it.

    Raises: Misconfigured.
    """
    if settings.protocol != "http/protobuf":
        raise Misconfigured(f"OTEL_EXPORTER_OTLP_PROTOCOL is {settings.protocol!r}, and only http/protobuf is spoken")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401, PLC0415 - whether it is there
    except ImportError:
        raise Misconfigured("the exporter is not installed: pip install 'fleettickets[otel]'") from None
    _, file = written()
    for name, value in file.items():
        if name.startswith(_OURS) and value:
            os.environ.setdefault(name, value)
