"""What the bucket has, as a temporary table of one connection.

So a bucket of any size is compared with a ledger of any length by the database, and neither is held in our memory.
"""

from collections.abc import Callable, Iterable, Iterator

from pydantic import Field

from consumer.postgres import database
from consumer.postgres.database import Connection
from consumer.postgres.queries import statements
from consumer.upkeep import deadlines
from consumer.upkeep.views import View
from publisher.arrivals.keys import ChangeFileKey, read_key
from publisher.store.bucket import Bucket, ObjectSummary, pages


class Listed(View):
    """How many objects there are."""

    changes: int = Field(description="In changes/; none where they were left out.")
    processed: int = Field(description="In processed/.")


def take(
    connection: Connection,
    bucket: Bucket,
    counted: Callable[[int], None],
    *,
    with_changes: bool = True,
    seconds: float | None = None,
) -> Listed:
    """Fill the table with all objects of `processed/`, and of `changes/`; `counted(objects)` is called now and again.

    `changes/` comes first: a file that moves meanwhile is then seen in one place at least. With
    `seconds` no page of the listing is waited for longer.
    Raises: DependencyDown, psycopg.Error.
    """
    _begin(connection)

    def listed(objects: Iterable[ObjectSummary]) -> Iterator[ObjectSummary]:
        listing = pages(objects)
        for page in listing if seconds is None else deadlines.each_in_time("bucket", seconds, listing, bucket.address):
            yield from page

    changes = _copy(connection, bucket, listed(bucket.waiting()), counted) if with_changes else 0
    processed = _copy(connection, bucket, listed(bucket.archived()), lambda done: counted(changes + done))
    database.rows(connection, "inventory", "index_objects")
    database.rows(connection, "inventory", "analyze_objects")
    return Listed(changes=changes, processed=processed)


def take_one(connection: Connection, bucket: Bucket, found: ObjectSummary) -> None:
    """Fill the table with one object alone."""
    _begin(connection)
    _copy(connection, bucket, [found], lambda _: None)


def refresh(connection: Connection, bucket: Bucket, keys: list[str], found: Iterable[ObjectSummary | None]) -> None:
    """Put what a second look `found` under the keys in the place of what was listed."""
    database.rows(connection, "inventory", "forget_object", {"keys": keys})
    _copy(connection, bucket, (there for there in found if there is not None), lambda _: None)


def _begin(connection: Connection) -> None:
    database.rows(connection, "inventory", "forget_objects")
    database.rows(connection, "inventory", "create_objects")


def _copy(
    connection: Connection, bucket: Bucket, objects: Iterable[ObjectSummary], counted: Callable[[int], None]
) -> int:
    done = 0
    with connection.cursor() as cursor, cursor.copy(statements("inventory")["copy_objects"]) as copy:
        for done, found in enumerate(objects, 1):
            folder = bucket.folder_of(found.key)
            is_archived = not found.key.startswith(folder.changes)
            key = bucket.change_key(found.key) if is_archived else found.key
            judged = read_key(key, folder.changes)
            key_time = judged.time if isinstance(judged, ChangeFileKey) else None
            copy.write_row((folder.feed, found.key, key, key_time, is_archived, found.etag, found.size, found.modified))
            if done % 1000 == 0:
                counted(done)
    counted(done)
    return done
