"""The ledger: what was seen, decided and done of each version. The only caller of `sql/queries/ledger.sql`.

Every verb works in the caller's transaction. Raises of each: psycopg.Error.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

from psycopg.types.json import Jsonb

from consumer.files.rows import LineCounts, TooManyRejects
from consumer.files.versions import Asked, Counts, LedgerFile, SeenBy, Sighting, Trouble
from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.errors import KeyInHand
from publisher.store.bucket import Put

MAX_UNDECLARED = 1000
"""Columns of one feed that are told of."""
_NAME_CHARS = 200
"""Of one that is told: an index has no room for all that a header has."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A version that is this transaction's to apply; `now` by the database's clock."""

    file_id: int
    epoch: int
    decision: str
    object_time: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """What applying a version came to: the hash of its bytes, its rows, its lines, and what is to be known of it.

    `opened_at` and `staged_at` are when its bytes began to come, and when its rows were in the database.
    """

    sha256: str
    opened_at: datetime
    staged_at: datetime
    counts: Counts
    lines: LineCounts
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the ledger has of a version that is not to be claimed; `sha256` of one that was applied."""

    file_id: int
    key: str
    sha256: str | None
    state: str
    reason: str | None
    is_dead_letter: bool
    decided_at: datetime
    is_back: bool
    """Whether it is put again, after another version of its key was applied."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A key that was seen and will not be read: missing in the bucket, or outside the grammar."""

    feed: str
    bucket: str
    prefix: str
    key: str
    etag: str
    """"" for a missing object: should it appear after all, it is another version."""
    size: int | None
    event_time: datetime | None
    seen_at: datetime
    seen_by: SeenBy
    decision: Literal["ignored", "missing"]
    reason: str
    trace: str | None = None
    """Of the delivery, where one brings it; as it is kept."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an applied version stands whose tail is open."""

    state: str
    is_applied_again: bool
    """It was, since the tail was begun, and that has a tail of its own."""
    is_overtaken: bool
    """Another version was applied since, so that an object like this one in the bucket is another put."""

    @property
    def is_to_be_archived(self) -> bool:
        return not self.is_applied_again and self.state not in {"seen", "failed"}


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed version and how often it has been tried."""

    file_id: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Held:
    """A version that a dependency fails, since so many seconds; whether that is the version's own fault."""

    held_seconds: float
    is_own: bool


@dataclass(frozen=True, slots=True)
class Epoch:
    """Files that are claimed in it outrank those of all before."""

    epoch: int
    reason: str
    began_at: datetime


def lock_key(connection: Connection, bucket: str, key: str) -> None:
    """Keep others from this key, in whatever version, until the transaction ends.

    Raises: KeyInHand, at once, when somebody has it; LockTimeout beside a dry run.
    """
    if not lock_keys(connection, bucket, [key]):
        raise KeyInHand(key, "somebody else has it in hand")


def lock_keys(connection: Connection, bucket: str, keys: Sequence[str]) -> set[str]:
    """The same for several; gives those that are had, and leaves out what somebody has."""
    found = database.rows(connection, "ledger", "lock_keys", {"bucket": bucket, "keys": list(keys)})
    return {row["key"] for row in found}


def claim(connection: Connection, sightings: Sequence[Sighting], asked: Asked, *, takes_back: bool) -> dict[str, Claim]:
    """Claim versions, by key; left out is one that somebody else's claim stands of.

    `takes_back` takes up one that was applied before another one of its key.
    """
    parameters = {
        "seen": _told(sightings), "keys": [each.key.key for each in sightings],
        "object_times": [each.object_time for each in sightings],
        "takes_failed": asked.takes_failed, "takes_dead_letters": asked.takes_dead_letters, "takes_back": takes_back,
    }  # fmt: skip
    return {row.pop("key"): Claim(**row) for row in database.rows(connection, "ledger", "claim_files", parameters)}


def count_duplicate(connection: Connection, sighting: Sighting) -> Claimed:
    """Count one more delivery of a version whose claim stands."""
    return Claimed(**_one(connection, "count_duplicate", sighting.parameters()))


def count_duplicate_of_archived(connection: Connection, bucket: str, keys: Sequence[str]) -> LedgerFile | None:
    """Count one more delivery of what was applied of keys that the bucket has no more; None when nothing was."""
    found = _row(connection, "count_duplicate_of_archived", {"bucket": bucket, "keys": list(keys)})
    return None if found is None else ledger_file(found)


def count_duplicate_of_failed(connection: Connection, sighting: Sighting, asked: Asked) -> bool | None:
    """Count one more delivery of a version that is not to be tried now; whether it is a dead letter.

    None when it has not failed, or may be tried.
    """
    if asked.takes_dead_letters:
        return None
    parameters = sighting.parameters() | {"takes_failed": asked.takes_failed}
    found = _row(connection, "count_duplicate_of_failed", parameters)
    return None if found is None else bool(found["is_dead_letter"])


def has_open_tail(connection: Connection, sighting: Sighting) -> bool:
    """Whether it is applied and not archived: then what its key has is most likely that, and the sweep's."""
    return _row(connection, "has_open_tail", sighting.parameters()) is not None


def record_seen(connection: Connection, sightings: Sequence[Sighting]) -> None:
    """At first sight, before the work: somebody may look for it meanwhile. A statement that commits itself."""
    _run(connection, "record_seen", {"seen": _told(sightings)})


def applied(done: Mapping[int, Done]) -> database.Statement:
    """What records that files are applied; it gives when each was, by the database's clock."""
    files = [
        asdict(each.counts)
        | {
            "file_id": file_id, "sha256": each.sha256, "notes": dict(each.notes) or None,
            "opened_at": each.opened_at.isoformat(), "staged_at": each.staged_at.isoformat(),
            "lines_read": each.lines.read, "lines_blank": each.lines.blank, "lines_header": each.lines.header,
            "lines_rejected": each.lines.rejected, "lines_of_rows": each.lines.rows,
        }
        for file_id, each in done.items()
    ]  # fmt: skip
    return database.Statement("ledger", "record_applied", {"files": Jsonb(files), "file_ids": list(done)})


def record_undeclared(connection: Connection, feed: str, names: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """By file; give those of their names that no file of the feed had before."""
    seen = {
        (name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}\u2026", file_id)
        for file_id, of_file in names.items()
        for name in of_file
    }
    new: dict[int, list[str]] = {}
    if seen:
        told = {"names": [name for name, _ in seen], "file_ids": [file_id for _, file_id in seen]}
        parameters = told | {"feed": feed, "at_most": MAX_UNDECLARED}
        for row in database.rows(connection, "ledger", "record_undeclared", parameters):
            new.setdefault(row["file_id"], []).append(row["name"])
    return {file_id: sorted(of_file) for file_id, of_file in new.items()}


def record_passed_over(connection: Connection, file_id: int, reason: str) -> None:
    _run(connection, "record_passed_over", {"file_id": file_id, "reason": reason})


def record_back_passed_over(connection: Connection, sighting: Sighting, file_id: int) -> None:
    """The same, of one that was applied before another one was, and is back."""
    _run(connection, "record_back_passed_over", {"file_id": file_id, "object_time": sighting.object_time})


def take_up(connection: Connection, bucket: str, keys: Sequence[str], reason: str) -> None:
    """Decide anew of versions that were ignored for this reason."""
    parameters = {"bucket": bucket, "keys": list(keys), "reason": reason}
    database.rows(connection, "ledger", "take_up", parameters)


def record_unread(connection: Connection, unread: Unread) -> None:
    _run(connection, "record_unread", asdict(unread))


def record_gone(connection: Connection, bucket: str, keys: Sequence[str], reason: str) -> None:
    """What of the keys was seen and not decided is not in the bucket any more."""
    database.rows_of_each(connection, [_gone(bucket, dict.fromkeys(keys), reason)])


def replaced(sightings: Sequence[Sighting]) -> database.Statement:
    """What records that keys have these versions now: what was seen of them and not decided is not there any more."""
    there = {sighting.key.key: sighting.etag for sighting in sightings}
    reason = "replaced in the bucket before it could be read"
    return _gone(sightings[0].bucket, there, reason)


def _gone(bucket: str, there: Mapping[str, str | None], reason: str) -> database.Statement:
    """`there` is the ETag that is now there, by key."""
    parameters = {"bucket": bucket, "keys": list(there), "found": list(there.values()), "reason": reason}
    return database.Statement("ledger", "record_gone", parameters)


def record_failed(connection: Connection, sighting: Sighting, trouble: Trouble, fingerprint: str) -> Failed | None:
    """Count an attempt of a version, which gets a retry or a letter next; None of one that was applied.

    Of one that was not read it is not known whether the key has another put of applied bytes: those stay applied.
    """
    return _failed(connection, trouble, _failed_attempt(connection, sighting, trouble, fingerprint))


def record_failed_by_hand(connection: Connection, sighting: Sighting, trouble: Trouble, fingerprint: str) -> None:
    """The same without a broker: neither a retry nor a letter comes of it, and one that has its letter keeps it."""
    attempt = _failed_attempt(connection, sighting, trouble, fingerprint)
    _failed(connection, trouble, attempt | {"has_letter": True})


def _failed_attempt(connection: Connection, sighting: Sighting, trouble: Trouble, fingerprint: str) -> dict[str, Any]:
    """What is to be recorded of it. What was read is what its key has now."""
    if trouble.was_read:
        database.rows_of_each(connection, [replaced([sighting])])
    told = {"reason": trouble.reason, "error": trouble.detail, "was_read": trouble.was_read}
    return sighting.parameters() | told | {"fingerprint": fingerprint, "has_letter": False}


def _failed(connection: Connection, trouble: Trouble, attempt: Mapping[str, Any]) -> Failed | None:
    found = _row(connection, "record_failed", attempt)
    if found is not None and isinstance(trouble.error, TooManyRejects):
        _keep_first_rejects(connection, found["file_id"], trouble.error)
    return None if found is None else Failed(**found)


def _keep_first_rejects(connection: Connection, file_id: int, error: TooManyRejects) -> None:
    rejects = error.rejects
    parameters = {
        "file_id": file_id, "notes": Jsonb({"rejects": error.groups}),
        "lines": [row.line for row in rejects], "reasons": [row.reason for row in rejects],
        "raws": [row.raw for row in rejects], "groups": [row.group for row in rejects],
        "counts": [row.lines for row in rejects], "ticket_ids": [row.ticket_id for row in rejects],
    }  # fmt: skip
    _run(connection, "keep_first_rejects", parameters)


def record_held(
    connection: Connection, sighting: Sighting, error: str, patience: float, tried_seconds: float, *, takes_back: bool
) -> Held | None:
    """A dependency fails the version, which after `patience` seconds may be its own fault. None of a decided one.

    It is, if another was applied in the `tried_seconds` that this try took, or the patience before.
    """
    parameters = {
        "error": error, "patience": patience, "tried_seconds": tried_seconds, "takes_back": takes_back,
    }  # fmt: skip
    found = _row(connection, "record_held", sighting.parameters() | parameters)
    return None if found is None else Held(**found)


def record_retry(connection: Connection, file_id: int, delay: int) -> None:
    _run(connection, "record_retry", {"file_id": file_id, "delay": delay})


def record_dead_lettered(connection: Connection, file_id: int) -> None:
    _run(connection, "record_dead_lettered", {"file_id": file_id})


def standings(connection: Connection, files: Sequence[LedgerFile]) -> dict[int, Standing]:
    """By file, under their keys' locks."""
    parameters = {"file_ids": [file.file_id for file in files], "decided": [file.decided_at for file in files]}
    found = database.rows(connection, "ledger", "standings", parameters)
    return {row.pop("file_id"): Standing(**row) for row in found}


def record_archived(connection: Connection, archived: Mapping[int, tuple[str | None, str | None]]) -> dict[int, str]:
    """By file, as what it is archived, or why there is no archive. Gives the states of those that were applied."""
    if not archived:
        return {}
    keys, reasons = zip(*archived.values(), strict=True)
    parameters = {"file_ids": list(archived), "archive_keys": list(keys), "reasons": list(reasons)}
    found = database.rows(connection, "ledger", "record_archived", parameters)
    return {row["file_id"]: row["state"] for row in found}


def record_not_archived(connection: Connection, file: LedgerFile, error: str) -> None:
    _run(connection, "record_not_archived", {"file_id": file.file_id, "error": error})


def record_done(connection: Connection, files: Sequence[LedgerFile]) -> None:
    """Of each whose own requests are sent; until then it stays archived."""
    _run(connection, "record_done", {"file_ids": [file.file_id for file in files]})


def finish_relayed(connection: Connection) -> None:
    """Every archived file whose requests are sent is done."""
    _run(connection, "finish_relayed")


def open_tails(
    connection: Connection, bucket: str, prefixes: Sequence[str], age: float, after: int, *, only_due: bool
) -> list[LedgerFile]:
    """The next thousand, behind the file `after`, that were applied more than `age` seconds ago and not archived.

    `only_due` leaves out those that could not be archived a while ago.
    """
    parameters = {
        "bucket": bucket, "prefixes": list(prefixes), "age": age, "after": after, "due_or_not": not only_due,
    }  # fmt: skip
    return [ledger_file(row) for row in database.rows(connection, "ledger", "open_tails", parameters)]


def count_ignored_events(connection: Connection, events: Mapping[str, int]) -> None:
    """Add to the day's counts, by reason."""
    _run(connection, "count_ignored_events", {"reasons": list(events), "events": list(events.values())})


def is_one_of_a_run(connection: Connection, feed: str, reason: str, run: int, delay: int) -> bool:
    """Whether `run` files of a feed failed so since its last was applied; their next try comes after `delay`."""
    return bool(
        _one(connection, "is_one_of_a_run", {"feed": feed, "reason": reason, "run": run, "delay": delay})["is_one"]
    )


def failures_in_a_row(connection: Connection, reason: str, delays: Sequence[int]) -> int:
    """Tries that failed for it since the last file was applied; `delays` are the waits behind each of a file."""
    return int(_one(connection, "failures_in_a_row", {"reason": reason, "delays": list(delays)})["failures"])


def current_epoch(connection: Connection, feed: str) -> Epoch:
    return Epoch(**_one(connection, "current_epoch", {"feed": feed}))


def begin_epoch(connection: Connection, feed: str, reason: str) -> int:
    """Begin a new epoch of a feed: its files claimed from now on outrank everything before. Gives its number."""
    return int(_one(connection, "begin_epoch", {"feed": feed, "reason": reason})["epoch"])


def ledger_file(row: Mapping[str, Any]) -> LedgerFile:
    """Make one of a row that has its columns."""
    put = Put(row["key"], row["etag"], row["object_time"], row["version_id"])
    return LedgerFile(row["file_id"], put, row["sha256"], row["state"], row["decided_at"])


def _told(sightings: Sequence[Sighting]) -> Jsonb:
    """The parameters of several, as rows."""
    return Jsonb([each.parameters() for each in sightings], dumps=partial(json.dumps, default=datetime.isoformat))


def _row(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    return database.row(connection, "ledger", name, parameters)


def _one(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    found = _row(connection, name, parameters)
    assert found is not None  # noqa: S101 - it counts, or the rows that it is about are never deleted
    return found


def _run(connection: Connection, name: str, parameters: Mapping[str, Any] | None = None) -> None:
    database.rows(connection, "ledger", name, parameters)
