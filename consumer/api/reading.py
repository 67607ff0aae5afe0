"""What the API reads, each answer as of one moment and known by its tag."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field

from consumer.api.bodies import Bodies, Body, Stamp, tag_of
from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Pool
from consumer.postgres.migrate import require_migrated
from consumer.upkeep.explain import TicketLife, explain_ticket

_ANTIMERIDIAN = 180.0


@dataclass(frozen=True, slots=True)
class Question:
    """A statement of api.sql, of one feed."""

    feed: Feed
    statement: str
    parameters: Mapping[str, str | float | datetime | None]


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


class WholeTicket(TicketLife):
    """One ticket with all that is kept of it, and what is known of where that is from."""

    values: dict[str, Any] | None = Field(description="By column; `raw` is what the file said.")
    geometry: dict[str, Any] | None = Field(description="A GeoJSON point.")


class Reader:
    """Safe to share between threads."""

    def __init__(self, pool: Pool, bodies: Bodies) -> None:
        self._pool = pool
        self._bodies = bodies

    def answer(self, question: Question, known: Collection[str]) -> tuple[str, Body | None]:
        """The answer with its tag; None for one whose tag is known.

        Raises: DependencyDown; Permanent, for an instant that nothing is known of.
        """
        asked = (question.feed.name, question.statement, *sorted(question.parameters.items()))
        with database.look(self._pool) as connection:
            found = database.rows(connection, "api", "stamp", {"feed": question.feed.name})[0]
            tag = tag_of(asked, Stamp(found["version"], found["minute"]))
            if tag in known or "*" in known:
                return tag, None
            if (body := self._bodies.kept(asked, tag)) is not None:
                return tag, body
            answers = database.rows(connection, "api", question.statement, question.parameters, feed=question.feed)
            text = str(answers[0]["body"])
        return tag, self._bodies.keep(asked, tag, text)

    def ticket(self, feed: Feed, ticket_id: str, *, with_history: bool) -> WholeTicket:
        """Raises: DependencyDown."""
        with database.look(self._pool) as connection:
            row = database.row(connection, "api", "ticket", {"ticket_id": ticket_id}, feed=feed)
            life = explain_ticket(connection, ticket_id, feed, with_history=with_history)
        found = row or {"values": None, "geometry": None}
        return WholeTicket.model_validate(life.model_dump() | found)

    def features(self, feed: Feed, statement: str, page: Page) -> list[tuple[str, str]]:
        """Ids of tickets with their GeoJSON, as text, in the order of the ids; one more than the page has room for.

        Raises: DependencyDown.
        """
        west, south, east, north = page.box or (None, None, None, None)
        is_over = west is not None and east is not None and west > east
        parameters = {
            "limit": page.limit + 1, "after": page.after, "only": page.only, "begin": page.begin, "end": page.end,
            "west": west, "until": _ANTIMERIDIAN if is_over else east, "south": south, "north": north,
            "from": -_ANTIMERIDIAN if is_over else west, "east": east,
        }  # fmt: skip
        with database.look(self._pool) as connection:
            found = database.rows(connection, "api", statement, parameters, feed=feed)
        return [(row["ticket_id"], row["feature"]) for row in found]

    def require_ready(self) -> None:
        """Raises: Misconfigured, for a database that lacks a migration; DependencyDown."""
        with database.look(self._pool) as connection:
            require_migrated(connection)
