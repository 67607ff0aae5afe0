"""One delivery of the files queue, from its body to its outcome. Everything here may be repeated at any point."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Literal

import structlog

from consumer.fail_points import Reached
from consumer.feeds.feed import Feeds
from consumer.files import canary, ledger
from consumer.files.arriving import Arrival, Arrivals, read_arrivals
from consumer.files.attempt import Candidate, Opened, attempt, attempt_together
from consumer.files.canary import Canaries
from consumer.files.decoding import GZIP
from consumer.files.failures import Failures, asked_by, lets_off, released_by
from consumer.files.ledger import Unread
from consumer.files.outcomes import (
    UNEXPECTED,
    AlreadyApplied,
    Decided,
    Duplicate,
    Failure,
    FileOutcome,
    Ignored,
    Missing,
    NotServed,
    Spread,
    committed,
)
from consumer.files.versions import Sighting, Trouble
from consumer.postgres import database, feed_tables
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.arrivals.store_events import NotAnEvent
from publisher.broker import publishing
from publisher.broker.consuming import Delivery
from publisher.broker.publishing import Outgoing
from publisher.errors import DependencyDown, FailsForThisOne, ObjectUnavailable, StatementFailed, StatementRefused
from publisher.store.bucket import BUCKET, Bucket, ObjectSummary

log = structlog.get_logger()

SMALL_BYTES = 256 * 1024
"""A larger file is worth a transaction of its own."""
_GONE = "not in the bucket when it was read"


class FilesHandler:
    """Handles what the store and the poller publish. Safe to share between threads."""

    def __init__(
        self,
        pool: Pool,
        bucket: Bucket,
        feeds: Feeds,
        publish_all: Callable[[Sequence[Outgoing]], None],
        *,
        settings: ApplySettings,
        failures: Failures,
        reached: Reached,
    ) -> None:
        self._pool = pool
        self._bucket = bucket
        self._feeds = feeds
        self._publish_all = publish_all
        self._canaries = Canaries(pool, bucket)
        self._settings = settings
        self._failures = failures
        self._reached = reached

    def handle(self, delivery: Delivery) -> FileOutcome:
        """Make the rows of the delivery take effect, or record why not.

        Raises: Permanent when the body is no event; DependencyDown; EverythingFails.
        """
        with database.refusing_everybody():
            found = read_arrivals(delivery.body, self._bucket.name, self._feeds)
            self._look_for_others(found)
            if found.ignored:
                with database.transaction(self._pool) as connection:
                    ledger.count_ignored_events(connection, found.ignored)
            if found.broken is not None or len(found.to_spread) > 1:
                # Each key gets a message of its own, so that each can fail, wait and be replayed by itself.
                # What ends this half-way repeats it, no more than the broker's limit of deliveries: that does no harm.
                self._publish_all(
                    [
                        publishing.arrival(arrived.model_dump_json().encode(), delivery.trace)
                        for arrived in found.to_spread
                    ]
                )
                if found.broken is not None:
                    raise found.broken  # the whole body is kept; replaying it repeats the others, which does no harm
                return Spread(len(found.to_spread))
            if found.others:
                return NotServed(found.others[0].keys[0])
            if not found.ours:
                return Ignored(", ".join(sorted(found.ignored)))
            return self._apply_arrival(found.ours[0], delivery)

    def handle_together(self, deliveries: Sequence[Delivery]) -> list[FileOutcome | None]:
        """Handle those that are as most are in one transaction, be it one; None for each to be handled by itself.

        So is every one as soon as anything is wrong with any: what it is, and whose, shows then. A transaction in which
        nothing is to be told of a failure takes fewer statements. One that is alone among others, as they cannot go
        with it, does not keep them waiting.
        Raises: DependencyDown, which each will meet by itself.
        """
        plain: dict[Delivery, tuple[Arrival, ChangeFileKey]] = {}
        is_alone = len(deliveries) == 1
        try:
            plain = self._plain(deliveries)
            if len(plain) < (1 if is_alone else 2):
                return [None] * len(deliveries)
            candidates = [
                self._candidate(arrival, delivery, key, is_alone=is_alone) for delivery, (arrival, key) in plain.items()
            ]
            with database.transaction(self._pool) as connection:
                decided = attempt_together(connection, candidates, self._record_seen, self._reached)
        except Exception as error:
            told = [delivery.trace.id for delivery in plain or deliveries]
            detail = f"{type(error).__name__}: {database.one_line(error)}"
            log.info("tried again" if is_alone else "one by one", files=len(told), detail=detail, trace_ids=told)
            if isinstance(error, DependencyDown):
                raise
            return [None] * len(deliveries)
        self._reached("after commit of several" if len(candidates) > 1 else "after commit, before archive")
        outcomes: dict[Delivery, FileOutcome | None] = dict(zip(plain, map(committed, decided), strict=True))
        return [outcomes.get(delivery) for delivery in deliveries]

    def _plain(self, deliveries: Sequence[Delivery]) -> dict[Delivery, tuple[Arrival, ChangeFileKey]]:
        """Those that come for the first time, each with one small file of the same feed."""
        plain: dict[Delivery, tuple[Arrival, ChangeFileKey]] = {}
        keys: set[str] = set()
        for delivery in deliveries:
            if delivery.headers or delivery.redelivered:
                continue
            with suppress(NotAnEvent):
                found = read_arrivals(delivery.body, self._bucket.name, self._feeds)
                if not found.is_of_one:
                    continue
                (arrival,) = found.ours
                first, _ = next(iter(plain.values()), (arrival, None))
                key = _only_key(arrival)
                if key is not None and key.key not in keys and arrival.feed is first.feed:
                    keys.add(key.key)
                    plain[delivery] = arrival, key
        return plain

    def _candidate(self, arrival: Arrival, delivery: Delivery, key: ChangeFileKey, *, is_alone: bool) -> Candidate:
        open_object = self._open if is_alone else self._open_at_once
        return Candidate(
            self._sighting(arrival, delivery, key, _announced(arrival, delivery, key)),
            asked_by(delivery),
            self._settings,
            partial(open_object, arrival, delivery, key),
            _undecided,
        )

    @contextmanager
    def _open(self, arrival: Arrival, delivery: Delivery, key: ChangeFileKey) -> Iterator[Opened]:
        with self._bucket.open(key.key) as opened:
            yield Opened(self._sighting(arrival, delivery, key, opened.summary), opened.read)

    @contextmanager
    def _open_at_once(self, arrival: Arrival, delivery: Delivery, key: ChangeFileKey) -> Iterator[Opened]:
        """A small file with all its bytes: many that are open would be as many connections to the store."""
        with self._bucket.open(key.key) as opened:
            opened_at = datetime.now(UTC)
            if opened.summary.size > SMALL_BYTES:
                raise ObjectUnavailable(BUCKET, f"{key.key!r} is larger than its event says, and goes by itself")
            body = b"".join(iter(partial(opened.read, SMALL_BYTES), b""))
        if body.startswith(GZIP):
            raise ObjectUnavailable(BUCKET, f"{key.key!r} is packed, so not known to be small, and goes by itself")
        yield Opened(self._sighting(arrival, delivery, key, opened.summary), io.BytesIO(body).read, opened_at)

    def _record_seen(self, sightings: Sequence[Sighting]) -> None:
        # Committed by itself.
        with database.statement(self._pool) as connection:
            ledger.record_seen(connection, sightings)
        self._reached("seen, before claim")

    def _look_for_others(self, found: Arrivals) -> None:
        """A feed that is not declared here can be another process's: the database knows all that have tables."""
        if not found.unknown:
            return
        with database.transaction(self._pool) as connection:
            others = feed_tables.folders_of_others(connection, [feed.name for feed in self._feeds.declared])
        for arrived in found.unknown:
            if any(key.startswith(folder.changes) for key in arrived.keys for folder in others):
                found.others.append(arrived)
            else:
                found.ignored["another prefix"] += 1
        found.unknown.clear()

    def _apply_arrival(self, arrival: Arrival, delivery: Delivery) -> FileOutcome:
        for given in arrival.arrived.keys:
            name = canary.name_in(arrival.feed, given)
            if name is not None and self._canaries.carry(arrival.feed, given, name, arrival.arrived.seen_by):
                return Ignored("canary", given)
        judged = [read_key(key, arrival.feed.folder.changes) for key in arrival.arrived.keys]
        keys = [key for key in judged if isinstance(key, ChangeFileKey)]
        for key in judged:
            # Which of the readings is right, the bucket knows.
            if isinstance(key, NotAChangeFile):
                if not keys or self._bucket.head(key.key) is not None:
                    self._record_ignored(arrival, delivery, key)
                    return Ignored(key.reason, key.key)
                continue
            outcome = self._apply_key(arrival, delivery, key)
            if outcome is not None:
                return outcome
        return self._missing(arrival, delivery, keys)

    def _apply_key(self, arrival: Arrival, delivery: Delivery, key: ChangeFileKey) -> Decided | None:
        """Apply what the bucket has under the key; None when it has nothing there.

        Raises: KeyInHand, HeldBack, DependencyDown, EverythingFails.
        """
        sighting = unread = self._sighting(arrival, delivery, key, _announced(arrival, delivery, key))

        def record_seen(found: Sighting) -> None:
            nonlocal sighting
            sighting = found
            self._record_seen([found])

        def fail(connection: Connection, found: Sighting, trouble: Trouble) -> Failure | Duplicate:
            if trouble.was_read and trouble.reason == UNEXPECTED:
                log.error("unexpected", key=key.key, exc_info=trouble.error)
            return self._failures.fail(connection, found, trouble, delivery)

        candidate = Candidate(
            unread, asked_by(delivery), self._settings, partial(self._open, arrival, delivery, key), fail, record_seen,
            released=released_by(delivery), may_lack_columns=lets_off(delivery),
        )  # fmt: skip
        hold_back = partial(self._failures.hold_back, delivery=delivery, began=monotonic())
        outcome: Decided | None
        try:
            with database.transaction(self._pool) as connection:
                outcome = attempt(connection, candidate, self._reached)
            outcome = committed(outcome)
        except FailsForThisOne as error:
            outcome = hold_back(sighting, error, was_read=sighting is not unread)
        except StatementRefused as error:
            met = StatementFailed(database.DATABASE, error.detail)
            outcome = hold_back(sighting, met, was_read=sighting is not unread)
        if outcome is not None:
            self._reached(
                "failure recorded, before ack" if isinstance(outcome, Failure) else "after commit, before archive"
            )
        return outcome

    def _sighting(self, arrival: Arrival, delivery: Delivery, key: ChangeFileKey, found: ObjectSummary) -> Sighting:
        return Sighting(
            feed=arrival.feed,
            bucket=self._bucket.name,
            key=key,
            etag=found.etag,
            size=found.size,
            object_time=found.modified,
            event_time=arrival.arrived.event_time,
            seen_at=delivery.delivered_at,
            seen_by=arrival.arrived.seen_by,
            version_id=found.version_id,
            trace=delivery.trace,
        )

    def _missing(
        self, arrival: Arrival, delivery: Delivery, keys: list[ChangeFileKey]
    ) -> AlreadyApplied | Duplicate | Missing:
        names = [key.key for key in keys]
        with database.transaction(self._pool) as connection:
            for name in names:
                ledger.lock_key(connection, self._bucket.name, name)
            ledger.record_gone(connection, self._bucket.name, names, _GONE)
            known = ledger.count_duplicate_of_archived(connection, self._bucket.name, names)
            if known is None:
                ledger.record_unread(
                    connection, self._unread(arrival, delivery, names[0], "", decision="missing", reason=_GONE)
                )
        if known is None:
            return Missing(names[0])
        return Duplicate(known.key, "is done and archived") if known.state == "done" else AlreadyApplied(known)

    def _unread(
        self,
        arrival: Arrival,
        delivery: Delivery,
        key: str,
        etag: str,
        *,
        decision: Literal["ignored", "missing"],
        reason: str,
    ) -> Unread:
        return Unread(
            feed=arrival.feed.name,
            bucket=self._bucket.name,
            prefix=arrival.feed.prefix,
            key=key,
            etag=etag,
            size=arrival.arrived.size,
            event_time=arrival.arrived.event_time,
            seen_at=delivery.delivered_at,
            seen_by=arrival.arrived.seen_by,
            decision=decision,
            reason=reason,
            trace=delivery.trace.text,
        )

    def _record_ignored(self, arrival: Arrival, delivery: Delivery, key: NotAChangeFile) -> None:
        unread = self._unread(arrival, delivery, key.key, arrival.arrived.etag, decision="ignored", reason=key.reason)
        with database.transaction(self._pool) as connection:
            ledger.record_unread(connection, unread)


def _only_key(arrival: Arrival) -> ChangeFileKey | None:
    """Of a small file whose key reads in one way."""
    keys, size = arrival.arrived.keys, arrival.arrived.size
    if len(keys) != 1 or size is None or size > SMALL_BYTES or keys[0].endswith(".gz"):
        return None
    key = read_key(keys[0], arrival.feed.folder.changes)
    return key if isinstance(key, ChangeFileKey) else None


def _announced(arrival: Arrival, delivery: Delivery, key: ChangeFileKey) -> ObjectSummary:
    arrived = arrival.arrived
    return ObjectSummary(key.key, arrived.etag, arrived.size or 0, arrived.event_time or delivery.delivered_at)


def _undecided(_connection: Connection, sighting: Sighting, _trouble: Trouble) -> Failure:
    raise AssertionError(f"{sighting.key.key!r} failed where no failure is told, and is tried by itself")
