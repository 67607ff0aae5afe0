"""Every value that a ticket ever had: its contents in the order of positions, and what changed from one to the next."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field

from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.upkeep.views import Moment, View


class Teller(View):
    """The row of a file that first told something; without a file for what was there before the ledger."""

    epoch: int | None
    key_time: Moment | None = Field(description="The instant that the file's key names.")
    key: str | None
    line: int | None
    file_id: int | None
    bucket: str | None
    decision: str | None = Field(description="late, where the file came after others of a later time.")
    event_time: Moment | None = Field(description="When its notification says that the file was written.")
    first_seen_at: Moment | None
    first_seen_by: str | None = Field(description="What told of the file: notification, poller, drain or import.")
    archive_key: str | None


class Content(Teller):
    """All that a ticket was, from that row on."""

    raw: dict[str, Any]
    is_as_told: bool | None = Field(
        description="False where something else than a file has changed it since; null where that is not known."
    )


class ValueChange(View):
    """A column of a file that has another value than before; null for none."""

    column: str
    old: Any
    new: Any


class TicketChange(Teller):
    """What a row changed; of the first one known, all that it says."""

    is_first: bool
    is_as_told: bool | None = Field(
        description="False where the values are not those of that row: something else than a file changed them later."
    )
    values: list[ValueChange] = Field(description="In the order of the columns' names.")


class Lineage(View):
    """All changes of a ticket, the first one first."""

    is_kept: bool = Field(description="Whether its feed has a history at all.")
    since: Moment | None = Field(description="From when on nothing is missing, by the time of files; null for ever.")
    changes: list[TicketChange]


def lineage(connection: Connection, feed: Feed, ticket_id: str) -> Lineage:
    """Raises: DependencyDown."""
    with database.translated_errors():
        history = database.row(connection, "lineage", "history", {"feed": feed.name})
        found = contents(connection, feed, ticket_id) if history else []
    return Lineage(is_kept=bool(history), since=history["since"] if history else None, changes=list(_changes(found)))


def contents(connection: Connection, feed: Feed, ticket_id: str) -> list[Content]:
    """Each content that it had, the present one last. Raises: psycopg.Error."""
    parameters = {"feed": feed.name, "ticket_id": ticket_id}
    return [Content(**row) for row in database.rows(connection, "lineage", "contents", parameters, feed=feed)]


def _changes(found: Sequence[Content]) -> Iterator[TicketChange]:
    for place, (before, after) in enumerate(pairwise([None, *found])):
        assert after is not None  # noqa: S101 - only the first one has none before it
        teller = after.model_dump(exclude={"raw"})
        values = _values(before.raw if before else {}, after.raw)
        yield TicketChange(**teller, is_first=place == 0, values=values)


def _values(before: dict[str, Any], after: dict[str, Any]) -> list[ValueChange]:
    return [
        ValueChange(column=name, old=before.get(name), new=after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
