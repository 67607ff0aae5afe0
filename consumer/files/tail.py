"""A file's tail: its object moves to `processed/`, its requests are relayed, and it is done. Repeatable at any point.

No file waits for the queue of a follow-on: what cannot be sent now stays in the outbox for the sweep, and the file is
not done before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event

import structlog

from consumer.fail_points import Reached
from consumer.files import ledger, tellings
from consumer.files.versions import LedgerFile
from consumer.follow_ons.relay import Relay
from consumer.postgres import database
from consumer.postgres.database import Pool
from publisher.errors import FleetticketsError, KeyInHand, ObjectChanged, ObjectRefused, ObjectUnavailable, SlowBody
from publisher.store.bucket import Bucket, Move

_LEFT_ALONE_SECONDS = 60
"""A file applied longer ago than this and not archived is nobody's any more; archiving it twice would do no harm."""
_MOST_FORGOTTEN = 30
"""Thousands of contents of a feed in one sweep, which is for other things as well."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """What became of a file's tail; no archive has what was gone, or is there in another version."""

    archive_key: str | None
    is_done: bool


_NOT_OURS = ArchivedFile(None, is_done=False)


def archive_file(pool: Pool, bucket: Bucket, file: LedgerFile, reached: Reached) -> str | None:
    """Archive one applied version; gives the archive's key, None where none was made. Raises: as for several."""
    (archived,) = archive_files(pool, bucket, [file], reached)
    return archived.archive_key


def archive_files(
    pool: Pool, bucket: Bucket, files: Sequence[LedgerFile], reached: Reached, *, are_of_deliveries: bool = False
) -> list[ArchivedFile]:
    """Archive applied versions of one folder, under their keys' locks. Repeatable.

    Only the put that was read is deleted. Whatever else its key holds by now, the same bytes stored once more too, is
    left to a delivery of its own: another version may have been applied in between, and these bytes are the news then.
    Of files that `are_of_deliveries` the ledger knows under the lock that none was, so that where the store keeps the
    condition of a delete it may stand for the look; the archive that is applied once more tells it too late.
    Raises: ObjectRefused, DependencyDown, KeyInHand; of one of several, and others may be archived all the same.
    """
    with database.transaction(pool) as connection:
        had = ledger.lock_keys(connection, bucket.name, [file.key for file in files])
        if in_hand := {file.key for file in files} - had:
            raise KeyInHand(min(in_hand), "somebody else has it in hand")
        standings = ledger.standings(connection, files)
        ours = [file for file in files if file.file_id in standings and standings[file.file_id].is_to_be_archived]
        moves = [
            Move(
                file.put, file.sha256, may_delete=not standings[file.file_id].is_overtaken, looks=not are_of_deliveries
            )
            for file in ours
        ]
        before = count()

        def copied() -> None:
            if next(before):
                reached("between archives")
            reached("after copy, before delete")

        moved = bucket.archive_all(moves, copied)
        reached("after delete, before state")
        found = {file.file_id: _told(archived) for file, archived in zip(ours, moved, strict=True)}
        states = ledger.record_archived(connection, found)
    return [
        ArchivedFile(found[file.file_id][0], states.get(file.file_id) == "done") if file.file_id in found else _NOT_OURS
        for file in files
    ]


def _told(archived: str | ObjectChanged | None) -> tuple[str | None, str | None]:
    """The archive's key, or why there is none."""
    if isinstance(archived, ObjectChanged):
        # The new version raises an event of its own and keeps its place.
        return None, "replaced in the bucket before it was archived"
    return archived, None if archived else "gone from the bucket before it was archived"


def leave_unarchived(pool: Pool, file: LedgerFile, error: FleetticketsError) -> None:
    """Record that the store does not let the object be archived: its rows are in, and the sweep tries again.

    Raises: DependencyDown.
    """
    with database.transaction(pool) as connection:
        ledger.record_not_archived(connection, file, str(error))


def open_tails(pool: Pool, bucket: Bucket, age: float, *, only_due: bool) -> Iterator[LedgerFile]:
    """Give every version that was applied more than `age` seconds ago and is not archived, the first applied first.

    `only_due` leaves out those that could not be archived a while ago.
    Raises: DependencyDown.
    """
    after, prefixes = 0, [folder.prefix for folder in bucket.folders]
    while True:
        with database.transaction(pool) as connection:
            tails = ledger.open_tails(connection, bucket.name, prefixes, age, after, only_due=only_due)
        if not tails:
            return
        yield from tails
        # By number, and not from the start again: what cannot be archived stays, and must not keep the rest back.
        after = tails[-1].file_id


class Tail:
    """What follows a COMMIT in the consumer. Safe to share between threads."""

    def __init__(
        self, pool: Pool, bucket: Bucket, relay: Relay, reached: Reached, *, keep_versions_days: float
    ) -> None:
        self._pool = pool
        self._bucket = bucket
        self._relay = relay
        self._reached = reached
        self._keeps_versions = timedelta(days=keep_versions_days)

    def finish(self, files: Sequence[LedgerFile]) -> list[str | None]:
        """Archive applied files of one folder, then relay what they left in the outbox. Gives the archives' keys.

        Raises: DependencyDown; ObjectUnavailable, when the store may let it be archived in a moment; of one of several,
        ObjectRefused.
        """
        try:
            archived = archive_files(self._pool, self._bucket, files, self._reached, are_of_deliveries=True)
        except ObjectRefused as error:
            if len(files) > 1:
                raise
            self.finish_unarchived(files[0], error)
            return [None]
        self._relay_and_close(
            [file for file, each in zip(files, archived, strict=True) if not (each.is_done or file.state == "done")]
        )
        return [each.archive_key for each in archived]

    def finish_unarchived(self, file: LedgerFile, error: ObjectRefused | ObjectUnavailable) -> None:
        """The rest of the tail of a file whose object the store does not let be archived.

        The rows are in and the object is where it was, so this is no failure of the file, and no reason to keep its
        requests back. The sweep tries again until the store allows it.
        Raises: DependencyDown.
        """
        log.warning("not archived", key=file.key, detail=str(error))
        leave_unarchived(self._pool, file, error)
        self._relay_and_close([] if file.state == "done" else [file])

    def _relay_and_close(self, files: Sequence[LedgerFile]) -> None:
        """Of files that may have requests which are not sent."""
        if files:
            self._reached("after archive, before relay")
            self._relay.send()
            with database.statement(self._pool) as connection:
                ledger.record_done(connection, files)
        self._reached("relay marked, before ack")

    def finish_relayed(self) -> None:
        """Close the files whose requests are all sent.

        Raises: DependencyDown.
        """
        with database.transaction(self._pool) as connection:
            ledger.finish_relayed(connection)

    def sweep(self, stop: Event) -> None:
        """Finish what a crash left half-way and no delivery comes for: unsent requests, objects not yet archived.

        And forget which tickets have changed, once that is days ago, and contents of tickets that are kept no longer.

        `stop` ends it after the object in hand.
        Raises: DependencyDown.
        """
        failed: list[str] = []
        for file in open_tails(self._pool, self._bucket, _LEFT_ALONE_SECONDS, only_due=True):
            if stop.is_set():
                return
            try:
                archive_file(self._pool, self._bucket, file, self._reached)
            except (KeyInHand, SlowBody):
                continue  # by a delivery, which brings it to its end; or its turn comes with another sweep
            except (ObjectRefused, ObjectUnavailable) as error:
                # Its turn comes again, later each time; others' tails and requests are not to wait for it.
                leave_unarchived(self._pool, file, error)
                failed.append(f"{file.key}: {error}")
        if failed:
            log.warning("not archived", files=len(failed), first=failed[0])
        self._relay.send(also_stuck=True)
        self.finish_relayed()
        with database.transaction(self._pool) as connection:
            database.rows(connection, "changes", "forget")
        for folder in self._bucket.folders:
            for _ in range(_MOST_FORGOTTEN):
                with database.transaction(self._pool) as connection:
                    has_more = tellings.prune(connection, folder.feed, datetime.now(UTC) - self._keeps_versions)
                if stop.is_set() or not has_more:
                    break
