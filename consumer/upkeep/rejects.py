"""Rejected rows: those that still want mending, grouped by reason and one by one. The only caller of its SQL.

A reject is open until it is settled, which is computed and never stored: its ticket has a later position, or what its
version says does not count any more. Raises of each: DependencyDown.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from pydantic import Field

from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.postgres.queries import of_feed
from consumer.upkeep.views import Moment, View

LOOKED_AT = 20_000
"""Rejects that a total looks at, the newest ones: of each it is looked up whether it is settled."""
_PAGE = 1000


class RejectGroup(View):
    """Rejected rows of one feed with one reason; `key` and `line` are those of the oldest."""

    feed: str
    fingerprint: str = Field(description="Of the reason, as --group takes it.")
    reason: str = Field(description="Without what is one row's alone.")
    rows: int
    settled: int = Field(description="Of these, those that want no mending any more.")
    of_refused_files: int = Field(description="Of these, those of files that were refused: of each the first hundred.")
    files: int
    oldest: Moment = Field(description="When its file was applied, or failed.")
    newest: Moment
    key: str
    line: int


class RejectedRow(View):
    """One row of a file that could not be a ticket, as it stood there."""

    feed: str
    key: str
    file_id: int
    line: int = Field(description="On which it begins, from 1.")
    lines: int = Field(description="That it takes.")
    ticket_id: str | None = Field(description="What stood where the id belongs, if that can be one.")
    reason: str
    fingerprint: str = Field(description="Of the group of reasons, as --group takes it.")
    at: Moment = Field(description="When its file was applied, or failed.")
    is_refused: bool = Field(description="Whether nothing of its file was applied.")
    is_settled: bool
    raw: str = Field(description="Cut at 10,000 characters; a NUL is shown as U+2400, what is not UTF-8 as \\xNN.")


class OpenRejects(View):
    """How many of a feed's rejected rows still want mending."""

    rows: int
    of_refused_files: int = Field(description="Of those; a file that is refused keeps its first hundred alone.")
    files: int
    oldest: Moment | None
    newest_alone: bool = Field(description=f"There are more than {LOOKED_AT:,} of all feeds: of the newest of these.")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some of the rejected rows: each condition that is not None has to hold."""

    files: tuple[int, ...] | None = None
    group: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    with_settled: bool = False


def files_called(connection: Connection, feed: Feed, given: str) -> tuple[int, ...]:
    """Every version of what has this key, in changes/ or in processed/, or this bare name."""
    keys = [given, feed.folder.changes + given, feed.folder.processed + given]
    with database.translated_errors():
        found = database.rows(connection, "rejects", "files", {"feed": feed.name, "keys": keys})
    return tuple(row["file_id"] for row in found)


def groups(connection: Connection, feed: Feed, chosen: Chosen) -> list[RejectGroup]:
    """The largest first."""
    with database.translated_errors():
        found = database.rows(connection, "rejects", "groups", _parameters(feed, chosen) | {"newest": None}, feed=feed)
    return [RejectGroup(feed=feed.name, **row) for row in found if row["fingerprint"] is not None]


def rows(connection: Connection, feed: Feed, chosen: Chosen, limit: int | None = None) -> Iterator[RejectedRow]:
    """In the order in which their files were seen, and of their lines; as of when the first is asked for.

    Keeps a page of them. Its transaction is open until the last one is taken.
    """
    parameters = _parameters(feed, chosen) | {"limit": limit}
    with database.translated_errors(), connection.transaction(), connection.cursor("rejects") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(of_feed("rejects", "rows", feed), parameters)
        for row in cursor:
            yield RejectedRow(**row)


def open_rejects(connection: Connection, feeds: Sequence[Feed]) -> dict[str, OpenRejects]:
    """Of each feed, of the newest ones, so that it costs no more where there are many."""
    with database.translated_errors():
        are_more = database.row(connection, "rejects", "are_more", {"than": LOOKED_AT})
        totals = {}
        for feed in feeds:
            parameters = _parameters(feed, Chosen()) | {"newest": LOOKED_AT}
            *_, total = database.rows(connection, "rejects", "groups", parameters, feed=feed)
            totals[feed.name] = OpenRejects(
                rows=total["rows"],
                of_refused_files=total["of_refused_files"],
                files=total["files"],
                oldest=total["oldest"],
                newest_alone=bool(are_more and are_more["are_more"]),
            )
    return totals


def _parameters(feed: Feed, chosen: Chosen) -> dict[str, object]:
    files = None if chosen.files is None else list(chosen.files)
    return asdict(chosen) | {"feed": feed.name, "files": files}
