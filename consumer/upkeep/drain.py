"""Without a broker: apply `changes/` oldest to newest, or one local file, through the same transaction as a delivery.

A dry run applies everything in one transaction and rolls it back, so that each file is judged on top of those before
it, as it would be. Follow-on requests wait in the outbox until a consumer has a broker again.

After the database was restored to an earlier state, the archive has files that it lacks: those are applied once more,
in the epoch that they were archived in, and stay where they are.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import structlog
import tenacity

from consumer.fail_points import Reached, nowhere
from consumer.files.applying import (
    AlreadyApplied,
    Applied,
    Duplicate,
    LedgerFile,
    Sighting,
    apply_file,
    ledger_file,
    lock_key,
)
from consumer.files.archiving import archive_file, leave_unarchived, open_tails
from consumer.files.failures import UNEXPECTED, Failure
from consumer.files.reading import Read
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from consumer.upkeep import inventory
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.errors import (
    DependencyDown,
    KeyInHand,
    Misconfigured,
    ObjectMissing,
    ObjectRefused,
    ObjectUnavailable,
    Permanent,
    StatementFailed,
)
from publisher.store.bucket import Bucket, ObjectSummary

LOCAL = "(local file)"
"""What the ledger has for the bucket of a file that came from none."""

Drained = Applied | AlreadyApplied | Duplicate | Failure | NotAChangeFile


Report = Callable[[str, Drained], None]
File = TypeVar("File")
Answer = TypeVar("Answer")
IN_HAND = "in hand elsewhere"
_KEY_SECONDS = 30
"""For a key that a consumer, or another command, has in hand; then the file is left to it, and said so."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Archived:
    """A file of the archive that is to be applied once more; its summary's time is the best known of the original.

    `epoch` is the one in which it was archived, None for a new one.
    """

    summary: ObjectSummary
    key: ChangeFileKey
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Drain:
    """One run over the bucket; `apply` false undoes it all at the end. With `reseed` it begins a new epoch, once.

    `stop` ends it after the file in hand.
    """

    pool: Pool
    bucket: Bucket
    settings: ApplySettings
    apply: bool
    stop: Event
    reseed: bool = False
    reached: Reached = nowhere
    _failed_last: list[str] = field(default_factory=list)
    """The file before, if the database failed it in the middle of its work."""

    def unapplied(
        self, connection: Connection, counted: Callable[[int], None]
    ) -> tuple[list[Archived], list[NotAChangeFile]]:
        """The archived files that the database lacks, in the order of their instants, and what else of that lies there.

        Raises: DependencyDown.
        """
        with database.translated_errors():
            inventory.take(connection, self.bucket, counted, with_changes=False)
            rows = database.rows(connection, "inventory", "unapplied_archives", {"bucket": self.bucket.name})
        others = [
            NotAChangeFile(row["object_key"], "not named as an archived change file")
            for row in rows
            if row["key_time"] is None
        ]
        files = [
            Archived(
                ObjectSummary(row["object_key"], row["etag"], row["size"], row["object_time"]),
                ChangeFileKey(row["key"], row["key_time"]),
                None if self.reseed else row["epoch"],
            )
            for row in rows
            if row["key_time"] is not None
        ]
        return files, others

    def run_archived(self, files: list[Archived], report: Report) -> None:
        """Apply archived files; `report(object key, outcome)` after each.

        All of them were applied once, so the policy for changed files is not asked.
        Raises: DependencyDown.
        """
        with self._begun() as trial:
            for file in self._until_stopped(files):
                self._conclude(file.summary.key, self._apply_archived(file, trial), report)
        if self.apply:
            with database.transaction(self.pool) as connection:
                database.rows(connection, "ledger", "finish_relayed")

    def waiting(
        self,
    ) -> tuple[list[tuple[ChangeFileKey, ObjectSummary]], list[tuple[NotAChangeFile, ObjectSummary]]]:
        """The change files in the order of their instants, and what else lies there.

        Raises: DependencyDown.
        """
        files, strays = [], []
        for found in self.bucket.waiting():
            key = read_key(found.key, self.bucket.changes_prefix)
            if isinstance(key, ChangeFileKey):
                files.append((key, found))
            else:
                strays.append((key, found))
        return sorted(files, key=lambda file: (file[0].time, file[0].key)), strays

    def run(self, files: list[tuple[ChangeFileKey, ObjectSummary]], report: Report) -> None:
        """Apply the files; `report(key, outcome)` after each.

        Raises: DependencyDown.
        """
        if self.apply:
            self._finish_tails(report)
        with self._begun() as trial:
            for key, found in self._until_stopped(files):
                self._conclude(key.key, self._apply_one(key, found, trial), report)

    def leave_alone(self, strays: list[tuple[NotAChangeFile, ObjectSummary]]) -> None:
        """Tell the ledger what else lies in `changes/`, unless this is a dry run.

        Raises: DependencyDown.
        """
        if not self.apply:
            return
        with database.transaction(self.pool) as connection:
            for stray, found in strays:
                parameters = {
                    "bucket": self.bucket.name, "prefix": self.bucket.prefix, "key": stray.key, "etag": found.etag,
                    "size": found.size, "event_time": None, "seen_at": datetime.now(UTC), "seen_by": "drain",
                    "decision": "ignored", "reason": stray.reason,
                }  # fmt: skip
                database.rows(connection, "ledger", "record_unread", parameters)

    def _conclude(self, key: str, outcome: Drained | None, report: Report) -> None:
        if outcome is None:
            return
        report(key, outcome)
        if self.apply and isinstance(outcome, Applied | AlreadyApplied):
            self.reached("after commit, before archive")
            self._archive(key, outcome.file, report)

    def _until_stopped(self, files: Iterable[File]) -> Iterator[File]:
        return takewhile(lambda _: not self.stop.is_set(), files)

    def _finish_tails(self, report: Report) -> None:
        """Finish what a crash left half-way. An object that is archived already is in no listing of `changes/`."""
        for file in self._until_stopped(open_tails(self.pool, self.bucket, 0, only_due=False)):
            report(file.key, AlreadyApplied(file))
            self._archive(file.key, file, report)

    def _archive(self, key: str, file: LedgerFile, report: Report) -> None:
        """Finish the tail; of a file in the archive that means to find it there and to clear `changes/` of it."""
        try:
            _waiting_for_key(lambda: archive_file(self.pool, self.bucket, file, self.reached), key, self.stop)
        except KeyInHand as error:
            report(key, Failure(key, IN_HAND, str(error), attempts=1))
        except (ObjectRefused, ObjectUnavailable) as error:
            # The rows are in, and the object is where it was: said, and no reason to keep the other files waiting.
            leave_unarchived(self.pool, file, error)
            report(key, Failure(key, "not archived", str(error), attempts=1))

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Connection | None]:
        """The one transaction of a dry run; begins the new epoch where one is wanted."""
        trial_or_none = contextlib.nullcontext() if self.apply else database.transaction(self.pool, keep=False)
        with trial_or_none as trial:
            if trial is not None:
                database.row(trial, "ledger", "begin_dry_run")
                database.row(trial, "ledger", "bound_dry_run")
            if self.reseed and not self.stop.is_set():
                self._begin_epoch(trial)
            yield trial

    def _begin_epoch(self, trial: Connection | None) -> None:
        with contextlib.nullcontext(trial) if trial is not None else database.transaction(self.pool) as connection:
            if self.begun_before(connection) is None:
                begin_epoch(connection, self._epoch_reason)

    def begun_before(self, connection: Connection) -> dict[str, Any] | None:
        """The epoch that an earlier drain of this bucket began, if it is the current one: a repetition goes on in it.

        In one more, what failed or waited the first time would outrank what was applied then.
        Raises: DependencyDown.
        """
        with database.translated_errors():
            now = database.row(connection, "ledger", "current_epoch")
        return now if now is not None and now["reason"] == self._epoch_reason else None

    @property
    def _epoch_reason(self) -> str:
        return f"drain of {self.bucket.name}/{self.bucket.prefix}"

    def _apply_one(self, key: ChangeFileKey, found: ObjectSummary, trial: Connection | None) -> Drained | None:
        def apply(connection: Connection) -> Drained:
            with self.bucket.open(key.key) as opened:
                sighting = self._sighting(key, opened.summary, None)
                return _apply(connection, sighting, opened.read, self.settings, self._reached_in(trial))

        return self._holding(trial, self._sighting(key, found, None), apply)

    def _apply_archived(self, file: Archived, trial: Connection | None) -> Drained | None:
        sighting = replace(self._sighting(file.key, file.summary, file.epoch), is_archived=True)
        settings = self.settings.model_copy(update={"changed_policy": "reapply"})

        def apply(connection: Connection) -> Drained:
            with self.bucket.open(file.summary.key) as opened:
                return _apply(connection, sighting, opened.read, settings, self._reached_in(trial))

        def find_or_apply(connection: Connection) -> Drained:
            known = self._known_by_content(connection, file)
            return apply(connection) if known is None else AlreadyApplied(known)

        return self._holding(trial, sighting, find_or_apply)

    def _reached_in(self, trial: Connection | None) -> Reached:
        return self.reached if trial is None else nowhere

    def _holding(
        self, trial: Connection | None, sighting: Sighting, apply: Callable[[Connection], Drained]
    ) -> Drained | None:
        """Do `apply` in a transaction of the file's own that has its key; or in that of a dry run, which needs none.

        What the dry run decides it undoes, so it may meet others on a key; and it holds the locks of no file.
        None for an object that a consumer has archived meanwhile.
        """
        try:
            if trial is not None:
                outcome = self._judged(trial, sighting, apply)
            else:
                outcome = _waiting_for_key(lambda: self._in_transaction(sighting, apply), sighting.key.key, self.stop)
        except ObjectMissing:
            return None
        except KeyInHand as error:
            return Failure(sighting.key.key, IN_HAND, str(error), attempts=1)
        except StatementFailed as error:
            if self._failed_last:  # two in a row: it is not the file
                raise
            self._failed_last.append(sighting.key.key)
            return self._failed_by_database(trial, sighting, error)
        self._failed_last.clear()
        return outcome

    def _failed_by_database(self, trial: Connection | None, sighting: Sighting, error: StatementFailed) -> Failure:
        """Record what the database failed one file with, which it can if it serves others.

        Raises: DependencyDown, if it does not.
        """
        failure = Failure(sighting.key.key, UNEXPECTED, str(error), attempts=1)
        with contextlib.nullcontext(trial) if trial is not None else database.transaction(self.pool) as connection:
            _record_failure(connection, sighting, failure, was_read=True)
        return failure

    def _in_transaction(self, sighting: Sighting, apply: Callable[[Connection], Drained]) -> Drained:
        with database.transaction(self.pool) as connection:
            lock_key(connection, sighting.bucket, sighting.key.key)
            return self._judged(connection, sighting, apply)

    def _judged(self, connection: Connection, sighting: Sighting, apply: Callable[[Connection], Drained]) -> Drained:
        try:
            return apply(connection)
        except (ObjectRefused, ObjectUnavailable) as error:
            # An object that the store will not give is that file's failure alone.
            failure = Failure(sighting.key.key, UNEXPECTED, str(error), attempts=1)
            _record_failure(connection, sighting, failure, was_read=False)
            return failure

    def _known_by_content(self, connection: Connection, file: Archived) -> LedgerFile | None:
        """Another ETag does not make another version: an object stored in parts gets a new one with its copy."""
        summary = file.summary
        parameters = {"bucket": self.bucket.name, "key": file.key.key, "etag": summary.etag, "size": summary.size}
        candidates = database.rows(connection, "inventory", "applied_elsewise", parameters)
        digest = self.bucket.digest(summary.key) if candidates else ""
        return next((ledger_file(row) for row in candidates if row["sha256"] == digest), None)

    def _sighting(self, key: ChangeFileKey, found: ObjectSummary, epoch: int | None) -> Sighting:
        return Sighting(
            bucket=self.bucket.name,
            prefix=self.bucket.prefix,
            key=key,
            etag=found.etag,
            size=found.size,
            object_time=found.modified,
            event_time=None,
            seen_at=datetime.now(UTC),
            seen_by="drain",
            epoch=epoch,
            version_id=found.version_id,
        )


def _waiting_for_key(action: Callable[[], Answer], key: str, stop: Event) -> Answer:
    """Do `action` once nobody else has the key in hand any more.

    Raises: KeyInHand, when somebody has it for long, or when stopped meanwhile; what `action` raises.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(KeyInHand),
        wait=tenacity.wait_fixed(0.2),
        stop=tenacity.stop_after_delay(_KEY_SECONDS) | tenacity.stop_when_event_set(stop),
        sleep=tenacity.sleep_using_event(stop),
        before_sleep=lambda state: _say_once(state, key),
        reraise=True,
    )
    return retrying(action)


def _say_once(state: tenacity.RetryCallState, key: str) -> None:
    if state.attempt_number == 1:
        log.info("waiting", detail=f"somebody else has {key!r} in hand", at_most_s=_KEY_SECONDS)


def begin_epoch(connection: Connection, reason: str) -> int:
    """Begin a new epoch: files claimed from now on outrank everything before. Gives its number."""
    begun = database.row(connection, "ledger", "begin_epoch", {"reason": reason})
    assert begun is not None  # noqa: S101 - the first epoch is always there
    return int(begun["epoch"])


def import_csv(pool: Pool, path: Path, settings: ApplySettings, *, apply: bool, told: Callable[[int], None]) -> Drained:
    """Apply one local file; its name gives its instant, its time of change where the name does not.

    `told` is called with the number of bytes read each time.

    Raises: Misconfigured, DependencyDown, Refused.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise Misconfigured(f"{str(path)!a}: the name of the file is not UTF-8; rename it") from None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            file.seek(0)
            key = read_key(path.name, "")
            sighting = Sighting(
                bucket=LOCAL,
                prefix="",
                key=key if isinstance(key, ChangeFileKey) else ChangeFileKey(path.name, modified),
                etag=digest,
                size=path.stat().st_size,
                object_time=modified,
                event_time=None,
                seen_at=datetime.now(UTC),
                seen_by="import",
            )

            def apply_once() -> Drained:
                with database.transaction(pool, keep=apply) as connection:
                    lock_key(connection, sighting.bucket, sighting.key.key)
                    outcome = _apply(connection, sighting, _telling(file.read, told), settings, nowhere)
                    if isinstance(outcome, Applied):
                        parameters = {"file_id": outcome.file.file_id, "archive_key": None, "reason": "a local file"}
                        database.rows(connection, "ledger", "record_archived", parameters)
                    return outcome

            return _waiting_for_key(apply_once, path.name, Event())
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror or error}") from None


def _telling(read: Read, told: Callable[[int], None]) -> Read:
    def read_and_tell(amount: int) -> bytes:
        found = read(amount)
        told(len(found))
        return found

    return read_and_tell


def _apply(
    connection: Connection, sighting: Sighting, read: Read, settings: ApplySettings, reached: Reached
) -> Drained:
    database.rows(connection, "merge", "empty_staging")
    # Whoever names a local file means that one; what lies in the bucket nobody has looked at.
    is_meant = sighting.seen_by == "import"
    try:
        with database.failing_for_this_one(), connection.transaction():
            return apply_file(connection, sighting, read, settings, again=True, released=is_meant, reached=reached)
    except DependencyDown:
        raise
    except Permanent as error:
        failure = Failure(sighting.key.key, error.reason, error.detail, attempts=1)
    except Exception as error:  # noqa: BLE001 - one bad file stays one bad file
        failure = Failure(
            sighting.key.key, UNEXPECTED, f"{type(error).__name__}: {database.one_line(error)}", attempts=1
        )
    if not is_meant:
        _record_failure(connection, sighting, failure, was_read=True)
    return failure


def _record_failure(connection: Connection, sighting: Sighting, failure: Failure, *, was_read: bool) -> None:
    # Neither a retry nor a dead letter, for there is no broker: the next delivery takes it up again. One that is a
    # dead letter already stays one.
    parameters = sighting.parameters() | {
        "reason": failure.reason,
        "error": failure.detail,
        "fingerprint": failure.fingerprint,
        "has_letter": True,
        "was_read": was_read,
    }
    database.row(connection, "ledger", "record_failed", parameters)
