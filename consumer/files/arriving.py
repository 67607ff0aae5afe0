"""What happens to one delivery of the files queue, from its body to the ack: read, apply, archive, relay.

Everything here may be repeated at any point. `Applied` and `AlreadyApplied` go on to `finish`; the rest is settled.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

import structlog

from consumer.fail_points import Reached
from consumer.files.applying import (
    FROM_THE_FUTURE,
    AlreadyApplied,
    Applied,
    Duplicate,
    LedgerFile,
    Sighting,
    apply_file,
    ledger_file,
    lock_key,
    takes_changed_back,
)
from consumer.files.archiving import archive_file, leave_unarchived, open_tails
from consumer.files.failures import HELD_SECONDS, UNEXPECTED, Failure
from consumer.follow_ons.outbox import Relay
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from publisher.arrivals import messages
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.arrivals.messages import ChangeFileArrived
from publisher.arrivals.store_events import IgnoredEvent, NotAnEvent, read_event
from publisher.broker import publishing
from publisher.broker.consuming import Delivery, Link
from publisher.errors import (
    DatabaseDown,
    DependencyDown,
    FailsForThisOne,
    HeldBack,
    KeyInHand,
    ObjectMissing,
    ObjectRefused,
    ObjectUnavailable,
    Permanent,
    StatementFailed,
    StatementRefused,
)
from publisher.store.bucket import Bucket, ObjectSummary, OpenObject

log = structlog.get_logger()

_LEFT_ALONE_SECONDS = 60
"""A file applied longer ago than this and not archived is nobody's any more; archiving it twice would do no harm."""
_GONE = "not in the bucket when it was read"
_PATIENCE_SECONDS = 5
"""For so long a dependency may fail one version and serve others, before that counts as the version's own fault."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing to do for this delivery, now or ever; counted."""

    reason: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """The bucket has no such object and the ledger never applied it."""

    key: str


@dataclass(frozen=True, slots=True)
class Spread:
    """A body with several arrivals was published again as one message each."""

    arrivals: int


FileOutcome = Applied | AlreadyApplied | Duplicate | Ignored | Missing | Spread | Failure


class FilesHandler:
    """Handles what the store and the poller publish. Safe to share between threads."""

    def __init__(
        self,
        pool: Pool,
        bucket: Bucket,
        link: Link,
        settings: ApplySettings,
        *,
        failed: Callable[[str], None],
        run: int,
        reached: Reached,
    ) -> None:
        """`run`: so many files in a row with a reason that can be everybody's are no more failures of their own."""
        self._pool = pool
        self._bucket = bucket
        self._link = link
        self._settings = settings
        self._failed = failed
        self._run = run
        self._told_of_run = False
        self._reached = reached
        self._relay = Relay(pool, link, reached)

    def apply(self, delivery: Delivery) -> FileOutcome:
        """Make the rows of the delivery take effect, or record why not.

        Raises: Permanent when the body is no event; DependencyDown; EverythingFails.
        """
        try:
            return self._apply(delivery)
        except StatementRefused as error:
            # Around a file the statements are ours alone: what is refused there is refused to everybody.
            raise DatabaseDown(database.DATABASE, error.detail) from error

    def _apply(self, delivery: Delivery) -> FileOutcome:
        arrivals: list[ChangeFileArrived] = []
        ignored: Counter[str] = Counter()
        broken: NotAnEvent | None = None
        for event in read_event(delivery.body):
            match event if isinstance(event, NotAnEvent) else self._ours(event):
                case ChangeFileArrived() as ours:
                    arrivals.append(ours)
                case IgnoredEvent(reason):
                    ignored[reason] += 1
                case NotAnEvent() as error:
                    broken = error
        if ignored:
            self._count_ignored(ignored)
        if broken is not None or len(arrivals) > 1:
            # Each key gets a message of its own, so that each can fail, wait and be replayed by itself.
            for arrived in arrivals:
                self._link.publish(publishing.arrival(arrived.model_dump_json().encode()))
            if broken is not None:
                raise broken  # the whole body is kept; replaying it repeats the others, which does no harm
            return Spread(len(arrivals))
        return self._apply_arrival(arrivals[0], delivery) if arrivals else Ignored(", ".join(sorted(ignored)))

    def finish(self, file: LedgerFile) -> str | None:
        """The tail of an applied file: archive it, then relay what it left in the outbox. Gives the archive's key.

        No file waits for the queue of a follow-on: what cannot be sent now stays in the outbox for the sweep, and the
        file is not done before.
        Raises: DependencyDown.
        """
        try:
            archive_key = archive_file(self._pool, self._bucket, file, self._reached)
        except ObjectRefused as error:
            self.finish_unarchived(file, error)
            return None
        self._relay_tail(file)
        return archive_key

    def finish_unarchived(self, file: LedgerFile, error: ObjectRefused | FailsForThisOne) -> None:
        """The rest of the tail of a file whose object the store does not let be archived.

        The rows are in and the object is where it was, so this is no failure of the file, and no reason to keep its
        requests back. The sweep tries again until the store allows it.
        Raises: DependencyDown.
        """
        log.warning("not archived", key=file.key, detail=str(error))
        leave_unarchived(self._pool, file, error)
        self._relay_tail(file)

    def _relay_tail(self, file: LedgerFile) -> None:
        if file.state != "done":
            self._reached("after archive, before relay")
            self.relay()
            with database.transaction(self._pool) as connection:
                database.rows(connection, "ledger", "record_done", {"file_id": file.file_id})
        self._reached("relay marked, before ack")

    def relay(self) -> int:
        """Send what waits in the outbox, and the broker takes.

        Raises: DependencyDown.
        """
        return self._relay.send()

    def sweep(self, stop: Event) -> None:
        """Finish what a crash left half-way and no delivery comes for: unsent requests, objects not yet archived.

        `stop` ends it after the object in hand.
        Raises: DependencyDown.
        """
        failed: list[str] = []
        for file in open_tails(self._pool, self._bucket, _LEFT_ALONE_SECONDS, only_due=True):
            if stop.is_set():
                return
            try:
                archive_file(self._pool, self._bucket, file, self._reached)
            except KeyInHand:
                continue  # by a delivery, which brings it to its end
            except (ObjectRefused, ObjectUnavailable) as error:
                # Its turn comes again, later each time; others' tails and requests are not to wait for it.
                leave_unarchived(self._pool, file, error)
                failed.append(f"{file.key}: {error}")
        if failed:
            log.warning("not archived", files=len(failed), first=failed[0])
        self._relay.send(also_stuck=True)
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "finish_relayed")

    def _ours(self, arrived: ChangeFileArrived | IgnoredEvent) -> ChangeFileArrived | IgnoredEvent:
        if isinstance(arrived, IgnoredEvent):
            return arrived
        if arrived.bucket != self._bucket.name:
            return IgnoredEvent("another bucket")
        keys = tuple(key for key in arrived.keys if key.startswith(self._bucket.changes_prefix))
        if not keys:
            # Archiving in the same bucket raises such events for every file.
            return IgnoredEvent("another prefix")
        return arrived.model_copy(update={"keys": keys})

    def _apply_arrival(self, arrived: ChangeFileArrived, delivery: Delivery) -> FileOutcome:
        judged = [read_key(key, self._bucket.changes_prefix) for key in arrived.keys]
        keys = [key for key in judged if isinstance(key, ChangeFileKey)]
        for key in judged:
            # Which of the readings is right, the bucket knows.
            if isinstance(key, NotAChangeFile):
                if not keys or self._bucket.head(key.key) is not None:
                    self._record_unread(arrived, delivery, key.key, "ignored", key.reason)
                    return Ignored(key.reason, key.key)
                continue
            outcome = self._apply_key(arrived, delivery, key)
            if outcome is not None:
                return outcome
        return self._missing(arrived, delivery, keys)

    def _apply_key(
        self, arrived: ChangeFileArrived, delivery: Delivery, key: ChangeFileKey
    ) -> Applied | AlreadyApplied | Duplicate | Failure | None:
        """Apply what the bucket has under the key; None when it has nothing there.

        The key's lock comes before the GET: so versions of a key are decided in the order in which they were stored.
        Raises: KeyInHand, HeldBack, DependencyDown, EverythingFails.
        """
        announced = ObjectSummary(key.key, arrived.etag, arrived.size or 0, arrived.event_time or delivery.delivered_at)
        sighting = unread = self._sighting(arrived, delivery, key, announced)
        outcome: Applied | AlreadyApplied | Duplicate | Failure
        try:
            with database.transaction(self._pool) as connection:
                lock_key(connection, self._bucket.name, key.key)
                try:
                    with self._bucket.open(key.key) as opened:
                        sighting = self._sighting(arrived, delivery, key, opened.summary)
                        self._record_seen(sighting)
                        outcome = self._apply_object(connection, sighting, delivery, opened)
                except ObjectMissing:
                    return None
                except ObjectRefused as error:
                    # The store will not give this one: its own failure, for the others are not to wait for it.
                    outcome = self._failed_before(connection, unread, delivery) or self._fail(
                        connection, unread, delivery, UNEXPECTED, str(error), was_read=False
                    )
        except FailsForThisOne as error:
            outcome = self._hold_back(sighting, delivery, error, was_read=sighting is not unread)
        except StatementRefused as error:
            met = StatementFailed(database.DATABASE, error.detail)
            outcome = self._hold_back(sighting, delivery, met, was_read=sighting is not unread)
        self._reached(
            "failure recorded, before ack" if isinstance(outcome, Failure) else "after commit, before archive"
        )
        return outcome

    def _apply_object(
        self, connection: Connection, sighting: Sighting, delivery: Delivery, opened: OpenObject
    ) -> Applied | AlreadyApplied | Duplicate | Failure:
        again = delivery.headers.get(messages.AGAIN)
        try:
            with database.failing_for_this_one(), connection.transaction():
                return apply_file(
                    connection, sighting, opened.read, self._settings,
                    again=again is not None, released=again == "replay", reached=self._reached,
                )  # fmt: skip
        except DependencyDown:
            raise
        except Permanent as error:
            return self._fail(connection, sighting, delivery, error.reason, error.detail)
        except Exception as error:
            log.exception("unexpected", key=sighting.key.key)
            detail = f"{type(error).__name__}: {database.one_line(error)}"
            return self._fail(connection, sighting, delivery, UNEXPECTED, detail)

    def _record_seen(self, sighting: Sighting) -> None:
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "record_seen", sighting.parameters())
        self._reached("seen, before claim")

    def _hold_back(
        self, sighting: Sighting, delivery: Delivery, error: FailsForThisOne, *, was_read: bool
    ) -> Failure | Duplicate:
        """Put on record that a dependency fails this version; its own failure, if others were applied meanwhile.

        Raises: HeldBack, when that cannot be told yet; DependencyDown, when the database is away for others too.
        """
        takes_back = takes_changed_back(self._settings, released=delivery.headers.get(messages.AGAIN) == "replay")
        parameters = {"error": str(error), "patience": _PATIENCE_SECONDS, "takes_back": takes_back}
        with database.transaction(self._pool) as connection:
            lock_key(connection, self._bucket.name, sighting.key.key)
            if not was_read and (known := self._failed_before(connection, sighting, delivery)):
                return known
            held = database.row(connection, "ledger", "record_held", parameters | sighting.parameters())
            if held is None and not was_read:
                if self._has_open_tail(connection, sighting):
                    return Duplicate(sighting.key.key, "was applied before")
                # The version that was announced is decided. What its key has now nobody knows.
                sighting = replace(sighting, etag="")
                held = database.row(connection, "ledger", "record_held", parameters | sighting.parameters())
            if held is not None and held["is_own"]:
                return self._fail(connection, sighting, delivery, UNEXPECTED, str(error), was_read=was_read)
        self._reached("held back, not put aside")
        if held is None:  # it was applied before all the same, as when the answer to a COMMIT was lost
            raise error
        raise HeldBack(error, held["held_seconds"]) from error

    def _failed_before(self, connection: Connection, sighting: Sighting, delivery: Delivery) -> Duplicate | None:
        """What could not be read is not claimed either: whether this delivery is one that nobody asked for."""
        if messages.AGAIN in delivery.headers:
            return None
        failed = database.row(connection, "ledger", "count_duplicate_of_failed", sighting.parameters())
        if failed is None:
            return None
        return Duplicate(sighting.key.key, "is a dead letter" if failed["is_dead_letter"] else "waits for its retry")

    @staticmethod
    def _has_open_tail(connection: Connection, sighting: Sighting) -> bool:
        """Whether it is applied and not archived: then what its key has is most likely that, and the sweep's."""
        return database.row(connection, "ledger", "has_open_tail", sighting.parameters()) is not None

    def _fail(
        self,
        connection: Connection,
        sighting: Sighting,
        delivery: Delivery,
        reason: str,
        detail: str,
        *,
        was_read: bool = True,
    ) -> Failure | Duplicate:
        # The file's own changes are rolled back by now; the key's lock is still held, so that of many deliveries of
        # a bad file only one becomes a dead letter. It is published before the ledger says so: a crash in between
        # makes the file be tried again, never forgotten.
        if reason == UNEXPECTED:
            self._failed(detail)
        failure = Failure(sighting.key.key, reason, detail, attempts=1, etag=sighting.etag)
        parameters = sighting.parameters() | {
            "reason": reason, "error": detail, "fingerprint": failure.fingerprint,
            "has_letter": False, "was_read": was_read,
        }  # fmt: skip
        failed = database.row(connection, "ledger", "record_failed", parameters)
        if failed is None and not was_read and not self._has_open_tail(connection, sighting):
            # The version that was announced is decided. What its key has now nobody knows.
            failed = database.row(connection, "ledger", "record_failed", parameters | {"etag": ""})
            failure = replace(failure, etag="")
        if failed is None:
            return Duplicate(sighting.key.key, "was applied before")
        is_held = reason == FROM_THE_FUTURE and self._is_one_of_a_run(connection, reason, detail)
        failure = replace(failure, attempts=failed["attempts"], is_held=is_held)
        self._link.publish(failure.publishing(delivery))
        self._reached("letter published, not recorded")
        mark = "record_dead_lettered" if failure.retry_in is None else "record_retry"
        database.rows(connection, "ledger", mark, {"file_id": failed["file_id"], "delay": failure.retry_in})
        return failure

    def _is_one_of_a_run(self, connection: Connection, reason: str, detail: str) -> bool:
        """Whether so many in a row fail for this reason that it is hardly their own. Files of another time flow on."""
        parameters = {"reason": reason, "run": self._run, "delay": HELD_SECONDS}
        found = database.row(connection, "ledger", "is_one_of_a_run", parameters)
        is_one = found is not None and found["is_one"]
        if is_one and not self._told_of_run:
            do = "no more dead letters for it, each is tried again; are the clocks right, the exporter's too?"
            log.error("one after the other", reason=reason, detail=detail, retry_in_s=HELD_SECONDS, do=do)
        self._told_of_run = is_one
        return is_one

    def _sighting(
        self, arrived: ChangeFileArrived, delivery: Delivery, key: ChangeFileKey, found: ObjectSummary
    ) -> Sighting:
        return Sighting(
            bucket=self._bucket.name,
            prefix=self._bucket.prefix,
            key=key,
            etag=found.etag,
            size=found.size,
            object_time=found.modified,
            event_time=arrived.event_time,
            seen_at=delivery.delivered_at,
            seen_by=arrived.seen_by,
            version_id=found.version_id,
        )

    def _missing(
        self, arrived: ChangeFileArrived, delivery: Delivery, keys: list[ChangeFileKey]
    ) -> AlreadyApplied | Duplicate | Missing:
        parameters = {"bucket": self._bucket.name, "keys": [key.key for key in keys], "reason": _GONE}
        with database.transaction(self._pool) as connection:
            for key in keys:
                lock_key(connection, self._bucket.name, key.key)
            database.rows(connection, "ledger", "record_gone", parameters)
            known = database.row(connection, "ledger", "count_duplicate_of_archived", parameters)
        if known is not None:
            file = ledger_file(known)
            return Duplicate(file.key, "is done and archived") if file.state == "done" else AlreadyApplied(file)
        self._record_unread(arrived, delivery, keys[0].key, "missing", _GONE)
        return Missing(keys[0].key)

    def _record_unread(
        self, arrived: ChangeFileArrived, delivery: Delivery, key: str, decision: str, reason: str
    ) -> None:
        # A missing object has no ETag of its own; should it appear after all, it is another version.
        parameters = {
            "bucket": self._bucket.name, "prefix": self._bucket.prefix, "key": key,
            "etag": arrived.etag if decision == "ignored" else "", "size": arrived.size,
            "event_time": arrived.event_time, "seen_at": delivery.delivered_at, "seen_by": arrived.seen_by,
            "decision": decision, "reason": reason,
        }  # fmt: skip
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "record_unread", parameters)

    def _count_ignored(self, events: Counter[str]) -> None:
        parameters = {"reasons": list(events), "events": list(events.values())}
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "count_ignored_events", parameters)
