"""What the API reads, each answer as of one moment and known by its tag."""

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field

from consumer.api.bodies import Bodies, Body, Stamp, tag_of
from consumer.api.changes import ChangesPage, read_page
from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.postgres.migrate import require_migrated
from consumer.upkeep.explain import TicketLife, explain_ticket

_ANTIMERIDIAN = 180.0


@dataclass(frozen=True, slots=True)
class Question:
    """A statement of api.sql or past.sql, of one feed."""

    feed: Feed
    statement: str
    parameters: Mapping[str, str | float | date | None]
    file: Literal["api", "past"] = "api"


@dataclass(frozen=True, slots=True)
class Page:
    """Which tickets of many: so many of those behind an id that are within a box and an interval, both ends included.

    A box is west, south, east and north in degrees; one that goes over the antimeridian has its east before its west.
    """

    limit: int
    after: str = ""
    only: str | None = None
    box: tuple[float, float, float, float] | None = None
    begin: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: the version of the data that it is of, and its tag; no body where the tag is known."""

    version: int
    tag: str
    body: Body | None


class WholeTicket(TicketLife):
    """One ticket with all that is kept of it, and what is known of where that is from."""

    values: dict[str, Any] | None = Field(description="By column; `raw` is what the file said.")
    geometry: dict[str, Any] | None = Field(description="A GeoJSON point.")


class Reader:
    """Safe to share between threads."""

    def __init__(self, pool: Pool, bodies: Bodies) -> None:
        self._pool = pool
        self._bodies = bodies

    def answer(self, question: Question, known: Collection[str]) -> Told:
        """The answer to a question.

        Raises: DependencyDown.
        """

        def make(connection: Connection, _version: int) -> str:
            return str(database.rows(connection, question.file, question.statement, question.parameters)[0]["body"])

        return self._told(question.feed, (question.statement, *sorted(question.parameters.items())), known, make)

    def changes(self, feed: Feed, since: int, limit: int, known: Collection[str]) -> Told:
        """What has changed since a version, as far as a page of about so many tickets goes.

        Raises: Problem, where that is not known (any more); DependencyDown.
        """

        def make(connection: Connection, version: int) -> str:
            return read_page(connection, feed, since, version, limit).text

        return self._told(feed, ("changes", since, limit), known, make, is_of_minute=False)

    def page_of_changes(self, feed: Feed, since: int, version: int, limit: int) -> ChangesPage:
        """The same up to a version that was seen, for many who follow.

        Raises: the same.
        """
        with database.look(self._pool) as connection:
            return read_page(connection, feed, since, version, limit)

    def versions(self) -> dict[str, int]:
        """Of the data of each feed that has any. Raises: DependencyDown."""
        with database.look(self._pool) as connection:
            return {row["feed"]: row["version"] for row in database.rows(connection, "changes", "versions")}

    def ticket(self, feed: Feed, ticket_id: str) -> WholeTicket:
        """Raises: DependencyDown."""
        with database.look(self._pool) as connection:
            row = database.row(connection, "api", "ticket", {"ticket_id": ticket_id}, feed=feed)
            life = explain_ticket(connection, ticket_id, feed)
        found = row or {"values": None, "geometry": None}
        return WholeTicket.model_validate(life.model_dump() | found)

    def items(
        self,
        collected: tuple[Feed, str],
        page: Page,
        where: Hashable,
        known: Collection[str],
        written: Callable[[list[tuple[str, str]]], str],
    ) -> Told:
        """Tickets of a feed by a statement of api.sql, as `written` makes them an answer that is asked for at `where`.

        It is given ids with their GeoJSON, as text, in the order of the ids; one more than the page has room for.
        Raises: what `written` raises; DependencyDown.
        """
        feed, statement = collected
        west, south, east, north = page.box or (None, None, None, None)
        is_over = west is not None and east is not None and west > east
        parameters = {
            "limit": page.limit + 1, "after": page.after, "only": page.only, "begin": page.begin, "end": page.end,
            "west": west, "until": _ANTIMERIDIAN if is_over else east, "south": south, "north": north,
            "from": -_ANTIMERIDIAN if is_over else west, "east": east,
        }  # fmt: skip

        def make(connection: Connection, _version: int) -> str:
            found = database.rows(connection, "api", statement, parameters, feed=feed)
            return written([(row["ticket_id"], row["feature"]) for row in found])

        return self._told(feed, (statement, where, page), known, make)

    def require_ready(self) -> None:
        """Raises: Misconfigured, for a database that lacks a migration; DependencyDown."""
        with database.look(self._pool) as connection:
            require_migrated(connection)

    def _told(
        self,
        feed: Feed,
        question: Hashable,
        known: Collection[str],
        make: Callable[[Connection, int], str],
        *,
        is_of_minute: bool = True,
    ) -> Told:
        """What was made of this version, or is made now, by one for all who ask the same meanwhile."""
        asked = (feed.name, question)
        with database.look(self._pool) as connection:
            found = database.rows(connection, "api", "stamp", {"feed": feed.name})[0]
            version = found["version"]
            tag = tag_of(asked, Stamp(version, found["minute"] if is_of_minute else None))
            if tag in known or "*" in known:
                return Told(version, tag, None)
            with self._bodies.making(asked):
                body = self._bodies.kept(asked, tag) or self._bodies.keep(asked, tag, make(connection, version))
        return Told(version, tag, body)
