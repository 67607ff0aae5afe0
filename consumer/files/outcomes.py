"""What may come of a delivery of the files queue, or of a file by hand. Values, each settled where it is matched."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from consumer.files.versions import Counts, LedgerFile, Sighting
from publisher.broker import dead_letters
from publisher.broker.topology import MAX_ATTEMPTS, RETRY_DELAYS

UNEXPECTED = "unexpected"
"""The reason of a failure that may be gone at the next try; every other one is permanent."""
HELD_SECONDS = RETRY_DELAYS[2]
"""The next try of a message whose failure may not be its own, and comes no nearer to an end by it."""


@dataclass(frozen=True, slots=True)
class Applied:
    """This delivery made the rows take effect; `notes` are what is to be known of its header, `rejects` are by rule.

    Its bytes began to come at `opened_at`, all its rows were in the database at `staged_at`, and they took effect at
    `committed_at`; until then that is `staged_at` as well.
    """

    file: LedgerFile
    decision: str
    counts: Counts
    notes: Mapping[str, Any]
    sighting: Sighting
    opened_at: datetime
    staged_at: datetime
    committed_at: datetime
    rejects: Mapping[str, int]

    @property
    def lag_seconds(self) -> float:
        """From when the store says that the file was written; none where its clock is ahead."""
        written_at = self.sighting.event_time or self.sighting.object_time
        return max(0.0, (self.committed_at - written_at).total_seconds())


@dataclass(frozen=True, slots=True)
class AlreadyApplied:
    """An earlier delivery did; its tail may still be open."""

    file: LedgerFile


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Nothing is left to do for this delivery: the version is done, or failed and waits for its retry or a replay."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try of a message, of `attempts` so far."""

    key: str
    reason: str
    detail: str
    attempts: int
    etag: str | None = None
    """Of the version that failed; None where there is no file."""
    is_held: bool = False
    """Whether too many in a row fail for this reason for it to be the message's own."""
    feed: str | None = None
    """Of the file, and its number in the ledger; None where there is none."""
    file_id: int | None = None

    @property
    def retry_in(self) -> int | None:
        """Seconds to the next try; None for a dead letter."""
        if self.is_held:
            return HELD_SECONDS
        return RETRY_DELAYS[self.attempts - 1] if self.reason == UNEXPECTED and self.attempts < MAX_ATTEMPTS else None

    @property
    def fingerprint(self) -> str:
        return dead_letters.fingerprint(self.reason, self.detail)


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to do for this delivery, now or ever; counted."""

    reason: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class NotServed:
    """Of a feed that others serve: left to them, with nothing decided here."""

    key: str


@dataclass(frozen=True, slots=True)
class Missing:
    """The bucket has no such object and the ledger never applied it."""

    key: str


@dataclass(frozen=True, slots=True)
class Spread:
    """A body with several arrivals was published again as one message each."""

    arrivals: int


Outcome = TypeVar("Outcome")
Decided = Applied | AlreadyApplied | Duplicate | Failure
"""Of a version that somebody tried."""
FileOutcome = Decided | Ignored | Missing | NotServed | Spread
"""Of a delivery."""


def committed(outcome: Outcome) -> Outcome:
    """The same, of a transaction that has just ended."""
    return replace(outcome, committed_at=datetime.now(UTC)) if isinstance(outcome, Applied) else outcome
