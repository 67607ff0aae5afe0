"""The relay: requests that committed transactions left behind become messages, published first and marked second."""

from collections import defaultdict
from collections.abc import Callable

from consumer import database
from consumer.database import Pool
from consumer.fail_points import AtPoint
from publisher import broker
from publisher.broker import Outgoing
from publisher.link import Link
from publisher.messages import CaptureHistory, FollowOn, GeocodeTickets
from publisher.topology import Queue

_MESSAGES: dict[str, tuple[Queue, Callable[[tuple[int, ...]], FollowOn]]] = {
    "geocode": (Queue.GEOCODE, lambda requests: GeocodeTickets(requests=requests)),
    "history": (Queue.HISTORY, lambda requests: CaptureHistory(requests=requests)),
}


def relay(pool: Pool, link: Link, at: AtPoint) -> int:
    """Send every unsent request, one message for all of a kind. Gives how many requests were sent.

    A crash between publishing and marking sends the same requests again under the same message id.
    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        unsent: dict[str, list[int]] = defaultdict(list)
        for request in database.rows(connection, "outbox", "take_unsent"):
            unsent[request["kind"]].append(request["request_id"])
        for kind, requests in unsent.items():
            link.publish(_message(kind, tuple(requests)))
        if unsent:
            at("relay published, not marked")
        sent = [request for requests in unsent.values() for request in requests]
        if sent:
            database.rows(connection, "outbox", "mark_sent", {"requests": sent})
    return len(sent)


def _message(kind: str, requests: tuple[int, ...]) -> Outgoing:
    queue, make = _MESSAGES[kind]
    return broker.request(queue, make(requests).model_dump_json().encode(), message_id=f"{kind}-{requests[0]}")
