"""What files have told of tickets, and each content that another replaced. Alone calls `sql/queries/tellings.sql`.

The newest content of a ticket is its own row. `write_tickets` keeps what it replaces, and what its files say of a
ticket before their last row of it; what a file applied before outranks is put in its place among the contents before,
so that any order of the same files leaves the same ones.

Every verb works in the caller's transaction, which has the rows staged. Raises of each: psycopg.Error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from consumer.feeds.feed import Feed
from consumer.postgres import database
from consumer.postgres.database import Connection

_PRUNED = 1000
"""At a time."""


def tell(connection: Connection, feed: Feed, file_ids: Sequence[int], *, is_kept: bool) -> list[int]:
    """Keep whom the staged files tell of. Gives their tellings, in the order of the files; none where none is kept.

    A feed that had no history has one from now on, and one that is to have none has it no more.
    """
    if not is_kept:
        database.rows(connection, "tellings", "end_history", {"feed": feed.name})
        return []
    return _told(connection, feed, file_ids) or _begin_and_tell(connection, feed, file_ids)


def tell_of_past(connection: Connection, feed: Feed, file_ids: Sequence[int]) -> list[int]:
    """The same of files that were applied before; their tickets' positions are locked from then on."""
    database.rows(connection, "tellings", "lock_positions", feed=feed)
    return _told(connection, feed, file_ids, is_live=False)


def put_late(connection: Connection, feed: Feed, tellings: Sequence[int]) -> int:
    """Put each staged row that came late in its place: one that a file which was applied before outranks.

    Gives how many of them changed anything.
    """
    parameters = {"feed": feed.name, "tellings": list(tellings)}
    names = ("join_at_once", "put_late", "join_as_always")
    statements = [database.Statement("tellings", name, parameters, feed) for name in names]
    _, found, _ = database.rows_of_each(connection, statements)
    return int(found[0]["changed"])


def begin(connection: Connection, feed: Feed) -> bool:
    """Have the feed a history, if it has none. Gives whether it is a new one."""
    parameters = {"feed": feed.name}
    if not database.rows(connection, "tellings", "begin_history", parameters):
        return False
    for statement in ("let_others_pass", "begin_since", "forget_versions", "forget_told_rows", "forget_tellings"):
        database.rows(connection, "tellings", statement, parameters)
    database.rows(connection, "tellings", "tell_positions", parameters, feed=feed)
    return True


@dataclass(frozen=True, slots=True)
class UntoldFile:
    """A file that was applied before its feed had a history; its archived object is under `archive_key`."""

    file_id: int
    key: str
    key_time: datetime
    archive_key: str


def count_untold(connection: Connection, feed: Feed, bucket: str, bound: datetime) -> int:
    """How many there are from the bound on."""
    parameters = {"feed": feed.name, "bucket": bucket, "bound": bound}
    return int(database.rows(connection, "tellings", "count_untold", parameters)[0]["files"])


def untold(
    connection: Connection, feed: Feed, bucket: str, bound: datetime, before: UntoldFile | None, *,
    most_files: int, most_rows: int,
) -> list[UntoldFile]:  # fmt: skip
    """So many of them, the newest first, behind the one before; one of more rows by itself."""
    parameters = {
        "feed": feed.name, "bucket": bucket, "bound": bound, "most_files": most_files, "most_rows": most_rows,
        "before_time": before.key_time if before else "infinity", "before_id": before.file_id if before else 0,
    }  # fmt: skip
    return [UntoldFile(**row) for row in database.rows(connection, "tellings", "untold", parameters)]


def digest_of_untold(connection: Connection, file: UntoldFile) -> str | None:
    """The SHA-256 of a file that is still one; None for one that is not."""
    found = database.row(connection, "tellings", "untold_one", {"file_id": file.file_id})
    return found["sha256"] if found else None


def settle_since(connection: Connection, feed: Feed, bound: datetime) -> datetime | None:
    """Note from when on nothing is missing any more, which is given; None for all times."""
    found = database.row(connection, "tellings", "settle_since", {"feed": feed.name, "bound": bound})
    return found["since"] if found else None


def prune(connection: Connection, feed: str, bound: datetime) -> bool:
    """Forget some of what ended before, of the feed of that name. Gives whether there may be more of it."""
    (found,) = database.rows(connection, "tellings", "prune", {"feed": feed, "bound": bound, "limit": _PRUNED})
    return _PRUNED in (found["contents"], found["told"])


def _begin_and_tell(connection: Connection, feed: Feed, file_ids: Sequence[int]) -> list[int]:
    begin(connection, feed)
    return _told(connection, feed, file_ids)


def _told(connection: Connection, feed: Feed, file_ids: Sequence[int], *, is_live: bool = True) -> list[int]:
    parameters = {"feed": feed.name, "file_ids": list(file_ids), "is_live": is_live}
    return [row["telling_id"] for row in database.rows(connection, "tellings", "tell", parameters)]
