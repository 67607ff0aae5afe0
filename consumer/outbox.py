"""The relay: requests that committed transactions left behind become messages, published first and marked second."""

from collections import defaultdict
from collections.abc import Callable

from consumer import database
from consumer.database import Pool
from consumer.fail_points import AtPoint
from publisher import broker
from publisher.broker import Outgoing
from publisher.errors import NotConfirmed
from publisher.link import Link
from publisher.messages import CaptureHistory, FollowOn, GeocodeTickets
from publisher.topology import Queue

_MESSAGES: dict[str, tuple[Queue, Callable[[tuple[int, ...]], FollowOn]]] = {
    "geocode": (Queue.GEOCODE, lambda requests: GeocodeTickets(requests=requests)),
    "history": (Queue.HISTORY, lambda requests: CaptureHistory(requests=requests)),
}


def relay(pool: Pool, link: Link, at: AtPoint) -> int:
    """Send every unsent request, one message for a thousand of a kind. Gives how many requests were sent.

    No transaction is open while the broker is waited for: two relays at once, and one after a crash between publishing
    and marking, send the same requests again under the same message id. Marked is what was read; a request that is
    asked anew meanwhile has another number. A kind that the broker does not take keeps the others from nothing.
    Raises: DependencyDown; NotConfirmed, after all that could be sent.
    """
    refused: dict[str, NotConfirmed] = {}
    total = after = 0
    while unsent := _unsent(pool, after):
        after = max(max(requests) for requests in unsent.values())
        sent: list[int] = []
        for kind, requests in unsent.items():
            if kind in refused:
                continue
            try:
                link.publish(_message(kind, tuple(requests)))
                sent += requests
            except NotConfirmed as error:
                refused[kind] = error
        if sent:
            at("relay published, not marked")
            with database.transaction(pool) as connection:
                database.rows(connection, "outbox", "mark_sent", {"requests": sent})
        total += len(sent)
    if refused:
        raise next(iter(refused.values()))
    return total


def _unsent(pool: Pool, after: int) -> dict[str, list[int]]:
    """The next thousand, by kind."""
    unsent: dict[str, list[int]] = defaultdict(list)
    with database.transaction(pool) as connection:
        for request in database.rows(connection, "outbox", "unsent", {"after": after}):
            unsent[request["kind"]].append(request["request_id"])
    return unsent


def _message(kind: str, requests: tuple[int, ...]) -> Outgoing:
    queue, make = _MESSAGES[kind]
    return broker.request(queue, make(requests).model_dump_json().encode(), message_id=f"{kind}-{requests[0]}")
