"""What is done for a trace, from when to when, and how it ended: told to whoever records that. Pure.

Here nobody does, and it costs nothing; `publisher/otel.py` has those that are exported.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from publisher.trace import Trace

Attribute = str | int | float | bool


class SpanKind(StrEnum):
    """As OpenTelemetry has them."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span:
    """Something that is being done. `trace` is for what comes of it: that came of this, or of what was before."""

    __slots__ = ("trace",)

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        """Say something of it."""

    def fail(self, kind: str) -> None:
        """It came to nothing, for a reason of which there are few."""

    def stage(self, name: str, began: datetime, ended: datetime) -> None:
        """A part of it that is over."""

    def links(self, traces: Iterable[Trace]) -> None:
        """It is for these as well."""

    def end(self) -> None:
        """Once; one that is begun and left to others never ends, and is recorded nowhere."""


class Spans:
    """Begins them. Safe to share between threads."""

    def begin(self, kind: SpanKind, name: str, trace: Trace, attributes: Mapping[str, Attribute]) -> Span:  # noqa: ARG002 - of those who record it
        """The root of a trace that is new, else a part of what came before."""
        return Span(trace)


UNRECORDED = Spans()
