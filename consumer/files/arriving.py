"""A delivery's body: which arrivals in it are ours and of which feed, what is ignored and why, what is broken. Pure."""

from collections import Counter
from dataclasses import dataclass, field

from consumer.feeds.feed import Feed, Feeds
from publisher.arrivals.folders import CHANGES
from publisher.arrivals.messages import ChangeFileArrived
from publisher.arrivals.store_events import IgnoredEvent, NotAnEvent, read_event


@dataclass(frozen=True, slots=True)
class Arrival:
    """A change file that somebody saw, with the feed that its key is of."""

    feed: Feed
    arrived: ChangeFileArrived


@dataclass(slots=True)
class Arrivals:
    """What one body says; `ignored` counts events by reason, and `broken` is the last record that is none.

    `others` are of feeds that are declared and not served here, and `unknown` of none that is declared here.
    """

    ours: list[Arrival] = field(default_factory=list)
    others: list[ChangeFileArrived] = field(default_factory=list)
    unknown: list[ChangeFileArrived] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    broken: NotAnEvent | None = None

    @property
    def is_of_one(self) -> bool:
        """Whether all that the body says is one arrival of ours."""
        return len(self.ours) == 1 and not (self.others or self.unknown or self.ignored or self.broken)

    @property
    def to_spread(self) -> list[ChangeFileArrived]:
        return [*(one.arrived for one in self.ours), *self.others]


def read_arrivals(body: bytes, bucket: str, feeds: Feeds) -> Arrivals:
    """Read the events of a body, of a store or of the poller.

    Raises: NotAnEvent, for a body that has none at all.
    """
    found = Arrivals()
    for event in read_event(body):
        match event:
            case ChangeFileArrived(bucket=named) if named != bucket:
                found.ignored["another bucket"] += 1
            case ChangeFileArrived():
                _sort(event, feeds, found)
            case IgnoredEvent(reason):
                found.ignored[reason] += 1
            case NotAnEvent():
                found.broken = event
    return found


def _sort(arrived: ChangeFileArrived, feeds: Feeds, found: Arrivals) -> None:
    """By its first key that is a change file's: the others are how the same one may read otherwise."""
    for key in arrived.keys:
        feed = feeds.of_change(key)
        if feed is not None:
            keys = tuple(name for name in arrived.keys if name.startswith(feed.folder.changes))
            found.ours.append(Arrival(feed, arrived.model_copy(update={"keys": keys})))
            return
    if any(map(feeds.is_left_to_others, arrived.keys)):
        found.others.append(arrived)
    elif any(CHANGES in key for key in arrived.keys):
        found.unknown.append(arrived)
    else:
        # Archiving in the same bucket raises such events for every file.
        found.ignored["another prefix"] += 1
