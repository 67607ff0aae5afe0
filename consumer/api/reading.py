"""What the API reads, each answer as of one moment and known by its tag."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, Literal

from pydantic import Field

from consumer.api.bodies import Bodies, Body, Stamp, tag_of
from consumer.api.changes import ChangesPage, read_page
from consumer.api.problems import Problem
from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection, Pool
from consumer.postgres.migrate import require_not_behind
from consumer.upkeep.explain import TicketLife, explain_ticket
from publisher.absences import Absences
from publisher.errors import DatabaseDown, DependencyDown

_ANTIMERIDIAN = 180.0
Parameters = Mapping[str, str | float | date | None]


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
class Question:
    """What is asked for of a feed's data, by a key that is its alone, and how it is made of what a version has."""

    feed: str
    key: Hashable
    make: Callable[[Connection, int], str]
    is_of_minute: bool = True
    """Whether another minute makes it another answer: ages, and rows that were changed by hand, show by then."""


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

    def __init__(self, pool: Pool, bodies: Bodies, absences: Absences) -> None:
        self._pool = pool
        self._bodies = bodies
        self._absences = absences

    @property
    def is_missed(self) -> bool:
        """Whether the database has answered nobody since it failed somebody."""
        return self._absences.is_away(database.DATABASE)

    def miss(self, why: str) -> None:
        """Note that the database does not answer somebody who waits no longer for it."""
        self._absences.missed(DatabaseDown(database.DATABASE, why))

    def recent(self, asked: Question, known: Collection[str], *, is_made_anew: bool = False) -> Told | None:
        """The answer without a look into the database, if it was made a moment ago."""
        body = self._bodies.recent((asked.feed, asked.key), is_made_anew=is_made_anew)
        if body is None:
            return None
        return Told(body.version, body.tag, None if body.tag in known or "*" in known else body)

    def told(self, asked: Question, known: Collection[str]) -> Told:
        """The answer of this version, which is made now if it is not kept.

        Raises: what making it raises, such as Permanent for an instant that nothing is known of; DependencyDown.
        """
        key = (asked.feed, asked.key)
        with self._look() as connection:
            found = database.rows(connection, "api", "stamp", {"feed": asked.feed})[0]
            version: int = found["version"]
            tag = tag_of(key, Stamp(version, found["written_at"], found["minute"] if asked.is_of_minute else None))
            if tag in known or "*" in known:
                return Told(version, tag, None)
            body = self._bodies.kept(key, tag) or self._bodies.keep(
                key, version, tag, lambda: asked.make(connection, version)
            )
        return Told(version, tag, body)

    def page_of_changes(self, feed: Feed, since: int, version: int, limit: int) -> ChangesPage:
        """The same up to a version that was seen, for many who follow.

        Raises: the same.
        """
        with self._look() as connection:
            return read_page(connection, feed, since, version, limit)

    def versions(self) -> dict[str, int]:
        """Of the data of each feed that has any. Raises: DependencyDown."""
        with self._look() as connection:
            return {row["feed"]: row["version"] for row in database.rows(connection, "changes", "versions")}

    def require_ready(self) -> None:
        """Raises: Misconfigured, for a database that lacks a migration; DependencyDown."""
        with self._look() as connection:
            require_not_behind(connection)

    @contextmanager
    def _look(self) -> Iterator[Connection]:
        began = monotonic()
        try:
            with database.look(self._pool) as connection:
                yield connection
        except DependencyDown as error:
            self._absences.missed(error)
            raise
        self._absences.served(database.DATABASE, began=began)


def question(of: Feed, statement: str, parameters: Parameters, file: Literal["api", "past"] = "api") -> Question:
    """A statement that gives the whole answer."""

    def make(connection: Connection, _version: int) -> str:
        return str(database.rows(connection, file, statement, parameters, feed=of)[0]["body"])

    return Question(of.name, (statement, *sorted(parameters.items())), make)


def ticket(of: Feed, ticket_id: str, *, with_history: bool) -> Question:
    """One ticket; making it raises a Problem where no file has told of it."""

    def make(connection: Connection, _version: int) -> str:
        row = database.row(connection, "api", "ticket", {"ticket_id": ticket_id}, feed=of)
        life = explain_ticket(connection, ticket_id, of, with_history=with_history)
        if not life.is_known:
            raise Problem(HTTPStatus.NOT_FOUND, f"no file has told of a ticket {ticket_id[:100]!r} of {of.name}")
        found = row or {"values": None, "geometry": None}
        return WholeTicket.model_validate(life.model_dump() | found).model_dump_json()

    return Question(of.name, ("ticket", ticket_id, with_history), make)


def changes(of: Feed, since: int, limit: int) -> Question:
    """What has changed since a version, as far as a page of about so many tickets goes; making it raises a Problem."""

    def make(connection: Connection, version: int) -> str:
        return read_page(connection, of, since, version, limit).text

    return Question(of.name, ("changes", since, limit), make, is_of_minute=False)


def items(
    of: Feed, statement: str, page: Page, where: Hashable, written: Callable[[list[tuple[str, str]]], str]
) -> Question:
    """Tickets of a feed by a statement of api.sql, as `written` makes them an answer that is asked for at `where`.

    It is given ids with their GeoJSON, as text, in the order of the ids; one more than the page has room for.
    """
    west, south, east, north = page.box or (None, None, None, None)
    is_over = west is not None and east is not None and west > east
    parameters = {
        "limit": page.limit + 1, "after": page.after, "only": page.only, "begin": page.begin, "end": page.end,
        "west": west, "until": _ANTIMERIDIAN if is_over else east, "south": south, "north": north,
        "from": -_ANTIMERIDIAN if is_over else west, "east": east,
    }  # fmt: skip

    def make(connection: Connection, _version: int) -> str:
        found = database.rows(connection, "api", statement, parameters, feed=of)
        return written([(row["ticket_id"], row["feature"]) for row in found])

    return Question(of.name, (statement, where, page), make)
