"""Without a broker: apply `changes/` oldest to newest, or one local file, through the same transaction as a delivery.

A dry run applies everything in one transaction and rolls it back, so that each file is judged on top of those before
it, as it would be. Follow-on requests wait in the outbox until a consumer has a broker again.
"""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from consumer import database
from consumer.applying import AlreadyApplied, Applied, Duplicate, LedgerFile, Sighting, apply_file, lock_key
from consumer.archiving import archive_file
from consumer.csv_reading import Read
from consumer.database import Connection, Pool
from consumer.fail_points import AtPoint, nowhere
from consumer.failures import UNEXPECTED, Failure
from consumer.settings import ApplySettings
from publisher.bucket import Bucket, ObjectSummary
from publisher.errors import DependencyDown, Misconfigured, ObjectMissing, Permanent
from publisher.keys import ChangeFileKey, NotAChangeFile, read_key

LOCAL = "(local file)"
"""What the ledger has for the bucket of a file that came from none."""

Drained = Applied | AlreadyApplied | Duplicate | Failure | NotAChangeFile


@dataclass(frozen=True, slots=True)
class Drain:
    """One run over the bucket; `apply` false undoes it all at the end. With `epoch_reason` it begins a new epoch."""

    pool: Pool
    bucket: Bucket
    settings: ApplySettings
    apply: bool
    epoch_reason: str | None = None
    at: AtPoint = nowhere

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
        trial_or_none = contextlib.nullcontext() if self.apply else database.transaction(self.pool, keep=False)
        if self.apply:
            self._finish_tails(report)
        with trial_or_none as trial:
            if self.epoch_reason is not None:
                self._begin_epoch(trial, self.epoch_reason)
            for key, _ in files:
                outcome = self._apply_one(key, trial)
                if outcome is not None:
                    report(key.key, outcome)

    def _finish_tails(self, report: Callable[[str, Drained], None]) -> None:
        """Finish what a crash left half-way. An object that is archived already is in no listing of `changes/`."""
        with database.transaction(self.pool) as connection:
            tails = database.rows(connection, "ledger", "open_tails", {"bucket": self.bucket.name, "age": 0})
        for tail in tails:
            file = LedgerFile(**tail)
            archive_file(self.pool, self.bucket, file, self.at)
            report(file.key, AlreadyApplied(file))

    def _begin_epoch(self, trial: Connection | None, reason: str) -> None:
        if trial is not None:
            begin_epoch(trial, reason)
            return
        with database.transaction(self.pool) as connection:
            begin_epoch(connection, reason)

    def _apply_one(self, key: ChangeFileKey, trial: Connection | None) -> Drained | None:
        try:
            with self.bucket.open(key.key) as opened:
                now = datetime.now(UTC)
                sighting = Sighting(
                    bucket=self.bucket.name,
                    prefix=self.bucket.prefix,
                    key=key,
                    etag=opened.summary.etag,
                    size=opened.summary.size,
                    object_time=opened.summary.modified,
                    event_time=None,
                    seen_at=now,
                    seen_by="drain",
                )
                if trial is not None:
                    return _apply(trial, sighting, opened.read, self.settings, nowhere)
                with database.transaction(self.pool) as connection:
                    outcome = _apply(connection, sighting, opened.read, self.settings, self.at)
        except ObjectMissing:
            return None  # a consumer has it archived meanwhile
        if isinstance(outcome, Applied | AlreadyApplied):
            self.at("after commit, before archive")
            archive_file(self.pool, self.bucket, outcome.file, self.at)
        return outcome


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
                outcome = _apply(connection, sighting, file.read, settings, nowhere)
                if isinstance(outcome, Applied):
                    parameters = {"file_id": outcome.file.file_id, "archive_key": None, "reason": "a local file"}
                    database.rows(connection, "ledger", "record_archived", parameters)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}") from None
    return outcome


def _apply(connection: Connection, sighting: Sighting, read: Read, settings: ApplySettings, at: AtPoint) -> Drained:
    lock_key(connection, sighting)
    database.rows(connection, "merge", "empty_staging")
    try:
        with database.translated_errors(), connection.transaction():
            return apply_file(connection, sighting, read, settings, again=True, at=at)
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
