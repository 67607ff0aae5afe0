"""What a file would change, seen while it is applied to be undone. The only caller of `sql/queries/effects.sql`.

Each ticket's row before the file is kept by the database, and compared there: of a file of any size, only counts and
the first examples come here. Raises of each: psycopg.Error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import Field

from consumer.feeds.feed import Feed
from consumer.files.applying import Watch
from consumer.files.cleaning import CLOSED_AT, RowReject
from consumer.files.rows import TooManyRejects
from consumer.files.versions import Counts, Sighting
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.upkeep.views import View

_TICKETS = 10
_ROWS_OF_A_KIND = 3
_REJECTS = 60
_CHARS = 200


class LinesJudged(View):
    """What became of the lines of a file; all but `read` add up to `read`."""

    read: int
    blank: int
    header: int = Field(description="Of the header, of each that came again, and of one that says what parts columns.")
    rejected: int
    rows: int = Field(description="Of rows that are no rejects.")


class Rejected(View):
    """One row that cannot be a ticket."""

    line: int
    reason: str
    raw: str = Field(description="The first 200 characters of what stands there.")


class RejectedKind(View):
    """Rows with one thing wrong with them."""

    reason: str = Field(description="What they have in common.")
    rows: int
    first: list[Rejected]


class Change(View):
    """A value of a ticket that would be another one; None for none."""

    column: str
    before: str | None
    after: str | None


class ChangedTicket(View):
    """A ticket with other values, and the line of the file that brings them."""

    ticket_id: str
    line: int
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Blanked:
    """A typed column that would become empty in so many tickets, and the id of one."""

    column: str
    tickets: int
    example: str

    @property
    def danger(self) -> str:
        such = f"such as {self.example}"
        if self.column == CLOSED_AT:
            return f"{_counted(self.tickets, 'ticket')} would be reopened, {such}"
        return f"column {self.column} would become empty in {_counted(self.tickets, 'row')}, {such}"


class Examples(Watch):
    """Watches one file in a transaction that is undone; then tells what it would do, by its first rows and tickets."""

    def __init__(self, tickets: int = _TICKETS, rejects: int = _REJECTS) -> None:
        """So many of them at most."""
        self._tickets, self._rejects = tickets, rejects
        self.blanked: list[Blanked] = []
        """What hurts most first."""
        self.changed: list[ChangedTicket] = []
        self.rejected: list[RejectedKind] = []

    def dangers(self, counts: Counts) -> tuple[str, ...]:
        """What tickets would lose, a line for each kind; and that no row of the file is one."""
        none = counts.read > 0 and counts.rejected == counts.read
        of_none = (f"none of its {_counted(counts.read, 'row')} can be a ticket",) if none else ()
        return (*of_none, *(blanked.danger for blanked in self.blanked))

    def staged(self, connection: Connection, sighting: Sighting, file_id: int) -> None:
        _run(connection, "begin_look")
        for statement in ("hold_tickets", "keep_before"):
            _run(connection, statement, {"file_id": file_id}, sighting.feed)

    def merged(self, connection: Connection, sighting: Sighting, file_id: int) -> None:
        feed = sighting.feed
        columns = {name: feed.columns[name].form.value for name in feed.typed_columns.values()}
        parameters = {
            "file_id": file_id, "names": list(columns), "forms": list(columns.values()), "nothing": ["", *feed.nothing],
        }  # fmt: skip
        found = [Blanked(row["name"], row["tickets"], row["example"])
                 for row in _run(connection, "blanked", parameters, feed)]  # fmt: skip
        places = {name: place for place, name in enumerate(columns)}
        self.blanked = sorted(found, key=lambda one: (one.column != CLOSED_AT, -one.tickets, places[one.column]))

        parameters = {"file_id": file_id, "limit": self._tickets, "chars": _CHARS}
        self.changed = _tickets(_run(connection, "changed_tickets", parameters, feed), feed)
        parameters = {"examples": _ROWS_OF_A_KIND, "limit": self._rejects, "chars": _CHARS}
        self.rejected = [
            RejectedKind(
                reason=kind,
                rows=count,
                first=[Rejected(line=row["line"], reason=row["reason"], raw=row["raw"]) for row in rows],
            )
            for (kind, count), rows in groupby(
                _run(connection, "rejected_rows", parameters), lambda row: (row["group"], row["rows"])
            )
        ]


def rejected_of(error: TooManyRejects) -> list[RejectedKind]:
    """What is wrong with a file that is refused for it."""
    rows: dict[str, list[RowReject]] = {kind: [] for kind in error.groups}
    for row in error.rejects:
        if len(rows.setdefault(row.group, [])) < _ROWS_OF_A_KIND:
            rows[row.group].append(row)
    return [
        RejectedKind(
            reason=kind,
            rows=count,
            first=[Rejected(line=row.line, reason=row.reason, raw=row.raw[:_CHARS]) for row in rows[kind]],
        )
        for kind, count in error.groups.items()
    ]


def lines_of(connection: Connection, file_id: int) -> LinesJudged:
    """Of a file that was applied in this transaction."""
    (found,) = _run(connection, "lines", {"file_id": file_id})
    return LinesJudged.model_validate(found)


def new_columns(connection: Connection, feed: Feed, undeclared: Iterable[str]) -> set[str]:
    """Those of the names that no file of the feed has had."""
    names = list(undeclared)
    known = {row["name"] for row in _run(connection, "known_undeclared", {"feed": feed.name, "names": names})}
    return set(names) - known


def _tickets(rows: Iterable[dict[str, Any]], feed: Feed) -> list[ChangedTicket]:
    places = {name: place for place, name in enumerate(feed.columns)}
    return [
        ChangedTicket(
            ticket_id=ticket_id,
            line=line,
            changes=sorted(
                (Change(column=row["column"], before=row["before"], after=row["after"]) for row in changes),
                key=lambda change: (places.get(change.column, len(places)), change.column),
            ),
        )
        for (line, ticket_id), changes in groupby(rows, lambda row: (row["line"], row["ticket_id"]))
    ]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _run(
    connection: Connection, name: str, parameters: dict[str, Any] | None = None, feed: Feed | None = None
) -> list[dict[str, Any]]:
    return database.rows(connection, "effects", name, parameters, feed=feed)
