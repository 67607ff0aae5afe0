"""Bucket, ledger and dead letters against each other: every object and every ledger row is accounted for, or named.

It is right beside running consumers. The bucket is listed before the ledger is read, in one snapshot, so a row that the
listing has to show is one older than it; what is found then is looked at again, and only what stays is told.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from pydantic import Field

from consumer.feeds.feed import Feeds, FollowOn
from consumer.postgres import database, feed_tables, migrate
from consumer.postgres.database import Connection
from consumer.upkeep import deadlines, inventory
from consumer.upkeep.deadlines import Answered
from consumer.upkeep.inventory import Listed
from consumer.upkeep.losses import KnownLoss
from consumer.upkeep.views import Connect, OpenChannel, View
from publisher.arrivals.store_events import NOT_AN_EVENT
from publisher.broker import channels, dead_letters
from publisher.broker.dead_letters import DeadLetter
from publisher.broker.topology import RETRY_DELAYS, Queue, retry_exchange
from publisher.errors import DependencyDown, ObjectMissing, Refused
from publisher.store.bucket import BUCKET, Bucket, ObjectSummary

OLD_SECONDS = 900
"""Longer than anything takes that goes well: the longest retry delay and the longest hold are ten minutes."""

_PAUSE_SECONDS = 0.5
READERS = 8
"""Of objects, at a time."""
_LIST_AGAIN = 1000
"""From so many suspects on, listing a thousand objects with one request is cheaper than asking for each."""


class DiscrepancyKind(StrEnum):
    """Everything that can be wrong."""

    UNRECORDED = "unrecorded"
    LOST = "lost"
    SIZE_DIFFERS = "size_differs"
    CONTENT_DIFFERS = "content_differs"
    TAIL_UNFINISHED = "tail_unfinished"
    WAITING_TOO_LONG = "waiting_too_long"
    FAILED_WITHOUT_LETTER = "failed_without_letter"
    LETTER_OF_APPLIED_FILE = "letter_of_applied_file"
    LETTER_WITHOUT_FAILURE = "letter_without_failure"
    REQUEST_UNSENT = "request_unsent"
    REQUEST_LOST = "request_lost"
    ROWS_MISSING = "rows_missing"
    CLOSURE_MISSING = "closure_missing"
    LEDGER_INCONSISTENT = "ledger_inconsistent"


MEANING = {
    DiscrepancyKind.UNRECORDED: (
        "in processed/, and the ledger has no such file as applied",
        "after a restored database: fleettickets drain --from-archive; a foreign object: move it elsewhere",
    ),
    DiscrepancyKind.LOST: (
        "the ledger has it, and the bucket has it no more",
        "put it back from a copy of the bucket; where there is none: fleettickets acknowledge KEY --reason WHY",
    ),
    DiscrepancyKind.SIZE_DIFFERS: ("the archived object has another size than was applied", "put it back from a copy"),
    DiscrepancyKind.CONTENT_DIFFERS: (
        "the archived object has other bytes than were applied",
        "put it back from a copy",
    ),
    DiscrepancyKind.TAIL_UNFINISHED: (
        "applied long ago, and not archived, relayed or removed from changes/",
        "start a consumer: it finishes what it finds; still there: fleettickets drain --apply",
    ),
    DiscrepancyKind.WAITING_TOO_LONG: (
        "in changes/ for long, and neither applied nor failed",
        "run: fleettickets poll; then see that a consumer runs: fleettickets status",
    ),
    DiscrepancyKind.FAILED_WITHOUT_LETTER: (
        "failed, still in changes/, and there is no dead letter to replay",
        "mend the file, or wait for the day that its name says; then: fleettickets drain --apply",
    ),
    DiscrepancyKind.LETTER_OF_APPLIED_FILE: (
        "a dead letter whose file was applied after all",
        "start a consumer: it settles it; one of a program of before: fleettickets dead-letters replay --key KEY",
    ),
    DiscrepancyKind.LETTER_WITHOUT_FAILURE: (
        "a dead letter of a file that the ledger does not have as failed",
        "fleettickets dead-letters replay --key KEY",
    ),
    DiscrepancyKind.REQUEST_UNSENT: (
        "a follow-on request that waits in the outbox",
        "start a consumer with a broker: it relays what waits; where there is none: fleettickets capture-history",
    ),
    DiscrepancyKind.REQUEST_LOST: (
        "a follow-on request that was sent, is in no queue, and was never handled; or that was never made",
        "history: fleettickets capture-history; geocode: the next file with changes; never made: as rows_missing",
    ),
    DiscrepancyKind.ROWS_MISSING: (
        "rows that the ledger counts are not in the database",
        "restore the database from a dump, then: fleettickets drain --from-archive",
    ),
    DiscrepancyKind.CLOSURE_MISSING: (
        "a ticket is closed, and tickets.closure_events does not have when",
        "UPDATE the ticket by SET raw = raw, which has the next capture look at it; then: fleettickets capture-history",
    ),
    DiscrepancyKind.LEDGER_INCONSISTENT: (
        "what the ledger says of a file contradicts itself",
        "restore the database from a dump, then: fleettickets drain --from-archive",
    ),
}
"""For each kind what it means, and what to do."""

_LETTER_KINDS = frozenset({DiscrepancyKind.LETTER_OF_APPLIED_FILE, DiscrepancyKind.LETTER_WITHOUT_FAILURE})
_OF_ONE_FEED = frozenset({DiscrepancyKind.ROWS_MISSING, DiscrepancyKind.CLOSURE_MISSING})
_BY_CONTENT = DiscrepancyKind.CONTENT_DIFFERS
_PARTS = {database.DATABASE: "database", channels.BROKER: "broker", BUCKET: "bucket"}
"""How those are called that a comparison needs."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Which archived objects to read: of those archived since then, so many, chosen at random; None is no limit."""

    since: datetime | None = None
    limit: int | None = None


class Example(View):
    """One object or row that is not accounted for."""

    subject: str = Field(description="The object's key, or what else it is.")
    key: str | None = Field(description="The key in changes/ that it belongs to.")
    detail: str


class Discrepancy(View):
    """All of one kind."""

    count: int
    meaning: str
    do: str = Field(description="What to do about them.")
    examples: list[Example] = Field(description="The first few.")


class Notes(View):
    """Counts of what is accounted for and worth knowing."""

    waiting: int = Field(description="Versions in changes/ that the ledger has not seen.")
    misnamed: int = Field(description="Objects in changes/ that are no change files.")
    before_the_ledger: int = Field(description="Objects in processed/ from before the ledger was begun.")
    ledger_rows: int
    in_progress: int = Field(description="Applied files whose archive or requests are not done.")
    retrying: int = Field(description="Failed files that are tried again by themselves.")
    failed: int = Field(description="Failed files that are not.")
    superseded: int = Field(description="Failed files of which a newer version is there.")
    missing: int = Field(description="Files that were announced and never seen.")
    passed_over: int = Field(description="Changed files that the policy does not apply.")
    gone_before_archived: int = Field(description="Applied files whose object went away before it was archived.")
    expired: int = Field(description="Archived objects that the bucket's own rule has deleted.")
    acknowledged_losses: int = Field(description="Versions of which somebody has said why their object is gone.")


class AcknowledgedLoss(KnownLoss):
    """A version whose object is gone."""

    subject: str = Field(description="The object's key.")
    key: str = Field(description="The key in changes/ that it belongs to.")


class Verification(View):
    """Whether every object and every row is accounted for, and each that is not."""

    accounted_for: bool | None = Field(description="Null where nothing was found, and not everything looked at.")
    discrepancies: dict[DiscrepancyKind, Discrepancy] = Field({}, description="By kind.")
    objects: Listed | None = None
    contents_read: int = Field(0, description="Archived objects whose bytes were compared.")
    notes: Notes | None = None
    acknowledged: list[AcknowledgedLoss] = Field([], description="The last losses that somebody has looked into.")
    undeclared_feeds: list[str] = Field([], description="Feeds of the database that are declared nowhere any more.")
    faults: dict[str, str] = Field({}, description="Of bucket, database and broker, what could not be looked at: why.")
    seconds: float = Field(description="How long it took.")


@dataclass(frozen=True, slots=True)
class OnProgress:
    """Told how far a verification is: objects listed so far, and objects read so far of how many."""

    listed: Callable[[int], None]
    read: Callable[[int, int], None]


@dataclass(slots=True)
class _Queues:
    """What the broker says; without one there is nothing to be said of letters and sent requests."""

    letters_are_read: bool = False
    files_queue_is_empty: bool = True
    empty: list[str] = field(default_factory=list)


def verify(
    connect: Connect,
    bucket: Bucket,
    feeds: Feeds,
    open_channel: OpenChannel | None,
    progress: OnProgress,
    *,
    answer_seconds: float,
    old_seconds: float = OLD_SECONDS,
    archive_days: float | None = None,
    contents: Contents | None = None,
    examples: int = 10,
) -> Verification:
    """Compare everything; without `open_channel` all but dead letters, and what waits for a consumer.

    Each answer of bucket and broker, and each lock, is waited for that long; a statement of the database may take its
    time. Without bucket or database nothing is compared, without broker all but the letters. An archived object that is
    older than `archive_days` need not be there. Changes nothing but temporary tables of its connection.
    Raises: Misconfigured.
    """
    began = time.monotonic()
    try:
        with connect() as connection, database.translated_errors(), database.naming_holders(connection):
            migrate.require_migrated(connection)
            feed_tables.require(connection, feeds.served)
            deadlines.Look("bucket", answer_seconds, lambda _answered: bucket.require(), bucket.address).found()
            verification = _Verification(
                connection,
                bucket,
                feeds,
                open_channel,
                old_seconds=old_seconds,
                answer_seconds=answer_seconds,
                archive_days=archive_days,
                progress=progress,
            )
            return verification.run(contents, examples)
    except (DependencyDown, Refused) as error:
        part = _PARTS.get(error.dependency, error.dependency)
        return Verification(accounted_for=None, faults={part: str(error)}, seconds=round(time.monotonic() - began, 1))


class _Verification:
    def __init__(
        self,
        connection: Connection,
        bucket: Bucket,
        feeds: Feeds,
        open_channel: OpenChannel | None,
        *,
        old_seconds: float,
        answer_seconds: float,
        archive_days: float | None,
        progress: OnProgress,
    ) -> None:
        self._connection = connection
        self._bucket = bucket
        self._declared = [feed.name for feed in feeds.declared]
        self._feeds = feeds.served
        self._answer_seconds = answer_seconds
        self._faults: dict[str, str] = {}
        self._open_channel = open_channel
        self._progress = progress
        began: datetime = database.rows(connection, "verify", "now")[0]["now"]
        self._parameters: dict[str, Any] = {
            "bucket": bucket.name,
            "prefixes": [feed.prefix for feed in self._feeds],
            "folders": [folder for feed in self._feeds for folder in (feed.folder.changes, feed.folder.processed)],
            "began": began,
            "old": began - timedelta(seconds=old_seconds),
            "has_broker": open_channel is not None,
            "expires": None if archive_days is None else began - timedelta(days=archive_days),
        }

    def run(self, contents: Contents | None, examples: int) -> Verification:
        began = time.monotonic()
        for table in ("create_findings", "create_letters", "create_contents"):
            self._run(table)
        queues = self._read_broker()
        objects = self._list()
        self._judge(1, queues)
        if self._one("count_findings", look=1)["findings"]:
            self._look_again()
        contents_read = self._read_contents(contents)
        discrepancies = {
            (kind := DiscrepancyKind(counted["kind"])): self._discrepancy(kind, counted["findings"], examples)
            for counted in self._run("counts")
        }
        return Verification(
            accounted_for=False if discrepancies else None if self._faults else True,
            discrepancies=discrepancies,
            objects=objects,
            contents_read=contents_read,
            notes=Notes(**self._one("notes")),
            acknowledged=[AcknowledgedLoss(**row) for row in self._run("acknowledged", examples=examples)],
            undeclared_feeds=[other.feed for other in feed_tables.folders_of_others(self._connection, self._declared)],
            faults=self._faults,
            seconds=round(time.monotonic() - began, 1),
        )

    def _list(self) -> Listed:
        return inventory.take(self._connection, self._bucket, self._progress.listed, seconds=self._answer_seconds)

    def _discrepancy(self, kind: DiscrepancyKind, count: int, examples: int) -> Discrepancy:
        meaning, do = MEANING[kind]
        shown = [Example(**row) for row in self._run("examples", kind=kind.value, examples=examples)]
        return Discrepancy(count=count, meaning=meaning, do=do, examples=shown)

    def _judge(self, look: int, queues: _Queues) -> None:
        parameters = {
            "look": look,
            "letters_are_read": queues.letters_are_read,
            "files_queue_is_empty": queues.files_queue_is_empty,
            "empty_queues": queues.empty,
        }
        with self._connection.transaction():
            self._run("begin_snapshot")
            for kind in DiscrepancyKind:
                if kind in _OF_ONE_FEED:
                    for feed in self._feeds:
                        if kind is DiscrepancyKind.CLOSURE_MISSING and FollowOn.HISTORY not in feed.follow_ons:
                            continue
                        of_feed = self._parameters | parameters | {"feed": feed.name}
                        database.rows(self._connection, "verify", f"find_{kind.value}", of_feed, feed=feed)
                elif kind is DiscrepancyKind.REQUEST_LOST:
                    self._run(f"find_{kind.value}", **parameters, **self._follow_ons())
                elif kind is not _BY_CONTENT and (queues.letters_are_read or kind not in _LETTER_KINDS):
                    self._run(f"find_{kind.value}", **parameters, feeds=[feed.name for feed in self._feeds])

    def _follow_ons(self) -> dict[str, list[str]]:
        """Which requests a file of each feed makes."""
        pairs = [(feed.name, kind.value) for feed in self._feeds for kind in feed.follow_ons]
        return {"feeds": [name for name, _ in pairs], "follow_ons": [kind for _, kind in pairs]}

    def _look_again(self) -> None:
        """Keep what stays: one look can meet a file between two of its steps."""
        time.sleep(_PAUSE_SECONDS)
        queues = self._read_broker()
        if self._one("count_findings", look=1)["findings"] > _LIST_AGAIN:
            self._list()
        else:
            self._refresh_suspects()
        self._judge(2, queues)
        self._run("drop_passing")
        after = ""
        while candidates := self._run("unrecorded_by_etag", after=after):
            for candidate in candidates:
                if self._digest(candidate["object_key"]) in candidate["digests"]:
                    self._run("drop_unrecorded", object_key=candidate["object_key"])
            after = candidates[-1]["object_key"]

    def _refresh_suspects(self) -> None:
        after = ""
        with ThreadPoolExecutor(READERS) as threads:
            while suspects := [row["object_key"] for row in self._run("suspects", look=1, after=after)]:
                looked = dict(zip(suspects, threads.map(self._head, suspects), strict=True))
                seen = [key for key, found in looked.items() if not isinstance(found, Refused)]
                inventory.refresh(self._connection, self._bucket, seen, (looked[key] for key in seen))
                after = suspects[-1]

    def _head(self, key: str) -> ObjectSummary | Refused | None:
        """What is there now; of an object that the store will not show, the listing stays what is known."""
        try:
            return self._bucket.head(key)
        except Refused as error:
            return error

    def _read_broker(self) -> _Queues:
        """What letters and queues there are; what cannot be asked is a fault, and the rest is compared."""
        if self._open_channel is None:
            return _Queues()
        self._run("forget_letters")
        asked = partial(self._ask_broker, self._open_channel)
        try:
            letters, queues = deadlines.Look("broker", self._answer_seconds, asked, channels.address).found()
        except DependencyDown as error:
            self._faults["broker"] = str(error)
            return _Queues()
        with self._connection.transaction():
            for key, dead_at in letters.items():
                self._run("keep_letter", key=key, dead_at=dead_at)
        return queues

    def _ask_broker(self, open_channel: OpenChannel, answered: Answered) -> tuple[dict[str, datetime | None], _Queues]:
        """The keys of ours that have letters, each with when the oldest died, and what is in the queues."""
        with open_channel() as channel:
            answered()
            letters: dict[str, datetime | None] = {}
            patience = deadlines.before(self._answer_seconds)
            with dead_letters.browsing(channel, Queue.FILES, patience) as held:
                for letter in held:
                    answered()
                    if self._is_ours(letter):
                        key = letter.key.replace("\0", "")
                        times = [time for time in (letters.get(key), letter.dead_at) if time is not None]
                        letters[key] = min(times, default=None)
                answered()
            answered()
            ready = {queue: channels.queue_depth(channel, queue.broker_name)[0] for queue in Queue}
            dead = {queue: channels.queue_depth(channel, queue.dead_letters)[0] for queue in Queue}
            answered()
            # All queues share these: whose messages wait there is not to be seen without taking them.
            waiting = sum(channels.queue_depth(channel, retry_exchange(delay))[0] for delay in RETRY_DELAYS)
        empty = [queue.value for queue in Queue if not ready[queue] and not dead[queue] and not waiting]
        return letters, _Queues(letters_are_read=True, files_queue_is_empty=not ready[Queue.FILES], empty=empty)

    def _is_ours(self, letter: DeadLetter) -> bool:
        if letter.reason == NOT_AN_EVENT:
            return False  # a letter of a body: its good records have messages of their own, and no replay mends it
        is_of_bucket = dead_letters.bucket_of(letter) in {None, self._bucket.name}
        return is_of_bucket and any(letter.key.startswith(feed.folder.changes) for feed in self._feeds)

    def _read_contents(self, contents: Contents | None) -> int:
        self._run("choose_by_etag")
        if contents is not None:
            self._run("choose_by_content", since=contents.since, limit=contents.limit)
        total = self._one("count_contents")["contents"]
        done, after = 0, -1
        with ThreadPoolExecutor(READERS) as threads:
            while files := self._run("next_contents", after=after):
                digests = threads.map(self._digest, [file["archive_key"] for file in files])
                for file, digest in zip(files, digests, strict=True):
                    if digest != file["sha256"]:
                        self._keep_content_finding(file, digest)
                    done += 1
                    self._progress.read(done, total)
                after = files[-1]["file_id"]
        return done

    def _keep_content_finding(self, file: dict[str, Any], digest: str) -> None:
        self._run(
            "keep_finding",
            kind=(DiscrepancyKind.CONTENT_DIFFERS if digest else DiscrepancyKind.LOST).value,
            subject=file["archive_key"],
            key=file["key"],
            detail=f"sha256 {digest or 'of nothing'}, should be {file['sha256']}",
        )

    def _digest(self, key: str) -> str:
        """The SHA-256 of an object, "" where it is gone, and for one that alone cannot be read, why."""
        try:
            return self._bucket.digest(key)
        except ObjectMissing:
            return ""
        except (Refused, DependencyDown) as error:
            self._bucket.require()
            return f"unknown ({error})"

    def _run(self, statement: str, **parameters: object) -> list[Any]:
        return database.rows(self._connection, "verify", statement, self._parameters | parameters)

    def _one(self, statement: str, **parameters: object) -> Any:
        (row,) = self._run(statement, **parameters)
        return row
