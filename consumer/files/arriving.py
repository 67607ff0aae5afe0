"""A delivery's body: which arrivals in it are ours, what is ignored and why, and what is broken. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from publisher.arrivals.messages import ChangeFileArrived
from publisher.arrivals.store_events import IgnoredEvent, NotAnEvent, read_event


@dataclass(slots=True)
class Arrivals:
    """What one body says; `ignored` counts events by reason, and `broken` is the last record that is none."""

    ours: list[ChangeFileArrived] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    broken: NotAnEvent | None = None


def read_arrivals(body: bytes, bucket: str, changes_prefix: str) -> Arrivals:
    """Read the events of a body, of a store or of the poller.

    Raises: NotAnEvent, for a body that has none at all.
    """
    found = Arrivals()
    for event in read_event(body):
        match event if isinstance(event, NotAnEvent) else _ours(event, bucket, changes_prefix):
            case ChangeFileArrived() as ours:
                found.ours.append(ours)
            case IgnoredEvent(reason):
                found.ignored[reason] += 1
            case NotAnEvent() as error:
                found.broken = error
    return found


def _ours(
    arrived: ChangeFileArrived | IgnoredEvent, bucket: str, changes_prefix: str
) -> ChangeFileArrived | IgnoredEvent:
    if isinstance(arrived, IgnoredEvent):
        return arrived
    if arrived.bucket != bucket:
        return IgnoredEvent("another bucket")
    keys = tuple(key for key in arrived.keys if key.startswith(changes_prefix))
    if not keys:
        # Archiving in the same bucket raises such events for every file.
        return IgnoredEvent("another prefix")
    return arrived.model_copy(update={"keys": keys})
