"""The one engine for files: keys held, files read and applied, trouble caught and told.

A file by itself is applied behind a savepoint, to which it goes back when it fails: its failure is told in the same
transaction. Several together, be it one, are applied or undone together, and whatever goes wrong with any of them ends
it: the caller then knows no more of any than before, and tries each by itself. Consumer, drain, import and rehearsal
differ in the values of their candidates alone.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from consumer.fail_points import Reached
from consumer.files import ledger
from consumer.files.applying import UNWATCHED, ToApply, Watch, apply_files
from consumer.files.decoding import Read
from consumer.files.outcomes import UNEXPECTED, AlreadyApplied, Applied, Decided, Duplicate, Failure
from consumer.files.versions import Asked, LedgerFile, Sighting, Trouble
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.settings import ApplySettings
from publisher.errors import DependencyDown, ObjectMissing, ObjectRefused, ObjectUnavailable, Permanent, SlowBody

Told = Callable[[Connection, Sighting, Trouble], Failure | Duplicate]
"""Puts a failed try on record, in the transaction that has the key, and gives what becomes of the file."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that can be read: the version that it is, and its bytes to come."""

    sighting: Sighting
    read: Read
    opened_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the store began to give it."""


def _unseen(_sighting: Sighting) -> None:
    pass


def _unknown(_connection: Connection) -> LedgerFile | None:
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to try, as its caller wants it tried.

    `sighting` is what was announced of it; `open` tells what is there. `known` finds a version that was applied under
    another name of the same bytes, before the file is opened; `seen` is told of the version before its work begins.
    `released` is the ETag of the version that a person asks for, None for whichever is there; that one may be let off
    having every column that its exporter always writes. `watch` is shown what applying it does.
    """

    sighting: Sighting
    asked: Asked
    settings: ApplySettings
    open: Callable[[], AbstractContextManager[Opened]]
    failed: Told
    seen: Callable[[Sighting], None] = _unseen
    known: Callable[[Connection], LedgerFile | None] = _unknown
    released: str | None = None
    may_lack_columns: bool = False
    watch: Watch = UNWATCHED


def attempt(connection: Connection, candidate: Candidate, reached: Reached) -> Decided | None:
    """Try a file in a transaction that is its own; None for one that is not there.

    The key's lock comes before the first byte: so versions of a key are decided in the order in which they were stored.
    Raises: KeyInHand; DependencyDown, of which ObjectUnavailable and StatementFailed may be the file's own; what the
    callables of the candidate raise.
    """
    ledger.lock_key(connection, candidate.sighting.bucket, candidate.sighting.key.key)
    return _try(connection, candidate, reached)


def attempt_in_dry_run(connection: Connection, candidate: Candidate, reached: Reached) -> Decided | None:
    """Try one more file in a dry run, which undoes what it decides: it may meet others on a key, and locks none.

    Raises: the same.
    """
    database.rows(connection, "merge", "empty_staging")
    return _try(connection, candidate, reached)


def attempt_together(
    connection: Connection,
    candidates: Sequence[Candidate],
    seen: Callable[[Sequence[Sighting]], None],
    reached: Reached,
) -> list[Decided | None]:
    """Try several files of one feed, with different keys, in a transaction that is theirs.

    None for one that is not there, that the store does not give, or that is in somebody else's hand. `seen` is told of
    the versions before the work begins, instead of each candidate.
    Raises: what is wrong with any of them, or with a dependency, which once the keys are had is StatementFailed of the
    database; nothing of any may be kept then.
    """
    keys = [candidate.sighting.key.key for candidate in candidates]
    had = ledger.lock_keys(connection, candidates[0].sighting.bucket, keys)
    versions: dict[int, ToApply] = {}
    with database.failing_for_this_one(), ExitStack() as stack:
        for place, (key, candidate) in enumerate(zip(keys, candidates, strict=True)):
            with suppress(ObjectMissing, ObjectRefused, ObjectUnavailable, SlowBody):
                if key in had:
                    versions[place] = _version(candidate, stack.enter_context(candidate.open()))
        outcomes: dict[int, Decided] = {}
        if versions:
            seen([version.sighting for version in versions.values()])
            outcomes |= zip(versions, apply_files(connection, list(versions.values()), reached), strict=True)
    return [outcomes.get(place) for place in range(len(candidates))]


def _try(connection: Connection, candidate: Candidate, reached: Reached) -> Decided | None:
    try:
        known = candidate.known(connection)
        if known is not None:
            return AlreadyApplied(known)
        with candidate.open() as opened:
            candidate.seen(opened.sighting)
            return _apply(connection, candidate, opened, reached)
    except ObjectMissing:
        return None
    except ObjectRefused as error:
        # The store will not give this one: its own failure, for the others are not to wait for it.
        trouble = Trouble(UNEXPECTED, str(error), error, was_read=False)
        return candidate.failed(connection, candidate.sighting, trouble)


def _apply(
    connection: Connection, candidate: Candidate, opened: Opened, reached: Reached
) -> Applied | AlreadyApplied | Duplicate | Failure:
    try:
        with database.failing_for_this_one(), connection.transaction():
            (outcome,) = apply_files(connection, [_version(candidate, opened)], reached)
            return outcome
    except DependencyDown:
        raise
    except Permanent as error:
        trouble = Trouble(error.reason, error.detail, error)
    except Exception as error:  # noqa: BLE001 - one bad file stays one bad file
        trouble = Trouble(UNEXPECTED, f"{type(error).__name__}: {database.one_line(error)}", error)
    # The file's own changes are undone by now.
    return candidate.failed(connection, opened.sighting, trouble)


def _version(candidate: Candidate, opened: Opened) -> ToApply:
    return ToApply(
        opened.sighting,
        opened.read,
        candidate.settings,
        candidate.asked,
        released=candidate.released,
        may_lack_columns=candidate.may_lack_columns,
        watch=candidate.watch,
        opened_at=opened.opened_at,
    )
