"""Without a broker: apply `changes/` oldest to newest, or one local file, through the same transaction as a delivery.

A dry run applies everything in one transaction and rolls it back, so that each file is judged on top of those before
it, as it would be. Follow-on requests wait in the outbox until a consumer has a broker again.

After the database was restored to an earlier state, the archive has files that it lacks: those are applied once more,
in the epoch that they were archived in, and stay where they are.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consumer import database, inventory
from consumer.applying import AlreadyApplied, Applied, Duplicate, LedgerFile, Sighting, apply_file, lock_key
from consumer.archiving import archive_file
from consumer.csv_reading import Read
from consumer.database import Connection, Pool
from consumer.fail_points import nowhere
from consumer.failures import UNEXPECTED, Failure
from consumer.settings import ApplySettings
from publisher.bucket import Bucket, ObjectSummary
from publisher.errors import DependencyDown, Misconfigured, ObjectMissing, Permanent
from publisher.keys import ChangeFileKey, NotAChangeFile, read_key

LOCAL = "(local file)"
"""What the ledger has for the bucket of a file that came from none."""

Drained = Applied | AlreadyApplied | Duplicate | Failure | NotAChangeFile


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
    """One run over the bucket; `apply` false undoes it all at the end. With `epoch_reason` it begins a new epoch."""

    pool: Pool
    bucket: Bucket
    settings: ApplySettings
    apply: bool
    epoch_reason: str | None = None

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
                None if self.epoch_reason is not None else row["epoch"],
            )
            for row in rows
            if row["key_time"] is not None
        ]
        return files, others

    def run_archived(self, files: list[Archived], report: Callable[[str, Drained], None]) -> None:
        """Apply archived files; `report(object key, outcome)` after each.

        All of them were applied once, so the policy for changed files is not asked.
        Raises: DependencyDown, Refused.
        """
        with self._begun() as trial:
            for file in files:
                outcome = self._apply_archived(file, trial)
                if outcome is not None:
                    report(file.summary.key, outcome)
        if self.apply:
            with database.transaction(self.pool) as connection:
                database.rows(connection, "ledger", "finish_relayed")

    def waiting(self) -> tuple[list[tuple[ChangeFileKey, ObjectSummary]], list[NotAChangeFile]]:
        """The change files in the order of their instants, and what else lies there.

        Raises: DependencyDown.
        """
        files, others = [], []
        for found in self.bucket.waiting():
            key = read_key(found.key, self.bucket.changes_prefix)
            if isinstance(key, ChangeFileKey):
                files.append((key, found))
            else:
                others.append(key)
        return sorted(files, key=lambda file: (file[0].time, file[0].key)), others

    def run(self, files: list[tuple[ChangeFileKey, ObjectSummary]], report: Callable[[str, Drained], None]) -> None:
        """Apply the files; `report(key, outcome)` after each.

        Raises: DependencyDown, Refused.
        """
        with self._begun() as trial:
            for key, _ in files:
                outcome = self._apply_one(key, trial)
                if outcome is not None:
                    report(key.key, outcome)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Connection | None]:
        """The one transaction of a dry run; begins the new epoch where one is wanted."""
        trial_or_none = contextlib.nullcontext() if self.apply else database.transaction(self.pool, keep=False)
        with trial_or_none as trial:
            if self.epoch_reason is not None:
                self._begin_epoch(trial, self.epoch_reason)
            yield trial

    def _begin_epoch(self, trial: Connection | None, reason: str) -> None:
        if trial is not None:
            begin_epoch(trial, reason)
            return
        with database.transaction(self.pool) as connection:
            begin_epoch(connection, reason)

    def _apply_one(self, key: ChangeFileKey, trial: Connection | None) -> Drained | None:
        try:
            with self.bucket.open(key.key) as opened:
                outcome = self._apply(trial, self._sighting(key, opened.summary, None), opened.read, self.settings)
        except ObjectMissing:
            return None  # a consumer has it archived meanwhile
        self._archive(outcome)
        return outcome

    def _apply_archived(self, file: Archived, trial: Connection | None) -> Drained | None:
        try:
            if (known := self._known_by_content(file)) is not None:
                outcome: Drained = AlreadyApplied(known)
            else:
                with self.bucket.open(file.summary.key) as opened:
                    sighting = self._sighting(file.key, file.summary, file.epoch)
                    settings = self.settings.model_copy(update={"changed_policy": "reapply"})
                    outcome = self._apply(trial, sighting, opened.read, settings)
        except ObjectMissing:
            return None
        self._archive(outcome)
        return outcome

    def _known_by_content(self, file: Archived) -> LedgerFile | None:
        """Another ETag does not make another version: an object stored in parts gets a new one with its copy."""
        summary = file.summary
        parameters = {"bucket": self.bucket.name, "key": file.key.key, "etag": summary.etag, "size": summary.size}
        with database.transaction(self.pool) as connection:
            candidates = database.rows(connection, "inventory", "applied_elsewise", parameters)
        digest = self.bucket.digest(summary.key) if candidates else ""
        return next((LedgerFile(**row) for row in candidates if row["sha256"] == digest), None)

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
        )

    def _apply(self, trial: Connection | None, sighting: Sighting, read: Read, settings: ApplySettings) -> Drained:
        if trial is not None:
            return _apply(trial, sighting, read, settings)
        with database.transaction(self.pool) as connection:
            return _apply(connection, sighting, read, settings)

    def _archive(self, outcome: Drained) -> None:
        """Finish the tail; of a file in the archive that means to find it there and to clear `changes/` of it."""
        if self.apply and isinstance(outcome, Applied | AlreadyApplied):
            archive_file(self.pool, self.bucket, outcome.file, nowhere)


def begin_epoch(connection: Connection, reason: str) -> int:
    """Begin a new epoch: files claimed from now on outrank everything before. Gives its number."""
    begun = database.row(connection, "ledger", "begin_epoch", {"reason": reason})
    assert begun is not None  # noqa: S101 - the first epoch is always there
    return int(begun["epoch"])


def import_csv(pool: Pool, path: Path, settings: ApplySettings, *, apply: bool) -> Drained:
    """Apply one local file; its name gives its instant, its time of change where the name does not.

    Raises: Misconfigured, DependencyDown, Refused.
    """
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
            with database.transaction(pool, keep=apply) as connection:
                outcome = _apply(connection, sighting, file.read, settings)
                if isinstance(outcome, Applied):
                    parameters = {"file_id": outcome.file.file_id, "archive_key": None, "reason": "a local file"}
                    database.rows(connection, "ledger", "record_archived", parameters)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}") from None
    return outcome


def _apply(connection: Connection, sighting: Sighting, read: Read, settings: ApplySettings) -> Drained:
    lock_key(connection, sighting)
    database.rows(connection, "merge", "empty_staging")
    try:
        with database.translated_errors(), connection.transaction():
            return apply_file(connection, sighting, read, settings, again=True, at=nowhere)
    except DependencyDown:
        raise
    except Permanent as error:
        failure = Failure(sighting.key.key, error.reason, error.detail, attempts=1)
    except Exception as error:  # noqa: BLE001 - one bad file stays one bad file
        failure = Failure(
            sighting.key.key, UNEXPECTED, f"{type(error).__name__}: {database.one_line(error)}", attempts=1
        )
    # Neither a retry nor a dead letter, for there is no broker: the next delivery takes it up again.
    parameters = sighting.parameters() | {
        "reason": failure.reason,
        "error": failure.detail,
        "fingerprint": failure.fingerprint,
    }
    database.row(connection, "ledger", "record_failed", parameters)
    return failure
