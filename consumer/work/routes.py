"""Which queue is worked on by whom: the one table from a queue to threads, prefetch, handler and breaker."""

from collections.abc import Callable
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


@dataclass(frozen=True, slots=True)
class Route:
    """Deliveries of one queue: how many are in hand at a time, and how many of those are worked on."""

    prefetch: int
    threads: int
    handle: Handle
    breaker: Breaker


def routing_table(
    handlers: dict[Queue, Handle], breakers: dict[Queue, Breaker], settings: WorkSettings
) -> dict[Queue, Route]:
    """A route for each queue that has a handler; the others are not consumed."""
    sizes = {
        Queue.FILES: (settings.prefetch, settings.files_in_hand),
        Queue.HISTORY: (_HISTORY_PREFETCH, 1),
        Queue.GEOCODE: (_GEOCODE_PREFETCH, 1),
    }
    return {queue: Route(*sizes[queue], handle, breakers[queue]) for queue, handle in handlers.items()}
