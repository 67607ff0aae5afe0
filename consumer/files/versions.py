"""One version of a change file: as it is seen before it is decided, and as the ledger has it after that."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal

from consumer.feeds.feed import Feed
from publisher.arrivals.keys import ChangeFileKey
from publisher.arrivals.messages import SeenBy as AnnouncedBy
from publisher.store.bucket import Put
from publisher.trace import Trace

SeenBy = AnnouncedBy | Literal["drain", "import"]


class Asked(Enum):
    """Who asks for a version, and so which earlier verdict does not stand in the way."""

    BY_ITS_EVENT = "event"
    BY_ITS_RETRY = "retry"
    """One that waits for its retry may be taken up."""
    AGAIN = "again"
    """So may one with a dead letter: a drain passes."""
    BY_A_PERSON = "person"
    """The same, and whatever the policy for changed files says."""

    @property
    def takes_failed(self) -> bool:
        return self is not Asked.BY_ITS_EVENT

    @property
    def takes_dead_letters(self) -> bool:
        return self in (Asked.AGAIN, Asked.BY_A_PERSON)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of a change file as it is about to be applied, and who saw it first, when."""

    feed: Feed
    bucket: str
    key: ChangeFileKey
    etag: str
    size: int
    object_time: datetime
    event_time: datetime | None
    seen_at: datetime
    seen_by: SeenBy
    epoch: int | None = None
    """The epoch that it belongs to, None for the current one."""
    version_id: str | None = None
    """The store's own name of the object, in a bucket that keeps versions."""
    is_archived: bool = False
    """Read from the archive: that it is there says nothing of what its key had last."""
    trace: Trace | None = None
    """Of the delivery, where one brings it."""

    @property
    def put(self) -> Put:
        return Put(self.key.key, self.etag, self.object_time, self.version_id)

    def parameters(self) -> dict[str, Any]:
        return {
            "feed": self.feed.name, "bucket": self.bucket, "prefix": self.feed.prefix,
            "key": self.key.key, "key_time": self.key.time,
            "etag": self.etag, "size": self.size, "object_time": self.object_time, "event_time": self.event_time,
            "seen_at": self.seen_at, "seen_by": self.seen_by, "epoch": self.epoch, "version_id": self.version_id,
            "trace": self.trace and self.trace.text,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows; all but `read`, `closures` and `never` add up to `read`.

    `never` counts dates of no year that a ticket can be of.
    """

    read: int
    inserted: int
    updated: int
    unchanged: int
    stale: int
    superseded: int
    rejected: int
    alarms: int
    sentinels: int
    closures: int
    never: int


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A version that the ledger has as applied, with what archiving it needs.

    `put` is the one that was read, and `decided_at` when that was decided to be this version, by the database's clock.
    """

    file_id: int
    put: Put
    sha256: str
    state: str
    decided_at: datetime

    @property
    def key(self) -> str:
        return self.put.key


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one try of a version came to nothing: a short stable word for grouping, and what happened.

    `was_read` is False while nobody knows which version the key has now.
    """

    reason: str
    detail: str
    error: Exception
    was_read: bool = True
