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
from consumer.upkeep.explain import TicketLife, explain_ticket


@dataclass(frozen=True, slots=True)
class Question:
    """A statement of api.sql, of one feed."""

    feed: Feed
    statement: str
    parameters: Mapping[str, str | datetime | None]


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

        Raises: DependencyDown.
        """
        asked = (question.feed.name, question.statement, *sorted(question.parameters.items()))
        with database.transaction(self._pool) as connection:
            found = database.rows(connection, "api", "stamp", {"feed": question.feed.name})[0]
            tag = tag_of(asked, Stamp(found["version"], found["minute"]))
            if tag in known:
                return tag, None

            def read() -> str:
                return str(database.rows(connection, "api", question.statement, question.parameters)[0]["body"])

            return tag, self._bodies.get(asked, tag, read)

    def ticket(self, feed: Feed, ticket_id: str) -> WholeTicket:
        """Raises: DependencyDown."""
        with database.transaction(self._pool) as connection:
            row = database.row(connection, "api", "ticket", {"ticket_id": ticket_id}, feed=feed)
            life = explain_ticket(connection, ticket_id, feed)
        found = row or {"values": None, "geometry": None}
        return WholeTicket.model_validate(life.model_dump() | found)

    def require_database(self) -> None:
        """Raises: DependencyDown."""
        with database.statement(self._pool) as connection:
            database.rows(connection, "api", "ping")
