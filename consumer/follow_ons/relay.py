"""The relay: requests that committed transactions left behind become messages, published first and marked second."""

from collections.abc import Callable, Iterator, Sequence
from threading import Lock

import structlog

from consumer.fail_points import Reached
from consumer.follow_ons import outbox
from consumer.follow_ons.outbox import Requested
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.arrivals.messages import CaptureHistory, FollowOn, GeocodeTickets
from publisher.broker import publishing, tracing
from publisher.broker.publishing import Outgoing
from publisher.broker.topology import Queue
from publisher.errors import NotConfirmed
from publisher.spans import UNRECORDED, Spans
from publisher.trace import Trace

log = structlog.get_logger()


_AT_A_TIME = 1000
_LOST_SECONDS = 3600
"""After so long without anything done for a request, another message is sent, which does no harm."""
_MESSAGES: dict[Queue, Callable[[tuple[int, ...]], FollowOn]] = {
    Queue.GEOCODE: lambda requests: GeocodeTickets(requests=requests),
    Queue.HISTORY: lambda requests: CaptureHistory(requests=requests),
}


class Relay:
    """Sends unsent requests, one message for a thousand of a kind. Safe to share between threads.

    One thread at a time sends all that there is, for those as well who wait for their turn meanwhile. No transaction is
    open while the broker is waited for: two processes at once, and one after a crash between publishing and marking,
    send the same requests again under the same message id. Marked is what was read; a request that is asked anew
    meanwhile has another number, and is sent by whoever asks.

    Whoever takes a message does what is asked for by then, whichever requests it names. So where one `waits` in the
    queue of a kind, it stands for those as well that are committed already, and there is no second one.
    """

    def __init__(
        self,
        pool: Pool,
        publish: Callable[[Outgoing], None],
        reached: Reached,
        waits: Callable[[Queue], bool] = lambda _kind: False,
        spans: Spans = UNRECORDED,
    ) -> None:
        self._pool = pool
        self._publish = publish
        self._waits = waits
        self._spans = spans
        self._reached = reached
        self._sending = Lock()
        self._stuck: set[Queue] = set()
        self._asking = Lock()
        self._asked = self._served = 0

    def send(self, trace: Trace | None = None, *, also_stuck: bool = False) -> int:
        """Send what there is, and give how many requests that was: none for who finds its own sent by another thread.

        A kind that the broker did not take is stuck: it keeps nobody waiting again, until somebody tries it with
        `also_stuck` and it is taken. That sends one of each kind once more as well whose message seems to be lost.
        `trace` is for requests that no file left.
        Raises: DependencyDown, for the database.
        """
        with self._asking:
            self._asked += 1
            mine = self._asked
        with self._sending:
            if self._served >= mine and not also_stuck:
                return 0
            serving = self._asked  # whoever has asked by now has committed what it asks for
            if also_stuck:
                with database.statement(self._pool) as connection:
                    is_any = outbox.ask_again(connection, list(_MESSAGES), _LOST_SECONDS)
                if is_any:
                    self._reached("asked again, not published")
            kinds = list(_MESSAGES) if also_stuck else [kind for kind in _MESSAGES if kind not in self._stuck]
            sent = sum(self._passes(kinds, trace))
            self._served = serving
            return sent

    def _passes(self, kinds: list[Queue], trace: Trace | None) -> Iterator[int]:
        """Send a thousand of each kind at a time; gives how many that were."""
        while kinds:
            with database.statement(self._pool) as connection:
                unsent = outbox.unsent(connection, kinds, _AT_A_TIME)
            taken = [
                request
                for kind, requests in unsent.items()
                if self._take(kind, requests, trace)
                for request in requests
            ]
            if taken:
                self._reached("relay published, not marked")
                with database.statement(self._pool) as connection:
                    outbox.mark_sent(connection, taken)
            self._stuck.difference_update(kind for kind in kinds if kind not in unsent)
            yield len(taken)
            full = [kind for kind, requests in unsent.items() if len(requests) == _AT_A_TIME]
            kinds = [kind for kind in full if kind not in self._stuck]

    def _take(self, kind: Queue, requests: list[Requested], otherwise: Trace | None) -> bool:
        """Whether the broker takes them, in a message that goes on with the trace of the first that has one."""
        trace = next((each.trace for each in requests if each.kept), otherwise)
        try:
            if not self._waits(kind):
                made = message(kind, [each.request_id for each in requests], trace)
                with tracing.sending(self._spans, made) as sent:
                    self._publish(sent)
        except NotConfirmed as error:
            self._stuck.add(kind)
            do = "files go on, their requests stay in the outbox; sent when the queue takes them"
            log.warning("not relayed", queue=kind.value, detail=str(error), do=do)
            return False
        self._stuck.discard(kind)
        return True


def message(kind: Queue, requests: Sequence[int], trace: Trace | None) -> Outgoing:
    """One for all these requests, under an id that is the same each time; one that is of no trace begins its own."""
    body = _MESSAGES[kind](tuple(requests)).model_dump_json().encode()
    return publishing.request(kind, body, trace or Trace.of(body), message_id=f"{kind.value}-{requests[0]}")
