"""The life of one file, and of one ticket: what bucket, ledger, outbox and dead letters have, and what comes next.

A part whose dependency is away says so and leaves the others readable.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from consumer.postgres import database
from consumer.postgres.database import Connection, Role
from consumer.postgres.migrate import require_migrated
from consumer.settings import DatabaseSettings
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.broker import channels, dead_letters
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError, Misconfigured
from publisher.settings import BrokerSettings, BucketSettings, load
from publisher.store.bucket import Bucket, ObjectSummary

_SHOWN = 20
"""How many rejected rows are shown of each file."""

Row = dict[str, Any]


@dataclass(slots=True)
class Life:
    """What is known of one file; `faults` says which parts could not be read, and why."""

    key: str
    changes: Row | None = None
    processed: list[Row] = field(default_factory=list)
    versions: list[Row] = field(default_factory=list)
    dead_letters: list[Row] = field(default_factory=list)
    next: str = ""
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return bool(self.changes or self.processed or self.versions or self.dead_letters)


@dataclass(frozen=True, slots=True)
class TicketLife:
    """What is known of one ticket; earlier writers only as far as its closures tell of them."""

    ticket_id: str
    ticket: Row | None
    writer: Row | None
    closures: list[Row]
    rejects: list[Row]

    @property
    def is_known(self) -> bool:
        return bool(self.ticket or self.writer or self.closures or self.rejects)


def explain_key(given: str) -> Life:
    """Ask everybody about the file `given` by its key in changes/ or processed/, or by its bare name.

    Raises: Misconfigured.
    """
    settings = load(BucketSettings)
    bucket = Bucket(settings)
    life = Life(_change_key(bucket, given))
    _part(life, "bucket", lambda: _read_bucket(life, bucket))
    _part(life, "database", lambda: _read_ledger(life))
    _part(life, "broker", lambda: _read_letters(life, bucket))
    if not life.faults:
        life.next = _next(life, bucket)
    return life


def explain_ticket(connection: Connection, ticket_id: str) -> TicketLife:
    """Ask the database about one ticket.

    Raises: DependencyDown.
    """
    parameters = {"ticket_id": ticket_id, "limit": _SHOWN}
    with database.translated_errors():
        return TicketLife(
            ticket_id,
            database.row(connection, "explain", "ticket", parameters),
            database.row(connection, "explain", "writer", parameters),
            database.rows(connection, "explain", "ticket_closures", parameters),
            database.rows(connection, "explain", "ticket_rejects", parameters),
        )


def _change_key(bucket: Bucket, given: str) -> str:
    if given.startswith(bucket.changes_prefix):
        return given
    if given.startswith(bucket.processed_prefix):
        return bucket.change_key(given)
    if "/" in given:
        raise Misconfigured(
            f"{given!r} is neither in {bucket.changes_prefix} nor in {bucket.processed_prefix}; its bare name will do"
        )
    return bucket.changes_prefix + given


def _part(life: Life, name: str, read: Callable[[], None]) -> None:
    try:
        read()
    except FleetticketsError as error:
        life.faults[name] = str(error)


def _read_bucket(life: Life, bucket: Bucket) -> None:
    waiting = bucket.head(life.key)
    life.changes = _object(waiting) if waiting else None
    life.processed = [_object(found) for found in bucket.archives_of(life.key)]


def _object(found: ObjectSummary) -> Row:
    return asdict(found)


def _read_ledger(life: Life) -> None:
    with database.connect(load(DatabaseSettings), Role.READ) as connection, database.translated_errors():
        require_migrated(connection)
        life.versions = database.rows(connection, "explain", "versions", {"key": life.key.replace("\0", "")})
        for version in life.versions:
            parameters = {"file_id": version["file_id"], "limit": _SHOWN}
            version["rejects"] = database.rows(connection, "explain", "rejects", parameters)
            version["requests"] = database.rows(connection, "explain", "requests", parameters)


def _read_letters(life: Life, bucket: Bucket) -> None:
    with (
        channels.confirming_channel(load(BrokerSettings), "explain") as channel,
        dead_letters.browsing(channel, Queue.FILES) as letters,
    ):
        life.dead_letters = [
            {
                "id": letter.id,
                "reason": letter.reason,
                "error": letter.error,
                "attempts": letter.attempts,
                "dead_at": letter.dead_at,
            }
            for letter in letters
            if letter.key == life.key and dead_letters.bucket_of(letter) in {None, bucket.name}
        ]


def _next(life: Life, bucket: Bucket) -> str:
    """What happens to the file without anybody's doing, and what somebody can do."""
    here = [version for version in life.versions if version["bucket"] == bucket.name]
    judged = read_key(life.key, bucket.changes_prefix)
    if life.changes is None:
        return _next_of_absent(life, here, judged)
    if isinstance(judged, NotAChangeFile):
        return f"nothing: it is no change file ({judged.reason}), and is left where it is"
    etag = life.changes["etag"]
    version = next((found for found in here if found["etag"] == etag), None)
    version = version or next((found for found in here if not found["etag"] and found["state"] == "failed"), None)
    if version is None:
        what = "its new bytes are applied as a changed file" if any(v["applied_at"] for v in here) else "it is applied"
        return f"{what} when its notification or the next poll reaches a consumer"
    match version["state"]:
        case "failed":
            return _next_of_failed(life, version)
        case "seen":
            return "it is applied with the next delivery: poll, or drain --apply"
        case "done" if version["decision"] == "missing":
            return "it was missing and is there; it is applied with the next delivery: poll, or drain --apply"
        case "done" if version["applied_at"] is None:
            return f"nothing: {version['reason']}"
        case _:
            return "it was applied; the next delivery, poll or drain archives it"


def _next_of_absent(life: Life, here: list[Row], judged: ChangeFileKey | NotAChangeFile) -> str:
    unfinished = next((version for version in here if version["state"] in {"applied", "archived"}), None)
    if unfinished:
        missing = "archive it" if unfinished["state"] == "applied" else "relay its requests"
        return f"a consumer will {missing}"
    if any(version["applied_at"] for version in here):
        if not life.processed and any(version["archive_key"] for version in here):
            return "nothing; its archived object is gone: verify calls it lost"
        return "nothing: it is done"
    if life.processed:
        return "drain --from-archive --apply applies it: the database lacks it"
    if life.dead_letters:
        return "nothing: its object is gone, a replay would find it missing"
    if isinstance(judged, NotAChangeFile):
        return f"nothing: the bucket does not have it, and it would be ignored ({judged.reason})"
    return "nothing: the bucket does not have it; should it appear, it is a new file"


def _next_of_failed(life: Life, version: Row) -> str:
    if version["retry_at"] is not None:
        overdue = version["retry_at"] < datetime.now(UTC)
        return "its retry is due" if overdue else f"it is tried again at {version['retry_at']:%Y-%m-%d %H:%M:%S %Z}"
    if life.dead_letters:
        return (
            f"nothing until somebody mends it and replays it: fleettickets dead-letters replay --key {quote(life.key)}"
        )
    if version["discarded_at"] is not None:
        return "nothing: its dead letter was discarded; fleettickets drain --apply would try it again"
    if version["dead_lettered_at"] is None:
        return "the next delivery tries it again: poll, or drain --apply"
    return "nothing: its dead letter is gone; fleettickets drain --apply tries it again"
