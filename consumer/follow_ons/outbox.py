"""The outbox: requests that committed transactions leave behind. The only caller of `sql/queries/outbox.sql`.

Every verb works in the caller's transaction. Raises of each: psycopg.Error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.broker.topology import Queue
from publisher.trace import Trace


@dataclass(frozen=True, slots=True)
class Requested:
    """One request; `kept` is the trace of the file that left it, as the ledger has it."""

    request_id: int
    kept: str | None

    @property
    def trace(self) -> Trace | None:
        """None where no delivery brought the file, or it is no file's. Read when it is asked for: many may wait."""
        return Trace.of_text(self.kept)


def traces_of(requests: Sequence[Requested]) -> list[Trace]:
    """Of those that have one."""
    return [trace for each in requests if (trace := each.trace)]


def unsent(connection: Connection, kinds: Sequence[Queue], at_most: int) -> dict[Queue, list[Requested]]:
    """The next due requests that no message stands for, so many of each kind."""
    parameters = {"kinds": [kind.value for kind in kinds], "at_most": at_most}
    found: dict[Queue, list[Requested]] = {}
    for row in database.rows(connection, "outbox", "unsent", parameters):
        found.setdefault(Queue(row["kind"]), []).append(Requested(row["request_id"], row["trace"]))
    return found


def ask_again(connection: Connection, kinds: Sequence[Queue], age: float) -> bool:
    """Have one request of each kind unsent again for which nothing was done within so many seconds; is there any?"""
    parameters = {"kinds": [kind.value for kind in kinds], "age": age}
    return bool(database.rows(connection, "outbox", "ask_again", parameters))


def mark_sent(connection: Connection, requests: Sequence[Requested]) -> None:
    database.rows(connection, "outbox", "mark_sent", {"requests": [each.request_id for each in requests]})


def unhandled(connection: Connection, kind: Queue) -> list[Requested]:
    """Every due request that nothing was done for."""
    found = database.rows(connection, "outbox", "unhandled", {"kind": kind.value})
    return [Requested(row["request_id"], row["trace"]) for row in found]


def mark_handled(connection: Connection, requests: Sequence[Requested]) -> None:
    database.rows(connection, "outbox", "mark_handled", {"requests": [each.request_id for each in requests]})


def seconds_since_last_handled(connection: Connection, kind: Queue) -> float | None:
    """None where none ever was."""
    found = database.row(connection, "outbox", "seconds_since_last_handled", {"kind": kind.value})
    return None if found is None else float(found["seconds"])
