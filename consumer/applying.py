"""The exactly-once rule: everything that a file means, in one transaction, or nothing of it.

Order matters: claim the version, stage the rows, merge, closures, rejects, ledger, follow-on requests, and the
watermark last, which every file takes and so must hold for the shortest time.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from consumer import database
from consumer.cleaning import Cleaner, Dropped, RowReject, TicketRow
from consumer.csv_reading import ChangeFileReader, Read
from consumer.database import Connection
from consumer.fail_points import AtPoint
from consumer.queries import statements
from consumer.settings import ApplySettings
from publisher.errors import Permanent
from publisher.keys import ChangeFileKey
from publisher.messages import SeenBy as AnnouncedBy

SeenBy = AnnouncedBy | Literal["drain", "import"]

_AHEAD = timedelta(days=1)
"""A clock may be this far off. A file of the year 9999 would outrank every later one for ever."""

_PASSED_OVER = "a changed file, passed over by policy"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of a change file as it is about to be applied, and who saw it first, when."""

    bucket: str
    prefix: str
    key: ChangeFileKey
    etag: str
    size: int
    object_time: datetime
    event_time: datetime | None
    seen_at: datetime
    seen_by: SeenBy
    epoch: int | None = None
    """The epoch that it belongs to, None for the current one."""

    def parameters(self) -> dict[str, Any]:
        return {
            "bucket": self.bucket, "prefix": self.prefix, "key": self.key.key, "key_time": self.key.time,
            "etag": self.etag, "size": self.size, "object_time": self.object_time, "event_time": self.event_time,
            "seen_at": self.seen_at, "seen_by": self.seen_by, "epoch": self.epoch,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows; all but `read` and `closures` add up to `read`."""

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


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A version that the ledger has as applied, with what archiving it needs."""

    file_id: int
    key: str
    etag: str
    sha256: str
    state: str


@dataclass(frozen=True, slots=True)
class Applied:
    """This delivery made the rows take effect."""

    file: LedgerFile
    decision: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class AlreadyApplied:
    """An earlier delivery did; its tail may still be open."""

    file: LedgerFile


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Nothing is left to do for this delivery: the version is done, or failed and waits for its retry or a replay."""

    key: str
    reason: str


def lock_key(connection: Connection, sighting: Sighting) -> None:
    """Wait for whoever has this key in hand, in whatever version, and keep others out until the transaction ends."""
    database.row(connection, "ledger", "lock_key", sighting.parameters())


def apply_file(
    connection: Connection,
    sighting: Sighting,
    read: Read,
    settings: ApplySettings,
    *,
    again: bool,
    released: bool,
    at: AtPoint,
) -> Applied | AlreadyApplied | Duplicate:
    """Apply one version inside the caller's transaction, which holds the key's lock and keeps or undoes all of it.

    `read` gives up to so many bytes of it at a time. `again` takes up a version that failed before; `released`
    says that a person wants this version, whatever the policy for changed ones. `at` is told each point a crash could
    come at.
    Raises: Permanent, DependencyDown, psycopg.Error.
    """
    parameters = sighting.parameters()
    at("before claim")
    takes_back = settings.changed_policy != "ignore" or released
    claim = database.row(connection, "ledger", "claim_file", parameters | {"again": again, "takes_back": takes_back})
    if claim is None:
        return _claimed_before(connection, parameters)
    at("after claim")
    file_id, decision = claim["file_id"], claim["decision"]
    if decision == "changed" and settings.changed_policy == "ignore":
        database.rows(connection, "ledger", "record_passed_over", {"file_id": file_id, "reason": _PASSED_OVER})
        return Duplicate(sighting.key.key, _PASSED_OVER)
    if decision == "changed" and settings.changed_policy == "quarantine" and not released:
        raise Permanent("changed", "the key was applied before with other bytes; replay it to apply these")
    if sighting.key.time > sighting.seen_at + _AHEAD:
        raise Permanent(
            "from the future",
            f"its name says {sighting.key.time:%Y-%m-%d %H:%M} UTC; when that is due, replay its dead letter, or drain",
        )
    reader = ChangeFileReader(read)
    rows, alarms, sentinels, rejected = _stage(connection, reader, settings, at)
    parameters |= {"file_id": file_id, "epoch": claim["epoch"]}
    merged = database.row(connection, "merge", "merge_tickets", parameters)
    assert merged is not None  # noqa: S101 - counts always make a row
    closures = connection.execute(statements("merge")["merge_closures"], parameters).rowcount
    database.rows(connection, "merge", "keep_rejects", parameters)
    counts = Counts(
        read=rows,
        inserted=merged["inserted"],
        updated=merged["updated"],
        unchanged=merged["moved"] - merged["inserted"] - merged["updated"],
        stale=merged["tickets"] - merged["moved"],
        superseded=merged["accepted"] - merged["tickets"],
        rejected=rejected,
        alarms=alarms,
        sentinels=sentinels,
        closures=closures,
    )
    database.rows(connection, "ledger", "record_applied", parameters | asdict(counts) | {"sha256": reader.sha256})
    if kinds := _follow_ons(counts):
        database.rows(connection, "merge", "request_follow_ons", {"file_id": file_id, "kinds": kinds})
    watermark = "count_import" if sighting.seen_by == "import" else "move_watermark"
    database.rows(connection, "merge", watermark, parameters | {"inserted": counts.inserted})
    at("before commit")
    file = LedgerFile(file_id, sighting.key.key, sighting.etag, reader.sha256, "applied")
    return Applied(file, decision, counts)


def _claimed_before(connection: Connection, parameters: dict[str, Any]) -> AlreadyApplied | Duplicate:
    known = database.row(connection, "ledger", "count_duplicate", parameters)
    assert known is not None  # noqa: S101 - the claim conflicted with it, and ledger rows are never deleted
    if known["state"] == "failed":
        return Duplicate(known["key"], "is a dead letter" if known["is_dead_letter"] else "waits for its retry")
    if known["sha256"] is None:
        return Duplicate(known["key"], known["reason"])
    return AlreadyApplied(LedgerFile(known["file_id"], known["key"], known["etag"], known["sha256"], known["state"]))


def _stage(
    connection: Connection, reader: ChangeFileReader, settings: ApplySettings, at: AtPoint
) -> tuple[int, int, int, int]:
    records = reader.records()
    cleaner = Cleaner(next(records, None))
    read = alarms = sentinels = rejected = 0
    first_reject: RowReject | None = None
    with connection.cursor() as cursor, cursor.copy(statements("merge")["copy_to_staging"]) as copy:
        for record in records:
            read += 1
            match cleaner.clean(record):
                case TicketRow(line, ticket_id, raw, closed_at):
                    copy.write_row((line, ticket_id, raw, closed_at, None, None))
                case RowReject(line, reason, raw) as reject:
                    rejected += 1
                    first_reject = first_reject or reject
                    copy.write_row((line, None, None, None, reason, raw))
                case Dropped.ALARM:
                    alarms += 1
                case Dropped.SENTINEL:
                    sentinels += 1
            if read == 1:
                at("mid copy")
    if first_reject and rejected > settings.max_reject_share * read:
        raise Permanent(
            "too many rejects",
            f"{rejected} of {read} rows, more than the share of {settings.max_reject_share:g}; "
            f"the first is line {first_reject.line}: {first_reject.reason}",
        )
    return read, alarms, sentinels, rejected


def _follow_ons(counts: Counts) -> list[str]:
    kinds = []
    if counts.inserted or counts.updated:
        kinds.append("geocode")
    if counts.inserted or counts.updated or counts.closures:
        kinds.append("history")
    return kinds
