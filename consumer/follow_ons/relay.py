"""The relay: requests that committed transactions left behind become messages, published first and marked second."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock

import structlog

from consumer.fail_points import Reached
from consumer.follow_ons import outbox
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.arrivals.messages import CaptureHistory, FollowOn, GeocodeTickets
from publisher.broker import publishing
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.errors import NotConfirmed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class _Requests:
    """Requests of one kind, for one queue."""

    queue: Queue
    message: Callable[[tuple[int, ...]], FollowOn]
    sending: Lock = field(default_factory=Lock)
    is_stuck: Event = field(default_factory=Event)


class Relay:
    """Sends unsent requests, one message for a thousand of a kind. Safe to share between threads.

    One thread at a time sends all that there is of a kind. No transaction is open while the broker is waited for: two
    processes at once, and one after a crash between publishing and marking, send the same requests again under the same
    message id. Marked is what was read; a request that is asked anew meanwhile has another number.
    """

    def __init__(self, pool: Pool, publish: Callable[[Outgoing], None], reached: Reached) -> None:
        self._pool = pool
        self._publish = publish
        self._reached = reached
        self._kinds = [
            _Requests(Queue.GEOCODE, lambda requests: GeocodeTickets(requests=requests)),
            _Requests(Queue.HISTORY, lambda requests: CaptureHistory(requests=requests)),
        ]

    def send(self, *, also_stuck: bool = False) -> int:
        """Send what there is, and give how many requests that was.

        A kind that the broker did not take is stuck: it keeps nobody waiting again, until somebody tries it with
        `also_stuck` and it is taken.
        Raises: DependencyDown, for the database.
        """
        return sum(self._send(kind, also_stuck=also_stuck) for kind in self._kinds)

    def _send(self, kind: _Requests, *, also_stuck: bool) -> int:
        if kind.is_stuck.is_set() and not also_stuck:
            return 0
        with kind.sending:
            if kind.is_stuck.is_set() and not also_stuck:  # so the one found that this one has waited for
                return 0
            sent = after = 0
            while requests := self._unsent(kind, after):
                try:
                    self._publish(_message(kind, requests))
                except NotConfirmed as error:
                    kind.is_stuck.set()
                    do = "files go on, their requests stay in the outbox; sent when the queue takes them"
                    log.warning("not relayed", queue=kind.queue.value, detail=str(error), do=do)
                    return sent
                self._reached("relay published, not marked")
                with database.transaction(self._pool) as connection:
                    outbox.mark_sent(connection, requests)
                sent += len(requests)
                after = requests[-1]
            kind.is_stuck.clear()
            return sent

    def _unsent(self, kind: _Requests, after: int) -> list[int]:
        """The next thousand."""
        with database.transaction(self._pool) as connection:
            return outbox.unsent(connection, kind.queue, after)


def _message(kind: _Requests, requests: list[int]) -> Outgoing:
    body = kind.message(tuple(requests)).model_dump_json().encode()
    return publishing.request(kind.queue, body, message_id=f"{kind.queue.value}-{requests[0]}")
