"""Without a broker: apply `changes/` oldest to newest, or one local file, through the same transaction as a delivery.

A dry run applies everything in one transaction and rolls it back, so that each file is judged on top of those before
it, as it would be. Follow-on requests wait in the outbox until a consumer has a broker again.

After the database was restored to an earlier state, the archive has files that it lacks: those are applied once more,
in the epoch that they were archived in, and stay where they are.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import structlog
import tenacity

from consumer.fail_points import Reached, nowhere
from consumer.feeds.feed import Feed, Feeds
from consumer.files import ledger
from consumer.files.applying import UNWATCHED
from consumer.files.attempt import Candidate, Opened, attempt, attempt_in_dry_run
from consumer.files.decoding import Read
from consumer.files.ledger import Epoch, Unread
from consumer.files.outcomes import UNEXPECTED, AlreadyApplied, Applied, Decided, Failure
from consumer.files.tail import archive_file, leave_unarchived, open_tails
from consumer.files.versions import Asked, LedgerFile, Sighting, Trouble
from consumer.postgres import database, dry_runs
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from consumer.upkeep import inventory
from consumer.upkeep.effects import Examples
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.broker import dead_letters
from publisher.errors import (
    FailsForThisOne,
    KeyInHand,
    Misconfigured,
    ObjectRefused,
    ObjectUnavailable,
    StatementFailed,
    StatementRefused,
)
from publisher.store.bucket import Bucket, ObjectSummary

_LOCAL = "a local file"


@dataclass(frozen=True, slots=True)
class Tried(Applied):
    """Of a dry run: it would be applied, and `examples` are what it would do."""

    examples: Examples = field(default_factory=Examples)

    @property
    def dangers(self) -> tuple[str, ...]:
        return self.examples.dangers(self.counts)


def _tried(outcome: Applied, examples: Examples) -> Tried:
    known = {each.name: getattr(outcome, each.name) for each in fields(outcome)}
    return Tried(**known, examples=examples)


Drained = Decided | NotAChangeFile
Report = Callable[[str, Drained], None]
File = TypeVar("File")
Answer = TypeVar("Answer")
IN_HAND = "in hand elsewhere"
OLDER = "older than what was to be applied"
"""Why a change file is ignored that a drain was to leave alone."""
_FIRST_OF_EACH = 3, 9
"""Changed tickets and rejected rows of each of many files that are told of together; `preview` has more of one."""
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
class WaitingFiles:
    """What lies in `changes/`: files in the order of their instants, what is none, and files that are too old."""

    files: list[tuple[ChangeFileKey, ObjectSummary]]
    strays: list[tuple[NotAChangeFile, ObjectSummary]]
    older: list[tuple[NotAChangeFile, ObjectSummary]]


@dataclass(frozen=True, slots=True)
class Drain:
    """One run over the bucket; `apply` false undoes it all at the end. With `reseed` it begins a new epoch, once.

    `stop` ends it after the file in hand.
    """

    pool: Pool
    bucket: Bucket
    feeds: Feeds
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
        return self._archived(rows)

    def unapplied_one(
        self, connection: Connection, found: ObjectSummary
    ) -> tuple[list[Archived], list[NotAChangeFile]]:
        """The same of one archived object, which neither list has where the database has it.

        Raises: DependencyDown.
        """
        with database.translated_errors():
            inventory.take_one(connection, self.bucket, found)
            rows = database.rows(connection, "inventory", "unapplied_archives", {"bucket": self.bucket.name})
        return self._archived(rows)

    def _archived(self, rows: list[dict[str, Any]]) -> tuple[list[Archived], list[NotAChangeFile]]:
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
                self._conclude(file.summary.key, self._try(self.archived_candidate(file), trial), report)
        if self.apply:
            with database.transaction(self.pool) as connection:
                ledger.finish_relayed(connection)

    def waiting(self, since: datetime | None = None) -> "WaitingFiles":
        """What lies in `changes/`; of an instant before `since` a file is older.

        Raises: DependencyDown.
        """
        files, strays, older = [], [], []
        for found in self.bucket.waiting():
            key = read_key(found.key, self._feed(found.key).folder.changes)
            if isinstance(key, NotAChangeFile):
                strays.append((key, found))
            elif since is not None and key.time < since:
                older.append((NotAChangeFile(key.key, OLDER), found))
            else:
                files.append((key, found))
        return WaitingFiles(sorted(files, key=lambda file: (file[0].time, file[0].key)), strays, older)

    def run(self, files: list[tuple[ChangeFileKey, ObjectSummary]], report: Report) -> None:
        """Apply the files; `report(key, outcome)` after each.

        Raises: DependencyDown.
        """
        if self.apply:
            self._finish_tails(report)
        with self._begun() as trial:
            for key, found in self._until_stopped(files):
                self._conclude(key.key, self._try(self.candidate(key, found), trial), report)

    def take_up(self, files: list[tuple[ChangeFileKey, ObjectSummary]]) -> None:
        """Decide anew of those that were older than what an earlier run was to apply, unless this is a dry run.

        Raises: DependencyDown.
        """
        if not self.apply:
            return
        with database.transaction(self.pool) as connection:
            ledger.take_up(connection, self.bucket.name, [key.key for key, _ in files], OLDER)

    def leave_alone(self, strays: list[tuple[NotAChangeFile, ObjectSummary]]) -> None:
        """Tell the ledger what else lies in `changes/`, unless this is a dry run.

        Raises: DependencyDown.
        """
        if not self.apply:
            return
        with database.transaction(self.pool) as connection:
            for stray, found in strays:
                feed = self._feed(stray.key)
                unread = Unread(
                    feed=feed.name,
                    bucket=self.bucket.name,
                    prefix=feed.prefix,
                    key=stray.key,
                    etag=found.etag,
                    size=found.size,
                    event_time=None,
                    seen_at=datetime.now(UTC),
                    seen_by="drain",
                    decision="ignored",
                    reason=stray.reason,
                )
                ledger.record_unread(connection, unread)

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
            waiting_for_key(lambda: archive_file(self.pool, self.bucket, file, self.reached), key, self.stop)
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
                dry_runs.begin(trial)
            if self.reseed and not self.stop.is_set():
                self._begin_epoch(trial)
            yield trial

    def _begin_epoch(self, trial: Connection | None) -> None:
        with contextlib.nullcontext(trial) if trial is not None else database.transaction(self.pool) as connection:
            for feed in self.feeds:
                if self.begun_before(connection, feed) is None:
                    ledger.begin_epoch(connection, feed.name, self._epoch_reason(feed))

    def begun_before(self, connection: Connection, feed: Feed) -> Epoch | None:
        """The epoch that an earlier drain of this bucket began, if it is the current one: a repetition goes on in it.

        In one more, what failed or waited the first time would outrank what was applied then.
        Raises: DependencyDown.
        """
        with database.translated_errors():
            now = ledger.current_epoch(connection, feed.name)
        return now if now.reason == self._epoch_reason(feed) else None

    def _epoch_reason(self, feed: Feed) -> str:
        return f"drain of {self.bucket.name}/{feed.prefix}"

    def _feed(self, key: str) -> Feed:
        feed = self.feeds.of_key(key)
        assert feed is not None  # noqa: S101 - it was listed in the folder of one
        return feed

    def candidate(self, key: ChangeFileKey, found: ObjectSummary) -> Candidate:
        """A file of changes/ as it is to be tried."""

        @contextlib.contextmanager
        def open_object() -> Iterator[Opened]:
            with self.bucket.open(key.key) as opened:
                yield Opened(self._sighting(key, opened.summary, None), opened.read)

        sighting = self._sighting(key, found, None)
        return Candidate(sighting, Asked.AGAIN, self.settings, open_object, _record_failed)

    def archived_candidate(self, file: Archived) -> Candidate:
        """A file of processed/ as it is to be tried."""
        sighting = replace(self._sighting(file.key, file.summary, file.epoch), is_archived=True)
        settings = self.settings.model_copy(update={"changed_policy": "reapply"})

        @contextlib.contextmanager
        def open_object() -> Iterator[Opened]:
            with self.bucket.open(file.summary.key) as opened:
                yield Opened(sighting, opened.read)

        def known(connection: Connection) -> LedgerFile | None:
            return self._known_by_content(connection, file)

        return Candidate(sighting, Asked.AGAIN, settings, open_object, _record_failed, known=known)

    def _try(self, candidate: Candidate, trial: Connection | None) -> Decided | None:
        """Try a file in a transaction of its own; or in that of a dry run.

        None for an object that a consumer has archived meanwhile.
        Raises: DependencyDown, when it is not the file's own.
        """
        key = candidate.sighting.key.key
        try:
            if trial is not None:
                examples = Examples(*_FIRST_OF_EACH)
                outcome = attempt_in_dry_run(trial, replace(candidate, watch=examples), nowhere)
                if isinstance(outcome, Applied):
                    outcome = _tried(outcome, examples)
            else:
                outcome = waiting_for_key(lambda: self._in_transaction(candidate), key, self.stop)
        except KeyInHand as error:
            return Failure(key, IN_HAND, str(error), attempts=1)
        except ObjectUnavailable as error:
            self._failed_last.clear()
            return self._failed_for_this_one(candidate, error, trial, was_read=False)
        except (StatementFailed, StatementRefused) as error:
            if self._failed_last:  # two in a row: it is not the file
                raise
            self._failed_last.append(key)
            return self._failed_for_this_one(candidate, error, trial, was_read=True)
        self._failed_last.clear()
        return outcome

    def _in_transaction(self, candidate: Candidate) -> Decided | None:
        with database.transaction(self.pool) as connection:
            return attempt(connection, candidate, self.reached)

    def _failed_for_this_one(
        self,
        candidate: Candidate,
        error: FailsForThisOne | StatementRefused,
        trial: Connection | None,
        *,
        was_read: bool,
    ) -> Decided:
        """Record what a dependency failed one file with, which the database can if it serves others.

        Raises: DependencyDown, if it does not.
        """
        trouble = Trouble(UNEXPECTED, str(error), error, was_read=was_read)
        with contextlib.nullcontext(trial) if trial is not None else database.transaction(self.pool) as connection:
            return candidate.failed(connection, candidate.sighting, trouble)

    def _known_by_content(self, connection: Connection, file: Archived) -> LedgerFile | None:
        """Another ETag does not make another version: an object stored in parts gets a new one with its copy."""
        summary = file.summary
        parameters = {"bucket": self.bucket.name, "key": file.key.key, "etag": summary.etag, "size": summary.size}
        candidates = database.rows(connection, "inventory", "applied_elsewise", parameters)
        digest = self.bucket.digest(summary.key) if candidates else ""
        return next((ledger.ledger_file(row) for row in candidates if row["sha256"] == digest), None)

    def _sighting(self, key: ChangeFileKey, found: ObjectSummary, epoch: int | None) -> Sighting:
        return Sighting(
            feed=self._feed(key.key),
            bucket=self.bucket.name,
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


def waiting_for_key(action: Callable[[], Answer], key: str, stop: Event) -> Answer:
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


def import_csv(
    pool: Pool, feed: Feed, path: Path, settings: ApplySettings, *, apply: bool, told: Callable[[int], None]
) -> Drained:
    """Apply one local file; its name gives its instant, its time of change where the name does not.

    `told` is called with the number of bytes read each time.

    Raises: Misconfigured, DependencyDown, Refused.
    """
    examples = None if apply else Examples()
    with local_candidate(feed, path, settings, told) as candidate:

        def apply_once() -> Decided:
            with database.transaction(pool, keep=apply) as connection:
                outcome = attempt(connection, replace(candidate, watch=examples or UNWATCHED), nowhere)
                assert outcome is not None  # noqa: S101 - it is open
                if isinstance(outcome, Applied):
                    ledger.record_archived(connection, {outcome.file.file_id: (None, "a local file")})
                    outcome = _tried(outcome, examples) if examples else outcome
            return outcome

        return waiting_for_key(apply_once, path.name, Event())


@contextlib.contextmanager
def local_candidate(
    feed: Feed, path: Path, settings: ApplySettings, told: Callable[[int], None]
) -> Iterator[Candidate]:
    """A local file as it is to be tried, once.

    Raises: Misconfigured.
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
                feed=feed,
                bucket=bucket_of_local(feed),
                key=key if isinstance(key, ChangeFileKey) else ChangeFileKey(path.name, modified),
                etag=digest,
                size=path.stat().st_size,
                object_time=modified,
                event_time=None,
                seen_at=datetime.now(UTC),
                seen_by="import",
            )
            opened = Opened(sighting, _telling(file.read, told))
            # Whoever names a local file means that one, and its failure is nobody's to take up again.
            yield Candidate(sighting, Asked.BY_A_PERSON, settings, lambda: contextlib.nullcontext(opened), unrecorded)
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror or error}") from None


def bucket_of_local(feed: Feed) -> str:
    """What the ledger has for the bucket of a feed's file that came from none."""
    return f"{_LOCAL}, {feed.name}"


def _telling(read: Read, told: Callable[[int], None]) -> Read:
    def read_and_tell(amount: int) -> bytes:
        found = read(amount)
        told(len(found))
        return found

    return read_and_tell


def _record_failed(connection: Connection, sighting: Sighting, trouble: Trouble) -> Failure:
    """Record a failed try. Neither a retry nor a dead letter, for there is no broker: the next delivery takes it up.

    One that is a dead letter already stays one.
    """
    fingerprint = dead_letters.fingerprint(trouble.reason, trouble.detail)
    ledger.record_failed_by_hand(connection, sighting, trouble, fingerprint)
    return unrecorded(connection, sighting, trouble)


def unrecorded(_connection: Connection, sighting: Sighting, trouble: Trouble) -> Failure:
    """What becomes of a failed try that nobody keeps a record of."""
    return Failure(sighting.key.key, trouble.reason, trouble.detail, attempts=1)
