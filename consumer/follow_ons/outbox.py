"""The outbox: requests that committed transactions leave behind. The only caller of `sql/queries/outbox.sql`.

Every verb works in the caller's transaction. Raises of each: psycopg.Error.
"""

from collections.abc import Sequence

from consumer.postgres import database
from consumer.postgres.database import Connection
from publisher.broker.topology import Queue


def unsent(connection: Connection, kinds: Sequence[Queue], at_most: int) -> dict[Queue, list[int]]:
    """The next due requests that no message stands for, so many of each kind."""
    parameters = {"kinds": [kind.value for kind in kinds], "at_most": at_most}
    found: dict[Queue, list[int]] = {}
    for row in database.rows(connection, "outbox", "unsent", parameters):
        found.setdefault(Queue(row["kind"]), []).append(row["request_id"])
    return found


def ask_again(connection: Connection, kinds: Sequence[Queue], age: float) -> bool:
    """Have one request of each kind unsent again for which nothing was done within so many seconds; is there any?"""
    parameters = {"kinds": [kind.value for kind in kinds], "age": age}
    return bool(database.rows(connection, "outbox", "ask_again", parameters))


def mark_sent(connection: Connection, requests: Sequence[int]) -> None:
    database.rows(connection, "outbox", "mark_sent", {"requests": list(requests)})


def unhandled(connection: Connection, kind: Queue) -> list[int]:
    """Every due request that nothing was done for."""
    return [row["request_id"] for row in database.rows(connection, "outbox", "unhandled", {"kind": kind.value})]


def mark_handled(connection: Connection, requests: Sequence[int]) -> None:
    database.rows(connection, "outbox", "mark_handled", {"requests": list(requests)})


def seconds_since_last_handled(connection: Connection, kind: Queue) -> float | None:
    """None where none ever was."""
    found = database.row(connection, "outbox", "seconds_since_last_handled", {"kind": kind.value})
    return None if found is None else float(found["seconds"])
