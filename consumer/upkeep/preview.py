"""What one file would do, by doing it: the way of a drain or an import, in a transaction that is undone.

It has the key's lock and those of the file's tickets meanwhile, and what every file takes for no longer than undoing it
takes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Literal, assert_never

from pydantic import Field

from consumer.fail_points import nowhere
from consumer.feeds.feed import Feed, Feeds
from consumer.files.attempt import Candidate, attempt
from consumer.files.decoding import Read
from consumer.files.header import Header
from consumer.files.outcomes import AlreadyApplied, Applied, Decided, Duplicate, Failure
from consumer.files.reading import ChangeFileReader
from consumer.files.rows import TooManyRejects
from consumer.files.versions import Sighting, Trouble
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.settings import ApplySettings
from consumer.upkeep.drain import Drain, local_candidate, unrecorded, waiting_for_key
from consumer.upkeep.effects import (
    ChangedTicket,
    Examples,
    LinesJudged,
    RejectedKind,
    lines_of,
    new_columns,
    rejected_of,
)
from consumer.upkeep.views import Moment, View
from publisher.arrivals.keys import ChangeFileKey, NotAChangeFile, read_key
from publisher.errors import Misconfigured, ObjectMissing, ObjectRefused, Permanent
from publisher.store.bucket import Bucket, ObjectSummary

_APPLIED_BEFORE = "it was applied before"
OpenRead = Callable[[], AbstractContextManager[Read]]
Kept = Literal["id", "typed", "raw", "dropped"]
Remark = Literal["renamed", "twice", "undeclared", "new", "missing", "further down"]
Verdict = Literal["fine", "dangerous", "refused", "nothing to do"]


class ColumnJudged(View):
    """One column of the file, or one that it lacks."""

    name: str | None = Field(None, description="As the header has it; None of one that it lacks.")
    column: str = Field(description="What the feed calls it, or what it is called in raw.")
    kept: Kept = Field(description="As the ticket's id, in a typed column beside raw, in raw alone, or not at all.")
    remarks: list[Remark] = Field(description="Further down: of a header that comes behind the first one.")


class RowCounts(View):
    """What would become of the rows; all but `read`, `closures` and `never` add up to `read`."""

    read: int
    inserted: int = Field(description="New tickets.")
    updated: int = Field(description="Changed tickets.")
    unchanged: int
    stale: int = Field(description="A later change has overtaken them.")
    superseded: int = Field(description="A later line of the file replaces them.")
    rejected: int
    alarms: int
    sentinels: int
    closures: int = Field(description="New closures, or closures with other details.")
    never: int = Field(description="Dates of no year that a ticket can be of, which mean that there is none.")


class Preview(View):
    """What would become of a file if it came now, and what it would change."""

    file: str = Field(description="Its key, or the name of a local file.")
    feed: str
    time: Moment = Field(description="The instant of its changes.")
    verdict: Verdict
    decision: str | None = Field(None, description="new, late or changed; None of one that would not be applied.")
    reason: str | None = Field(None, description="Why it would not be.")
    detail: str | None = None
    columns: list[ColumnJudged] = Field(description="None where no header can be read.")
    rows: RowCounts | None = None
    lines: LinesJudged | None = None
    rejected: list[RejectedKind] = Field([], description="The first rejected rows by what is wrong; `rows` counts all.")
    changed: list[ChangedTicket] = Field([], description="The first tickets with other values; `rows` counts all.")
    dangers: list[str] = Field([], description="What tickets would lose, a line for each kind; or that no row is one.")

    @property
    def is_bad(self) -> bool:
        return self.verdict in {"refused", "dangerous"}


def preview_file(
    pool: Pool,
    feed: Feed,
    path: Path,
    settings: ApplySettings,
    *,
    may_lack_columns: bool,
    told: Callable[[int], None],
) -> Preview:
    """Of a local file; `told` is called with the number of bytes read each time.

    Raises: Misconfigured, KeyInHand, DependencyDown, Refused.
    """

    @contextmanager
    def open_read() -> Iterator[Read]:
        with path.open("rb") as file:
            yield file.read

    with local_candidate(feed, path, settings, told) as candidate:
        return _preview(pool, candidate, open_read, may_lack_columns=may_lack_columns)


def preview_key(
    pool: Pool, bucket: Bucket, feeds: Feeds, key: str, settings: ApplySettings, *, may_lack_columns: bool
) -> Preview:
    """Of an object in changes/ or processed/.

    Raises: Misconfigured, where it is none of a feed's, or not there; KeyInHand, DependencyDown, Refused.
    """
    feed = feeds.of_key(key)
    found = bucket.head(key) if feed is not None else None
    if feed is None or found is None:
        raise Misconfigured(f"the bucket {bucket.name} has no object {key!r}")

    @contextmanager
    def open_read() -> Iterator[Read]:
        with bucket.open(key) as opened:
            yield opened.read

    drain = Drain(pool, bucket, feeds, settings, apply=False, stop=Event())
    if not key.startswith(feed.folder.changes):
        return _preview_archived(pool, drain, found, feed, open_read, may_lack_columns=may_lack_columns)
    judged = read_key(key, feed.folder.changes)
    if isinstance(judged, NotAChangeFile):
        raise Misconfigured(f"{key!r} would be left where it is: {judged.reason}")
    return _preview(pool, drain.candidate(judged, found), open_read, may_lack_columns=may_lack_columns)


def _preview_archived(
    pool: Pool, drain: Drain, found: ObjectSummary, feed: Feed, open_read: OpenRead, *, may_lack_columns: bool
) -> Preview:
    with database.transaction(pool, keep=False) as connection:
        files, strays = drain.unapplied_one(connection, found)
    if strays:
        raise Misconfigured(f"{found.key!r} would be left where it is: {strays[0].reason}")
    if files:
        return _preview(pool, drain.archived_candidate(files[0]), open_read, may_lack_columns=may_lack_columns)
    judged = read_key(drain.bucket.change_key(found.key), feed.folder.changes)
    return Preview(
        file=found.key,
        feed=feed.name,
        time=judged.time if isinstance(judged, ChangeFileKey) else found.modified,
        verdict="nothing to do",
        reason=_APPLIED_BEFORE,
        columns=_columns(pool, feed, _header(open_read, feed), {}),
    )


def _preview(pool: Pool, candidate: Candidate, open_read: OpenRead, *, may_lack_columns: bool) -> Preview:
    feed, key = candidate.sighting.feed, candidate.sighting.key
    header = _header(open_read, feed)
    tried = waiting_for_key(lambda: _try(pool, candidate, may_lack_columns=may_lack_columns), key.key, Event())
    outcome, examples = tried.outcome, tried.examples
    notes = outcome.notes if isinstance(outcome, Applied) else {}
    told: dict[str, Any] = {
        "file": key.key,
        "feed": feed.name,
        "time": key.time,
        "columns": _columns(pool, feed, header, notes),
    }
    match outcome:
        case Applied(decision=decision, counts=counts):
            dangers = list(examples.dangers(counts))
            return Preview(
                verdict="dangerous" if dangers else "fine",
                decision=decision,
                rows=RowCounts(**asdict(counts)),
                lines=tried.lines,
                rejected=examples.rejected,
                changed=examples.changed,
                dangers=dangers,
                **told,
            )
        case AlreadyApplied():
            return Preview(verdict="nothing to do", reason=_APPLIED_BEFORE, **told)
        case Duplicate(reason=reason):
            return Preview(verdict="nothing to do", reason=reason, **told)
        case Failure(reason=reason, detail=detail):
            rejected = rejected_of(tried.error) if isinstance(tried.error, TooManyRejects) else []
            return Preview(verdict="refused", reason=reason, detail=detail, rejected=rejected, **told)
        case _:
            assert_never(outcome)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What came of a file, what was seen meanwhile, and of one that failed the error."""

    outcome: Decided
    examples: Examples
    lines: LinesJudged | None
    error: Exception | None


def _try(pool: Pool, candidate: Candidate, *, may_lack_columns: bool) -> _Tried:
    examples = Examples()
    errors: list[Exception] = []

    def failed(connection: Connection, sighting: Sighting, trouble: Trouble) -> Failure:
        errors.append(trouble.error)
        return unrecorded(connection, sighting, trouble)

    watched = replace(candidate, watch=examples, failed=failed, may_lack_columns=may_lack_columns)
    with database.transaction(pool, keep=False) as connection:
        outcome = attempt(connection, watched, nowhere)
        if outcome is None:
            raise Misconfigured(f"{candidate.sighting.key.key!r} is not there any more")
        lines = lines_of(connection, outcome.file.file_id) if isinstance(outcome, Applied) else None
    return _Tried(outcome, examples, lines, errors[0] if errors else None)


def _header(open_read: OpenRead, feed: Feed) -> Header | None:
    """The first header, by itself: it is told of a file that is refused for it, too."""
    try:
        with open_read() as read:
            return ChangeFileReader(read, feed, allows_missing=True).header
    except (Permanent, ObjectMissing, ObjectRefused):  # trying it says so
        return None


def _columns(pool: Pool, feed: Feed, header: Header | None, notes: Mapping[str, Any]) -> list[ColumnJudged]:
    """Those of the first header, then those that it lacks, then those that another one brings, as the notes have it."""
    if header is None:
        return []
    first = header.notes
    further = [name for name in notes.get("undeclared", ()) if name not in first.undeclared]
    with database.transaction(pool, keep=False) as connection:
        new = new_columns(connection, feed, [*first.undeclared, *further])

    def judged(written: str | None, name: str, *remarks: Remark) -> ColumnJudged:
        is_new: tuple[Remark, ...] = ("new",) if name in new else ()
        return ColumnJudged(name=written, column=name, kept=_kept(feed, name), remarks=[*remarks, *is_new])

    columns = zip(header.written, header.names, strict=True)
    return [
        *(judged(written, name, *_remarks(header, written, name)) for written, name in columns),
        *(judged(None, name, "missing") for name in first.missing),
        *(judged(name, name, "undeclared", "further down") for name in further),
        *(
            judged(written, name, "renamed", "further down")
            for name, written in notes.get("renamed", {}).items()
            if first.renamed.get(name) != written
        ),
        *(
            judged(None, name, "missing", "further down")
            for name in notes.get("missing", ())
            if name not in first.missing
        ),
    ]


def _remarks(header: Header, written: str, name: str) -> Iterator[Remark]:
    if name in header.notes.undeclared:
        yield "undeclared"
        return
    if name in header.notes.renamed and written != name:
        yield "renamed"
    if name in header.notes.twice:
        yield "twice"


def _kept(feed: Feed, name: str) -> Kept:
    if name == feed.id:
        return "id"
    if name in feed.never_kept:
        return "dropped"
    return "typed" if name in feed.columns and feed.columns[name].has_typed else "raw"
