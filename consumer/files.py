"""What happens to one delivery of the files queue, from its body to the ack: read, apply, archive, relay.

Everything here may be repeated at any point. `Applied` and `AlreadyApplied` go on to `finish`; the rest is settled.
"""

from dataclasses import dataclass, replace
from threading import Lock

import structlog

from consumer import database, outbox
from consumer.applying import AlreadyApplied, Applied, Duplicate, LedgerFile, Sighting, apply_file, lock_key
from consumer.archiving import archive_file, open_tails
from consumer.breaker import Breaker
from consumer.database import Connection, Pool
from consumer.fail_points import AtPoint
from consumer.failures import UNEXPECTED, Failure
from consumer.settings import ApplySettings
from publisher import broker, messages
from publisher.bucket import BUCKET, Bucket, ObjectSummary, OpenObject
from publisher.errors import DependencyDown, ObjectMissing, ObjectUnavailable, Permanent, Refused
from publisher.events import IgnoredEvent, NotAnEvent, read_event
from publisher.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.link import Delivery, Link
from publisher.messages import ChangeFileArrived

log = structlog.get_logger()

_LEFT_ALONE_SECONDS = 60
"""A file applied longer ago than this and not archived is nobody's any more; archiving it twice would do no harm."""


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
        self, pool: Pool, bucket: Bucket, link: Link, settings: ApplySettings, *, breaker: Breaker, at: AtPoint
    ) -> None:
        self._pool = pool
        self._bucket = bucket
        self._link = link
        self._settings = settings
        self._breaker = breaker
        self._at = at
        self._relaying = Lock()

    def apply(self, delivery: Delivery) -> FileOutcome:
        """Make the rows of the delivery take effect, or record why not.

        Raises: Permanent when the body is no event; DependencyDown; EverythingFails.
        """
        arrivals, reason = [], ""
        events = read_event(delivery.body)
        broken = next((event for event in events if isinstance(event, NotAnEvent)), None)
        for event in events:
            if isinstance(event, NotAnEvent):
                continue
            ours = self._ours(event)
            if isinstance(ours, ChangeFileArrived):
                arrivals.append(ours)
            else:
                reason = ours.reason
                self._count_ignored(ours)
        if broken is not None or len(arrivals) > 1:
            # Each key gets a message of its own, so that each can fail, wait and be replayed by itself.
            for arrived in arrivals:
                self._link.publish(broker.arrival(arrived.model_dump_json().encode()))
            if broken is not None:
                raise broken  # the whole body is kept; replaying it repeats the others, which does no harm
            return Spread(len(arrivals))
        return self._apply_arrival(arrivals[0], delivery) if arrivals else Ignored(reason)

    def finish(self, file: LedgerFile) -> str | None:
        """The tail of an applied file: archive it, then relay what it left in the outbox. Gives the archive's key.

        Raises: DependencyDown, Misconfigured.
        """
        archive_key = self._archive(file)
        if file.state != "done":
            self._at("after archive, before relay")
            self.relay()
            with database.transaction(self._pool) as connection:
                database.rows(connection, "ledger", "record_done", {"file_id": file.file_id})
        self._at("relay marked, before ack")
        return archive_key

    def relay(self) -> int:
        """Send what waits in the outbox; one relay at a time in this process takes all there is.

        Raises: DependencyDown, Misconfigured.
        """
        with self._relaying:
            return outbox.relay(self._pool, self._link, self._at)

    def sweep(self) -> None:
        """Finish what a crash left half-way and no delivery comes for: unsent requests, objects not yet archived.

        Raises: DependencyDown, Misconfigured.
        """
        for file in open_tails(self._pool, self._bucket, _LEFT_ALONE_SECONDS):
            try:
                self._archive(file)
            except ObjectUnavailable as error:
                # Its turn comes again with the next sweep; others' tails and requests are not to wait for it.
                log.warning("not archived", key=file.key, detail=str(error))
        self.relay()
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "finish_relayed")

    def _archive(self, file: LedgerFile) -> str | None:
        try:
            return archive_file(self._pool, self._bucket, file, self._at)
        except Refused as error:
            if error.dependency != BUCKET:
                raise
            # The rows are in and the object is where it was, so this is no failure of the file, and no reason to keep
            # its requests back. The sweep tries again until the store allows it.
            log.warning("not archived", key=file.key, detail=str(error))
            parameters = {"file_id": file.file_id, "error": str(error)}
            with database.transaction(self._pool) as connection:
                database.rows(connection, "ledger", "record_not_archived", parameters)
            return None

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
            try:
                with self._bucket.open(key.key) as opened:
                    return self._apply_object(arrived, delivery, key, opened)
            except ObjectMissing:
                continue
            except Refused as error:
                if error.dependency != BUCKET:
                    raise
                return self._refused(arrived, delivery, key, error)
        return self._missing(arrived, delivery, keys)

    def _apply_object(
        self, arrived: ChangeFileArrived, delivery: Delivery, key: ChangeFileKey, opened: OpenObject
    ) -> FileOutcome:
        sighting = self._sighting(arrived, delivery, key, opened.summary)
        again = delivery.headers.get(messages.AGAIN)
        outcome: FileOutcome
        with database.transaction(self._pool) as connection:
            lock_key(connection, sighting)
            try:
                with database.translated_errors(), connection.transaction():
                    outcome = apply_file(
                        connection, sighting, opened.read, self._settings,
                        again=again is not None, released=again == "replay", at=self._at,
                    )  # fmt: skip
            except DependencyDown:
                raise
            except Permanent as error:
                outcome = self._fail(connection, sighting, delivery, error.reason, error.detail)
            except Exception as error:
                log.exception("unexpected", key=key.key)
                detail = f"{type(error).__name__}: {database.one_line(error)}"
                outcome = self._fail(connection, sighting, delivery, UNEXPECTED, detail)
        self._at("failure recorded, before ack" if isinstance(outcome, Failure) else "after commit, before archive")
        return outcome

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
            self._breaker.failed(detail)
        failure = Failure(sighting.key.key, reason, detail, attempts=1)
        parameters = sighting.parameters() | {
            "reason": reason, "error": detail, "fingerprint": failure.fingerprint,
            "has_letter": False, "was_read": was_read,
        }  # fmt: skip
        failed = database.row(connection, "ledger", "record_failed", parameters)
        if failed is None:
            return Duplicate(sighting.key.key, "was applied before")
        failure = replace(failure, attempts=failed["attempts"])
        self._link.publish(failure.publishing(delivery))
        self._at("letter published, not recorded")
        mark = "record_dead_lettered" if failure.retry_in is None else "record_retry"
        database.rows(connection, "ledger", mark, {"file_id": failed["file_id"], "delay": failure.retry_in})
        return failure

    def _refused(
        self, arrived: ChangeFileArrived, delivery: Delivery, key: ChangeFileKey, error: Refused
    ) -> Failure | Duplicate:
        """Treat an object that the store will not give as the file's own failure: the others are not to wait for it."""
        at = arrived.event_time or delivery.delivered_at
        announced = ObjectSummary(key.key, arrived.etag, arrived.size or 0, at)
        sighting = self._sighting(arrived, delivery, key, announced)
        with database.transaction(self._pool) as connection:
            lock_key(connection, sighting)
            return self._fail(connection, sighting, delivery, UNEXPECTED, str(error), was_read=False)

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
        )

    def _missing(
        self, arrived: ChangeFileArrived, delivery: Delivery, keys: list[ChangeFileKey]
    ) -> AlreadyApplied | Duplicate | Missing:
        parameters = {"bucket": self._bucket.name, "keys": [key.key for key in keys]}
        with database.transaction(self._pool) as connection:
            known = database.row(connection, "ledger", "count_duplicate_of_archived", parameters)
        if known is not None:
            file = LedgerFile(**known)
            return Duplicate(file.key, "is done and archived") if file.state == "done" else AlreadyApplied(file)
        self._record_unread(arrived, delivery, keys[0].key, "missing", "not in the bucket when it was read")
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

    def _count_ignored(self, event: IgnoredEvent) -> None:
        with database.transaction(self._pool) as connection:
            database.rows(connection, "ledger", "count_ignored_event", {"reason": event.reason})
