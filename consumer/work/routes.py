"""Which queue is worked on by whom: the one table from a queue to threads, prefetch, handler and breaker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumer.files.outcomes import FileOutcome
from consumer.follow_ons.outcomes import FollowOnOutcome
from consumer.work.breaker import Breaker
from publisher.broker.consuming import Delivery
from publisher.broker.topology import Queue
from publisher.settings import WorkSettings

_HISTORY_PREFETCH = 100
_GEOCODE_PREFETCH = 1

Handle = Callable[[Delivery], FileOutcome | FollowOnOutcome]
HandleTogether = Callable[[Sequence[Delivery]], Sequence[FileOutcome | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """Deliveries of one queue: how many are in hand at a time, and how many threads work on them.

    `together` handles several at a time, where that can be; None of one that is to be handled by itself.
    """

    prefetch: int
    threads: int
    handle: Handle
    breaker: Breaker
    together: HandleTogether | None = None


def routing_table(
    handlers: dict[Queue, Handle],
    breakers: dict[Queue, Breaker],
    settings: WorkSettings,
    files_together: HandleTogether | None,
) -> dict[Queue, Route]:
    """A route for each queue that has a handler; the others are not consumed."""
    sizes = {
        Queue.FILES: (settings.prefetch, settings.files_in_hand),
        Queue.HISTORY: (_HISTORY_PREFETCH, 1),
        Queue.GEOCODE: (_GEOCODE_PREFETCH, 1),
    }
    together = {Queue.FILES: files_together}
    return {
        queue: Route(*sizes[queue], handle, breakers[queue], together.get(queue)) for queue, handle in handlers.items()
    }
