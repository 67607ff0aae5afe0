"""The parts of docs/messages.md: exchanges and queues as they are declared, and messages as the code makes them."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consumer.files.failures import outgoing
from consumer.files.outcomes import UNEXPECTED, Failure
from consumer.follow_ons import relay
from publisher.arrivals import messages
from publisher.broker import dead_letters, topology
from publisher.broker.consuming import Delivery
from publisher.broker.dead_letters import DeadLetter
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Exchange, Queue, QuorumQueue
from publisher.sources import poller
from publisher.spans import Span
from publisher.store.bucket import ObjectSummary

ROOT = Path(__file__).parents[1]
_KEY, _ETAG = "automations/inc/changes/2026-06-25T142000.csv", "6f5902ac237024bdd0c176cb93063dc4"
_PUT_AT = datetime(2026, 6, 25, 11, 20, 3, 412000, tzinfo=UTC)
_NOW = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")


def exchanges_and_queues() -> str:
    declared = topology.declarations()
    exchanges = [f"| `{one.name}` | {one.type} |\n" for one in declared if isinstance(one, Exchange)]
    queues = [
        f"| `{one.name}` | {', '.join(f'`{name}={value}`' for name, value in one.arguments.items())} |\n"
        for one in declared
        if isinstance(one, QuorumQueue)
    ]
    bound = [f"| `{one.exchange}` | {one.key and f'`{one.key}`'} | `{one.queue}` |\n" for one in topology.bindings()]
    return "\n".join(
        [
            "".join(["| exchange, durable | type |\n", "| --- | --- |\n", *exchanges]),
            "".join(["| queue, durable and quorum | with |\n", "| --- | --- |\n", *queues]),
            "".join(["| what is published to | with the routing key | goes to |\n", "| --- | --- | --- |\n", *bound]),
        ]
    )


def headers() -> str:
    """Each with what the code says beside it."""
    source = (ROOT / "publisher" / "arrivals" / "messages.py").read_text()
    told = re.findall(r'^[A-Z_]+ = "(fleettickets-[\w-]+)"  # (.+)$', source, re.MULTILINE)
    return "".join(["| header | |\n", "| --- | --- |\n", *(f"| `{name}` | {words} |\n" for name, words in told)])


def examples() -> str:
    return "\n".join(f"**{title}**\n\n```json\n{_shown(message)}\n```\n" for title, message in _messages())


def _shown(message: Outgoing) -> str:
    properties = message.properties()
    told: dict[str, Any] = {
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "content_type": properties.content_type,
        "delivery_mode": properties.delivery_mode,
        **({"message_id": message.message_id} if message.message_id else {}),
        "headers": dict(properties.headers or {}),
        "body": json.loads(message.body),
    }
    text = json.dumps(told, indent=2, ensure_ascii=False)
    # Of what is made now, the time is another one each time.
    return _NOW.sub(lambda found: f"2026-06-25T11:35:20{'.000' if found[1] else ''}+00:00", text)


def _messages() -> Iterator[tuple[str, Outgoing]]:
    found = ObjectSummary(_KEY, _ETAG, 48_213, _PUT_AT)
    arrival = poller.offer("isptickets", found)
    yield "What the poller publishes of a file that waits", arrival
    detail = 'UniqueViolation: duplicate key value violates unique constraint "made_by_hand"'
    yield (
        "A file that failed for the second time, on its way to the third try",
        outgoing(_failure(2, detail), _delivery(arrival, {messages.AGAIN: "retry", messages.ATTEMPTS: 1})),
    )
    dead = outgoing(_failure(5, detail), _delivery(arrival, {messages.AGAIN: "retry", messages.ATTEMPTS: 4}))
    yield "Its dead letter, after the fifth", dead
    yield "The same, replayed by hand", dead_letters.sent_back(Queue.FILES, _letter(dead), allows_missing=False)
    yield (
        "A request for places, for 3 rows of the outbox",
        relay.message(Queue.GEOCODE, [4711, 4713, 4716], arrival.trace),
    )
    yield "A request for a history capture", relay.message(Queue.HISTORY, [4712], arrival.trace)


def _failure(attempts: int, detail: str) -> Failure:
    return Failure(_KEY, UNEXPECTED, detail, attempts, _ETAG)


def _delivery(message: Outgoing, headers_of_ours: dict[str, Any]) -> Delivery:
    channel: Any = None  # nobody settles it
    return Delivery(Queue.FILES, message.body, headers_of_ours, False, channel, 1, Span(message.trace))


def _letter(dead: Outgoing) -> DeadLetter:
    return DeadLetter(
        id="", taken=1, queue=Queue.FILES, key=_KEY, reason=UNEXPECTED, error="", fingerprint="", attempts=5, replays=0,
        dead_at=_PUT_AT, body=dead.body, headers=dead.properties().headers or {},
    )  # fmt: skip
