"""Where everything stands: backlog, lag, queues, dead letters, last files, last error; each part by itself.

A part whose dependency is away says so and leaves the others readable.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from consumer.feeds.feed import Feed
from consumer.postgres import database, feed_tables
from consumer.postgres.database import Connection
from consumer.postgres.migrate import require_migrated
from consumer.upkeep.rejects import OpenRejects, open_rejects
from consumer.upkeep.verdicts import Ledger, Verdict
from consumer.upkeep.views import Connect, FileNotes, Moment, OpenChannel, View
from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError
from publisher.store.bucket import Bucket, ObjectSummary, pages

Part = TypeVar("Part")

LATELY_DAYS = 7
_NEWEST_COLUMNS = 20
"""So many of those that nobody declared are named."""


class Waiting(View):
    """The file that was stored first of those that wait."""

    oldest_waiting_seconds: float | None = Field(description="Since it was stored; none where none waits.")
    oldest_waiting_key: str | None


class WaitingOfFeed(View):
    """What lies in a feed's changes/."""

    folder: str
    waiting: int


class BucketPart(Waiting):
    """What lies in changes/."""

    bucket: str
    feeds: dict[str, WaitingOfFeed] = Field(description="By name, those that are served.")
    waiting: int = Field(description="All objects there, whatever was decided of them.")


class QueueDepth(View):
    """One queue of the broker."""

    ready: int = Field(description="Messages that no consumer has in hand.")
    consumers: int
    dead_letters: int


class BrokerPart(View):
    """What the broker has."""

    queues: dict[str, QueueDepth] = Field(description="By their short names.")


class Backlog(Waiting):
    """What waits and would be applied."""

    files: int
    set_aside: dict[str, int] = Field(description="Files that wait and would not be applied, by why.")


class OpenRequests(View):
    """Follow-on requests of one kind."""

    unsent: int = Field(description="Of those that are due, the ones that the broker does not have.")
    unhandled: int


class Wait(View):
    """A session of ours that waits for a lock of the database now, and who has it."""

    pid: int
    application: str
    relation: str | None = Field(description="The table, where the lock is one of a table.")
    seconds: float | None
    held_by: int | None = Field(description="Its pid; none once it is gone.")
    held_by_user: str | None
    held_by_application: str | None


class Geocoding(View):
    """Which tickets have a place, what the gazetteer knows, and what the geocoder still answers today."""

    tickets_by_source: dict[str, int]
    tickets_nowhere: int
    share_with_place: float | None = Field(description="From 0 to 1; none where there are no tickets.")
    places: dict[str, dict[str, int]] = Field(description="Of clusters and of locations, how many by status.")
    requests_today: int = Field(description="Since 00:00 UTC, of the account that this process would use.")
    requests_left_today: int
    paused_until: Moment | None
    paused_by: str | None = Field(description="What the provider answered.")
    looked_up_by: str | None = Field(description="The process whose turn it is to ask.")


class LastFile(View):
    """One of the files that were applied last."""

    key: str
    decision: str
    state: str
    reason: str | None
    first_seen_by: str
    applied_at: Moment | None
    rows_read: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    rows_stale: int
    rows_rejected: int
    lines_read: int | None = Field(description="None of a file from before they were counted; of one that failed, too.")
    lines_rejected: int | None
    dates_never: int = Field(description="Dates of no year that a ticket can be of, which are null.")
    notes: FileNotes | None


class UndeclaredColumn(View):
    """A column that files have and the feed's declaration does not."""

    feed: str
    name: str
    key: str | None = Field(description="Of the file that had it first.")
    first_seen_at: Moment


class UndeclaredColumns(View):
    """Those of all feeds that are served."""

    count: int
    newest: list[UndeclaredColumn] = Field(description="The first few.")


class Lately(View):
    """What was odd about the files of a feed that were applied in the last seven days, or the newest 10,000 of them."""

    files: int
    files_without_columns: int = Field(description="Applied although the exporter left out what it always writes.")
    missing_columns: list[str] = Field(description="Which those were.")
    newest_without: str | None = Field(description="The last such file.")
    dates_never: int = Field(description="Dates of no year that a ticket can be of, which are null.")


class Stages(View):
    """Where the time of the newest files went, at most a hundred: medians of the seconds that each stage took."""

    files: int
    delivered: float | None = Field(description="From when the store says that it was written, in whole seconds.")
    opened: float | None = Field(description="Until the store began to give its bytes.")
    staged: float | None = Field(description="Read, cleaned, and in the database.")
    applied: float | None = Field(description="Merged; its COMMIT is next.")
    archived: float | None
    done: float | None = Field(description="Its requests are sent.")


class LastError(View):
    """The newest file that failed, is held back, or cannot be archived."""

    key: str
    reason: str | None
    last_error: str | None
    attempts: int
    dead_lettered_at: Moment | None


class Freshness(View):
    """How far a feed has come."""

    watermark: str | None = Field(description="The highest key applied; none before the first file.")
    watermark_age_seconds: float | None = Field(description="Since the time in that key.")
    last_import_seconds: float | None = Field(description="Since a file was applied.")
    tickets: int | None


class DatabasePart(View):
    """What the ledger has."""

    backlog: Backlog
    feeds: dict[str, Freshness] = Field(description="By name, those that are served.")
    unfinished_files: dict[str, int] = Field(description="By state.")
    open_requests: dict[str, OpenRequests] = Field(description="By kind.")
    waits: list[Wait]
    geocoding: Geocoding
    ignored_events: dict[str, int] = Field(description="Notifications of nothing of ours, by reason.")
    open_rejects: dict[str, OpenRejects] = Field(description="By feed.")
    undeclared_columns: UndeclaredColumns
    lately: dict[str, Lately] = Field(description="By feed.")
    stages: Stages
    last_files: list[LastFile]
    last_error: LastError | None


class Status(View):
    """Each part that could be read; `faults` says which could not, and why."""

    bucket: BucketPart | None
    broker: BrokerPart | None
    database: DatabasePart | None
    faults: dict[str, str]

    @model_serializer(mode="wrap")
    def _without_what_is_away(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: part for name, part in serialized(self).items() if name not in self.faults}


@dataclass(frozen=True, slots=True)
class GeocoderAccount:
    """Whose requests and pause are told, where there is a geocoder, and how many it may send a day."""

    account: str | None
    per_day: int


def read_status(
    connect: Connect, open_channel: OpenChannel, bucket: Bucket, feeds: Sequence[Feed], geocoder: GeocoderAccount
) -> Status:
    """Ask the bucket, the broker and the database. Changes nothing."""
    faults: dict[str, str] = {}
    backlog, set_aside = _Files(), Counter[str]()
    with Ledger(connect, bucket.name, passes_over=True) as ledger:
        in_bucket = _part(faults, "bucket", lambda: _bucket(bucket, feeds, ledger, backlog, set_aside))
    in_broker = _part(faults, "broker", lambda: _broker(open_channel))
    in_database = _part(faults, "database", lambda: _database(connect, feeds, geocoder, backlog, set_aside))
    return Status(bucket=in_bucket, broker=in_broker, database=in_database, faults=faults)


@dataclass(slots=True)
class _Files:
    """How many, and the one that was stored first."""

    count: int = 0
    oldest: ObjectSummary | None = None

    def add(self, found: ObjectSummary) -> None:
        self.count += 1
        if self.oldest is None or found.modified < self.oldest.modified:
            self.oldest = found

    @property
    def oldest_seconds(self) -> float | None:
        return _age(self.oldest.modified if self.oldest else None)

    @property
    def oldest_key(self) -> str | None:
        return self.oldest.key if self.oldest else None


def _part(faults: dict[str, str], name: str, read: Callable[[], Part]) -> Part | None:
    try:
        return read()
    except FleetticketsError as error:
        faults[name] = str(error)
        return None


def _bucket(
    bucket: Bucket, feeds: Sequence[Feed], ledger: Ledger, backlog: _Files, set_aside: Counter[str]
) -> BucketPart:
    """What waits, page by page; of it goes to `backlog` what the ledger has no verdict on that stands."""
    waiting = _Files()
    of_feed: Counter[str] = Counter()
    for page in pages(bucket.waiting()):
        for found, verdict in zip(page, ledger.verdicts(page), strict=True):
            waiting.add(found)
            of_feed[bucket.folder_of(found.key).feed] += 1
            if verdict in {None, Verdict.RETRY}:
                backlog.add(found)
            else:
                set_aside[str(verdict)] += 1
    return BucketPart(
        bucket=bucket.name,
        feeds={feed.name: WaitingOfFeed(folder=feed.folder.changes, waiting=of_feed[feed.name]) for feed in feeds},
        waiting=waiting.count,
        oldest_waiting_seconds=waiting.oldest_seconds,
        oldest_waiting_key=waiting.oldest_key,
    )


def _broker(open_channel: OpenChannel) -> BrokerPart:
    queues = {}
    with open_channel() as channel:
        for queue in Queue:
            ready, consumers = channels.queue_depth(channel, queue.broker_name)
            dead, _ = channels.queue_depth(channel, queue.dead_letters)
            queues[queue.value] = QueueDepth(ready=ready, consumers=consumers, dead_letters=dead)
    return BrokerPart(queues=queues)


def _database(
    connect: Connect,
    feeds: Sequence[Feed],
    geocoder: GeocoderAccount,
    backlog: _Files,
    set_aside: Counter[str],
) -> DatabasePart:
    with connect() as connection, database.translated_errors():
        require_migrated(connection)
        feed_tables.require(connection, feeds)
        last_error = database.row(connection, "status", "last_error")
        return DatabasePart(
            backlog=Backlog(
                files=backlog.count,
                oldest_waiting_seconds=backlog.oldest_seconds,
                oldest_waiting_key=backlog.oldest_key,
                set_aside=dict(set_aside),
            ),
            feeds={feed.name: _freshness(connection, feed) for feed in feeds},
            unfinished_files={
                row["state"]: row["files"] for row in database.rows(connection, "status", "ledger_by_state")
            },
            open_requests={
                row["kind"]: OpenRequests(unsent=row["unsent"], unhandled=row["unhandled"])
                for row in database.rows(connection, "status", "open_requests")
            },
            waits=[Wait(**row) for row in database.rows(connection, "waits", "waits")],
            geocoding=_geocoding(connection, geocoder),
            ignored_events={
                row["reason"]: row["events"] for row in database.rows(connection, "status", "ignored_events")
            },
            open_rejects=open_rejects(connection, feeds),
            undeclared_columns=_undeclared_columns(connection, feeds),
            lately={feed.name: _lately(connection, feed) for feed in feeds},
            stages=Stages(**(database.row(connection, "status", "stages") or {"files": 0})),
            last_files=[LastFile(**row) for row in database.rows(connection, "status", "last_files")],
            last_error=LastError(**last_error) if last_error else None,
        )


def _freshness(connection: Connection, feed: Feed) -> Freshness:
    watermark = database.row(connection, "status", "watermark", {"feed": feed.name}) or {}
    return Freshness(
        watermark=watermark.get("key"),
        watermark_age_seconds=_age(watermark.get("snapshot_at")),
        last_import_seconds=_age(watermark.get("imported_at")),
        tickets=watermark.get("row_count", 0),
    )


def _undeclared_columns(connection: Connection, feeds: Sequence[Feed]) -> UndeclaredColumns:
    """Without those that somebody has declared meanwhile. There are no more than a thousand of each feed."""
    declared = {feed.name: feed.columns.keys() for feed in feeds}
    found = database.rows(connection, "status", "undeclared_columns", {"feeds": list(declared)})
    columns = [UndeclaredColumn(**row) for row in found if row["name"] not in declared[row["feed"]]]
    return UndeclaredColumns(count=len(columns), newest=columns[:_NEWEST_COLUMNS])


def _lately(connection: Connection, feed: Feed) -> Lately:
    found = database.row(connection, "status", "lately", {"feed": feed.name, "days": LATELY_DAYS})
    return Lately.model_validate(found)


def _geocoding(connection: Connection, geocoder: GeocoderAccount) -> Geocoding:
    sources = {row["source"]: row["tickets"] for row in database.rows(connection, "status", "tickets_by_place")}
    total = sum(sources.values())
    nowhere = sources.pop(None, 0)
    places: dict[str, dict[str, int]] = {"clusters": {}, "locations": {}}
    for row in database.rows(connection, "status", "gazetteer"):
        places[row["kind"]][row["status"]] = row["places"]
    asked = database.row(connection, "status", "geocoder", {"account": geocoder.account}) or {}
    turn = database.row(connection, "leases", "held", {"name": "lookups"})
    return Geocoding(
        tickets_by_source=sources,
        tickets_nowhere=nowhere,
        share_with_place=round((total - nowhere) / total, 6) if total else None,
        places=places,
        requests_today=asked["requests"],
        requests_left_today=0 if asked["is_spent"] else max(0, geocoder.per_day - asked["requests"]),
        paused_until=asked["paused_until"],
        paused_by=asked["paused_by"],
        looked_up_by=turn["holder"] if turn else None,
    )


def _age(moment: datetime | None) -> float | None:
    return round((datetime.now(UTC) - moment).total_seconds(), 1) if moment else None
