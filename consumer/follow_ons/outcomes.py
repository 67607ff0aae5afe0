"""What may come of a delivery of a follow-on's queue. Values, settled by the worker."""

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.follow_ons.outbox import Requested


@dataclass(frozen=True, slots=True)
class HistoryCaptured:
    """One capture covered these requests; none is left for it where an earlier one has."""

    requests: Sequence[Requested]
    seconds: float


@dataclass(frozen=True, slots=True)
class TicketsGeocoded:
    """A batch was run, or nobody asks for one any more."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing can be done for so many seconds: the delivery waits elsewhere."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Told to stop before it was begun: the delivery stays unacked and goes back to its queue."""


FollowOnOutcome = HistoryCaptured | TicketsGeocoded | Postponed | Interrupted
