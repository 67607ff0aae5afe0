"""Spans of messages, with the names that OpenTelemetry has for what they tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.spans import Attribute, Span, SpanKind, Spans
from publisher.trace import Trace

_RABBITMQ: dict[str, Attribute] = {"messaging.system": "rabbitmq"}


@contextmanager
def sending(spans: Spans, outgoing: Outgoing) -> Iterator[Outgoing]:
    """The message as it is to be published meanwhile; to its end, the broker has confirmed it."""
    told = _RABBITMQ | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": f"{outgoing.exchange}:{outgoing.routing_key}",
        "messaging.rabbitmq.destination.routing_key": outgoing.routing_key,
        "messaging.message.body.size": len(outgoing.body),
    }
    if outgoing.message_id:
        told["messaging.message.id"] = outgoing.message_id
    span = spans.begin(SpanKind.PRODUCER, f"send {outgoing.exchange}", outgoing.trace, told)
    try:
        yield replace(outgoing, trace=span.trace)
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()


def processing(spans: Spans, queue: Queue, trace: Trace, size: int, *, redelivered: bool) -> Span:
    """Of a delivery, from when it is there."""
    return spans.begin(
        SpanKind.CONSUMER,
        f"process {queue.broker_name}",
        trace,
        _RABBITMQ
        | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": queue.broker_name,
            "messaging.message.body.size": size,
            "fleettickets.redelivered": redelivered,
        },
    )
