"""Where everything stands: a verdict, backlog, lag, queues, dead letters, last files, last error; each part by itself.

A part whose dependency is away or does not answer says so and leaves the others readable.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from consumer.feeds.feed import Feed
from consumer.postgres import database, feed_tables
from consumer.postgres.database import Connection
from consumer.postgres.migrate import require_migrated
from consumer.upkeep.deadlines import Answered, Look
from consumer.upkeep.judging import (
    PACE_SECONDS,
    Announced,
    Backlogged,
    Facts,
    FilesQueue,
    Judgement,
    Pace,
    ProcessSeen,
    Rhythm,
    Thresholds,
    judge,
)
from consumer.upkeep.rejects import OpenRejects, open_rejects
from consumer.upkeep.verdicts import Ledger, Verdict
from consumer.upkeep.views import Connect, FileNotes, Moment, OpenChannel, View
from publisher.broker import channels
from publisher.broker.topology import Queue
from publisher.errors import FleetticketsError, WrongSchema
from publisher.heartbeat import PausedBy, ProcessKind
from publisher.store.bucket import Bucket, ObjectSummary, pages

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
    oldest_unsent_seconds: float | None = Field(description="Since the first of these was due.")
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


class LetterGroup(View):
    """Files that became dead letters for one cause, as the ledger has them."""

    fingerprint: str = Field(description="As --group of dead-letters takes it.")
    feeds: list[str]
    files: int
    since: Moment
    reason: str | None
    last_error: str | None
    key: str = Field(description="Of the first of them.")


class LetterGroups(View):
    """All such files."""

    files: int
    oldest: list[LetterGroup] = Field(description="The first hundred groups.")


class Alerts(View):
    """What the receiver of alerts is told of."""

    open: int = Field(description="Causes that were to be told and are not over.")
    untold: int = Field(description="Alerts and all-clears that the receiver has not taken yet.")
    untold_seconds: float | None = Field(description="Since the first of these was to be told.")
    watched_by: str | None = Field(description="The process that watches; none where nobody does.")


class Freshness(View):
    """How far a feed has come."""

    watermark: str | None = Field(description="The highest key applied; none before the first file.")
    watermark_age_seconds: float | None = Field(description="Since the time in that key.")
    last_import_seconds: float | None = Field(description="Since a file was applied.")
    tickets: int | None


class DatabasePart(View):
    """What the ledger has."""

    backlog: Backlog | None = Field(description="None where the bucket does not answer.")
    feeds: dict[str, Freshness] = Field(description="By name, those that are served.")
    unfinished_files: dict[str, int] = Field(description="By state.")
    dead_letters: dict[str, int] = Field(description="Files whose tries are spent, by why, the most frequent first.")
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


class TroublePart(View):
    """What is not in the verdict, and somebody is to be told of."""

    letter_groups: LetterGroups
    geocoder_is_spent: bool = Field(description="The day of an account is used up, whichever process asks by it.")
    alerts: Alerts


class ProcessRow(View):
    """A process that runs for long, as it last said of itself."""

    kind: ProcessKind
    host: str
    pid: int
    version: str
    feeds: list[str]
    queues: list[str]
    started_at: Moment
    beat_seconds: float = Field(description="Since it last gave a sign.")
    in_hand: str | None = Field(description="What it has worked on for longest.")
    in_hand_seconds: float | None
    paused_by: PausedBy | None
    paused_why: str | None
    paused_seconds: float | None
    settled_seconds: float | None = Field(description="Since it was done with something.")


class ProcessesPart(View):
    """Who is at work."""

    processes: list[ProcessRow]
    waits: list[Wait]


class Status(View):
    """The verdict, and each part that could be read; `faults` says which could not, and why."""

    verdict: Judgement
    processes: list[ProcessRow] | None
    bucket: BucketPart | None
    broker: BrokerPart | None
    database: DatabasePart | None
    trouble: TroublePart | None
    faults: dict[str, str]

    @model_serializer(mode="wrap")
    def _without_what_is_away(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: part for name, part in serialized(self).items() if name not in self.faults}


@dataclass(frozen=True, slots=True)
class GeocoderAccount:
    """Whose requests and pause are told, where there is a geocoder, and how many it may send a day."""

    account: str | None
    per_day: int


class Looking:
    """Asks all parts at once, and waits for none that does not answer; it may be asked again.

    Without `open_channel` there is no broker, which is no fault.
    """

    def __init__(
        self,
        connect: Connect,
        open_channel: OpenChannel | None,
        bucket: Bucket,
        feeds: Sequence[Feed],
        geocoder: GeocoderAccount,
        *,
        answer_seconds: float,
    ) -> None:
        self._answer_seconds = answer_seconds
        self._looks: dict[str, Look[Any]] = {}
        self._addresses = {"bucket": bucket.address, "broker": channels.address}
        self._parts: dict[str, Callable[[Answered], Any]] = {
            "bucket": lambda answered: _bucket(bucket, feeds, connect, answered),
            "processes": lambda _answered: _processes(connect),
            "ledger": lambda answered: _ledger(connect, feeds, answered),
            "trouble": lambda answered: _trouble(connect, bucket.name, geocoder, answered),
            "database": lambda answered: _database(connect, feeds, geocoder, answered),
        }
        if open_channel is not None:
            self._parts["broker"] = lambda answered: _broker(open_channel, answered)

    def status(self, limits: Thresholds, *, briefly: bool = False) -> Status:
        """How it stands now. Changes nothing.

        What looks all the time does so `briefly`: without the part whose cost grows with the tables.
        """
        for name, read in self._parts.items():
            if briefly and name == "database":
                continue
            # One that still does not answer is not asked for a second time.
            if name not in self._looks or self._looks[name].is_over:
                self._looks[name] = Look(
                    name, self._answer_seconds, read, self._addresses.get(name, database.told_address)
                )
        faults: dict[str, FleetticketsError] = {}
        in_bucket: _InBucket | None = self._found("bucket", faults)
        in_broker: BrokerPart | None = self._found("broker", faults) if "broker" in self._parts else None
        processes: ProcessesPart | None = self._found("processes", faults)
        in_ledger: _InLedger | None = self._found("ledger", faults)
        trouble: TroublePart | None = self._found("trouble", faults)
        in_database: DatabasePart | None = None if briefly else self._found("database", faults)
        if briefly and "trouble" in faults:
            faults["database"] = faults.pop("trouble")
        if "database" in faults:
            # They ask the same server, and one cause is one line.
            for also in ("processes", "ledger", "trouble"):
                faults.pop(also, None)
        if in_database is not None and in_bucket is not None:
            in_database = in_database.model_copy(update={"backlog": in_bucket.backlog})
        facts = _facts(faults, in_bucket, in_broker, processes, in_ledger)
        return Status(
            verdict=judge(facts, limits),
            processes=processes.processes if processes else None,
            bucket=in_bucket.part if in_bucket else None,
            broker=in_broker,
            database=in_database,
            trouble=trouble,
            faults=_told(faults),
        )

    def _found(self, name: str, faults: dict[str, FleetticketsError]) -> Any:
        try:
            return self._looks[name].found()
        except FleetticketsError as error:
            faults[name] = error
            return None


def _told(faults: dict[str, FleetticketsError]) -> dict[str, str]:
    return {part: str(error) for part, error in faults.items()}


def _facts(
    faults: dict[str, FleetticketsError],
    in_bucket: "_InBucket | None",
    in_broker: BrokerPart | None,
    processes: ProcessesPart | None,
    in_ledger: "_InLedger | None",
) -> Facts:
    queue = in_broker.queues[Queue.FILES.value] if in_broker else None
    leaving_out = {"version", "feeds", "started_at"}
    return Facts(
        faults=_told(faults),
        wrong_schema=next((error for error in faults.values() if isinstance(error, WrongSchema)), None),
        backlog=in_bucket.to_judge if in_bucket else None,
        queue=FilesQueue(**queue.model_dump()) if queue else None,
        processes=[ProcessSeen(**one.model_dump(exclude=leaving_out)) for one in processes.processes]
        if processes
        else None,
        locks=[_holder(wait) for wait in processes.waits if wait.held_by and _is_strange(wait)] if processes else (),
        pace=in_ledger.pace if in_ledger else None,
        rhythms=in_ledger.rhythms if in_ledger else {},
        announced=in_ledger.announced if in_ledger else None,
    )


def _is_strange(wait: Wait) -> bool:
    """Our own sessions wait for each other all the time, and never for long."""
    return not (wait.held_by_application or "").startswith("fleettickets")


def _holder(wait: Wait) -> str:
    where = f" on {wait.relation}" if wait.relation else ""
    return f"{wait.held_by_user} (pid {wait.held_by}, {wait.held_by_application or 'unnamed'}){where}"


@dataclass(slots=True)
class _Files:
    """How many, and the one that was stored first."""

    count: int = 0
    oldest: ObjectSummary | None = None
    fresh: int = 0
    newest: dict[str, datetime] = field(default_factory=dict)

    def add(self, found: ObjectSummary, feed: str = "") -> None:
        self.count += 1
        self.fresh += (_age(found.modified) or 0) < PACE_SECONDS
        self.newest[feed] = max(found.modified, self.newest.get(feed, found.modified))
        if self.oldest is None or found.modified < self.oldest.modified:
            self.oldest = found

    @property
    def oldest_seconds(self) -> float | None:
        return _age(self.oldest.modified if self.oldest else None)

    @property
    def oldest_key(self) -> str | None:
        return self.oldest.key if self.oldest else None


@dataclass(frozen=True, slots=True)
class _InBucket:
    part: BucketPart
    backlog: Backlog
    to_judge: Backlogged | None
    """None where the ledger could not say what of it was set aside."""


def _bucket(bucket: Bucket, feeds: Sequence[Feed], connect: Connect, answered: Answered) -> _InBucket:
    """What waits, page by page; to the backlog goes what the ledger has no verdict on that stands."""
    waiting, backlog, due = _Files(), _Files(), _Files()
    of_feed, set_aside = Counter[str](), Counter[str]()
    with Ledger(connect, bucket.name, passes_over=True) as ledger:
        answered()
        for page in pages(bucket.waiting()):
            answered()
            for found, verdict in zip(page, ledger.verdicts(page), strict=True):
                waiting.add(found)
                feed = bucket.folder_of(found.key).feed
                of_feed[feed] += 1
                if verdict in {None, Verdict.RETRY}:
                    backlog.add(found)
                else:
                    set_aside[str(verdict)] += 1
                if verdict is None:  # what waits for its retry waits for nobody
                    due.add(found, feed)
            answered()
    part = BucketPart(
        bucket=bucket.name,
        feeds={feed.name: WaitingOfFeed(folder=feed.folder.changes, waiting=of_feed[feed.name]) for feed in feeds},
        waiting=waiting.count,
        oldest_waiting_seconds=waiting.oldest_seconds,
        oldest_waiting_key=waiting.oldest_key,
    )
    to_judge = Backlogged(
        files=due.count,
        oldest_seconds=due.oldest_seconds or 0,
        oldest_key=due.oldest_key,
        fresh=due.fresh,
        newest_seconds={feed: _age(moment) or 0 for feed, moment in due.newest.items()},
    )
    return _InBucket(part, _backlog(backlog, set_aside), to_judge if ledger.fault is None else None)


def _backlog(files: _Files, set_aside: Counter[str]) -> Backlog:
    return Backlog(
        files=files.count,
        oldest_waiting_seconds=files.oldest_seconds,
        oldest_waiting_key=files.oldest_key,
        set_aside=dict(set_aside),
    )


def _processes(connect: Connect) -> ProcessesPart:
    with connect() as connection, database.translated_errors(), database.naming_holders(connection):
        require_migrated(connection)
        return ProcessesPart(
            processes=[ProcessRow(**row) for row in database.rows(connection, "heartbeats", "seen")],
            waits=[Wait(**row) for row in database.rows(connection, "waits", "waits")],
        )


@dataclass(frozen=True, slots=True)
class _InLedger:
    pace: Pace
    rhythms: dict[str, Rhythm]
    announced: Announced | None


def _ledger(connect: Connect, feeds: Sequence[Feed], answered: Answered) -> _InLedger:
    with connect() as connection, database.translated_errors(), database.naming_holders(connection):
        require_migrated(connection)
        answered()
        pace = Pace(**(database.row(connection, "judging", "pace", {"seconds": PACE_SECONDS}) or {}))
        rhythms = {}
        for feed in feeds:
            found = database.row(connection, "judging", "rhythm", {"feed": feed.name})
            answered()
            if found is not None:
                rhythms[feed.name] = Rhythm(**found)
        announced = database.row(connection, "judging", "announced")
        return _InLedger(pace, rhythms, Announced(**announced) if announced else None)


def _broker(open_channel: OpenChannel, answered: Answered) -> BrokerPart:
    queues = {}
    with open_channel() as channel:
        for queue in Queue:
            answered()
            ready, consumers = channels.queue_depth(channel, queue.broker_name)
            dead, _ = channels.queue_depth(channel, queue.dead_letters)
            queues[queue.value] = QueueDepth(ready=ready, consumers=consumers, dead_letters=dead)
    return BrokerPart(queues=queues)


def _trouble(connect: Connect, bucket: str, geocoder: GeocoderAccount, answered: Answered) -> TroublePart:
    with connect() as connection, database.translated_errors(), database.naming_holders(connection):
        require_migrated(connection)
        answered()
        letter_groups = _letter_groups(connection, bucket)
        answered()
        spent = database.row(connection, "status", "geocoder_is_spent", {"per_day": geocoder.per_day}) or {}
        return TroublePart(
            letter_groups=letter_groups,
            geocoder_is_spent=spent["is_spent"],
            alerts=Alerts.model_validate(database.row(connection, "alerts", "standing", {"bucket": bucket})),
        )


def _database(connect: Connect, feeds: Sequence[Feed], geocoder: GeocoderAccount, answered: Answered) -> DatabasePart:
    """All but the backlog, which the bucket has."""
    with connect() as connection, database.translated_errors(), database.naming_holders(connection):
        require_migrated(connection)
        answered()
        feed_tables.require(connection, feeds)
        last_error = database.row(connection, "status", "last_error")
        answered()
        fresh = {feed.name: _freshness(connection, feed) for feed in feeds}
        answered()
        geocoding = _geocoding(connection, geocoder)
        answered()
        rejects, lately = open_rejects(connection, feeds), {feed.name: _lately(connection, feed) for feed in feeds}
        answered()
        return DatabasePart(
            backlog=None,
            feeds=fresh,
            unfinished_files={
                row["state"]: row["files"] for row in database.rows(connection, "status", "ledger_by_state")
            },
            dead_letters={row["reason"]: row["files"] for row in database.rows(connection, "status", "dead_letters")},
            open_requests={
                row.pop("kind"): OpenRequests(**row) for row in database.rows(connection, "status", "open_requests")
            },
            waits=[Wait(**row) for row in database.rows(connection, "waits", "waits")],
            geocoding=geocoding,
            ignored_events={
                row["reason"]: row["events"] for row in database.rows(connection, "status", "ignored_events")
            },
            open_rejects=rejects,
            undeclared_columns=_undeclared_columns(connection, feeds),
            lately=lately,
            stages=Stages(**(database.row(connection, "status", "stages") or {"files": 0})),
            last_files=[LastFile(**row) for row in database.rows(connection, "status", "last_files")],
            last_error=LastError(**last_error) if last_error else None,
        )


def _letter_groups(connection: Connection, bucket: str) -> LetterGroups:
    found = database.rows(connection, "status", "failures", {"bucket": bucket})
    files = [row.pop("files_of_all") for row in found]
    return LetterGroups(files=files[0] if files else 0, oldest=[LetterGroup(**row) for row in found])


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
