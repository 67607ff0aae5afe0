"""Structured logging: one line per unit of work, on stderr."""

import logging
import os
import socket
import sys
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Literal

import structlog

from publisher.terminal import printable
from publisher.trace import Trace

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


def configure(log_format: LogFormat = "auto", level: LogLevel = "info") -> None:
    """Log for people on a terminal and as JSON lines elsewhere, unless told which."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    last = [renderer] if as_json else [_spelled_out, renderer]
    first: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        *([_with_process] if as_json else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries have to say, in the same form as ours.
    foreign = logging.StreamHandler(sys.stderr)
    drop_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    foreign.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=first, processors=[drop_meta, *last]))
    logging.basicConfig(handlers=[foreign], level=logging.WARNING, force=True)
    # These report each lost connection in their own words, pika with a stack, urllib3 a certificate that does not fit;
    # our line says it once. urllib3 also shows whole URLs, and the geocoder's key is in one.
    for library in ("pika", "psycopg.pool", "urllib3", "opentelemetry"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def following(trace: Trace) -> AbstractContextManager[None]:
    """Each line of this thread or task has the id of the trace meanwhile."""
    return structlog.contextvars.bound_contextvars(trace_id=trace.id)


class Sparing:
    """Warnings that others could cause by the thousand: of each kind the first at once, the rest as a number later.

    Kinds are few: event and reason come from the program, never from outside.
    """

    def __init__(self) -> None:
        self._withheld: dict[tuple[str, str], tuple[int, dict[str, object]]] = {}

    def warn(self, event: str, reason: str, **fields: object) -> None:
        """Say it, or count it where this kind was said already since `tell`."""
        kind = event, reason
        if kind in self._withheld:
            self._withheld[kind] = self._withheld[kind][0] + 1, fields
        else:
            self._withheld[kind] = 0, fields
            structlog.get_logger().warning(event, reason=reason, **fields)

    def tell(self) -> None:
        """Say how many more there were of each kind, with what the last one was like. To be called now and then."""
        withheld, self._withheld = self._withheld, {}
        for (event, reason), (more, fields) in withheld.items():
            if more:
                structlog.get_logger().warning(event, reason=reason, more=more, **fields)


_PROCESS = {"host": socket.gethostname(), "version": version("fleettickets")}


def _with_process(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Where the lines of many processes come together, whose each is."""
    event.update(_PROCESS, pid=os.getpid())
    return event


def _spelled_out(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """JSON escapes what could steer a terminal; for the console it is done here. A stack keeps its lines."""
    return {
        name: printable(value, lines=name == "exception") if isinstance(value, str) else value
        for name, value in event.items()
    }
