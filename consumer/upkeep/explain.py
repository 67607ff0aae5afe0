"""The life of one file, and of one ticket: what bucket, ledger, outbox and dead letters have, and what comes next.

A part whose dependency is away says so and leaves the others readable.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from shlex import quote
from typing import Any

from pydantic import Field

from consumer.feeds.feed import Feed, Feeds, FollowOn
from consumer.files.header import COLUMNS_MISSING
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.postgres.migrate import require_migrated
from consumer.upkeep import deadlines, lineage
from consumer.upkeep.deadlines import Answered, Look
from consumer.upkeep.drain import bucket_of_local
from consumer.upkeep.lineage import Lineage
from consumer.upkeep.losses import KnownLoss
from consumer.upkeep.views import Connect, FileNotes, Moment, OpenChannel, View
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.broker import channels, dead_letters
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError, Misconfigured
from publisher.store.bucket import Bucket
from publisher.terminal import moment

_SHOWN = 20
"""How many rejected rows are shown of each file."""
_KINDS = 100
"""How many kinds of them."""


class StoredObject(View):
    """One object as the store has it."""

    key: str
    etag: str = Field(description="Without quotes.")
    size: int = Field(description="In bytes.")
    modified: Moment
    version_id: str | None = Field(description="Of a bucket that keeps versions, where a HEAD told it.")


class Reject(View):
    """A row of a file that could not be a ticket."""

    line: int = Field(description="On which it begins, from 1.")
    lines: int = Field(description="That it takes.")
    ticket_id: str | None = Field(description="What stood where the id belongs, if that can be one.")
    reason: str
    raw: str = Field(description="The first 200 characters of what stood there.")
    is_settled: bool = Field(description="A later change of its ticket counts, or its file does not any more.")


class Request(View):
    """A follow-on request of a file."""

    kind: str = Field(description="The queue it goes to.")
    created_at: Moment
    sent_at: Moment | None = Field(description="When the broker had it.")
    handled_at: Moment | None


class Version(View):
    """One version of a key in the ledger: what was decided, how far it is, and what it did."""

    file_id: int
    bucket: str
    etag: str = Field(description="As read by the GET; empty where nothing could be read.")
    size: int | None = Field(description="In bytes.")
    sha256: str | None = Field(description="Of the bytes applied.")
    epoch: int
    key_time: Moment | None = Field(description="The instant that the key names.")
    object_time: Moment | None = Field(description="When the store says that it was written.")
    event_time: Moment | None = Field(description="When its notification says that it was written.")
    first_seen_at: Moment
    first_seen_by: str = Field(description="notification, poller, drain or import.")
    trace_id: str | None = Field(description="What its log lines have, and those of what follows on.")
    decision: str = Field(description="new, late, changed, missing, rejected or ignored.")
    reason: str | None = Field(description="Why, unless it was simply applied.")
    state: str = Field(description="seen, applied, archived, done or failed.")
    duplicates: int = Field(description="Deliveries after it was decided.")
    attempts: int = Field(description="Deliveries that failed.")
    retry_at: Moment | None = Field(description="When a failed one is tried again by itself.")
    last_error: str | None
    error_fingerprint: str | None = Field(description="The same for the same fault of other files.")
    dead_lettered_at: Moment | None
    discarded_at: Moment | None
    opened_at: Moment | None = Field(description="When its bytes began to come.")
    staged_at: Moment | None = Field(description="When all of its rows were in the database.")
    applied_at: Moment | None = Field(description="Just before its COMMIT.")
    archived_at: Moment | None
    archive_key: str | None
    done_at: Moment | None
    passed_over_time: Moment | None = Field(
        description="When it was written again later, if the policy for changed files passed that over."
    )
    rows_read: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    rows_stale: int = Field(description="Rows that a later change had overtaken.")
    rows_superseded: int = Field(description="Rows that a later line of the same file replaces.")
    rows_rejected: int
    alarms_dropped: int
    sentinels_dropped: int
    lines_read: int | None = Field(description="All of the file; none where they were not counted.")
    lines_blank: int | None
    lines_header: int | None = Field(description="Of each header, and of one that says what parts the columns.")
    lines_rejected: int | None
    lines_of_rows: int | None = Field(description="Of rows that are no rejects.")
    dates_never: int = Field(description="Dates of no year that a ticket can be of, which are null.")
    notes: FileNotes | None = Field(description="What a person has to know of it.")
    tickets_last_written: int = Field(description="Tickets that no later change has written since.")
    reject_kinds: dict[str, int] = Field(description="How many rejects of each kind it has, the most first.")
    rejects: list[Reject] = Field(description="The first ones; `reject_kinds` counts all.")
    requests: list[Request]
    loss: KnownLoss | None = Field(description="What somebody says of its object, which is gone.")


class Letter(View):
    """A message about the file that nobody takes up by itself."""

    id: str = Field(description="As the commands for dead letters take it.")
    reason: str
    error: str
    attempts: int
    replays: int = Field(description="How often a person has sent it back to work.")
    dead_at: Moment | None


class Life(View):
    """What is known of one file; `faults` says which parts could not be read, and why."""

    key: str = Field(description="The key in changes/.")
    changes: StoredObject | None = Field(description="The object in changes/.")
    processed: list[StoredObject] = Field(description="Its archived objects.")
    versions: list[Version] = Field(description="In the order seen, of every bucket.")
    dead_letters: list[Letter]
    next: str = Field(description="What happens to it by itself, or what to do; empty where a part is unknown.")
    faults: dict[str, str] = Field(description="Of bucket, database and broker, what could not be read: why.")

    @property
    def is_known(self) -> bool:
        return bool(self.changes or self.processed or self.versions or self.dead_letters)


class Ticket(View):
    """A ticket as it stands."""

    ticket_id: str
    normalized_status: str | None
    raw_status: str | None
    closed_at: Moment | None
    ingested_at: Moment | None


class Writer(View):
    """The change that last wrote a ticket; without a file for one that was there before the ledger."""

    epoch: int
    key_time: Moment | None
    key: str | None
    object_time: Moment | None
    etag: str | None
    line: int | None
    file_id: int | None
    bucket: str | None
    decision: str | None
    state: str | None
    event_time: Moment | None = Field(description="When its notification says that the file was written.")
    first_seen_at: Moment | None
    first_seen_by: str | None = Field(description="What told of the file: notification, poller, drain or import.")
    applied_at: Moment | None
    archive_key: str | None


class Closure(View):
    """One closing of a ticket, and the change that told of it; nothing but the time where a capture did."""

    closed_at: Moment
    observed_at: Moment
    epoch: int | None
    key: str | None
    line: int | None


class TicketReject(Reject):
    """A rejected row of a ticket."""

    key: str = Field(description="Of its file.")


class TicketLife(View):
    """What is known of one ticket."""

    ticket_id: str
    feed: str
    ticket: Ticket | None
    writer: Writer | None
    closures: list[Closure]
    rejects: list[TicketReject] = Field(description="The first ones.")
    history: Lineage | None = Field(description="Every value that it ever had; null where that was not asked for.")

    @property
    def is_known(self) -> bool:
        return bool(self.ticket or self.writer or self.closures or self.rejects)


def explain_key(
    connect: Connect,
    bucket: Bucket,
    open_channel: OpenChannel,
    feeds: Feeds,
    given: str,
    *,
    answer_seconds: float,
) -> Life:
    """Ask everybody about the file `given` by its key in changes/ or processed/, or by its bare name.

    All are asked at once, and none is waited for that does not answer.
    Raises: Misconfigured, also for a bare name that files of several feeds have.
    """
    keys = _change_keys(feeds, bucket, given)
    names = [key for _, key in keys]
    patience = deadlines.before(answer_seconds)
    letters = Look(
        "broker",
        answer_seconds,
        lambda answered: _read_letters(open_channel, bucket, names, patience, answered),
        channels.address,
    )
    looks: list[dict[str, Look[dict[str, Any]]]] = [
        {
            "bucket": Look("bucket", answer_seconds, partial(_read_bucket, bucket, key), bucket.address),
            "database": Look(
                "database", answer_seconds, partial(_read_ledger, connect, feed, key), database.told_address
            ),
        }
        for feed, key in keys
    ]
    lives = [_life(key, parts, letters, bucket) for (_, key), parts in zip(keys, looks, strict=True)]
    known = [life for life in lives if life.is_known]
    if len(known) > 1:
        raise Misconfigured(f"several have that name: {' and '.join(life.key for life in known)}; say which")
    return known[0] if known else lives[0]


def _life(
    key: str, parts: dict[str, Look[dict[str, Any]]], letters: Look[dict[str, list[dict[str, Any]]]], bucket: Bucket
) -> Life:
    known: dict[str, Any] = {"changes": None, "processed": [], "versions": [], "dead_letters": []}
    faults: dict[str, str] = {}
    for name, part in parts.items():
        try:
            known |= part.found()
        except FleetticketsError as error:
            faults[name] = str(error)
    try:
        known["dead_letters"] = letters.found()[key]
    except FleetticketsError as error:
        faults["broker"] = str(error)
    life = Life(key=key, next="", faults=faults, **known)
    return life if faults else life.model_copy(update={"next": _next(life, bucket)})


def explain_ticket(connection: Connection, ticket_id: str, feed: Feed, *, with_history: bool) -> TicketLife:
    """Ask the database about one ticket of a feed.

    Raises: DependencyDown.
    """
    parameters = {"ticket_id": ticket_id, "feed": feed.name, "limit": _SHOWN}
    has_history = FollowOn.HISTORY in feed.follow_ons
    with database.translated_errors():
        return TicketLife.model_validate(
            {
                "ticket_id": ticket_id,
                "feed": feed.name,
                "ticket": database.row(connection, "explain", "ticket", parameters, feed=feed),
                "writer": database.row(connection, "explain", "writer", parameters, feed=feed),
                "closures": database.rows(connection, "explain", "ticket_closures", parameters) if has_history else [],
                "rejects": database.rows(connection, "explain", "ticket_rejects", parameters, feed=feed),
                "history": lineage.lineage(connection, feed, ticket_id) if with_history else None,
            }
        )


def _change_keys(feeds: Feeds, bucket: Bucket, given: str) -> list[tuple[Feed, str]]:
    """What may be meant: a key, or a bare name in the folder of each feed."""
    feed = feeds.of_key(given)
    if feed is not None:
        return [(feed, given if given.startswith(feed.folder.changes) else bucket.change_key(given))]
    if "/" in given:
        folders = [name for one in feeds for name in (one.folder.changes, one.folder.processed)]
        raise Misconfigured(f"{given!r} is in none of {', '.join(folders)}; its bare name will do")
    return [(one, one.folder.changes + given) for one in feeds]


def _read_bucket(bucket: Bucket, key: str, answered: Answered) -> dict[str, Any]:
    waiting = bucket.head(key)
    answered()
    return {
        "changes": asdict(waiting) if waiting else None,
        "processed": [asdict(found) for found in bucket.archives_of(key)],
    }


def _read_ledger(connect: Connect, feed: Feed, key: str, answered: Answered) -> dict[str, Any]:
    with connect() as connection, database.translated_errors(), database.naming_holders(connection):
        require_migrated(connection)
        answered()
        key = key.replace("\0", "")
        named = {"key": key, "name": key.removeprefix(feed.folder.changes), "local": bucket_of_local(feed)}
        versions = database.rows(connection, "explain", "versions", named, feed=feed)
        for version in versions:
            answered()
            parameters = {"file_id": version["file_id"], "limit": _SHOWN}
            version["rejects"] = database.rows(connection, "explain", "rejects", parameters, feed=feed)
            version["reject_kinds"] = _reject_kinds(connection, version)
            version["requests"] = database.rows(connection, "explain", "requests", parameters)
            version["loss"] = database.row(connection, "explain", "loss", parameters)
        return {"versions": versions}


def _reject_kinds(connection: Connection, version: dict[str, Any]) -> dict[str, int]:
    """Of a refused file, that keeps its first ones alone, the ledger has how many there were."""
    if version["state"] == "failed" and (kinds := (version["notes"] or {}).get("rejects")):
        return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))
    parameters = {"file_id": version["file_id"], "limit": _KINDS}
    return {row["kind"]: row["rows"] for row in database.rows(connection, "explain", "reject_kinds", parameters)}


def _read_letters(
    open_channel: OpenChannel, bucket: Bucket, keys: list[str], patience: float, answered: Answered
) -> dict[str, list[dict[str, Any]]]:
    """Of each of the keys."""
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    with open_channel() as channel:
        answered()
        with dead_letters.browsing(channel, Queue.FILES, patience) as letters:
            for letter in letters:
                answered()
                if letter.key in found and dead_letters.bucket_of(letter) in {None, bucket.name}:
                    found[letter.key].append(
                        {
                            "id": letter.id,
                            "reason": letter.reason,
                            "error": letter.error,
                            "attempts": letter.attempts,
                            "replays": letter.replays,
                            "dead_at": letter.dead_at,
                        }
                    )
            answered()
    return found


def _next(life: Life, bucket: Bucket) -> str:
    """What happens to the file without anybody's doing, and what somebody can do."""
    here = [version for version in life.versions if version.bucket == bucket.name]
    judged = read_key(life.key, bucket.folder_of(life.key).changes)
    if life.changes is None:
        return _next_of_absent(life, here, judged)
    if isinstance(judged, NotAChangeFile):
        return f"nothing: it is no change file ({judged.reason}), and is left where it is"
    etag = life.changes.etag
    version = next((found for found in here if found.etag == etag), None)
    version = version or next((found for found in here if not found.etag and found.state == "failed"), None)
    if version is None:
        what = "its new bytes are applied as a changed file" if any(v.applied_at for v in here) else "it is applied"
        return f"{what} when its notification or the next poll reaches a consumer"
    match version.state:
        case "failed":
            return _next_of_failed(life, version)
        case "seen":
            return "it is applied with the next delivery: poll, or drain --apply"
        case _:
            return _next_of_decided(version, life.changes)


def _next_of_decided(version: Version, found: StoredObject) -> str:
    if version.decision == "missing":
        return "it was missing and is there; it is applied with the next delivery: poll, or drain --apply"
    if version.applied_at is None:
        return f"nothing: {version.reason}"
    if _is_passed_over(version, found):
        return "nothing: bytes that were applied before others are back, passed over by policy"
    return "it was applied; the next delivery, poll or drain archives it"


def _is_passed_over(version: Version, found: StoredObject) -> bool:
    """Whether it is this put of it, as ingest.is_passed_over has it."""
    time = version.passed_over_time
    return time is not None and time.replace(microsecond=0) == found.modified.replace(microsecond=0)


def _next_of_absent(life: Life, here: list[Version], judged: ChangeFileKey | NotAChangeFile) -> str:
    unfinished = next((version for version in here if version.state in {"applied", "archived"}), None)
    if unfinished:
        missing = "archive it" if unfinished.state == "applied" else "relay its requests"
        return f"a consumer will {missing}"
    if any(version.applied_at for version in here):
        if not life.processed and any(version.archive_key for version in here):
            is_known = all(version.loss for version in here if version.archive_key)
            lost = f"verify calls it lost; where it is gone for good: fleettickets acknowledge {quote(life.key)}"
            return f"nothing; its archived object is gone: {'somebody has said why' if is_known else lost}"
        return "nothing: it is done"
    if any(version.first_seen_by == "import" for version in life.versions):
        return "nothing: it was imported from a local file"
    if life.processed:
        return "drain --from-archive --apply applies it: the database lacks it"
    if life.dead_letters:
        return "nothing: its object is gone, a replay would find it missing"
    if isinstance(judged, NotAChangeFile):
        return f"nothing: the bucket does not have it, and it would be ignored ({judged.reason})"
    return "nothing: the bucket does not have it; should it appear, it is a new file"


def _next_of_failed(life: Life, version: Version) -> str:
    if version.retry_at is not None:
        overdue = version.retry_at < datetime.now(UTC)
        return "its retry is due" if overdue else f"it is tried again at {moment(version.retry_at)}"
    if life.dead_letters:
        replay = f"fleettickets dead-letters replay --key {quote(life.key)}"
        lets_off = (
            f"; as it is, without those columns: {replay} --allow-missing" if version.reason == COLUMNS_MISSING else ""
        )
        return f"nothing until somebody mends it and replays it: {replay}{lets_off}"
    if version.discarded_at is not None:
        return "nothing: its dead letter was discarded; fleettickets drain --apply would try it again"
    if version.dead_lettered_at is None:
        return "the next delivery tries it again: poll, or drain --apply"
    return "nothing: its dead letter is gone; fleettickets drain --apply tries it again"
